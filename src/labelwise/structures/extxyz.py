"""Extended XYZ as a stream of frames, without seeking and without reading ahead."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import atomic_numbers
from ase.io.extxyz import read_xyz

from labelwise.errors import ReadError
from labelwise.structures.comment_line import USUAL_COLUMNS, find_unread_cell, read_comment
from labelwise.structures.compression import DECODING_ERRORS, open_binary

_MAX_CELL_VECTORS = 3
#: What a frame may be, so that a few bytes that decompress to very many do not fill the memory.
_MAX_LINE, _MAX_FRAME = 2**24, 2**29
_LINE_BYTES = 64  # of memory, beside its characters
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_UTF8_MARK = "\ufeff"
_FORCE_COLUMNS = ("force", "forces")
_NUMBERS = (np.int64, np.float64)  # as ASE reads them
_ISOTOPES = {"D": "deuterium", "T": "tritium"}
_UNREAD_CELL = (
    "the comment line says {!r:.60} and has no cell that is understood; write it as "
    'Lattice="ax ay az bx by bz cx cy cz", or pbc="F F F" if there is none'
)


def iter_frame_texts(path: Path) -> Iterator[str]:
    """Split an (ext)xyz file into the text of its frames, in one forward pass.

    Blank lines between frames are passed over: ASE would take one for the end of the
    file and drop what follows without a word.

    Args:
        path: A .xyz or .extxyz file, plain or compressed (.gz, .bz2, .xz, .zst).

    Yields:
        The lines of one frame: atom count, comment, one line per atom and, where
        present, the VEC lines of the cell.

    Raises:
        ReadError: The file cannot be read, is not UTF-8 text, is cut short, a frame does
            not begin with its number of atoms, or is larger than any structure; names the
            file and the frame.
    """
    frame = 0
    try:
        with open_binary(path) as binary:
            lines = _Lines(io.TextIOWrapper(binary, encoding="utf-8"))
            header = lines.next_filled(f"{path}@0")
            while header:
                text, header = _take_frame(lines, header, path, frame)
                yield text
                frame += 1
    except UnicodeDecodeError as error:
        is_utf16 = error.object[:2] in _UTF16_MARKS and frame == 0
        kind = "UTF-16; save it as UTF-8" if is_utf16 else error.reason
        raise ReadError(f"{path}@{frame}: not UTF-8 text ({kind})") from error
    except DECODING_ERRORS as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path}@{frame}: damaged or cut short ({error})") from error


class Fault(NamedTuple):
    """Why the text of a frame is no structure that can be used, although it was read.

    Attributes:
        reason: One of the short names in ``Screen``'s docstring.
        detail: What was found, in words.
    """

    reason: str
    detail: str


def parse_frame(text: str, where: str) -> Atoms:
    """Parse the text of one frame.

    Args:
        text: One frame as ``iter_frame_texts`` yields it.
        where: File and frame, for the error message.

    Returns:
        The structure; positions in Å, cell in Å, energies and forces where ASE puts
        them. Columns ``force`` and keys such as ``Energy`` count as these, too.

    Raises:
        ReadError: The text is not a valid frame, or has a fault; names the place and the
            reason.
    """
    atoms, fault = parse_with_fault(text, where)
    if fault is not None:
        raise ReadError(f"{where}: {fault.detail}")
    return atoms


def parse_with_fault(text: str, where: str) -> tuple[Atoms, Fault | None]:
    """Parse the text of one frame; what can be set aside is returned, not raised.

    Args:
        text: One frame as ``iter_frame_texts`` yields it.
        where: File and frame, for the error message.

    Returns:
        The structure, see ``parse_frame``, with X in place of symbols that are no element;
        and its fault: such a symbol, or a cell in words that are not understood.

    Raises:
        ReadError: The text is not a valid frame; names the place and the reason.
    """
    fault: Fault | None = None
    columns = ""

    def parse_comment(line: str) -> dict[str, Any]:
        nonlocal fault, columns
        keys = read_comment(line)
        columns = str(keys.get("Properties", USUAL_COLUMNS))
        _check_columns(columns, len(text))
        unread = find_unread_cell(line, keys)
        if unread:
            fault = Fault("bad-cell", _UNREAD_CELL.format(unread))
        return keys

    try:
        try:
            atoms = _read_one(text, parse_comment)
        except KeyError:  # of a symbol, perhaps
            sound, unknown = _blank_symbols(text, columns)
            if unknown is None:
                raise
            atoms, fault = _read_one(sound, parse_comment), unknown
        _add_results(atoms)
    except Exception as error:  # ASE raises whatever its parser stumbles on
        reason = str(error) or type(error).__name__
        raise ReadError(f"{where}: not a valid extended XYZ frame ({reason})") from error
    return atoms, fault


def _read_one(text: str, parse_comment: Callable[[str], dict[str, Any]]) -> Atoms:
    frames = read_xyz(io.StringIO(text), index=0, properties_parser=parse_comment)
    atoms: Atoms = next(iter(frames))
    return atoms


def _blank_symbols(text: str, columns: str) -> tuple[str, Fault | None]:
    """Return a frame with X for every symbol that is no element, and the first of these."""
    fields = (columns or USUAL_COLUMNS).split(":")
    if "species" not in fields[::3]:
        return text, None
    place = sum(int(n) for n in fields[2 : 3 * fields[::3].index("species") : 3])
    head, comment, *lines = text.split("\n")
    fault: Fault | None = None
    for atom in range(int(head)):
        words = lines[atom].split()
        if words[place].capitalize() not in atomic_numbers:
            fault = fault or Fault("unknown-element", _describe_symbol(atom, words[place]))
            words[place] = "X"
            lines[atom] = " ".join(words)
    return "\n".join([head, comment, *lines]), fault


def _describe_symbol(atom: int, symbol: str) -> str:
    said = f"atom {atom} has the symbol {symbol!r:.40}, which is no element"
    if symbol.isdigit():
        return f"{said}; are these LAMMPS types?"
    if symbol.upper() in _ISOTOPES:
        return f"{said}: to a model {_ISOTOPES[symbol.upper()]} is hydrogen, H"
    return said


def _add_results(atoms: Atoms) -> None:
    """Let ``Energy=`` and a column ``force``, as NEP has them, count as energy and forces."""
    found: dict[str, Any] = {}
    for key, value in atoms.info.items():
        if key.lower() == "energy" and type(value) in _NUMBERS:
            found["energy"] = value
    for key, array in atoms.arrays.items():
        if key.lower() in _FORCE_COLUMNS and array.shape == (len(atoms), 3):
            found["forces"] = array
    results = getattr(atoms.calc, "results", {})
    if found.keys() - results.keys():
        atoms.calc = SinglePointCalculator(atoms, **{**found, **results})


def _check_columns(properties: str, n_characters: int) -> None:
    """Refuse more columns than a frame has characters: ASE makes room for all of them."""
    n_columns = sum(max(0, int(n)) for n in properties.split(":")[2::3])
    if n_columns > n_characters:
        raise ValueError(f"{n_columns} columns announced, more than an atom's line can hold")


class _Lines:
    """The lines of a text that may be of any length, none of them taken whole if too long."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._readline = stream.readline

    def next(self, where: str) -> str:
        """Return the next line, '' at the end of the text.

        Raises:
            ReadError: The line is longer than any that belongs into a structure file.
        """
        line = self._readline(_MAX_LINE)
        if len(line) == _MAX_LINE:
            raise ReadError(f"{where}: a line of more than {_MAX_LINE} characters")
        return line

    def next_filled(self, where: str) -> str:
        """Return the next line that is not blank, without a byte order mark."""
        while line := self.next(where):
            line = line.removeprefix(_UTF8_MARK)
            if line.strip():
                return line
        return ""


