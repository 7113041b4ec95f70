"""Whatever a file holds, the answer is a batch or a clear error, never a traceback."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import write
from backports import zstd
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labelwise.cli import main
from labelwise.cli import select as select_module
from labelwise.potentials import Potential
from labelwise.structures import read_structures

EXIT_CODES = {0, 1}
COMPRESSORS = {
    "": bytes,
    ".gz": lambda data: gzip.compress(data, mtime=0),
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": zstd.compress,
}
hostile = settings(suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module", autouse=True)
def _loaded_once(potential: Potential) -> object:
    """Give every run of the command the same model, loaded once."""
    original = select_module.load_model
    select_module.load_model = lambda *_, **__: potential
    yield
    select_module.load_model = original


def choose(path: Path, *more: str) -> tuple[int, str]:
    """Run ``select`` on a file and return the exit code and what went to standard error."""
    out = path.parent / "batch.extxyz"
    out.unlink(missing_ok=True)
    stderr = io.StringIO()
    with warnings.catch_warnings():
        warnings.simplefilter("default")  # a warning for the user is no defect here
        from labelwise.cli import console

        console.errors.file = stderr
        n_select = () if "--n-select" in more else ("-n", "1")
        words = ["--model", "any", "--pool", str(path), *n_select, "-q", *more]
        code = main(["select", *words, "--out", str(out)])
        console.errors.file = None
    if code == 0:
        assert len(read_structures(out)) == (3 if "--n-select" in more else 1)
    else:
        assert not out.exists()
    return code, stderr.getvalue()


def assert_answered(code: int, message: str) -> None:
    assert code in EXIT_CODES
    assert "Traceback" not in message
    if code:
        assert re.search(r"^error: ", message, re.MULTILINE)
        assert len(message) < 2000


def sound_text() -> str:
    text = io.StringIO()
    frames = [molecule("H2O"), bulk("C", "diamond", a=3.57), molecule("CH3CHO")]
    frames[0].info["energy"] = -1.0
    frames[2].arrays["REF_forces"] = np.zeros((7, 3))
    write(text, frames, format="extxyz")
    return text.getvalue()


SOUND = sound_text()
TOKENS = [
    "nan", "inf", "-inf", "1e308", "-1e309", "1e-320", "0", "-1", "99999999999999999999",
    "", " ", "\n", "\t", "\x00", "Xx", "X", "U", "Og", "e", '"', "'", "{", "}", "[", "]", "=",
    'Lattice="0 0 0 0 0 0 0 0 0"', 'Lattice="1 2 3"', 'Lattice="nan 0 0 0 1 0 0 0 1"',
    'pbc="T T T"', 'pbc="maybe"', "Properties=species:S:1", "Properties=pos:R:3:species:S:1",
    "Properties=species:S:1:pos:R:-3", "_JSON [1, 2", "energy=high", "é", "VEC1 1 0 0", "#",
    'Lattice="5 0 0 0 5 0 0 0 1e-7" pbc="T T T"', 'Lattice="1e300 0 0 0 1e300 0 0 0 1e300"',
]  # fmt: skip


@st.composite
def mutated_texts(draw: st.DrawFn) -> bytes:
    """Sound text with words replaced, and stretches cut, doubled or overwritten."""
    text = SOUND
    for _ in range(draw(st.integers(1, 5))):
        kind = draw(st.sampled_from(["token", "token", "cut", "double", "bytes"]))
        start = draw(st.integers(0, max(0, len(text) - 1)))
        stop = min(len(text), start + draw(st.integers(0, 40)))
        if kind == "token":
            words = text.split(" ")
            place = draw(st.integers(0, len(words) - 1))
            words[place] = draw(st.sampled_from(TOKENS))
            text = " ".join(words)
        elif kind == "cut":
            text = text[:start] + text[stop:]
        elif kind == "double":
            text = text[:stop] + text[start:]
        else:
            text = text[:start] + draw(st.text(max_size=8)) + text[stop:]
    return text.encode("utf-8", errors="replace")


@st.composite
def damaged_archives(draw: st.DrawFn) -> tuple[str, bytes]:
    """Mutated text, packed, and sometimes damaged once more."""
    suffix = draw(st.sampled_from(sorted(COMPRESSORS)))
    data = COMPRESSORS[suffix](draw(mutated_texts()))
    if draw(st.booleans()):
        place = draw(st.integers(0, max(0, len(data) - 1)))
        data = draw(
            st.sampled_from(
                [data[:place], data[:place] + b"\xff" + data[place + 1 :], data + b"junk", b""]
            )
        )
    return suffix, data


@hostile
@given(damaged=damaged_archives())
def test_mutated_and_damaged_files(
    tmp_path_factory: pytest.TempPathFactory, damaged: tuple[str, bytes]
) -> None:
    suffix, data = damaged
    path = tmp_path_factory.getbasetemp() / f"hostile.extxyz{suffix}"
    path.write_bytes(data)
    assert_answered(*choose(path))


numbers = st.one_of(
    st.floats(-8, 8),
    st.sampled_from([0.0, 1e-12, 1e4, 1e8, 1e16, 1e300, np.nan, np.inf, -np.inf]),
)


@st.composite
def odd_structures(draw: st.DrawFn) -> list[Atoms]:
    """Structures with every kind of geometry, element, cell and periodicity."""
    structures = []
    for _ in range(draw(st.integers(1, 4))):
        n_atoms = draw(st.integers(0, 6))
        elements = draw(st.lists(st.sampled_from([1, 6, 7, 8, 8, 1, 0, 92]), min_size=n_atoms,
                                 max_size=n_atoms))  # fmt: skip
        positions = draw(
            st.lists(st.tuples(numbers, numbers, numbers), min_size=n_atoms, max_size=n_atoms)
        )
        atoms = Atoms(elements, np.array(positions, dtype=float).reshape(-1, 3))
        if draw(st.booleans()):
            cell = draw(st.lists(numbers, min_size=9, max_size=9))
            atoms.cell[:] = np.array(cell).reshape(3, 3)
        atoms.pbc = draw(st.tuples(st.booleans(), st.booleans(), st.booleans()))
        structures.append(atoms)
    return structures


@hostile
@given(structures=odd_structures(), rule=st.sampled_from(["pv", "lcmd", "k-center", "top"]))
def test_odd_structures(
    tmp_path_factory: pytest.TempPathFactory, structures: list[Atoms], rule: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "odd.extxyz"
    write(path, structures, format="extxyz")
    code, message = choose(path, "--rule", rule)
    assert_answered(code, message)
    if code:
        assert "can be chosen; " in message or "not a valid extended XYZ" in message, message


CORPUS = {
    "empty.xyz": b"",
    "blank.xyz": b"\n\n\n",
    "zero_atoms.xyz": b"0\n\n",
    "zero_atoms_no_comment.xyz": b"0",
    "only_count.xyz": b"3",
    "count_and_comment.xyz": b"3\ncomment\n",
    "float_count.xyz": b"3.0\n\nH 0 0 0\nH 0 0 1\nH 0 1 0\n",
    "windows.xyz": b"2\r\n\r\nH 0 0 0\r\nH 0 0 0.8\r\n",
    "byte_order_mark.xyz": b"\xef\xbb\xbf2\n\nH 0 0 0\nH 0 0 0.8\n",
    "utf16.xyz": "2\n\nH 0 0 0\nH 0 0 0.8\n".encode("utf-16"),
    "binary.xyz": bytes(range(256)) * 4,
    "picture.png": b"\x89PNG\r\n\x1a\n" + b"\x00" * 64,
    "text.txt": b"dear diary",
    "archive.zip": b"PK\x03\x04" + b"\x00" * 30,
    "numpy.npy": b"\x93NUMPY\x01\x00v\x00{'descr': '<f8'",
    "json.json": b'{"1": {"numbers": [1]}',
    "broken.db": b"SQLite format 3\x00" + b"\x01" * 200,
    "broken.traj": b"- of UlmASE-Trajectory" + b"\x00" * 40,
    "broken.cif": b"data_x\nloop_\n_atom_site_label\nC1 C2\n",
    "POSCAR": b"comment\n1.0\n1 0 0\n0 1 0\n",
    "broken.pdb": b"ATOM      1  N   ALA A   1      xx.xxx  yy.yyy\n",
    "broken.vasp": b"",
    "gzip_of_nothing.xyz.gz": gzip.compress(b""),
    "not_gzip.xyz.gz": b"2\n\nH 0 0 0\nH 0 0 0.8\n",
    "bomb.xyz.gz": gzip.compress(b"9" * 10**6),
    "long_line.xyz": b"1\n" + b"x" * 10**6 + b"\nH 0 0 0\n",
    "deep_json.xyz": b'1\nx="_JSON ' + b"[" * 5000 + b'"\nH 0 0 0\n',
    "columns.xyz": b"1\nProperties=species:S:1:pos:R:300000000\nH 0 0 0\n",
    "no_suffix": b"2\n\nH 0 0 0\nH 0 0 0.8\n",
}


@pytest.mark.parametrize("name", CORPUS)
def test_corpus_of_broken_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(CORPUS[name])
    code, message = choose(path)
    assert_answered(code, message)
    if name in {"windows.xyz"}:
        assert code == 0


@pytest.mark.parametrize("kind", ["directory", "dangling link", "null device"])
def test_paths_that_are_no_files(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "pool.xyz"
    if kind == "directory":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "gone.xyz")
    else:
        path.symlink_to("/dev/null")
    code, message = choose(path)
    assert code == 1
    assert_answered(code, message)


@pytest.mark.parametrize("length", [1e3, 1e4, 9e5])
@pytest.mark.parametrize("pbc", [True, [True, True, False], [True, False, False]])
def test_large_vacuum_and_far_atoms(tmp_path: Path, length: float, pbc: object) -> None:
    far = molecule("CH3CHO")
    far.positions[0] += length
    boxed, needle = molecule("CH3CHO"), molecule("CH3CHO")
    boxed.set_cell([length] * 3)
    needle.set_cell([8.0, 8.0, length])
    for atoms in (boxed, needle):
        atoms.pbc = pbc
    path = tmp_path / "vacuum.extxyz"
    write(path, [far, boxed, needle], format="extxyz")
    code, message = choose(path, "--n-select", "3")
    assert code == 0, message
