"""Labels are kept once, found again, and readable while they are written."""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.labelling import (
    CalculatorLabeller,
    CalculatorSettings,
    Failure,
    Label,
    LabelStore,
    Task,
)
from labelwise.campaign.labelling.store import LabelWriter
from labelwise.errors import WriteError
from labelwise.structures import Source, hash_structure
from tests.campaign.labelling.doubles import sane_forces

DOUBLES = "tests.campaign.labelling.doubles"


def make_task(number: int = 0, mood: str = "") -> Task:
    atoms = molecule("H2O")
    atoms.positions[0, 0] += 0.01 * number
    atoms.info["mood"] = mood
    return Task(hash_structure(atoms), atoms, Source("pool", number))


def make_label(task: Task) -> Label:
    return Label(task.key, -1.0 / 3.0, sane_forces(task.atoms), seconds=2.0)


def settings(**options) -> CalculatorSettings:
    return CalculatorSettings(**{"calculator": "emt", **options})


def open_store(folder: Path, **options) -> LabelStore:
    store = LabelStore(folder, settings(**options))
    store.refresh()
    return store


def test_a_label_comes_back_bit_by_bit(tmp_path: Path) -> None:
    task = make_task()
    LabelWriter(open_store(tmp_path), "me").append(task, make_label(task))
    found = open_store(tmp_path).find_label(task.atoms, "its key")
    assert found is not None
    assert (found.key, found.energy, found.n_tries) == ("its key", -1.0 / 3.0, 0)
    assert np.array_equal(found.forces, sane_forces(task.atoms))
    mine = open_store(tmp_path).find_label(task.atoms, "its key", writers="me-")
    assert mine is not None
    assert (mine.n_tries, mine.seconds) == (1, 2.0)
    assert open_store(tmp_path).mean_seconds == 2.0


def test_what_is_written_is_seen_by_who_reads_meanwhile(tmp_path: Path) -> None:
    reader = open_store(tmp_path)
    writers = [LabelWriter(reader, name) for name in "ab"]
    for number in range(6):
        task = make_task(number)
        writers[number % 2].append(task, make_label(task))
        reader.refresh()
        assert len(reader) == number + 1
        assert reader.find_label(task.atoms, "") is not None


