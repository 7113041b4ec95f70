"""OC20 as it is downloaded: read as ASE reads it, passed over without parsing."""

from __future__ import annotations

from pathlib import Path

import ase.io
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelwise.errors import ArgumentError, DataSetError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.oc20 import correct_to_adsorption
from labelwise.structures.datasets.oc20_shards import FORMAT, Oc20Shards
from labelwise.structures.fixed_atoms import free_atoms
from tests.structures.datasets.oc20_files import (
    format_raw,
    format_record,
    make_frames,
    write_raw,
    write_text,
)


def read(path: Path, wanted: list[int] | None = None) -> list[LabelledStructure]:
    with Oc20Shards(path) as data:
        return list(data.iter_structures(wanted))


def check_same(one: LabelledStructure, other: LabelledStructure) -> None:
    assert one.entry == other.entry
    assert one.atoms.info == other.atoms.info
    assert one.atoms.arrays.keys() == other.atoms.arrays.keys()
    for key, values in one.atoms.arrays.items():
        assert np.array_equal(values, other.atoms.arrays[key]), key
    assert np.array_equal(one.atoms.cell.array, other.atoms.cell.array)
    assert np.array_equal(one.atoms.pbc, other.atoms.pbc)
    for first, second in zip(one.atoms.constraints, other.atoms.constraints, strict=True):
        assert np.array_equal(first.index, second.index)


def check_as_ase(found: LabelledStructure, atoms: ase.Atoms) -> None:
    assert np.array_equal(found.atoms.numbers, atoms.numbers)
    assert np.array_equal(found.atoms.positions, atoms.positions)
    assert np.array_equal(found.atoms.cell.array, atoms.cell.array)
    assert np.array_equal(found.atoms.pbc, atoms.pbc)
    assert np.array_equal(found.atoms.get_tags(), atoms.get_tags())
    assert np.array_equal(
        found.atoms.arrays["REF_forces"], atoms.get_forces(apply_constraint=False)
    )
    assert found.atoms.info["REF_energy"] == atoms.get_potential_energy()
    assert np.array_equal(free_atoms(found.atoms), free_atoms(atoms))


@pytest.mark.parametrize("xz", [True, False])
def test_structures_are_those_that_ase_reads(xz: bool, tmp_path: Path) -> None:
    frames = make_frames(5)
    shard = write_raw(tmp_path / "s2ef_val_id" / "s2ef_val_id", frames, xz=xz)
    found = read(tmp_path / "s2ef_val_id")
    text = "".join(map(format_raw, frames))
    (tmp_path / "plain.extxyz").write_text(text)
    read_by_ase = ase.io.read(tmp_path / "plain.extxyz", ":")
    for number, (one, atoms, frame) in enumerate(zip(found, read_by_ase, frames, strict=True)):
        check_as_ase(one, atoms)
        assert one.atoms.constraints[0].index.tolist() == np.flatnonzero(frame.fixed).tolist()
        assert np.abs(one.atoms.arrays["REF_forces"][frame.fixed == 1]).min() > 0
        info = one.atoms.info
        assert (info["sid"], info["fid"]) == (frame.sid, frame.fid)
        assert info["reference_energy"] == frame.reference
        assert info["adsorption_energy"] == frame.energy - frame.reference
        assert one.entry.name == f"val_id/0/{number}"
        assert (one.entry.family, one.entry.order) == (f"random{frame.sid}", frame.fid)
    assert [one.entry.name for one in read(shard)] == [one.entry.name for one in found]


numbers = st.floats(allow_nan=False, allow_infinity=False, width=64, min_value=-999, max_value=999)


