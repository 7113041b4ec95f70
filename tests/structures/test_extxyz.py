"""Frames of extended XYZ: symbols that are no element, encodings, and very long texts."""

from __future__ import annotations

import bz2
import gzip
import lzma
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from backports import zstd

from labelwise.errors import ReadError
from labelwise.potentials import GraphBuilder
from labelwise.structures import Screen, extxyz, iter_frames, iter_unscreened, read_structures

WATER = "O 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n"
COMMENTS = ["", 'Properties=species:S:1:pos:R:3 pbc="F F F"']
SYMBOLS = {
    "D": "atom 1 has the symbol 'D', which is no element: to a model deuterium is hydrogen, H",
    "T": "atom 1 has the symbol 'T', which is no element: to a model tritium is hydrogen, H",
    "Ow": "atom 1 has the symbol 'Ow', which is no element",
    "HW1": "atom 1 has the symbol 'HW1', which is no element",
    "C1": "atom 1 has the symbol 'C1', which is no element",
    "1": "atom 1 has the symbol '1', which is no element; are these LAMMPS types?",
}


def frame(symbol: str, comment: str = "") -> str:
    return f"3\n{comment}\n{WATER}".replace("H 0.96", f"{symbol} 0.96")


@pytest.mark.parametrize("comment", COMMENTS)
@pytest.mark.parametrize("symbol", SYMBOLS)
def test_a_symbol_that_is_no_element_is_a_fault_of_its_frame(
    tmp_path: Path, symbol: str, comment: str
) -> None:
    path = tmp_path / "pool.xyz"
    path.write_text(frame("H") + frame(symbol, comment) + frame("h"))
    frames = list(iter_unscreened(path))
    screen = Screen(GraphBuilder((1, 8), 4.5))
    found = [screen.check_content(each) for each in frames]
    assert [each and (each.reason, each.detail) for each in found] == [
        None,
        ("unknown-element", SYMBOLS[symbol]),
        None,
    ]
    assert frames[2].atoms.get_chemical_symbols() == ["O", "H", "H"]
    with pytest.raises(ReadError, match=r"pool\.xyz@1: atom 1 has the symbol '\w+', which is no"):
        list(iter_frames(path))


def test_the_other_columns_of_such_a_frame_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "pool.xyz"
    path.write_text("1\nProperties=id:I:1:species:I:1:pos:R:3:q:R:1\n7 2 1 2 3 0.5\n")
    (found,) = iter_unscreened(path)
    assert found.fault is not None
    assert "are these LAMMPS types?" in found.fault.detail
    assert found.atoms.positions.tolist() == [[1, 2, 3]]
    assert found.atoms.arrays["q"].tolist() == [0.5]


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_byte_order_marks_and_line_ends(tmp_path: Path, newline: str) -> None:
    path = tmp_path / "pool.xyz"
    text = frame("H").replace("\n", newline).encode()
    path.write_bytes(2 * (b"\xef\xbb\xbf" + text))  # two files in one
    assert [len(atoms) for atoms in read_structures(path)] == [3, 3]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_utf16_is_told(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "pool.xyz"
    path.write_bytes(frame("H").encode(encoding))
    with pytest.raises(ReadError, match=r"UTF-16.* save it as UTF-8"):
        read_structures(path)


COMPRESSORS = {
    ".gz": partial(gzip.compress, compresslevel=1),
    ".bz2": partial(bz2.compress, compresslevel=1),
    ".xz": partial(lzma.compress, preset=0),
    ".zst": zstd.compress,
}
PEAK = """
import resource, sys
from labelwise.structures import read_structures
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_structures(sys.argv[1])
except OSError as error:
    print(error)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.parametrize(
    ("suffix", "head"),
    [
        (".gz", b""),
        *(
            pytest.param(suffix, head, marks=pytest.mark.thorough)
            for suffix, head in (
                *((suffix, b"") for suffix in COMPRESSORS if suffix != ".gz"),
                (".gz", b"1\n"),
                (".gz", b"2\n\nH 0 0 0\n"),
            )
        ),
    ],
)
def test_an_endless_line_does_not_fill_the_memory(tmp_path: Path, suffix: str, head: bytes) -> None:
    path = tmp_path / f"pool.xyz{suffix}"
    path.write_bytes(COMPRESSORS[suffix](head + bytes(150_000_000)))
    done = subprocess.run(
        [sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True
    )
    message, megabytes = done.stdout.splitlines()
    assert "pool.xyz" in message
    assert "a line of more than 16777216 characters" in message
    assert int(megabytes) < 110


def test_an_endless_frame_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(extxyz, "_MAX_FRAME", 2**20)
    path = tmp_path / "pool.xyz.gz"
    path.write_bytes(gzip.compress(b"999999999\n\n" + b"H 0 0 0\n" * 20_000))
    with pytest.raises(ReadError, match=r"pool\.xyz\.gz@0: a frame of more than 1 MB"):
        read_structures(path)
