"""Running a study: every campaign once, through errors, kills and a second command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from labelwise.campaign.loop import run_campaign
from labelwise.errors import ArgumentError
from labelwise.structures import read_structures, write_structures
from labelwise.studies.comparison.cells import (
    FINISHED,
    is_finished,
    prepare_cell,
    read_results,
)
from labelwise.studies.comparison.comparing import run_study
from labelwise.studies.comparison.results import CellKey
from labelwise.studies.comparison.running import SHARED, run_cells
from labelwise.studies.comparison.study import (
    Cell,
    StudyConfig,
    check_study,
    dump_study,
    list_cells,
)
from labelwise.studies.comparison.study_file import StudyError

METHODS = ["random", "ntk-pv", "committee-e"]


@pytest.fixture(scope="module")
def data(campaign_data: Path) -> Path:
    return campaign_data


def make_study(data: Path, **changes: Any) -> StudyConfig:
    content = {
        "model": {"path": str(data / "small.model"), "trust": True, "device": "cpu"},
        "pools": {
            "small": {
                "pool": [str(data / "pool.extxyz")],
                "train": [str(data / "train.extxyz")],
                "valid": {"files": [str(data / "valid.extxyz")]},
                "test": {"files": [str(data / "test.extxyz")]},
            }
        },
        "methods": METHODS,
        "seeds": [0],
        "selection": {"batch_size": 3, "n_reserve": 2},
        "finetune": {"max_updates": 4, "batch_size": 2, "max_validations": 2},
        "rounds": 2,
    }
    return check_study({**content, **changes})


@pytest.fixture(scope="module")
def finished(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study that ran without interruption; not to be changed."""
    folder = tmp_path_factory.mktemp("study")
    run = run_study(make_study(data), folder, folder, n_processes=1)
    assert run.failures == {}
    assert (run.n_cells, run.n_found) == (3, 0)
    return folder


def cells_of(study: StudyConfig, folder: Path) -> list[Cell]:
    return list_cells(study, folder, folder)


def read_files(folder: Path, names: tuple[str, ...]) -> dict[str, bytes]:
    paths = (path for name in names for path in sorted(folder.rglob(name)))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


@pytest.mark.thorough
def test_results_are_those_of_separate_campaigns(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    """What campaigns share changes nothing in them."""
    for cell in cells_of(make_study(data), tmp_path):
        prepare_cell(cell)
        run_campaign(cell.directory)
    names = ("picks.json", "finetune.json", "measure.json", "labels.jsonl")
    alone, together = read_files(tmp_path, names), read_files(finished, names)
    assert alone.keys() == together.keys()
    assert len(alone) == 3 * (3 * 3 + 1)
    for name in alone:
        assert alone[name] == together[name], name


def test_the_first_fit_is_made_once(finished: Path) -> None:
    """Round 0 of all three methods begins with one model; the committee has two more."""
    assert len(list((finished / SHARED).glob("*.json"))) == 3
    weights = {
        json.loads((path / "rounds.jsonl").read_text().splitlines()[0])["weights"]
        for path in (finished / "cells" / "small").glob("*/seed_0")
    }
    assert len(weights) == 1


def test_results_are_read(data: Path, finished: Path) -> None:
    study = make_study(data)
    results = {result.key.method: result for result in read_results(cells_of(study, finished))}
    assert list(results) == METHODS
    for result in results.values():
        assert result.is_finished
        assert result.n_labels == (4, 7, 10)
        assert all(len(curve) == 3 for curve in result.curves.values())
        assert {*result.costs[1].seconds} == {"select", "label", "finetune", "measure"}
    assert results["committee-e"].n_models == 3
    found = results["committee-e"].rank_correlations
    assert {*found} == {"energy", "forces"}
    assert all(len(values) == 2 and np.abs(values).max() <= 1 for values in found.values())
    assert results["ntk-pv"].rank_correlations == {}


def test_a_finished_study_is_left_alone(data: Path, finished: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*")}
    run = run_study(make_study(data), finished, finished, n_processes=2)
    assert run.n_found == run.n_cells == 3
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("*")} == before


def test_more_rounds_go_on_where_the_others_ended(
    data: Path, finished: Path, tmp_path: Path
) -> None:
    study = make_study(data, methods=["random"])
    run_study(study, tmp_path, tmp_path, n_processes=1)
    (cell,) = cells_of(study, tmp_path)
    before = (cell.directory / "rounds.jsonl").read_bytes()
    longer = make_study(data, methods=["random"], rounds=3)
    (cell,) = cells_of(longer, tmp_path)
    assert not is_finished(cell)
    run_study(longer, tmp_path, tmp_path, n_processes=1)
    assert is_finished(cell)
    assert (cell.directory / "rounds.jsonl").read_bytes().startswith(before)
    assert read_results([cell])[0].n_labels == (4, 7, 10, 13)


def test_other_settings_are_refused_and_named(data: Path, tmp_path: Path) -> None:
    (cell,) = cells_of(make_study(data, methods=["random"]), tmp_path)
    prepare_cell(cell)
    mark = cell.directory / "mark"
    mark.touch()
    other = make_study(data, methods=["random"], selection={"batch_size": 2})
    (changed,) = cells_of(other, tmp_path)
    with pytest.raises(StudyError, match=r"selection.batch_size 3 → 2"):
        prepare_cell(changed)
    assert mark.exists()
    prepare_cell(changed, force=True)
    assert not mark.exists()


def test_a_campaign_that_fails_does_not_stop_the_others(
    data: Path, tmp_path: Path, said: list[str]
) -> None:
    broken = {"pool": [str(data / "missing.extxyz")], "train": [str(data / "train.extxyz")]}
    whole = make_study(data).pools["small"].model_dump()
    study = make_study(data, pools={"broken": broken, "small": whole}, methods=["random"])
    run = run_study(study, tmp_path, tmp_path, n_processes=1)
    assert {*run.failures} == {CellKey("broken", "random", 0)}
    assert "missing.extxyz" in run.failures[CellKey("broken", "random", 0)]
    assert sum("2 rounds are done" in line for line in said) == 1


def test_warnings_of_a_worker_are_said_with_its_campaign(
    data: Path, tmp_path: Path, said: list[str]
) -> None:
    pool = read_structures(data / "pool.extxyz")
    pool[0].info["total_charge"] = 1
    write_structures(tmp_path / "charged.extxyz", pool)
    section = make_study(data).pools["small"].model_dump()
    section["pool"] = [str(tmp_path / "charged.extxyz")]
    study = make_study(data, pools={"small": section}, methods=["random"], rounds=1)
    assert not run_study(study, tmp_path, tmp_path, n_processes=1).failures
    told = [line for line in said if "takes no total charge" in line]
    assert len(told) == 1
    assert told[0].startswith("small / random / seed 0: the model")


def test_wrong_numbers_of_processes_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="n_processes is 0"):
        run_cells(cells_of(make_study(data), tmp_path), tmp_path, n_processes=0)