def _take_frame(lines: _Lines, header: str, path: Path, frame: int) -> tuple[str, str]:
    """Return the text of the frame that ``header`` opens and the next frame's header."""
    where = f"{path}@{frame}"
    n_atoms = _parse_count(header, where)
    parts = [header]
    n_bytes = 0
    for _ in range(1 + n_atoms):
        line = lines.next(where)
        if not line:
            # A comment may be missing from a frame without atoms: nothing is lost.
            if n_atoms == 0:
                break
            raise ReadError(
                f"{where}: cut short: {n_atoms} atoms announced, "
                f"{max(0, len(parts) - 2)} found before the end of the file; if it is still "
                f"being written, take what is whole: {path}@:{frame}"
            )
        parts.append(line if line.endswith("\n") else line + "\n")
        n_bytes += len(line) + _LINE_BYTES
        if n_bytes > _MAX_FRAME:
            raise ReadError(f"{where}: a frame of more than {_MAX_FRAME >> 20} MB")
    following = lines.next_filled(where)
    n_vectors = 0
    while following.lstrip().startswith("VEC") and n_vectors < _MAX_CELL_VECTORS:
        parts.append(following)
        n_vectors += 1
        following = lines.next_filled(where)
    return "".join(parts), following


def _parse_count(header: str, where: str) -> int:
    """Return the number of atoms that a header line announces."""
    shown = header.strip()[:40]
    try:
        n_atoms = int(header)
    except ValueError as error:
        hint = "; the file may be UTF-16: save it as UTF-8" if "\0" in shown else ""
        raise ReadError(f"{where}: expected a number of atoms, found {shown!r}{hint}") from error
    if n_atoms < 0:
        raise ReadError(f"{where}: the number of atoms is negative ({shown})")
    return n_atoms
