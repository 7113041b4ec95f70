"""The files of a report, and what the page says about what is not there."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest

from labelwise.errors import WriteError
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import MethodCost
from tests.studies.comparison.building import make_cell, make_study

pytest.importorskip("matplotlib")

SMALL = make_study(("random", "ntk-pv", "committee-e"), n_rounds=4)


def read_page(folder: Path) -> str:
    return (folder / "results.md").read_text(encoding="utf-8")


def section(page: str, heading: str) -> str:
    found = re.search(rf"^#+ {re.escape(heading)}$(.*?)(?=^#|\Z)", page, re.M | re.S)
    assert found is not None, heading
    return found.group(1)


def cells_of(text: str, method: str) -> list[str]:
    (line,) = re.findall(rf"^\| {re.escape(method)} \|.*$", text, re.M)
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_files_of_a_study(tmp_path: Path) -> None:
    costs = [MethodCost("ntk-pv", 1.0, 1.0, 1, 1920, 0.01, 40.0)]
    cells = [cell for cell in SMALL if cell.key.pool != "natural-3"]
    written = write_report(tmp_path, cells, costs, title="Two pools", notes=["Two seeds."])
    assert written[0] == tmp_path / "results.md"
    assert {path.name for path in written} == {path.name for path in tmp_path.iterdir()}
    assert {path.name for path in written if path.suffix == ".csv"} == {
        "errors.csv",
        "errors_by_pool.csv",
        "round_gain.csv",
        "cost.csv",
        "committees.csv",
        "curves.csv",
        "rounds_seconds.csv",
    }
    page = read_page(tmp_path)
    assert page.startswith("# Two pools\n\nTwo seeds.\n\n12 of 12 campaigns")
    for name in re.findall(r"\]\((.*?)\)", page):
        assert (tmp_path / name).exists()


def test_page_shows_what_the_tables_hold(tmp_path: Path) -> None:
    write_report(tmp_path, SMALL, title="t", with_pictures=False)
    finals = {
        method: np.array(
            [c.curves["forces_rmse"][-1] for c in SMALL if c.key.method == method]
        ).reshape(3, 2)
        for method in ("random", "ntk-pv")
    }
    page = read_page(tmp_path)
    mean = cells_of(section(page, "Errors on the test set"), "ntk-pv")[-1]
    assert mean.strip("*").startswith(f"{finals['ntk-pv'].mean():.1f} ± ")
    ratio = cells_of(section(page, "Ratio to random"), "ntk-pv")[-1]
    logs = np.log(finals["ntk-pv"] / finals["random"])
    assert ratio.startswith(f"{np.exp(logs.mean()):.2f} [")


def test_every_row_of_a_table_has_as_many_cells(tmp_path: Path) -> None:
    cells = [*SMALL, make_cell("natural-1", "odd|name", 0, n_rounds=4)]
    write_report(tmp_path, cells, title="t", with_pictures=False)
    tables = re.findall(r"(?:^\|.*\n)+", read_page(tmp_path), re.M)
    assert len(tables) >= 5
    for table in tables:
        rows = table.replace("\\|", "").strip().split("\n")
        assert len({row.count("|") for row in rows}) == 1


def test_record_holds_cells_and_tables(tmp_path: Path) -> None:
    write_report(tmp_path, SMALL, title="t", with_pictures=False)
    record = json.loads((tmp_path / "results.json").read_text(encoding="utf-8"))
    assert record["n_used"] == record["n_planned"] == len(record["cells"]) == 18
    assert tuple(record["cells"][3]["curves"]["energy_mae"]) == SMALL[3].curves["energy_mae"]
    row = record["tables"]["errors"][1]
    with (tmp_path / "errors.csv").open(encoding="utf-8", newline="") as stream:
        line = list(csv.DictReader(stream))[1]
    assert float(line["auc_energy_rmse_ratio"]) == row["auc_energy_rmse_ratio"]


def test_running_study_says_what_is_not_there(tmp_path: Path) -> None:
    cells = [replace(SMALL[0], is_finished=False), *SMALL[1:-1]]
    write_report(tmp_path, cells, title="t", with_pictures=False)
    page = read_page(tmp_path)
    assert "16 of 18 campaigns are in the tables" in page
    assert (
        "1 campaign unfinished, and in no table or chart: random, pool natural-1, seed 0." in page
    )
    assert "1 campaign missing: committee-e, pool natural-3, seed 1." in page
    assert cells_of(section(page, "Ratio to random"), "ntk-pv")[1] == "5"


def test_study_with_nothing_finished(tmp_path: Path) -> None:
    cells = [replace(cell, is_finished=False) for cell in SMALL]
    names = {path.name for path in write_report(tmp_path, cells, title="t")}
    assert "0 of 18 campaigns" in read_page(tmp_path)
    assert not any(name.endswith((".png", ".svg")) for name in names)
    assert "curves.csv" in names


def test_study_of_nothing(tmp_path: Path) -> None:
    names = [path.name for path in write_report(tmp_path, [], title="t", with_pictures=False)]
    assert names == ["results.md", "results.json"]


def test_one_pool_and_one_seed_have_no_intervals(tmp_path: Path) -> None:
    write_report(
        tmp_path,
        make_study(("random", "ntk-pv"), pools=("p",), seeds=(0,)),
        title="t",
        with_pictures=False,
    )
    page = read_page(tmp_path)
    for heading in ("Errors on the test set", "Ratio to random"):
        row = " ".join(cells_of(section(page, heading), "ntk-pv"))
        assert "±" not in row
        assert "[" not in row
        assert "nan" not in row
    assert "there is one pair only, so no interval" in page


def test_missing_reference_is_said(tmp_path: Path) -> None:
    write_report(tmp_path, make_study(("ntk-pv", "soap-pv")), title="t", with_pictures=False)
    page = read_page(tmp_path)
    assert "No campaign of random is known" in page
    assert cells_of(section(page, "Ratio to random"), "ntk-pv")[1:] == ["0", "", "", "", ""]


def test_another_reference(tmp_path: Path) -> None:
    write_report(tmp_path, SMALL, reference="ntk-pv", title="t", with_pictures=False)
    page = read_page(tmp_path)
    assert float(cells_of(section(page, "Ratio to ntk-pv"), "random")[2].split()[0]) > 1


def test_failed_campaign_is_blank_and_named(tmp_path: Path) -> None:
    curves = {error: (*values[:-1], math.nan) for error, values in SMALL[6].curves.items()}
    cells = [*SMALL[:6], replace(SMALL[6], curves=curves), *SMALL[7:]]
    assert SMALL[6].key.method == "ntk-pv"
    write_report(tmp_path, cells, title="t", with_pictures=False)
    page = read_page(tmp_path)
    assert cells_of(section(page, "Errors on the test set"), "ntk-pv")[2:] == ["", "", "", ""]
    assert "not finite, so that cells are blank: ntk-pv, pool natural-1, seed 0." in page
    json.loads(
        (tmp_path / "results.json").read_text(encoding="utf-8"),
        parse_constant=lambda name: pytest.fail(f"{name} is not JSON"),
    )


def test_best_is_bold_among_complete_methods_only(tmp_path: Path) -> None:
    better = [make_cell("natural-1", "best", 0, n_rounds=4, quality=0.01)]
    write_report(tmp_path, [*SMALL, *better], title="t", with_pictures=False)
    table = section(read_page(tmp_path), "Errors on the test set")
    assert "**" not in " ".join(cells_of(table, "best"))
    assert "**" in " ".join(cells_of(table, "ntk-pv"))


def test_scratch_section(tmp_path: Path) -> None:
    scratch = [
        make_cell(cell.key.pool, f"{cell.key.method}-scratch", cell.key.seed, start="scratch")
        for cell in SMALL
    ]
    pretrained = make_study(("random", "ntk-pv", "committee-e"))
    write_report(tmp_path, [*pretrained, *scratch], title="t", with_pictures=False)
    text = section(read_page(tmp_path), "From scratch and pretrained")
    assert len(re.findall(r"^\| ntk-pv \| (scratch|pretrained) \|", text, re.M)) == 2
    assert (tmp_path / "scratch.csv").exists()


def test_a_second_report_leaves_nothing_of_the_first(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text("mine")
    write_report(tmp_path, SMALL[:4], title="t")
    assert (tmp_path / "curves.png").exists()
    write_report(tmp_path, [], title="t")
    assert {path.name for path in tmp_path.iterdir()} == {
        "results.md",
        "results.json",
        "study.yaml",
    }


def test_the_same_cells_give_the_same_files(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_report(tmp_path / folder, SMALL, title="t", with_pictures=False)
    assert len(list((tmp_path / "one").iterdir())) == 9
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes(), path.name


def test_mappings_of_any_kind_are_taken(tmp_path: Path) -> None:
    cell = replace(SMALL[0], curves=MappingProxyType(dict(SMALL[0].curves)))
    write_report(tmp_path, [cell], title="t", with_pictures=False)
    assert json.loads((tmp_path / "results.json").read_text())["cells"][0]["curves"]


def test_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(WriteError):
        write_report(tmp_path / "out", SMALL, title="t", with_pictures=False)
