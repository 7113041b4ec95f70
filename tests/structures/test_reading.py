from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
import time
from pathlib import Path

import ase.db
import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from ase.constraints import FixAtoms
from backports import zstd

from labelwise.errors import ArgumentError, LabelwiseWarning, ReadError
from labelwise.structures import (
    Source,
    iter_frames,
    read_sources,
    read_structures,
    write_structures,
)
from labelwise.structures.identity import make_fingerprint
from labelwise.structures.reading import count_frames, count_quickly, expand_specs, frames_of

COMPRESSORS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}


@pytest.fixture
def pool_file(tmp_path: Path, rattled_molecules: list[Atoms]) -> Path:
    for number, atoms in enumerate(rattled_molecules):
        atoms.info["number"] = number
    path = tmp_path / "pool.extxyz"
    ase.io.write(path, rattled_molecules)
    return path


def numbers(structures: list[Atoms]) -> list[int]:
    return [atoms.info["number"] for atoms in structures]


def test_equals_ase(pool_file: Path) -> None:
    ours = read_structures(pool_file)
    theirs = ase.io.read(pool_file, ":")
    assert len(ours) == len(theirs) == 30
    for a, b in zip(ours, theirs, strict=True):
        assert a == b
        assert a.info == b.info


@pytest.mark.parametrize(
    "text",
    [
        "3",
        "-1",
        ":5",
        "5:",
        "-5:",
        "2:20:3",
        "::-1",
        "20:2:-4",
        ":",
        ":-25",
        "40:50",
        "7:3",
        "-3:-1",
    ],
)
def test_slices_mean_what_python_means(pool_file: Path, text: str) -> None:
    parts = [int(part) if part else None for part in text.split(":")]
    everything = list(range(30))
    expected = [everything[parts[0]]] if len(parts) == 1 else everything[slice(*parts)]
    frames = list(iter_frames(f"{pool_file}@{text}"))
    assert numbers([frame.atoms for frame in frames]) == expected
    assert [frame.source.frame for frame in frames] == expected
    assert [frame.index for frame in frames] == list(range(len(expected)))


def test_globs_come_in_order_and_lists_as_given(pool_file: Path) -> None:
    for name, part in (("b1", ":2"), ("b2", "5:7")):
        ase.io.write(
            pool_file.parent / f"{name}.xyz",
            read_structures(f"{pool_file}@{part}"),
            format="extxyz",
        )
    assert numbers(read_structures(f"{pool_file.parent}/b*.xyz")) == [0, 1, 5, 6]
    listed = [pool_file.parent / "b2.xyz", f"{pool_file.parent}/b1.xyz@1"]
    assert numbers(read_structures(listed)) == [5, 6, 1]


def test_a_file_whose_name_holds_an_at_sign(pool_file: Path) -> None:
    odd = pool_file.parent / "run@3.extxyz"
    odd.write_bytes(pool_file.read_bytes())
    assert len(read_structures(odd)) == 30
    assert numbers(read_structures(f"{odd}@2")) == [2]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_files_read_the_same(pool_file: Path, suffix: str) -> None:
    packed = Path(f"{pool_file}{suffix}")
    packed.write_bytes(COMPRESSORS[suffix](pool_file.read_bytes()))
    assert read_structures(packed) == read_structures(pool_file)
    assert numbers(read_structures(f"{packed}@-2:")) == [28, 29]


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_concatenated_archives_are_read_to_the_end(pool_file: Path, suffix: str) -> None:
    packed = Path(f"{pool_file}{suffix}")
    packed.write_bytes(2 * COMPRESSORS[suffix](pool_file.read_bytes()))
    assert len(read_structures(packed)) == 60


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_compressed_trajectory(pool_file: Path, suffix: str) -> None:
    plain = pool_file.with_suffix(".traj")
    ase.io.write(plain, read_structures(pool_file))
    packed = Path(f"{plain}{suffix}")
    packed.write_bytes(COMPRESSORS[suffix](plain.read_bytes()))
    assert numbers(read_structures(f"{packed}@3:5")) == [3, 4]


def test_gzip_takes_linear_time(tmp_path: Path, water: Atoms) -> None:
    """Reading 16 times the frames must not take hundreds of times as long."""

    def seconds(n_frames: int) -> float:
        path = tmp_path / f"{n_frames}.extxyz.gz"
        ase.io.write(tmp_path / "one.extxyz", [water] * n_frames)
        path.write_bytes(gzip.compress((tmp_path / "one.extxyz").read_bytes()))
        start = time.perf_counter()
        assert len(read_structures(path)) == n_frames
        return time.perf_counter() - start

    seconds(50)
    assert min(seconds(1600) for _ in range(2)) < 16 * 4 * min(seconds(100) for _ in range(3))


