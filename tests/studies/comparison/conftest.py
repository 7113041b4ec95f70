"""Studies on disk: synthetic results, and a small one whose campaigns have model and data."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from labelwise.structures import write_structures
from labelwise.studies.comparison.cells import prepare_cell
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import CellKey, CellResult
from labelwise.studies.comparison.study import check_study, dump_study, list_cells
from tests.campaign.building import make_structures, write_data
from tests.studies.comparison.building import make_cell, make_study
from tests.studies.comparison.page.building import COSTS, with_splits

METHODS = ("random", "committee-f", "ntk-lcmd", "activation-lcmd")


@pytest.fixture(scope="session")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pools with two seeds, two splits; one campaign unfinished, one missing, one odd."""
    cells = [with_splits(cell) for cell in make_study(METHODS, n_rounds=5)]
    planned = [cell.key for cell in cells]
    lost = CellKey("natural-3", "activation-lcmd", 1)
    short = CellKey("natural-2", "activation-lcmd", 0)
    odd = CellKey("natural-1", "activation-lcmd", 0)
    kept: list[CellResult] = []
    for cell in cells:
        if cell.key == short:
            kept.append(replace(cell, is_finished=False))
        elif cell.key == odd:
            kept.append(with_splits(make_cell("natural-1", "activation-lcmd", 0, n_rounds=3)))
        elif cell.key != lost:
            kept.append(cell)
    folder = tmp_path_factory.mktemp("study")
    notes = ["Model demo; seeds 0, 1; 4 rounds after round 0.", "Written by hand."]
    write_report(
        folder, kept, COSTS, title="A study", notes=notes, planned=planned, with_pictures=False
    )
    return folder


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pool and one seed."""
    folder = tmp_path_factory.mktemp("single")
    cells = make_study(("random", "ntk-lcmd"), pools=["only"], seeds=[0], n_rounds=4)
    write_report(folder, cells, COSTS, title="One seed", with_pictures=False)
    return folder


@pytest.fixture(scope="session")
def with_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study whose campaigns are configured, with a model and a pool of 48 molecules."""
    folder = tmp_path_factory.mktemp("with_data")
    write_data(folder / "data", n_pool=48)
    write_structures(folder / "data" / "test.extxyz", make_structures(12, seed=5))
    files = {"files": ["data/test.extxyz"]}
    content = {
        "model": {"path": "data/small.model", "trust": True, "device": "cpu"},
        "pools": {"small": {"pool": ["data/pool.extxyz"], "test": files}},
        "methods": ["random", "ntk-lcmd", "activation-lcmd"],
        "seeds": [0, 1],
        "selection": {"batch_size": 3, "initial_size": 4},
        "rounds": 3,
    }
    configured = check_study(content)
    (folder / "study.yaml").write_text(dump_study(configured), encoding="utf-8")
    for cell in list_cells(configured, folder, folder):
        prepare_cell(cell)
    results = make_study(tuple(configured.methods), pools=["small"], n_rounds=4)
    write_report(folder, results, COSTS, title="With data", with_pictures=False)
    return folder