def test_half_a_line_at_the_end_is_no_label_until_it_is_whole(tmp_path: Path) -> None:
    tasks = [make_task(0), make_task(1)]
    store = open_store(tmp_path)
    writer = LabelWriter(store, "me")
    for task in tasks:
        writer.append(task, make_label(task))
    content = writer.path.read_bytes()
    for cut in (1, 40, len(content) // 2 - 1):
        writer.path.write_bytes(content[:-cut])
        torn = open_store(tmp_path)
        assert torn.find_label(tasks[0].atoms, "") is not None
        assert torn.find_label(tasks[1].atoms, "") is None
        writer.path.write_bytes(content)
        torn.refresh()
        assert torn.find_label(tasks[1].atoms, "") is not None


def test_a_line_that_is_no_record_is_damage(tmp_path: Path) -> None:
    task = make_task()
    writer = LabelWriter(open_store(tmp_path), "me")
    writer.append(task, make_label(task))
    writer.path.write_bytes(b"nonsense\n" + writer.path.read_bytes())
    with pytest.raises(DamagedStateError, match="not JSON"):
        open_store(tmp_path)


def test_levels_are_kept_apart(tmp_path: Path) -> None:
    task = make_task()
    LabelWriter(open_store(tmp_path, arguments={"xc": "PBE"}), "me").append(task, make_label(task))
    for other in ({"arguments": {"xc": "HF"}}, {"calculator": "lj", "arguments": {"xc": "PBE"}}):
        assert open_store(tmp_path, **other).find_label(task.atoms, "") is None
    for same in ({"n_threads": 7}, {"calculator": "EMT"}, {"time_limit_s": 3.0}):
        again = open_store(tmp_path, **{"arguments": {"xc": "PBE"}, **same})
        assert again.find_label(task.atoms, "") is not None


def test_a_named_level_stays_when_the_machine_s_arguments_change(tmp_path: Path) -> None:
    task = make_task()
    first = open_store(tmp_path, level="PBE", arguments={"nprocs": 4})
    LabelWriter(first, "me").append(task, make_label(task))
    other = open_store(tmp_path, level="PBE", arguments={"nprocs": 8})
    assert other.find_label(task.atoms, "") is not None
    assert other.level.name == "PBE"


def test_what_a_calculator_is_given_of_a_structure_names_the_label(tmp_path: Path) -> None:
    task = make_task()
    task.atoms.info["grid"] = 3
    options = {"info_arguments": {"kpts": "grid"}}
    LabelWriter(open_store(tmp_path, **options), "me").append(task, make_label(task))
    assert open_store(tmp_path, **options).find_label(task.atoms, "") is not None
    task.atoms.info["grid"] = 4
    assert open_store(tmp_path, **options).find_label(task.atoms, "") is None


def test_failures_are_told_and_are_no_labels(tmp_path: Path) -> None:
    task = make_task()
    store = open_store(tmp_path)
    writer = LabelWriter(store, "me")
    writer.append(task, Failure(task.key, "time-out", "longer than 3 s", 2, 6.0))
    kept = writer.append(task, Label(task.key, float("nan"), sane_forces(task.atoms)))
    assert isinstance(kept, Failure)
    store.refresh()
    assert store.find_label(task.atoms, "") is None
    found = store.find_failure(task.atoms, "x")
    assert found is not None
    assert (found.key, found.reason) == ("x", "not-finite")
    assert store.find_failure(task.atoms, "x", writers="you") is None
    assert store.find_failure(task.atoms, "x", n_known=2) is None
    writer.append(task, make_label(task))
    store.refresh()
    assert store.find_failure(task.atoms, "x") is None


def test_a_full_disk_loses_nothing_that_was_finished(small_disk: Path) -> None:
    store = open_store(small_disk / "store")
    writer = LabelWriter(store, "me")
    writer.append(make_task(), make_label(make_task()))
    with suppress(OSError), (small_disk / "junk").open("wb", buffering=0) as junk:
        while True:
            junk.write(bytes(512))
    n_kept = 1
    with pytest.raises(WriteError, match="what was finished is safe"):
        for number in range(1, 100):  # the last page of the file has some room
            n_kept += 1
            writer.append(make_task(number), make_label(make_task(number)))
    store.refresh()
    assert len(store) == n_kept < 100
    writer.close()
    assert not list(small_disk.rglob(".spare*"))


def test_what_is_in_the_store_is_not_calculated(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    options = {
        "calculator": f"{DOUBLES}.Moody",
        "arguments": {"trace": str(trace)},
        "store": "labels",
        "n_retries": 0,
    }
    tasks = [make_task(0), make_task(1), make_task(2, "broken")]

    def label(some: list[Task]) -> dict[str, Label | Failure]:
        labeller = CalculatorLabeller(settings(**options), tmp_path)
        return {outcome.key: outcome for outcome in labeller.label(deque(some))}

    first = label(tasks[1:])
    assert len(trace.read_text().splitlines()) == 2
    second = label(tasks)
    moods = [line.split()[0] for line in trace.read_text().splitlines()]
    assert len(moods) == 4  # a failure is tried again, a label is not
    one, other = first[tasks[1].key], second[tasks[1].key]
    assert isinstance(one, Label)
    assert isinstance(other, Label)
    assert (one.n_tries, other.n_tries) == (1, 0)
    assert one.energy == other.energy
    assert np.array_equal(one.forces, other.forces)
    assert not list((tmp_path / "labels").rglob(".spare*"))


def test_encoded_structures_have_the_name_of_the_original(tmp_path: Path) -> None:
    """A job reads structures from a file; their labels must be found by the originals."""
    from labelwise.campaign.labelling.encoding import decode_structure, encode_structure

    atoms = molecule("CH3OH")
    atoms.info |= {"total_charge": np.int64(1), "total_spin": 2, "k": np.arange(3)}
    atoms.set_initial_magnetic_moments([0.5] * len(atoms))
    level = settings(info_arguments={"charge": "total_charge", "k": "k"}).describe_level()
    copied = decode_structure(encode_structure(atoms))
    assert isinstance(copied, Atoms)
    assert level.name_label(copied) == level.name_label(atoms)