@settings(suppress_health_check=list(HealthCheck))
@given(
    values=st.lists(numbers, min_size=6, max_size=6),
    style=st.sampled_from(["{!r}", "{:16.8f}", "{:.3e}", "{:+.17g}"]),
    mask=st.sampled_from("TF"),
    extra=st.sampled_from(["", " config={a b}", ' note="x \\"y\\" z"', " flag", " n=[1,2,3]"]),
    order=st.booleans(),
)
def test_ase_agrees_on_any_text(
    values: list[float], style: str, mask: str, extra: str, order: bool, tmp_path: Path
) -> None:
    x, y, z, *forces = map(style.format, values)
    columns = ["tags:I:1", "forces:R:3"], ["2", *forces]
    if order:
        columns = ["forces:R:3", "tags:I:1"], [*forces, "2"]
    properties = ":".join(["species:S:1:pos:R:3:move_mask:L:1", *columns[0]])
    comment = f'Lattice="9 0 0 1 8 0 2 3 7" Properties={properties} energy={values[0]!r}{extra}'
    line = " ".join(["Pt", x, y, z, mask, *columns[1]])
    text = f'1\n{comment} pbc="T F T"\n{line}\n'
    (tmp_path / "0.extxyz").write_text(text)
    (tmp_path / "0.txt").write_text("random1,frame2,3\n")
    (found,) = read(tmp_path)
    check_as_ase(found, ase.io.read(tmp_path / "0.extxyz"))


def test_entries_come_from_the_texts_alone(tmp_path: Path) -> None:
    frames = make_frames(6)
    for number, split in enumerate(["val_id", "val_ood_ads"]):
        folder = tmp_path / f"s2ef_{split}" / f"s2ef_{split}"
        write_raw(folder, frames[3 * number : 3 * number + 3])
    found = read(tmp_path)
    for shard in tmp_path.rglob("*.extxyz.xz"):
        shard.write_bytes(b"not read")
    with Oc20Shards(tmp_path) as data:
        entries = list(data.iter_entries())
    assert [entry.position for entry in entries] == list(range(6))
    for entry, one in zip(entries, found, strict=True):
        assert (entry.name, entry.family, entry.order, entry.split) == (
            one.entry.name,
            one.entry.family,
            one.entry.order,
            one.entry.split,
        )
    assert [entry.split for entry in entries] == ["val_id"] * 3 + ["val_ood_ads"] * 3


def test_shards_are_taken_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        write_raw(tmp_path / "s2ef_val_id_uncompressed", make_frames(1), number, xz=number == 2)
    names = [one.entry.name for one in read(tmp_path)]
    assert names == ["val_id/0/0", "val_id/2/0", "val_id/10/0"]


def test_wanted_structures_alone_are_parsed(tmp_path: Path) -> None:
    frames = make_frames(9)
    for number in range(3):
        write_raw(tmp_path / "s2ef_val_id", frames[3 * number : 3 * number + 3], number)
    everything = read(tmp_path)
    for wanted in ([0], [8], [2, 3], [1, 4, 7], []):
        for one, position in zip(read(tmp_path, wanted), wanted, strict=True):
            check_same(one, everything[position])
    parts = [format_raw(frame) for frame in frames[:3]]
    parts[1] = parts[1].replace("Cu", "??")
    write_text(tmp_path / "s2ef_val_id" / "0.extxyz.xz", parts)
    assert len(read(tmp_path, [0, 2, 5])) == 3
    with pytest.raises(DataSetError, match=r"0\.extxyz\.xz@1: an atom's line"):
        read(tmp_path, [0, 1])
    with pytest.raises(ArgumentError, match=r"position 9 is wanted .* holds 9 structures"):
        read(tmp_path, [0, 9])


def test_shards_without_wanted_structures_are_not_opened(tmp_path: Path) -> None:
    for number in range(2):
        write_raw(tmp_path / "s2ef_val_id", make_frames(2), number)
    (tmp_path / "s2ef_val_id" / "0.extxyz.xz").write_bytes(b"damaged")
    assert [one.entry.position for one in read(tmp_path, [3])] == [3]


# Adsorption energies.


