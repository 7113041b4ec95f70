"""Files of LAMMPS that number types: copper, type 1, is not hydrogen."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from labelwise.errors import ReadError
from labelwise.structures import read_structures

DATA = """a comment

2 atoms
1 atom types
0 9 xlo xhi
0 9 ylo yhi
0 9 zlo zhi

{}Atoms # atomic

1 1 0 0 0
2 1 1.8 1.8 0
"""


def dump(columns: str, words: str) -> str:
    atoms = f"1 {words} 0 0 0\n2 {words} 1.8 1.8 0\n"
    box = "ITEM: BOX BOUNDS pp pp pp\n0 9\n0 9\n0 9\n"
    head = "ITEM: TIMESTEP\n{}\nITEM: NUMBER OF ATOMS\n2\n"
    return "".join(
        f"{head.format(step)}{box}ITEM: ATOMS id {columns} x y z\n{atoms}" for step in (0, 10)
    )


@pytest.mark.parametrize("name", ["cu.lammpstrj", "cu.dump", "cu.lammpstrj.gz", "dump.cu"])
def test_a_dump_of_types_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    text = dump("type", "1").encode()
    path.write_bytes(gzip.compress(text) if name.endswith(".gz") else text)
    with pytest.raises(ReadError, match=f"{name} has LAMMPS types and no elements; write the dump"):
        read_structures(path)


@pytest.mark.parametrize(
    ("columns", "words"), [("element", "Cu"), ("type element", "1 Cu"), ("type mass", "1 63.55")]
)
def test_a_dump_that_names_elements_is_read(tmp_path: Path, columns: str, words: str) -> None:
    path = tmp_path / "cu.lammpstrj"
    path.write_text(dump(columns, words))
    assert [str(atoms.symbols) for atoms in read_structures(path)] == ["Cu2", "Cu2"]


@pytest.mark.parametrize("section", ["", "Atom Type Labels\n\n1 copper\n\n"])
def test_a_data_file_of_types_is_refused(tmp_path: Path, section: str) -> None:
    path = tmp_path / "cu.lammps-data"
    path.write_text(DATA.format(section))
    with pytest.raises(ReadError, match=r"cu\.lammps-data has LAMMPS types .* section Masses"):
        read_structures(path)


@pytest.mark.parametrize("section", ["Masses\n\n1 63.55 # Cu\n\n", "Atom Type Labels\n\n1 Cu\n\n"])
def test_a_data_file_that_names_elements_is_read(tmp_path: Path, section: str) -> None:
    path = tmp_path / "cu.lammps-data"
    path.write_text(DATA.format(section))
    assert str(read_structures(path)[0].symbols) == "Cu2"