def test_database_keeps_keys_and_scalar_data(tmp_path: Path, water: Atoms) -> None:
    path = tmp_path / "pool.db"
    with ase.db.connect(path) as database:
        for number in range(5):
            database.write(
                water,
                key_value_pairs={"number": number, "tag": "a"},
                data={"charge": -1, "big": np.zeros(3)},
            )
    frames = list(iter_frames(f"{path}@1:4"))
    assert numbers([frame.atoms for frame in frames]) == [1, 2, 3]
    assert frames[0].atoms.info == {"number": 1, "tag": "a", "charge": -1}
    assert frames[0].atoms.arrays["big"].tolist() == [0, 0, 0]


def test_blank_lines_between_frames_hide_nothing(pool_file: Path) -> None:
    text = pool_file.read_text()
    twice = pool_file.parent / "twice.xyz"
    twice.write_text(text + "\n  \n" + text + "\n\n")
    assert len(read_structures(twice)) == 60
    assert count_frames(twice) == 60


def test_cell_given_as_vec_lines(tmp_path: Path) -> None:
    path = tmp_path / "vec.xyz"
    frame = "1\ncomment\nC 0 0 0\nVEC1 3 0 0\nVEC2 0 3 0\nVEC3 0 0 3\n"
    path.write_text(frame + frame)
    structures = read_structures(path)
    assert [atoms.cell.volume for atoms in structures] == pytest.approx([27.0, 27.0])


def test_forces_of_fixed_atoms_survive(tmp_path: Path) -> None:
    path = tmp_path / "slab.extxyz"
    path.write_text(
        '2\nProperties=species:S:1:pos:R:3:move_mask:L:1:REF_forces:R:3 pbc="F F F"\n'
        "Cu 0 0 0 F 1 2 3\nCu 0 0 2.5 T 4 5 6\n"
    )
    atoms = read_structures(path)[0]
    assert isinstance(atoms.constraints[0], FixAtoms)
    assert atoms.arrays["REF_forces"].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_frames_can_be_read_again_in_any_order(pool_file: Path) -> None:
    packed = Path(f"{pool_file}.gz")
    packed.write_bytes(gzip.compress(pool_file.read_bytes()))
    sources = [Source(str(packed), 7), Source(str(pool_file), 29), Source(str(packed), 0)]
    assert numbers(read_sources(sources)) == [7, 29, 0]
    with pytest.raises(ReadError, match="no longer there"):
        read_sources([Source(str(pool_file), 30)])


@pytest.mark.parametrize("change", ["swap", "charge", "cell"])
def test_a_frame_that_is_another_now_is_refused(tmp_path: Path, water: Atoms, change: str) -> None:
    path = tmp_path / "pool.extxyz"
    other = water.copy()
    other.positions[0, 0] += 0.1
    write_structures(path, [water, other])
    sources = [Source(str(path), 0), Source(str(path), 1)]
    prints = [make_fingerprint(atoms) for atoms in read_structures([path])]
    assert len(read_sources(sources, prints)) == 2
    changed = other.copy()
    if change == "charge":
        changed.info["charge"] = 1
    elif change == "cell":
        changed.cell = [9, 9, 9]
    write_structures(path, [other, water] if change == "swap" else [water, changed])
    at = 0 if change == "swap" else 1
    with pytest.raises(ReadError, match=f"pool.extxyz@{at} is no longer the structure"):
        read_sources(sources, prints)
    assert len(read_sources(sources, [None, None])) == 2


BROKEN = {
    "not a count": ("hello\nworld\n", "expected a number of atoms, found 'hello'"),
    "negative": ("-3\n\n", "negative"),
    "cut in a frame": ("2\n\nH 0 0 0\n", "@0: cut short: 2 atoms announced, 1 found"),
    "huge count": ("999999999999\n\nH 0 0 0\n", "cut short"),
    "second frame": ("1\n\nH 0 0 0\n1\n\nH 0 zero 0\n", "@1: not a valid extended XYZ frame"),
    "unknown symbol": ("1\n\nXx 0 0 0\n", "@0"),
    "missing column": ("1\n\nH 0 0\n", "@0"),
    "bad properties": ("1\nProperties=species:Q:1\nH\n", "@0"),
}


