"""The files of a small study, held against those that were recorded once."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import CellKey, CellResult, MethodCost
from tests.studies.comparison.building import make_cell
from tests.studies.comparison.page.building import with_splits

GOLDEN = Path(__file__).parent / "golden"
FILES = (
    "results.md",
    "errors.csv",
    "errors_by_pool.csv",
    "errors_by_split.csv",
    "round_gain.csv",
    "scratch.csv",
    "cost.csv",
)
METHODS = ("random", "committee-e", "ntk-lcmd")
COSTS = [
    MethodCost("random", 0.0, 0.0, 1, 0, 0.0, 0.0),
    MethodCost("ntk-lcmd", 1.0, 1.0, 1, 264, 0.002, 20.0),
    MethodCost("soap-lcmd", 0.0, 0.0, 1, 1200, 0.25, 1400.0),
]
_NUMBER = re.compile(r"(?<![\w.-])-?\d+\.\d+(?:e[+-]\d+)?")


def make_cells() -> list[CellResult]:
    """Two pools, two seeds, one split; a campaign is unfinished, one odd, one of unknown errors."""
    places = [(pool, seed) for pool in ("a", "b") for seed in (0, 1)]
    cells = [with_splits(make_cell(p, m, s, n_rounds=4)) for m in METHODS for p, s in places]
    cells += [make_cell(p, "ntk-lcmd-scratch", s, n_rounds=4, start="scratch") for p, s in places]
    cells += [make_cell(p, "activation-pv", s, n_rounds=4) for p, s in places]
    unknown = {**cells[-3].curves, "energy_rmse": (90.0, float("nan"), 50.0, 40.0)}
    cells[-1] = replace(cells[-1], is_finished=False)
    cells[-2] = make_cell("b", "activation-pv", 0, n_rounds=3)
    cells[-3] = replace(cells[-3], curves=unknown)
    return cells


def round_numbers(text: str) -> str:
    """Leave twelve digits of each number: the last bits of ``exp`` are the machine's."""
    return _NUMBER.sub(lambda found: f"{float(found[0]):.12g}", text)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("golden")
    cells = make_cells()
    planned = [*(cell.key for cell in cells), CellKey("a", "soap-lcmd", 0)]
    write_report(
        folder, cells, COSTS, title="A study", notes=["Two seeds."], planned=planned,
        with_pictures=False,
    )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", FILES)
def test_files_stay_as_they_were(written: Path, name: str) -> None:
    recorded = (GOLDEN / name).read_text(encoding="utf-8")
    assert round_numbers((written / name).read_text(encoding="utf-8")) == round_numbers(recorded)
