"""Extended XYZ as a stream of frames, without seeking and without reading ahead."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

from ase import Atoms
from ase.io.extxyz import key_val_str_to_dict, read_xyz

from labelwise.errors import ReadError
from labelwise.structures.compression import DECODING_ERRORS, open_binary
from labelwise.structures.info_text import fill_empty_values

_MAX_CELL_VECTORS = 3


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
        ReadError: The file cannot be read, is not UTF-8 text, is cut short, or a frame
            does not begin with its number of atoms; names the file and the frame.
    """
    frame = 0
    try:
        with open_binary(path) as binary:
            lines = io.TextIOWrapper(binary, encoding="utf-8")
            header = _next_filled(lines)
            while header:
                text, header = _take_frame(lines, header, f"{path}@{frame}")
                yield text
                frame += 1
    except UnicodeDecodeError as error:
        raise ReadError(f"{path}@{frame}: not UTF-8 text ({error.reason})") from error
    except DECODING_ERRORS as error:
        if isinstance(error, ReadError):
            raise
        raise ReadError(f"{path}@{frame}: damaged or cut short ({error})") from error


def parse_frame(text: str, where: str) -> Atoms:
    """Parse the text of one frame.

    Args:
        text: One frame as ``iter_frame_texts`` yields it.
        where: File and frame, for the error message.

    Returns:
        The structure; positions in Å, cell in Å, energies and forces where ASE puts
        them.

    Raises:
        ReadError: The text is not a valid frame; names the place and ASE's reason.
    """

    def parse_comment(line: str) -> dict[str, object]:
        keys: dict[str, object] = key_val_str_to_dict(fill_empty_values(line))
        _check_columns(str(keys.get("Properties", "")), len(text))
        return keys

    try:
        frames = read_xyz(io.StringIO(text), index=0, properties_parser=parse_comment)
        atoms: Atoms = next(iter(frames))
    except Exception as error:  # ASE raises whatever its parser stumbles on
        reason = str(error) or type(error).__name__
        raise ReadError(f"{where}: not a valid extended XYZ frame ({reason})") from error
    return atoms


def _check_columns(properties: str, n_characters: int) -> None:
    """Refuse more columns than a frame has characters: ASE makes room for all of them."""
    n_columns = sum(max(0, int(n)) for n in properties.split(":")[2::3])
    if n_columns > n_characters:
        raise ValueError(f"{n_columns} columns announced, more than an atom's line can hold")


def _next_filled(lines: Iterator[str]) -> str:
    """Return the next line that is not blank, or '' at the end of the file."""
    return next((line for line in lines if line.strip()), "")


def _take_frame(lines: Iterator[str], header: str, where: str) -> tuple[str, str]:
    """Return the text of the frame that ``header`` opens and the next frame's header."""
    n_atoms = _parse_count(header, where)
    parts = [header]
    for _ in range(1 + n_atoms):
        line = next(lines, None)
        if line is None:
            # A comment may be missing from a frame without atoms: nothing is lost.
            if n_atoms == 0:
                break
            raise ReadError(
                f"{where}: cut short: {n_atoms} atoms announced, "
                f"{max(0, len(parts) - 2)} found before the end of the file"
            )
        parts.append(line if line.endswith("\n") else line + "\n")
    following = _next_filled(lines)
    n_vectors = 0
    while following.lstrip().startswith("VEC") and n_vectors < _MAX_CELL_VECTORS:
        parts.append(following)
        n_vectors += 1
        following = _next_filled(lines)
    return "".join(parts), following


def _parse_count(header: str, where: str) -> int:
    """Return the number of atoms that a header line announces."""
    shown = header.strip()[:40]
    try:
        n_atoms = int(header)
    except ValueError as error:
        raise ReadError(f"{where}: expected a number of atoms, found {shown!r}") from error
    if n_atoms < 0:
        raise ReadError(f"{where}: the number of atoms is negative ({shown})")
    return n_atoms