def test_corrected_to_adsorption_energies(tmp_path: Path) -> None:
    (frame,) = make_frames(1)
    write_raw(tmp_path, [frame])
    (total,) = read(tmp_path)
    corrected = correct_to_adsorption(total)
    assert corrected.atoms.info["REF_energy"] == frame.energy - frame.reference
    assert corrected.atoms.info["energy_is"] == "adsorption"
    assert corrected.atoms.info["total_energy"] == frame.energy
    assert total.atoms.info["REF_energy"] == frame.energy
    assert "energy_is" not in total.atoms.info
    assert correct_to_adsorption(corrected) is corrected
    forces = total.atoms.arrays["REF_forces"]
    assert np.array_equal(corrected.atoms.arrays["REF_forces"], forces)
    assert np.array_equal(corrected.atoms.constraints[0].index, total.atoms.constraints[0].index)


def test_no_reference_energy(tmp_path: Path) -> None:
    (frame,) = make_frames(1)
    write_raw(tmp_path / "val_id", [frame])
    write_text(tmp_path / "val_id" / "0.txt.xz", [f"random{frame.sid},frame{frame.fid}\n"])
    (found,) = read(tmp_path)
    assert "reference_energy" not in found.atoms.info
    with pytest.raises(DataSetError, match="val_id/0/0: no reference energy is known"):
        correct_to_adsorption(found)


# Files that are damaged or not of the layout.


def test_a_text_that_is_not_there(tmp_path: Path) -> None:
    shard = write_raw(tmp_path, make_frames(1))
    assert FORMAT.recognise(tmp_path)
    (tmp_path / "0.txt.xz").unlink()
    assert not FORMAT.recognise(tmp_path)
    with pytest.raises(DataSetError, match=r"neither 0\.txt\.xz nor 0\.txt is beside it"):
        Oc20Shards(shard)
    shard.unlink()
    with pytest.raises(DataSetError, match="no file in it"):
        Oc20Shards(tmp_path)


def test_a_shard_twice_is_refused(tmp_path: Path) -> None:
    for xz in (True, False):
        write_raw(tmp_path / "s2ef_val_id", make_frames(1), xz=xz)
    with pytest.raises(DataSetError, match="are both shard 0 of val_id"):
        Oc20Shards(tmp_path)


@pytest.mark.parametrize(
    ("n_frames", "n_lines", "message"),
    [
        (3, 2, r"0\.extxyz\.xz@2: there is no line 2"),
        (2, 3, r"0\.extxyz\.xz@2: there is no structure 2"),
        (0, 1, r"0\.extxyz\.xz@0: there is no structure 0"),
    ],
)
def test_counts_that_differ(n_frames: int, n_lines: int, message: str, tmp_path: Path) -> None:
    frames = make_frames(3)
    write_text(tmp_path / "0.extxyz.xz", map(format_raw, frames[:n_frames]))
    write_text(tmp_path / "0.txt.xz", map(format_record, frames[:n_lines]))
    with pytest.raises(DataSetError, match=message):
        read(tmp_path)


@pytest.mark.parametrize(
    "line",
    [
        "random1,frame2,x\n",
        "random1,frame2,nan\n",
        "random1,frame2,3,4\n",
        "random1;frame2\n",
        "random,frame2,3\n",
        "random-1,frame2,3\n",
        "\n",
        f"random{'1' * 19},frame2,3\n",
    ],
)
def test_lines_of_another_layout(line: str, tmp_path: Path) -> None:
    frames = make_frames(3)
    write_raw(tmp_path, frames)
    lines = [format_record(frame) for frame in frames]
    write_text(tmp_path / "0.txt.xz", [*lines[:1], line, *lines[2:]])
    with pytest.raises(DataSetError, match=r"0\.txt\.xz@1: .*expected random<sid>,frame<fid>"):
        list(Oc20Shards(tmp_path).iter_entries())


@pytest.mark.parametrize("name", ["0.extxyz.xz", "0.txt.xz"])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_compressed_files_cut_short(name: str, part: float, tmp_path: Path) -> None:
    write_raw(tmp_path, make_frames(50))
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(part * len(content))])
    with pytest.raises(DataSetError, match=rf"{name}@\d+: damaged or cut short"):
        read(tmp_path)


@pytest.mark.parametrize("n_lost", [1, 5, 40, 90, 500, 520])
def test_plain_files_cut_short(n_lost: int, tmp_path: Path) -> None:
    shard = write_raw(tmp_path, make_frames(2), xz=False)
    content = shard.read_bytes()
    shard.write_bytes(content[:-n_lost])
    with pytest.raises(DataSetError, match=r"0\.extxyz@1: cut short"):
        read(tmp_path)


