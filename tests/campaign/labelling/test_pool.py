"""``labelwise label`` on this machine: every structure is calculated once."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.emt import EMT

from labelwise.campaign.lock import LOCK_FILE, temporary_lock
from labelwise.cli import label as label_command
from labelwise.cli import main
from labelwise.errors import WriteError
from labelwise.structures import read_structures, write_structures
from labelwise.structures.labels import get_stress
from labelwise.structures.levels import LEVEL_KEY
from tests.campaign.building import make_structures, write_campaign
from tests.campaign.labelling.doubles import sane_forces

MOODY = "tests.campaign.labelling.doubles.Moody"
ROOT = Path(__file__).parents[3]


@pytest.fixture
def pool(tmp_path: Path) -> Path:
    path = tmp_path / "pool.extxyz"
    write_structures(path, make_structures(8, labelled=False))
    return path


def words(pool: Path, *more: str, out: str = "labelled.extxyz", moody: str = MOODY) -> list[str]:
    folder = pool.parent
    trace = f"arguments.trace={folder / 'trace'}"
    fixed = ["--calculator", moody, "--set", trace, "--out", str(folder / out), "--quiet"]
    return ["label", str(pool), *fixed, *more]


def count(pool: Path) -> int:
    trace = pool.parent / "trace"
    return len(trace.read_text().splitlines()) if trace.exists() else 0


def test_labels_go_with_their_structures(pool: Path) -> None:
    structures = read_structures(pool)
    write_structures(pool, [*structures, structures[3]])
    assert main(words(pool)) == 0
    assert count(pool) == 8  # a copy is labelled, and not calculated
    labelled = read_structures(pool.parent / "labelled.extxyz")
    assert len(labelled) == 9
    for atoms in labelled:
        assert atoms.info["REF_energy"] == pytest.approx(float((atoms.positions**2).sum()))
        assert np.allclose(atoms.arrays["REF_forces"], sane_forces(atoms), atol=1e-6)
        assert atoms.info[LEVEL_KEY].startswith(MOODY)
    assert main(words(pool)) == 0
    assert count(pool) == 8


def test_failures_have_their_reasons_and_are_tried_again_when_asked(pool: Path) -> None:
    structures = read_structures(pool)
    structures[2].info["mood"] = "stubborn"
    write_structures(pool, structures)
    assert main(words(pool, "--set", "n_retries=0")) == 0
    record = json.loads((pool.parent / "labelled.json").read_text())
    assert record["counts"] == {
        "read": 8, "labelled": 7, "failed": 1, "already_known": 0, "calculated": 8,
    }  # fmt: skip
    (failure,) = record["failures"]
    assert (failure["frame"], failure["reason"]) == (2, "not-converged")
    assert main(words(pool, "--set", "n_retries=0")) == 0
    assert count(pool) == 8
    assert main(words(pool, "--set", "n_retries=0", "--retry-failed")) == 0
    assert count(pool) == 9


def test_what_else_is_given_to_the_calculator_tells_labels_apart(pool: Path) -> None:
    one, two = (read_structures(pool)[0] for _ in range(2))
    one.info["grid"], two.info["grid"] = 1, 5
    write_structures(pool, [one, two])
    assert main(words(pool, "--set", "info_arguments.charge=grid")) == 0
    assert count(pool) == 2
    one, two = read_structures(pool.parent / "labelled.extxyz")
    assert two.info["REF_energy"] - one.info["REF_energy"] == pytest.approx(4.0)


def test_a_stress_of_before_is_dropped(pool: Path) -> None:
    structures = read_structures(pool)
    for atoms in structures:
        atoms.info["REF_stress"] = np.arange(9.0)
    write_structures(pool, structures)
    assert main(words(pool)) == 0
    labelled = read_structures(pool.parent / "labelled.extxyz")
    assert not [atoms for atoms in labelled if "REF_stress" in atoms.info]


def test_a_run_that_was_killed_between_its_files_is_gone_on(
    pool: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise WriteError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(label_command, "write_structures", fail)
        assert main(words(pool)) == 1
    assert main(words(pool)) == 0
    assert len(read_structures(pool.parent / "labelled.extxyz")) == 8


def test_nothing_but_failures_stops(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structures = read_structures(pool)
    for atoms in structures:
        atoms.info["mood"] = "broken"
    write_structures(pool, structures)
    more = ["--set", "n_retries=0", "--set", "max_failures_in_a_row=3"]
    assert main(words(pool, *more)) == 1
    assert "3 calculations in a row failed" in capsys.readouterr().err
    assert count(pool) == 3


@pytest.mark.parametrize(
    ("mood", "limit"), [("huge", "max_force=100"), ("zero", "n_threads=1"), ("nan", "n_threads=1")]
)
def test_labels_that_cannot_be_true_count_as_failures(
    pool: Path, mood: str, limit: str, capsys: pytest.CaptureFixture[str]
) -> None:
    structures = read_structures(pool)
    for atoms in structures:
        atoms.info["mood"] = mood
    write_structures(pool, structures)
    assert main(words(pool, "--set", limit, "--set", "max_failures_in_a_row=3")) == 1
    assert "3 calculations in a row failed" in capsys.readouterr().err
    assert count(pool) == 3


def test_an_energy_far_off_the_others_is_no_label(pool: Path) -> None:
    """Whatever came first: by all of them, not by those that were there before."""
    structures = read_structures(pool)
    structures[0].info["mood"] = "deep"
    write_structures(pool, structures)
    for more in ((), (), ("--set", "max_energy_deviation=1e6")):
        assert main(words(pool, *more)) == 0
        record = json.loads((pool.parent / "labelled.json").read_text())
        reasons = [(each["frame"], each["reason"]) for each in record["failures"]]
        assert reasons == ([] if more else [(0, "absurd-energy")])
    assert count(pool) == 8


def test_not_a_single_label_is_an_error(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    structures = read_structures(pool)
    assert main(words(pool)) == 0
    former = (pool.parent / "labelled.extxyz").read_bytes()
    for number, atoms in enumerate(structures):
        atoms.info["mood"] = "broken" if number else "stubborn"
        atoms.positions += 0.1
    write_structures(pool, structures)
    assert main(words(pool, "--set", "n_retries=0")) == 1
    said = capsys.readouterr().err
    assert "none of 8 structures has a label: 1 not-converged, 7 exception" in said
    assert (pool.parent / "labelled.extxyz").read_bytes() == former
    assert len(json.loads((pool.parent / "labelled.json").read_text())["failures"]) == 8
    pool.write_text("")
    assert main(words(pool)) == 1


def list_left(pool: Path) -> set[str]:
    return {path.name for path in pool.parent.iterdir()} - {"pool.extxyz", "trace"}


def test_nothing_is_left_behind(pool: Path) -> None:
    assert main(words(pool, moody="nonsense.Calculator")) == 1
    assert list_left(pool) == set()
    assert main(words(pool)) == 0
    assert list_left(pool) == {"labelled.extxyz", "labelled.json", "labelled.labels"}
    assert {path.suffix for path in (pool.parent / "labelled.labels").rglob("*.*")} == {
        ".json",
        ".jsonl",
    }


def test_what_failed_can_be_looked_at(pool: Path) -> None:
    structures = read_structures(pool)
    structures[1].info["mood"] = "broken"
    write_structures(pool, structures)
    assert main(words(pool, "--set", "n_retries=0")) == 0
    folder = pool.parent / "labelled.labelling" / "calculations"
    assert [path.name for path in folder.rglob("scratch.txt")] == ["scratch.txt"]
    structures[1].info["mood"] = ""
    write_structures(pool, structures)
    assert main(words(pool, "--retry-failed")) == 0
    assert "labelled.labelling" not in list_left(pool)


def test_locks_of_the_dead_are_taken_and_others_named(
    pool: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = pool.parent / "labelled.labelling"
    with temporary_lock(folder):
        lock = json.loads((folder / LOCK_FILE).read_text())
        assert main(words(pool)) == 1
        assert "--break-lock" in capsys.readouterr().err
    folder.mkdir()
    (folder / LOCK_FILE).write_text(json.dumps({**lock, "pid": 2**22 + 1}))
    assert main(words(pool)) == 0
    folder.mkdir()
    (folder / LOCK_FILE).write_text(json.dumps({**lock, "host": "another"}))
    assert main(words(pool)) == 1
    assert main(words(pool, "--break-lock")) == 0
    assert "labelled.labelling" not in list_left(pool)


def test_a_campaign_takes_what_the_store_has(data: Path, tmp_path: Path) -> None:
    """Its labels are those of the store, and nothing is calculated."""
    from labelwise.campaign.loop import run_campaign
    from labelwise.campaign.state import read_state

    pool = tmp_path / "pool.extxyz"
    pool.write_bytes((data / "pool.extxyz").read_bytes())
    assert main(words(pool, "--store", str(tmp_path / "store"))) == 0
    n_made = count(pool)
    labeller = {
        "kind": "calculator",
        "calculator": MOODY,
        "arguments": {"trace": str(tmp_path / "trace")},
        "store": str(tmp_path / "store"),
        "max_energy_deviation": 1e9,
    }
    sections = {"data": {"pool": [str(pool)]}, "stop": {"rounds": 1}}
    directory = write_campaign(tmp_path / "campaign", data, labeller=labeller, **sections)
    run_campaign(directory)
    state = read_state(directory)
    assert count(pool) == n_made
    assert len(state.labels) == 3
    for key in state.labels:
        atoms = state.labelled_atoms(key)
        assert atoms.info["REF_energy"] == float((atoms.positions**2).sum())
        assert atoms.info[LEVEL_KEY].startswith(MOODY)


def test_structures_of_another_level_are_refused_before_anything_is_calculated(
    data: Path, tmp_path: Path
) -> None:
    from labelwise.campaign.loop import run_campaign
    from labelwise.errors import LabelError

    train = read_structures(data / "train.extxyz")
    for atoms in train:
        atoms.info[LEVEL_KEY] = "PBE"
    write_structures(tmp_path / "train.extxyz", train)
    labeller = {
        "kind": "calculator",
        "calculator": MOODY,
        "arguments": {"trace": str(tmp_path / "trace")},
    }
    sections = {"data": {"train": [str(tmp_path / "train.extxyz")]}}
    directory = write_campaign(tmp_path / "campaign", data, labeller=labeller, **sections)
    with pytest.raises(LabelError, match="two levels"):
        run_campaign(directory)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "give a calculator"),
        (("--calculator", "emt", "--set", "n_worker=3"), "did you mean 'n_workers'"),
        (("--calculator", "emt", "--set", "kind=replay"), "calculator"),
        (("--calculator", "nonsense"), "cannot be made"),
    ],
)
def test_mistakes_are_named(
    pool: Path, more: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(pool.parent / "out.extxyz")
    assert main(["label", str(pool), "--out", out, *more]) == 1
    assert said in capsys.readouterr().err


def test_files_of_others_are_not_replaced(pool: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (pool.parent / "labelled.extxyz").write_text("mine")
    assert main(words(pool)) == 1
    assert "--force" in capsys.readouterr().err
    assert count(pool) == 0


def test_settings_from_the_file_of_a_campaign(pool: Path, data: Path, tmp_path: Path) -> None:
    labeller = {"kind": "calculator", "calculator": MOODY, "n_workers": 2}
    directory = write_campaign(tmp_path / "campaign", data, labeller=labeller)
    out = tmp_path / "out.extxyz"
    file = str(directory / "campaign.yaml")
    assert main(["label", str(pool), "--settings", file, "-o", str(out), "-q"]) == 0
    assert json.loads(out.with_suffix(".json").read_text())["settings"]["n_workers"] == 2


def kill_often(pool: Path, n_structures: int, n_kills: int) -> None:
    """Kill runs at random moments; each structure is calculated once, whatever was in flight."""
    write_structures(pool, make_structures(n_structures, labelled=False))
    more = ("--set", "n_workers=1")
    command = [sys.executable, "-m", "labelwise", *words(pool, *more)]
    rng = np.random.default_rng(3)
    n_killed = 0
    while n_killed < n_kills:
        process = subprocess.Popen(command, cwd=ROOT, start_new_session=True)
        n_before, began = count(pool), time.perf_counter()
        target = n_before + rng.integers(1, max(2, n_structures // n_kills))
        while process.poll() is None and count(pool) < target:
            time.sleep(0.005)
            assert time.perf_counter() - began < 60.0
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
            n_killed += 1
        process.wait()
        time.sleep(0.8)  # its worker finds that it is alone
    assert main(words(pool, *more)) == 0
    labelled = read_structures(pool.parent / "labelled.extxyz")
    assert len(labelled) == n_structures
    kept = [
        json.loads(line)["key"]
        for path in (pool.parent / "labelled.labels").rglob("*.jsonl")
        for line in path.read_text().splitlines()
        if line.endswith("}")
    ]
    assert len(kept) == len(set(kept)) == n_structures
    # What a kill costs is the calculation that was under way.
    assert n_structures <= count(pool) <= n_structures + n_killed


def test_killed_and_gone_on(pool: Path) -> None:
    kill_often(pool, 8, 1)


@pytest.mark.thorough
def test_a_thousand_structures_killed_ten_times(pool: Path) -> None:
    kill_often(pool, 1000, 10)
    n_made = count(pool)
    assert main(words(pool, "--store", str(pool.parent / "labelled.labels"), out="b.extxyz")) == 0
    assert count(pool) == n_made


def test_the_structures_are_as_they_were(pool: Path) -> None:
    before = read_structures(pool)
    assert main(words(pool)) == 0
    for atoms, labelled in zip(
        before, read_structures(pool.parent / "labelled.extxyz"), strict=True
    ):
        assert isinstance(atoms, Atoms)
        assert np.array_equal(atoms.positions, labelled.positions)
        assert labelled.info["number"] == atoms.info["number"]


def test_a_crystal_s_stress_is_kept(tmp_path: Path) -> None:
    """Twice, so that it comes from the store the second time."""
    crystal = bulk("Cu", cubic=True)
    crystal.positions[0, 0] += 0.1
    write_structures(tmp_path / "pool.extxyz", [crystal])
    command = ["label", str(tmp_path / "pool.extxyz"), "--calculator", "emt", "--quiet"]
    for out in ("a", "b"):
        more = ["--store", str(tmp_path / "store"), "-o", str(tmp_path / f"{out}.extxyz")]
        assert main([*command, *more]) == 0
        (labelled,) = read_structures(tmp_path / f"{out}.extxyz")
        crystal.calc = EMT()
        assert np.allclose(get_stress(labelled, out), crystal.get_stress(voigt=False), atol=1e-8)
