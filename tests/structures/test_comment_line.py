"""Keys of the comment line in any case, and cells that are not understood."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ReadError
from labelwise.structures import Screen, get_labels, iter_frames, iter_unscreened, read_structures

NINE = "3.5 0 0 1 3.6 0 0 0 3.7"
CELL = [[3.5, 0, 0], [1, 3.6, 0], [0, 0, 3.7]]
USUAL = "Properties=species:S:1:pos:R:3:forces:R:3 energy=-3.0"
ROWS = "Cu 0 0 0 0.1 0.2 0.3\nCu 1.7 1.7 0 0.4 0.5 0.6\n"
FORCES = [[0.1, 0.2, 0.3], [0.4, 0.5, 0.6]]


def read(folder: Path, comment: str, rows: str = ROWS) -> Atoms:
    path = folder / "pool.xyz"
    path.write_text(f"{len(rows.splitlines())}\n{comment}\n{rows}")
    (atoms,) = read_structures(path)
    return atoms


@pytest.mark.parametrize(
    "comment",
    [
        f'Lattice="{NINE}" {USUAL}',
        f'lattice="{NINE}" properties=species:S:1:pos:R:3:force:R:3 energy=-3.0',
        f'LATTICE="{NINE}" PROPERTIES=Species:S:1:POS:R:3:Forces:R:3 ENERGY=-3.0',
        f"lattice='{NINE}' {USUAL}",
        f"Energy=-3.0 lattice=[{NINE}] Properties=species:s:1:pos:r:3:FORCE:R:3",
        f"lattice={{{NINE}}} {USUAL}",
        f"lattice={NINE.replace(' ', ',')} {USUAL}",
        f'lattice="{NINE}" Lattice="{NINE}" {USUAL}',
        f'Lattice="{NINE}" lattice=fcc {USUAL}',
    ],
)
def test_a_crystal_in_any_spelling(tmp_path: Path, comment: str) -> None:
    atoms = read(tmp_path, comment)
    assert atoms.cell.array.tolist() == CELL
    assert atoms.pbc.all()
    assert atoms.get_chemical_symbols() == ["Cu", "Cu"]
    labels = get_labels(atoms, "", energy_key="energy", forces_key="forces")
    assert (labels.energy, labels.forces.tolist()) == (-3.0, FORCES)


def test_own_names_of_labels_are_kept_beside_the_usual_ones(tmp_path: Path) -> None:
    atoms = read(tmp_path, "Properties=species:S:1:pos:R:3:force:R:3 Energy=-3.0")
    own = get_labels(atoms, "", energy_key="Energy", forces_key="force")
    assert (own.energy, own.forces.tolist()) == (-3.0, FORCES)


@pytest.mark.parametrize("word", ["PBC", "Pbc", "pbc"])
@pytest.mark.parametrize("value", ["T T F", "t t f", "True True False", "1 1 0"])
def test_periodic_directions_in_any_spelling(tmp_path: Path, word: str, value: str) -> None:
    atoms = read(tmp_path, f'lattice="{NINE}" {word}="{value}" {USUAL}')
    assert atoms.pbc.tolist() == [True, True, False]


def test_a_cell_without_columns(tmp_path: Path) -> None:
    atoms = read(tmp_path, f'lattice="{NINE}"', "Cu 0 0 0\nCu 1.7 1.7 0\n")
    assert atoms.cell.array.tolist() == CELL


@pytest.mark.parametrize(
    ("comment", "message"),
    [
        (f'lattice="3.5 3.5 3.5" {USUAL}', "lattice has 3 numbers; a cell has nine"),
        (f"lattice=3.5 0 0 0 3.5 0 0 0 3.5 {USUAL}", "lattice has 1 numbers"),
        (f'Lattice="{NINE}" lattice="9 0 0 0 9 0 0 0 9" {USUAL}', "two different cells"),
        (f'Lattice="{NINE}" pbc="T T" {USUAL}', "pool.xyz@0"),
        (f'Lattice="{NINE}" pbc="yes" {USUAL}', "pbc is 'yes'"),
        (f'Lattice="{NINE}" Properties=type:I:1:pos:R:3', "species and pos are needed"),
        (f'Lattice="{NINE}" Properties=species:S:1:xyz:R:3', "species and pos are needed"),
    ],
)
def test_what_is_not_understood_is_refused(tmp_path: Path, comment: str, message: str) -> None:
    with pytest.raises(ReadError, match="not a valid extended XYZ frame") as caught:
        read(tmp_path, comment)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "comment",
    [
        f"Lattice {NINE}",
        "# CELL(abcABC):   9.0   9.0   9.0  90.0  90.0  90.0  Step: 0 positions{angstrom}",
        'cell="9 9 9" energy=-1',
        "box: 9.0, 9.0, 9.0",
        "unit_cell=[[9.0, 0, 0], [0, 9, 0], [0, 0, 9]]",
        "lattice=fcc a=3.5",
        'box="9 9 9" pbc="T T T"',
        "a=3.6 b=3.6 c=3.6 alpha=90 beta=90 gamma=90 energy=-1",
    ],
)
def test_a_cell_in_other_words_is_told_not_dropped(tmp_path: Path, comment: str) -> None:
    path = tmp_path / "pool.xyz"
    path.write_text(f"2\n{comment}\nCu 0 0 0\nCu 1.7 1.7 0\n")
    with pytest.raises(ReadError, match=r"pool\.xyz@0: the comment line says .* write it as Latt"):
        list(iter_frames(path))
    (frame,) = iter_unscreened(path)
    found = Screen(None).check_pool(frame)
    assert found is not None
    assert found.reason == "bad-cell"


@pytest.mark.parametrize(
    "comment",
    [
        "cubic lattice of copper",
        "Lattice constants and Properties of a pbc box under stress",
        "energy: -5.07 gnorm: 0.001 xtb: 6.6.1",
        "i = 12, time = 6.000, E = -17.1643",
        'cell="9 9 9" pbc="F F F"',
        "lattice=fcc pbc='F F F'",
        "water in a box, step 5",
        "",
    ],
)
def test_words_that_are_no_keys(tmp_path: Path, comment: str) -> None:
    atoms = read(tmp_path, comment, "Cu 0 0 0\nCu 1.7 1.7 0\n")
    assert not atoms.pbc.any()
    assert np.array_equal(atoms.positions, [[0, 0, 0], [1.7, 1.7, 0]])