def test_damaged_in_the_middle(tmp_path: Path) -> None:
    shard = write_raw(tmp_path, make_frames(2000))
    content = bytearray(shard.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 8] = bytes(8)
    shard.write_bytes(content)
    with pytest.raises(DataSetError, match=r"0\.extxyz\.xz@\d+: damaged or cut short"):
        read(tmp_path)


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("move_mask:L:1", "move_mask:L:3", "move_mask:L:3"),
        ("pos:R:3", "pos:R:2", "pos:R:2"),
        (":forces:R:3", ":momenta:R:3", "no forces"),
        ("tags:I:1", "tags:R:1", "tags:R:1"),
        (":tags:I:1", "", "no tags"),
        (":tags:I:1", ":tags:I", r"Properties are"),
        (":tags:I:1", ":tags:I:one", r"Properties are"),
        (":tags:I:1", ":tags:I:1:more:R:100000000", r"100000000 columns of more"),
        (":tags:I:1", ":tags:I:1:more:R:1", "atom 0 has 9 columns, not the 10"),
        ("species:S:1:pos:R:3", "pos:R:3:species:S:1", "an atom's line cannot be parsed"),
        ("Properties=", "properties=", "Properties are ''"),
        ("Lattice=", "lattice=", "Lattice, energy and pbc are needed"),
        (" energy=", " Energy=", "Lattice, energy and pbc are needed"),
        ('pbc="T T T"', 'pbc="T T"', "Lattice, energy and pbc are needed"),
        (" energy=", " energy=nan energy_was=", "the energy: not finite"),
        ("Cu ", "Xy ", "an atom's line cannot be parsed"),
        ("Pt ", "Pt 1 ", "atom 2 has 10 columns, not the 9"),
        (" F  ", " N  ", "an atom's line cannot be parsed"),
        ("6\nLattice", "7\nLattice", "an atom|atom 6 has|cut short"),
        ("6\nLattice", "five\nLattice", "expected a number of atoms"),
        ("6\nLattice", "-6\nLattice", "expected a number of atoms"),
        ("6\nLattice", "99999999999\nLattice", "expected a number of atoms, up to"),
        ("6\nLattice", f"{'9' * 5000}\nLattice", "expected a number of atoms, up to"),
    ],
)
def test_frames_of_another_layout(before: str, after: str, message: str, tmp_path: Path) -> None:
    frames = make_frames(2)
    texts = [format_raw(frame) for frame in frames]
    assert before in texts[1]
    write_raw(tmp_path, frames)
    write_text(tmp_path / "0.extxyz.xz", [texts[0], texts[1].replace(before, after, 1)])
    with pytest.raises(DataSetError, match=rf"0\.extxyz\.xz@1: .*({message})"):
        read(tmp_path)


def test_numbers_that_are_not_finite(tmp_path: Path) -> None:
    (frame,) = make_frames(1)
    frame.positions[2, 1] = np.nan
    write_raw(tmp_path / "a", [frame])
    with pytest.raises(DataSetError, match="@0: positions: not finite"):
        read(tmp_path / "a")


def test_blank_lines_between_frames_are_passed_over(tmp_path: Path) -> None:
    frames = make_frames(2)
    write_raw(tmp_path, frames)
    write_text(tmp_path / "0.extxyz.xz", [f"{format_raw(frame)}\n\n" for frame in frames])
    assert len(read(tmp_path)) == 2


def test_what_the_format_says_of_itself(tmp_path: Path) -> None:
    assert FORMAT.name == "oc20-shards"
    assert FORMAT.write is None
    shard = write_raw(tmp_path / "a" / "s2ef_val_id" / "s2ef_val_id", make_frames(1))
    assert FORMAT.recognise(tmp_path / "a")
    assert FORMAT.recognise(shard)
    assert not FORMAT.recognise(shard.with_name("0.txt.xz"))
