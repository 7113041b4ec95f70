from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import deque
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from pydantic import ValidationError

from labelwise.campaign.labelling import (
    CalculatorLabeller,
    CalculatorSettings,
    Failure,
    Label,
    Labeller,
    LabellingError,
    Outcome,
    Task,
)
from labelwise.errors import WriteError
from labelwise.structures import Source
from tests.campaign.labelling.doubles import sane_forces

ROOT = str(Path(__file__).parents[3])
DOUBLES = "tests.campaign.labelling.doubles"


def make_task(mood: str = "", number: int = 0) -> Task:
    atoms = molecule("H2O")
    atoms.positions[0, 0] += 0.01 * number
    atoms.info["mood"] = mood
    return Task(f"{mood}-{number}", atoms, Source("pool", number))


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace"


@pytest.fixture
def labeller(tmp_path: Path, trace: Path):
    def make(**options) -> CalculatorLabeller:
        arguments = {"trace": str(trace)}
        return make_labeller(tmp_path, f"{DOUBLES}.Moody", arguments=arguments, **options)

    return make


def make_labeller(folder: Path, calculator: str, **options) -> CalculatorLabeller:
    return CalculatorLabeller(CalculatorSettings(calculator=calculator, **options), folder)


def collect(labeller: Labeller, tasks: list[Task]) -> dict[str, Outcome]:
    outcomes = list(labeller.label(deque(tasks)))
    assert sorted(o.key for o in outcomes) == sorted(task.key for task in tasks)
    return {outcome.key: outcome for outcome in outcomes}


def test_every_way_to_fail_is_told_and_ends_nothing(labeller, tmp_path: Path) -> None:
    moods = ["", "stubborn", "broken", "dead", "nan", "", "unconverged"]
    tasks = [make_task(mood, i) for i, mood in enumerate(moods)]
    found = collect(labeller(n_retries=0, n_workers=2), tasks)
    reasons = {
        key: outcome.reason for key, outcome in found.items() if isinstance(outcome, Failure)
    }
    assert reasons == {
        "stubborn-1": "not-converged",
        "broken-2": "exception",
        "dead-3": "crashed",
        "unconverged-6": "not-converged",
    }
    assert found["unconverged-6"].detail == "Moody: converged = False"
    assert "SCF did not converge in 50" in found["stubborn-1"].detail
    assert "SIGSEGV" in found["dead-3"].detail
    assert np.isnan(found["nan-4"].energy)  # the checks refuse it, not the labeller
    for key, task in (("-0", tasks[0]), ("-5", tasks[5])):
        label = found[key]
        assert isinstance(label, Label)
        assert label.energy == float((task.atoms.positions**2).sum())
        assert np.array_equal(label.forces, sane_forces(task.atoms))
    # Files of failed calculations stay, those of the others go.
    kept = {path.name for path in (tmp_path / "calculations").iterdir() if path.is_dir()}
    assert kept == {"stubborn-1", "broken-2", "dead-3", "unconverged-6"}


def test_time_limit_kills_the_calculation_and_its_programs(labeller) -> None:
    began = time.perf_counter()
    tasks = [make_task("slow", 0), make_task("", 1)]
    found = collect(labeller(time_limit_s=1.0, n_retries=0), tasks)
    assert isinstance(found["slow-0"], Failure)
    assert found["slow-0"].reason == "time-out"
    assert found["slow-0"].seconds >= 1.0
    assert isinstance(found["-1"], Label)
    assert time.perf_counter() - began < 40.0


def test_retries(labeller, trace: Path) -> None:
    found = collect(labeller(n_retries=2), [make_task("flaky"), make_task("broken")])
    assert isinstance(found["flaky-0"], Label)
    assert found["flaky-0"].n_tries == 2
    assert found["broken-0"].n_tries == 3
    assert [line.split()[0] for line in trace.read_text().splitlines()].count("broken") == 3


def test_several_at_once_with_their_threads(labeller, trace: Path) -> None:
    tasks = [make_task("lazy", i) for i in range(6)]
    collect(labeller(n_workers=2, n_threads=3), tasks)
    lines = [line.split() for line in trace.read_text().splitlines()]
    assert len({pid for _, pid, _ in lines}) == 2
    assert {threads for *_, threads in lines} == {"3"}


def test_replacements_are_taken_from_the_queue(labeller) -> None:
    queue = deque([make_task("broken", 0)])
    keys = []
    for outcome in labeller(n_retries=0).label(queue):
        keys.append(outcome.key)
        if isinstance(outcome, Failure):
            queue.append(make_task("", 1))
    assert keys == ["broken-0", "-1"]


