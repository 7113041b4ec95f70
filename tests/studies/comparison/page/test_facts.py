from __future__ import annotations

from pathlib import Path

from labelwise.studies.comparison.page.facts import (
    describe_study,
    list_facts,
)
from labelwise.studies.comparison.record import read_record
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.tables import find_best
from labelwise.studies.comparison.wording import list_warnings
from tests.studies.comparison.building import make_cell
from tests.studies.comparison.page.building import as_number, read_csv


def test_the_best_method_has_all_campaigns(study: Path) -> None:
    record = read_record(study)
    rows = [row for row in read_csv(study / "errors.csv") if int(row["n_cells"]) == 6]
    wanted = min(rows, key=lambda row: float(row["auc_forces_rmse_mean"]))
    facts = {fact.label: fact for fact in list_facts(record)}
    assert facts["Best on forces"].value == wanted["method"]
    ratio = as_number(wanted, "auc_forces_rmse_ratio")
    assert f"{ratio:.2f} × random" in facts["Best on forces"].note
    assert "incomplete methods left out" in facts["Best on forces"].note
    assert facts["Campaigns"].value == "21 of 24"
    assert facts["Pools"].note == "natural-1, natural-2, natural-3"
    assert facts["Seeds"].note == "0, 1"


def test_what_is_not_in_the_tables_is_said(study: Path) -> None:
    record = read_record(study)
    unfinished, missing, odd = list_warnings(record.comparison)
    assert unfinished.endswith("in no table or chart: activation-lcmd, pool natural-2, seed 0.")
    assert missing == "1 campaign missing: activation-lcmd, pool natural-3, seed 1."
    assert odd.endswith("of their pool: activation-lcmd, pool natural-1, seed 0 (3 rounds).")
    assert describe_study(record) == (
        "committee-f, ntk-lcmd, activation-lcmd against random on 3 pools: natural-1, natural-2, "
        "natural-3"
    )


def test_one_method_is_not_the_best(tmp_path: Path) -> None:
    cell = make_cell("only", "random", 0, n_rounds=3)
    write_report(tmp_path, [cell], title="T", with_pictures=False)
    record = read_record(tmp_path)
    assert find_best(record.comparison, "auc", "forces_rmse") is None
    assert "Best on forces" not in {fact.label for fact in list_facts(record)}
    assert describe_study(record) == "no other method against random on 1 pool: only"


def test_nothing_finished_and_no_reference(tmp_path: Path) -> None:
    cells = [make_cell("only", "ntk-lcmd", 0, n_rounds=2, is_finished=False)]
    write_report(tmp_path / "a", cells, title="T", with_pictures=False)
    assert list_warnings(read_record(tmp_path / "a").comparison)[0].startswith(
        "No campaign is finished"
    )
    cells = [make_cell("only", "ntk-lcmd", 0, n_rounds=2)]
    write_report(tmp_path / "b", cells, title="T", with_pictures=False)
    assert (
        "No campaign of random is known" in list_warnings(read_record(tmp_path / "b").comparison)[0]
    )
