"""OC20's LMDB shards: every digit comes back, and no pickle runs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError, DataSetError, MissingDependencyError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.oc20_lmdb import FORMAT, Oc20Lmdb
from tests.structures.datasets.oc20_files import (
    Frame,
    Layout,
    make_fields,
    make_frames,
    pickle_data,
    write_frames_lmdb,
    write_lmdb,
)


def read(path: Path, wanted: list[int] | None = None) -> list[LabelledStructure]:
    with Oc20Lmdb(path) as data:
        return list(data.iter_structures(wanted))


def check(found: LabelledStructure, frame: Frame) -> None:
    atoms = found.atoms
    assert np.array_equal(atoms.numbers, frame.numbers)
    assert np.array_equal(atoms.positions, frame.positions.astype(np.float64))
    assert np.array_equal(atoms.arrays["REF_forces"], frame.forces.astype(np.float64))
    assert np.array_equal(atoms.cell.array, frame.cell.astype(np.float64))
    assert atoms.pbc.all()
    assert atoms.info["REF_energy"] == frame.energy
    assert np.array_equal(atoms.get_tags(), frame.tags)
    assert np.array_equal(np.flatnonzero(frame.fixed), atoms.constraints[0].index)
    assert (atoms.info["sid"], atoms.info["fid"]) == (frame.sid, frame.fid)
    assert (found.entry.family, found.entry.order) == (f"random{frame.sid}", frame.fid)


@pytest.mark.parametrize("layout", ["store", "slots"])
def test_every_digit_comes_back(layout: Layout, tmp_path: Path) -> None:
    frames = make_frames(4)
    write_frames_lmdb(tmp_path / "val_id" / "data.0000.lmdb", frames, layout)
    found = read(tmp_path / "val_id")
    for one, frame in zip(found, frames, strict=True):
        check(one, frame)
    assert [one.entry.name for one in found] == [f"val_id/data.0000/{i}" for i in range(4)]
    assert {one.entry.split for one in found} == {"val_id"}
    assert "reference_energy" not in found[0].atoms.info


def test_old_and_new_in_one_shard(tmp_path: Path) -> None:
    frames = make_frames(2)
    values = [
        pickle_data(make_fields(frames[0], old=True), "slots"),
        pickle_data(make_fields(frames[1]), "store"),
    ]
    for one, frame in zip(read(write_lmdb(tmp_path / "data.lmdb", values)), frames, strict=True):
        check(one, frame)


def test_splits_and_shards_in_order(tmp_path: Path) -> None:
    frames = make_frames(14)
    for number, (split, shard) in enumerate(
        [("train", 0), ("train", 2), ("train", 10), ("val_id", 0), ("val_ood_both", 0)]
    ):
        folder = tmp_path / "s2ef" / "all" / split
        write_frames_lmdb(folder / f"data.{shard:d}.lmdb", frames[2 * number : 2 * number + 2])
    path = tmp_path / "s2ef"
    with Oc20Lmdb(path) as data:
        entries = list(data.iter_entries())
    assert [entry.position for entry in entries] == list(range(10))
    assert [entry.name for entry in entries[::2]] == [
        "train/data.0/0",
        "train/data.2/0",
        "train/data.10/0",
        "val_id/data.0/0",
        "val_ood_both/data.0/0",
    ]
    found = read(path)
    assert [one.entry.name for one in found] == [entry.name for entry in entries]
    assert [one.entry.split for one in found] == [entry.split for entry in entries]
    for one, frame in zip(found, frames, strict=False):
        check(one, frame)
    picked = read(path, [1, 4, 9])
    assert [one.entry for one in picked] == [found[i].entry for i in (1, 4, 9)]


def test_a_file_alone_has_a_split_only_where_its_folder_is_one(tmp_path: Path) -> None:
    frames = make_frames(1)
    for folder, split, name in (
        ("val_ood_cat", "val_ood_cat", "val_ood_cat/data.0001/0"),
        ("mine", None, "data.0001/0"),
    ):
        path = write_frames_lmdb(tmp_path / folder / "data.0001.lmdb", frames)
        (found,) = read(path)
        assert (found.entry.split, found.entry.name) == (split, name)


def test_the_same_split_twice_is_refused(tmp_path: Path) -> None:
    for size in ("200k", "2M"):
        write_frames_lmdb(tmp_path / size / "train" / "data.0000.lmdb", make_frames(1))
    with pytest.raises(DataSetError, match=r"200k/train.*shard data\.0000 of train"):
        Oc20Lmdb(tmp_path)


def test_wanted_positions_outside_or_not_ascending(tmp_path: Path) -> None:
    path = write_frames_lmdb(tmp_path / "data.0000.lmdb", make_frames(3))
    with pytest.raises(ArgumentError, match=r"position 3 is wanted .* holds 3 structures"):
        read(path, [1, 3])
    for wanted in ([1, 1], [2, 0], [-1]):
        with pytest.raises(ArgumentError, match="must ascend"):
            read(path, wanted)
    assert read(path, []) == []


def test_two_readings_side_by_side(tmp_path: Path) -> None:
    for shard in range(2):
        write_frames_lmdb(tmp_path / "train" / f"data.{shard}.lmdb", make_frames(2, seed=shard))
    with Oc20Lmdb(tmp_path) as data:
        pairs = list(zip(data.iter_structures(), data.iter_structures([2, 3]), strict=False))
        assert [(one.entry.position, other.entry.position) for one, other in pairs] == [
            (0, 2),
            (1, 3),
        ]
        data.close()
        assert len(list(data.iter_entries())) == 4


def test_reading_leaves_a_folder_as_it_was(tmp_path: Path) -> None:
    path = write_frames_lmdb(tmp_path / "val_id" / "data.0000.lmdb", make_frames(2))
    (path.parent / "data.0000.lmdb-lock").unlink(missing_ok=True)
    before = path.read_bytes()
    path.chmod(0o444)
    path.parent.chmod(0o555)
    try:
        assert len(read(path.parent)) == 2
        assert list(path.parent.iterdir()) == [path]
        assert path.read_bytes() == before
    finally:
        path.parent.chmod(0o755)


def test_only_published_names_are_recognised(tmp_path: Path) -> None:
    frames = make_frames(1)
    write_frames_lmdb(tmp_path / "a" / "s2ef" / "all" / "val_id" / "data.0000.lmdb", frames)
    write_frames_lmdb(tmp_path / "b" / "other.lmdb", frames)
    (tmp_path / "c").mkdir()
    assert FORMAT.recognise(tmp_path / "a" / "s2ef")
    assert FORMAT.recognise(tmp_path / "a" / "s2ef" / "all" / "val_id" / "data.0000.lmdb")
    assert not FORMAT.recognise(tmp_path / "b")
    assert not FORMAT.recognise(tmp_path / "c")
    assert len(read(tmp_path / "b")) == 1
    assert FORMAT.write is None
    with pytest.raises(DataSetError, match="no file in it"):
        Oc20Lmdb(tmp_path / "c")


def test_torch_geometric_is_not_imported(tmp_path: Path) -> None:
    path = write_frames_lmdb(tmp_path / "data.0000.lmdb", make_frames(1))
    program = (
        "import sys; from pathlib import Path\n"
        "from labelwise.structures.datasets.oc20_lmdb import FORMAT\n"
        f"with FORMAT.open(Path({str(path)!r})) as data: print(len(list(data.iter_structures())))\n"
        "print([name for name in sys.modules if name.startswith('torch_geometric')])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.split() == ["1", "[]"], done.stderr


def test_arrays_may_be_changed_whatever_their_type(tmp_path: Path) -> None:
    fields = make_fields(make_frames(1)[0])
    fields["forces"], fields["pos"] = fields["forces"].double(), fields["pos"].double()
    (found,) = read(write_lmdb(tmp_path / "data.lmdb", [pickle_data(fields)]))
    found.atoms.positions += 1
    found.atoms.arrays["REF_forces"] *= 2
    assert np.array_equal(found.atoms.arrays["REF_forces"], 2 * fields["forces"].numpy())


def test_lmdb_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[data\]"):
        Oc20Lmdb(tmp_path)


def test_two_readers_of_a_file_in_one_process(tmp_path: Path) -> None:
    path = write_frames_lmdb(tmp_path / "data.0000.lmdb", make_frames(1))
    with Oc20Lmdb(path) as one, Oc20Lmdb(path) as other:
        assert len(list(one.iter_entries())) == 1
        assert len(list(other.iter_structures())) == 1
        one.close()
        assert len(list(other.iter_entries())) == 1


# Files that are damaged or not of the layout.


def test_a_count_need_not_be_there(tmp_path: Path) -> None:
    values = [pickle_data(make_fields(frame)) for frame in make_frames(3)]
    path = write_lmdb(tmp_path / "data.lmdb", values, count=None)
    assert len(read(path)) == 3


@pytest.mark.parametrize(
    ("count", "message"),
    [
        (5, "'length' says 5 structures; it holds 3"),
        (2, "'length' says 2, but there is a key 2"),
        (-1, "'length' says -1"),
        ("3", "'length' says '3'"),
        (10**30, "'length' says 1000"),
    ],
)
def test_a_wrong_count(count: object, message: str, tmp_path: Path) -> None:
    values = [pickle_data(make_fields(frame)) for frame in make_frames(3)]
    path = write_lmdb(tmp_path / "data.lmdb", values, count=count)
    with pytest.raises(DataSetError, match=message), Oc20Lmdb(path) as data:
        list(data.iter_entries())


def test_a_key_that_is_not_there(tmp_path: Path) -> None:
    values = [pickle_data(make_fields(frame)) for frame in make_frames(3)]
    path = write_lmdb(tmp_path / "data.lmdb", values)
    with (
        lmdb.open(str(path), subdir=False, lock=False) as environment,
        environment.begin(write=True) as transaction,
    ):
        transaction.delete(b"1")
        transaction.put(b"01", values[1])
    with pytest.raises(DataSetError, match=r"data\.lmdb@1: no such key"):
        read(path)


@pytest.mark.parametrize(
    "part",
    [0.5, *(pytest.param(part, marks=pytest.mark.thorough) for part in (0.0, 0.001, 0.1, 0.999))],
)
def test_a_file_cut_short_is_told_and_does_not_kill(part: float, tmp_path: Path) -> None:
    path = write_frames_lmdb(tmp_path / "data.0000.lmdb", make_frames(40))
    content = path.read_bytes()
    path.write_bytes(content[: int(part * len(content))])
    program = (
        "from pathlib import Path; from labelwise.structures.datasets.oc20_lmdb import FORMAT\n"
        f"with FORMAT.open(Path({str(path)!r})) as data: list(data.iter_structures())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert "DataSetError" in last
    assert "data.0000.lmdb " in last


def test_a_file_that_is_no_lmdb(tmp_path: Path) -> None:
    path = tmp_path / "data.0000.lmdb"
    path.write_bytes(b"nothing of the kind" * 1000)
    with pytest.raises(DataSetError, match=r"data\.0000\.lmdb is not an LMDB file"):
        read(path)


def broken(**changes: Any) -> dict[str, Any]:
    fields = {**make_fields(make_frames(1)[0]), **changes}
    return {name: value for name, value in fields.items() if value is not None}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"energy": None}, "no field energy or y; there are atomic_numbers"),
        ({"forces": None}, "no field forces or force"),
        ({"tags": None}, "no field tags"),
        ({"energy": float("nan")}, "the energy: not finite"),
        ({"energy": torch.tensor([1.0, 2.0])}, "the energy: 2 numbers; expected one"),
        ({"energy": "-3.5"}, "energy: neither numbers nor a tensor"),
        ({"pos": torch.full((6, 3), float("nan"))}, "positions: not finite"),
        ({"forces": torch.full((6, 3), float("inf"))}, "forces: not finite"),
        ({"forces": torch.zeros(5, 3)}, r"forces: shape \(5, 3\); expected \(6, 3\)"),
        ({"pos": torch.zeros(18)}, r"positions: shape \(18,\)"),
        ({"cell": torch.eye(3)[:2]}, r"the cell: shape \(2, 3\)"),
        ({"cell": torch.full((1, 3, 3), float("nan"))}, "the cell: not finite"),
        ({"natoms": 7}, "natoms is 7; atomic_numbers has 6"),
        ({"atomic_numbers": torch.tensor([1.5] * 6)}, "atomic_numbers: not integers"),
        ({"atomic_numbers": torch.full((6,), float("nan"))}, "atomic_numbers: not integers"),
        ({"atomic_numbers": torch.zeros(6)}, "atomic numbers are .* allowed are 1-118"),
        ({"tags": torch.tensor([0.5] * 6)}, "tags: not integers"),
        ({"tags": torch.zeros(5)}, r"tags: shape \(5,\)"),
        ({"fixed": torch.full((6,), 2)}, "fixed: .*allowed are 1, fixed, and 0"),
        ({"fixed": torch.zeros(1)}, r"fixed atoms: shape \(1,\)"),
        ({"sid": torch.tensor([1, 2])}, "sid: 2 numbers; expected one"),
        ({"sid": "other7"}, "sid: neither numbers"),
    ],
)
def test_fields_that_are_wrong(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    values = [pickle_data(make_fields(make_frames(1)[0])), pickle_data(broken(**changes))]
    path = write_lmdb(tmp_path / "data.lmdb", values)
    with pytest.raises(DataSetError, match=rf"data\.lmdb@1: {message}"):
        read(path)


@pytest.mark.parametrize(
    "value", ["random77", torch.tensor([77]), np.int64(77), torch.tensor(77.0)]
)
def test_other_ways_to_store_a_number(value: object, tmp_path: Path) -> None:
    path = write_lmdb(tmp_path / "data.lmdb", [pickle_data(broken(sid=value, fid=None))])
    (found,) = read(path)
    assert (found.entry.family, found.entry.order) == ("random77", None)
    assert found.atoms.info["sid"] == 77


def test_no_relaxation_and_a_reference_energy(tmp_path: Path) -> None:
    fields = broken(sid=None, fid=None, reference_energy=np.float64(-1.25))
    (found,) = read(write_lmdb(tmp_path / "data.lmdb", [pickle_data(fields)]))
    assert (found.entry.family, found.entry.order) == (None, None)
    assert found.atoms.info["reference_energy"] == -1.25
    assert found.atoms.info["REF_energy"] == fields["energy"]