def test_arguments_from_info_and_functions(tmp_path: Path, trace: Path) -> None:
    task = make_task()
    task.atoms.info["total_charge"] = 2.0
    charged = make_labeller(tmp_path, f"{DOUBLES}:Moody", info_arguments={"charge": "total_charge"})
    found = collect(charged, [task])
    assert found[task.key].energy == float((task.atoms.positions**2).sum()) + 2.0
    made = make_labeller(tmp_path, f"{DOUBLES}.make_moody", arguments={"trace": str(trace)})
    assert isinstance(collect(made, [task])[task.key], Label)


def test_calculators_that_ase_knows_by_name(tmp_path: Path) -> None:
    labeller = make_labeller(tmp_path, "lj")
    dimer = Task("dimer", Atoms("Ar2", [[0, 0, 0], [0, 0, 1.2]]), Source("pool", 0))
    assert collect(labeller, [dimer])["dimer"].energy < 0


@pytest.mark.parametrize(
    ("calculator", "arguments"),
    [
        ("no_such_package.Calculator", {}),
        ("ase.calculators.emt.NoSuchName", {}),
        (f"{DOUBLES}.make_moody", {"wrong": 1}),
    ],
)
def test_a_calculator_that_cannot_be_made_is_an_error_at_once(
    tmp_path: Path, calculator: str, arguments: dict[str, int]
) -> None:
    labeller = make_labeller(tmp_path, calculator, arguments=arguments)
    with pytest.raises(LabellingError, match="cannot be made"):
        list(labeller.label(deque([make_task()])))


def test_limits_are_checked() -> None:
    for options in ({"n_workers": 0}, {"n_retries": -1}, {"time_limit_s": 0.0}):
        with pytest.raises(ValidationError):
            CalculatorSettings(calculator="emt", **options)


def test_scratch_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    labeller = make_labeller(tmp_path / "file", "emt")
    with pytest.raises(WriteError, match="cannot start"):
        list(labeller.label(deque([make_task()])))


def test_workers_end_when_the_labeller_is_left(labeller, trace: Path) -> None:
    outcomes = labeller(n_workers=1).label(deque([make_task("", 0), make_task("", 1)]))
    next(outcomes)
    pid = int(trace.read_text().split(" ")[1])
    outcomes.close()
    assert not Path(f"/proc/{pid}").exists()


def test_workers_die_with_their_parent(tmp_path: Path, trace: Path) -> None:
    """A campaign that is killed leaves no calculation behind."""
    code = f"""
import sys
from collections import deque
from pathlib import Path
from tests.campaign.labelling.test_calculator import make_labeller, make_task
arguments = {{"trace": {str(trace)!r}}}
labeller = make_labeller(Path({str(tmp_path)!r}), "{DOUBLES}.Moody", arguments=arguments)
list(labeller.label(deque([make_task("slow")])))
"""
    parent = subprocess.Popen([sys.executable, "-W", "ignore", "-c", code], cwd=ROOT)
    _wait_until(trace.exists)
    worker = int(trace.read_text().split()[1])
    parent.kill()
    parent.wait()
    _wait_until(lambda: not _is_alive(worker))


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def _wait_until(condition, limit_s: float = 60.0) -> None:
    began = time.perf_counter()
    while not condition():
        assert time.perf_counter() - began < limit_s
        time.sleep(0.05)


def test_tblite_gives_the_same_label_in_any_order(tmp_path: Path) -> None:
    """Labels must not depend on what a worker has calculated before."""
    pytest.importorskip("tblite")
    arguments = {"method": "GFN2-xTB", "verbosity": 0}
    tasks = [make_task("", i) for i in range(3)]
    labeller = make_labeller(tmp_path, "tblite.ase.TBLite", arguments=arguments)
    forward, backward = collect(labeller, tasks), collect(labeller, tasks[::-1])
    for key, label in forward.items():
        assert isinstance(label, Label)
        assert label.energy == backward[key].energy
        assert np.array_equal(label.forces, backward[key].forces)
        assert -140.0 < label.energy < -135.0  # water with GFN2-xTB: -5.07 Hartree


def test_environment_of_this_process_is_left_alone(labeller) -> None:
    before = dict(os.environ)
    collect(labeller(n_threads=2), [make_task()])
    assert dict(os.environ) == before