@pytest.mark.parametrize("text,message", BROKEN.values(), ids=BROKEN)
def test_broken_text_names_file_and_frame(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "broken.xyz"
    path.write_text(text)
    with pytest.raises(ReadError) as caught:
        read_structures(path)
    assert message in str(caught.value)
    assert "broken.xyz" in str(caught.value)


@pytest.mark.parametrize("text", [":3", ":2", "1:3", "2", ":3:2"])
def test_the_first_frames_of_a_file_that_is_still_written(pool_file: Path, text: str) -> None:
    growing = pool_file.with_name("growing.extxyz")
    whole = pool_file.read_text()
    fourth = whole.index("number=3")
    growing.write_text(whole[: fourth + 40])
    spec = f"{growing}@{text}"
    n_wanted = len(read_structures(f"{pool_file}@{text}"))
    assert len(read_structures(spec)) == n_wanted
    assert count_quickly(spec) == n_wanted
    assert [len(frames_of(part)) for part in expand_specs(spec)] == [n_wanted]


@pytest.mark.parametrize("text", ["", "@::2", "@-2:"])
def test_counting_leaves_it_to_reading_to_tell(pool_file: Path, text: str) -> None:
    growing = pool_file.with_name("growing.extxyz")
    growing.write_text(pool_file.read_text().rsplit("\n", 2)[0] + "\n")
    assert count_quickly(f"{growing}{text}") is None
    with pytest.raises(ReadError, match=r"@29: cut short: .* what is whole: .*extxyz@:29"):
        read_structures(f"{growing}{text}")


@pytest.mark.parametrize("name", ["set.h5", "set.hdf5", "set.lmdb"])
def test_data_sets_name_the_command_that_converts(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(ReadError, match=f"labelwise data export .*{name} --to mace-extxyz --out"):
        read_structures(path)


@pytest.mark.parametrize("suffix", COMPRESSORS)
def test_damaged_archives_are_named(pool_file: Path, suffix: str) -> None:
    packed = Path(f"{pool_file}{suffix}")
    whole = COMPRESSORS[suffix](pool_file.read_bytes())
    for content in (whole[: len(whole) // 2], b"not compressed at all", b""):
        packed.write_bytes(content)
        if not content and suffix in {".gz", ".bz2", ".zst"}:
            continue  # these decoders take an empty file for an empty stream
        with pytest.raises(ReadError, match=r"pool\.extxyz"):
            read_structures(packed)


def test_not_text(tmp_path: Path) -> None:
    path = tmp_path / "pool.xyz"
    path.write_bytes(b"1\n\xff\xfe\nH 0 0 0\n")
    with pytest.raises(ReadError, match="not UTF-8 text"):
        read_structures(path)


@pytest.mark.parametrize("name", ["pool.traj", "pool.db", "pool.cif", "pool.nonsense"])
def test_garbage_in_other_formats(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\x00garbage\x01" * 20)
    with pytest.raises(ReadError, match=name):
        read_structures(path)


def test_a_file_without_structures_is_told(tmp_path: Path) -> None:
    path = tmp_path / "copper.data"  # of LAMMPS; to ASE the name says RuNNer
    path.write_text("LAMMPS data\n\n1 atoms\n1 atom types\n\nAtoms # atomic\n\n1 1 0 0 0\n")
    with pytest.warns(LabelwiseWarning, match=r"copper.data was read as runnerdata.* no struct"):
        assert read_structures(path) == []


@pytest.mark.parametrize(
    ("symbol", "message"),
    [("OW", "'OW' is not known; is it an element's"), ("1", "'1' is not known; are these LAMMPS")],
)
def test_symbols_in_a_dump_that_are_no_elements(tmp_path: Path, symbol: str, message: str) -> None:
    path = tmp_path / "water.lammpstrj"
    path.write_text(
        "ITEM: TIMESTEP\n0\nITEM: NUMBER OF ATOMS\n1\nITEM: BOX BOUNDS pp pp pp\n0 4\n0 4\n0 4\n"
        f"ITEM: ATOMS id element x y z\n1 {symbol} 0 0 0\n"
    )
    with pytest.raises(ReadError, match=re.escape(message)):
        read_structures(path)


def test_what_is_not_there(tmp_path: Path, pool_file: Path) -> None:
    with pytest.raises(ReadError, match="no such file"):
        read_structures(tmp_path / "absent.xyz")
    with pytest.raises(ReadError, match="no file matches"):
        read_structures(f"{tmp_path}/*.nothing")
    with pytest.raises(ReadError, match="is a directory"):
        read_structures(tmp_path)
    with pytest.raises(ReadError, match="has no frame 30; it holds 30"):
        read_structures(f"{pool_file}@30")
    with pytest.raises(ArgumentError, match="not a slice"):
        read_structures(f"{pool_file}@one")
    with pytest.raises(ArgumentError, match="not a slice"):
        read_structures(f"{pool_file}@::0")
    with pytest.raises(ArgumentError, match="no structure file"):
        read_structures([])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(pool_file: Path) -> None:
    pool_file.chmod(0)
    with pytest.raises(ReadError, match="Permission denied"):
        read_structures(pool_file)


def test_a_charge_in_a_database_is_the_one_that_was_stored(tmp_path: Path) -> None:
    with ase.db.connect(tmp_path / "rows.db") as database:
        database.write(molecule("OH"), charge=-1, spin=1)
    (atoms,) = read_structures(tmp_path / "rows.db")
    assert (atoms.info["charge"], atoms.info["spin"]) == (-1, 1)