_SCRIPT = """
import signal
import sys
from pathlib import Path
from labelwise.studies.comparison.study import read_study
from labelwise.studies.comparison.comparing import run_study
if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored below a background job
    folder = Path(sys.argv[1])
    run_study(read_study(folder / "study.yaml"), folder, folder, n_processes=1)
"""


def _wait_for(condition: Any, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 120
    while not condition():
        assert process.poll() is None, "the study ended before it could be killed"
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_study_goes_on_and_does_nothing_twice(
    number: signal.Signals, data: Path, finished: Path, tmp_path: Path
) -> None:
    study = make_study(data)
    (tmp_path / "study.yaml").write_text(dump_study(study), encoding="utf-8")
    script = tmp_path / "run.py"
    script.write_text(_SCRIPT)
    process = subprocess.Popen([sys.executable, str(script), str(tmp_path)], stderr=-3)
    cells = cells_of(study, tmp_path)
    second = tmp_path / "cells" / "small" / "committee-e" / "seed_0"
    _wait_for((second / "rounds.jsonl").exists, process)
    process.send_signal(number)
    process.wait(30)
    done = [cell for cell in cells if is_finished(cell)]
    assert 1 <= len(done) < len(cells)
    before = {path: path.stat().st_mtime_ns for cell in done for path in cell.directory.rglob("*")}
    _wait_until_free(second)
    run = run_study(study, tmp_path, tmp_path, n_processes=1)
    assert run.failures == {}
    assert run.n_found == len(done)
    assert {path: path.stat().st_mtime_ns for path in before} == before
    names = ("picks.json", "finetune.json", "measure.json")
    assert read_files(tmp_path, names) == read_files(finished, names)
    assert all((cell.directory / FINISHED).exists() for cell in cells)


def _wait_until_free(directory: Path) -> None:
    """Wait until the worker of a killed study has noticed that it is alone."""
    lock = directory / "lock.json"
    paths = [path for path in directory.iterdir() if "lock" in path.name] or [lock]
    end = time.monotonic() + 30
    for path in paths:
        try:
            pid = json.loads(path.read_text())["pid"]
        except (OSError, ValueError, KeyError):
            continue
        while Path(f"/proc/{pid}").exists():
            assert time.monotonic() < end, "a worker outlived its study"
            time.sleep(0.1)


@pytest.mark.usefixtures("spawned_workers")
def test_a_worker_that_dies_is_replaced(data: Path, tmp_path: Path, said: list[str]) -> None:
    study = make_study(data, methods=["random", "ntk-pv"])
    cells = cells_of(study, tmp_path)
    killed: list[int] = []

    def kill_once(_stage: str, n_done: int, _n_total: int | None) -> None:
        if killed or n_done == 0:
            return
        children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
        for pid in map(int, children):
            if "spawn_main" in Path(f"/proc/{pid}/cmdline").read_text():
                killed.append(pid)
                os.kill(pid, signal.SIGKILL)

    run = run_cells(cells, tmp_path, n_processes=1, progress=kill_once)
    assert killed
    assert run.failures == {}
    assert any("its process died" in line for line in said)
    assert all(is_finished(cell) for cell in cells)
