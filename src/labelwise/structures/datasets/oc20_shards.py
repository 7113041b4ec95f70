"""OC20 S2EF as it is downloaded: shards of extended XYZ beside a text of relaxations and frames."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, islice, zip_longest
from pathlib import Path
from types import MappingProxyType
from typing import IO, NoReturn

import numpy as np
from ase.data import atomic_numbers
from ase.io.extxyz import key_val_str_to_dict

from labelwise.errors import DataSetError
from labelwise.structures.compression import DECODING_ERRORS, open_binary
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    LabelledStructure,
    divide_wanted,
    make_format,
    make_structure,
)
from labelwise.structures.datasets.oc20 import REFERENCE_KEY, Shard, find_shards, iter_files

_SHARD = re.compile(r"(\d+)\.extxyz(?:\.xz)?")
_RECORD = re.compile(rb"random(\d{1,18}),frame(\d{1,18})(?:,([^,\s]+))?\s*")
_PAIR = re.compile(r'\s*([A-Za-z_]\w*)=(?:"([^"\\]*)"|([^\s"\'\\{\[=]+))')
_NEEDED = {
    "species": ("S", 1),
    "pos": ("R", 3),
    "move_mask": ("L", 1),
    "tags": ("I", 1),
    "forces": ("R", 3),
}
_TRUTHS = {b"T": True, b"F": False, b"True": True, b"False": False}
_NUMBERS = {symbol.encode(): number for symbol, number in atomic_numbers.items()}
_BUFFER = 1 << 18
#: Of one frame: more is a damaged file, and must not be read into memory at once.
_MOST_ATOMS, _MOST_COLUMNS, _LONGEST_COUNT = 100_000, 100, 30


@dataclass(frozen=True, slots=True)
class _Record:
    """A line of the text beside a shard: relaxation, frame and reference energy (eV)."""

    sid: int
    fid: int
    reference: float | None


class Oc20Shards(DataFile):
    """Shards of one or more splits, read as streams.

    ``REF_energy`` is the total energy; see ``correct_to_adsorption``. Forces are given as they
    are stored, those of fixed atoms too.

    Args:
        path: A shard, the folder of a split, or a folder of such folders.

    Raises:
        DataSetError: There are no shards, or one has no text beside it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._shards = find_shards(path, _SHARD, _name_split)
        self._texts = tuple(_find_text(shard.path) for shard in self._shards)
        self._counts: dict[int, int] = {}

    def iter_entries(self) -> Iterator[Entry]:
        """Yield what the texts say; no structure is decompressed."""
        start = 0
        for shard, text in zip(self._shards, self._texts, strict=True):
            count = 0
            for record in _iter_records(text):
                yield _make_entry(shard, start, count, record)
                count += 1
            start += count

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield structures; those passed over are decompressed and not parsed."""
        parts = ((index, self._count(index)) for index in range(len(self._shards)))
        for index, n_here, start, numbers in divide_wanted(wanted, parts, self._path):
            yield from self._iter_shard(index, start, numbers, len(numbers) == n_here)

    def _count(self, index: int) -> int:
        if index not in self._counts:
            self._counts[index] = sum(1 for _ in _iter_records(self._texts[index]))
        return self._counts[index]

    def _iter_shard(
        self, index: int, start: int, numbers: Sequence[int], is_all: bool
    ) -> Iterator[LabelledStructure]:
        shard, text = self._shards[index], self._texts[index]
        chosen = iter(numbers)
        pending = next(chosen, None)
        pairs = zip_longest(_iter_frames(shard.path, numbers), _iter_records(text))
        for number, (lines, record) in enumerate(pairs):
            if lines is None or record is None:
                _raise_unequal(shard.path, text, number, "structure" if record else "line")
            if number == pending:
                entry = _make_entry(shard, start, number, record)
                yield _parse(entry, lines, record, f"{shard.path}@{number}")
                pending = next(chosen, None)
                if pending is None and not is_all:
                    return


def _raise_unequal(path: Path, text: Path, number: int, missing: str) -> NoReturn:
    raise DataSetError(
        f"{path}@{number}: there is no {missing} {number}; {path.name} and {text.name} must be of "
        "the same download and have as many structures as lines"
    )


def _name_split(folder: str) -> str:
    """Return ``val_id`` for ``s2ef_val_id`` and ``s2ef_val_id_uncompressed``."""
    return folder.removeprefix("s2ef_").removesuffix("_uncompressed")


def _find_text(path: Path) -> Path:
    texts = _list_texts(path)
    for text in texts:
        if text.is_file():
            return text
    raise DataSetError(
        f"{path}: neither {texts[0].name} nor {texts[1].name} is beside it; it holds the "
        "reference energies"
    )


def _list_texts(path: Path) -> list[Path]:
    stem = path.name.split(".")[0]
    return [path.with_name(f"{stem}.txt{suffix}") for suffix in (".xz", "")]


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    """Open a file for reading lines; decoding runs in steps of 256 KiB."""
    with open_binary(path) as stream:
        yield io.BufferedReader(stream, _BUFFER)  # type: ignore[type-var]


def _iter_records(path: Path) -> Iterator[_Record]:
    number = 0
    try:
        with _open(path) as lines:
            for number, line in enumerate(lines):
                yield _parse_record(line, f"{path}@{number}")
    except DECODING_ERRORS as error:
        if isinstance(error, DataSetError):
            raise
        raise DataSetError(f"{path}@{number}: damaged or cut short ({error})") from error


def _parse_record(line: bytes, where: str) -> _Record:
    match = _RECORD.fullmatch(line)
    try:
        if match is None:
            raise ValueError("another layout")
        reference = None if match[3] is None else float(match[3])
        if reference is not None and not np.isfinite(reference):
            raise ValueError("not finite")
    except ValueError as error:
        raise DataSetError(
            f"{where}: {line[:60]!r}; expected random<sid>,frame<fid>,<reference energy> ({error})"
        ) from error
    return _Record(int(match[1]), int(match[2]), reference)


def _make_entry(shard: Shard, start: int, number: int, record: _Record) -> Entry:
    name = shard.name_structure(number)
    family = f"random{record.sid}"
    return Entry(start + number, name, family, record.fid, split=shard.split)


def _iter_frames(path: Path, numbers: Sequence[int]) -> Iterator[list[bytes]]:
    """Yield the lines after the number of atoms; none of frames that are not among numbers."""
    frame, chosen = 0, iter(numbers)
    pending = next(chosen, None)
    try:
        with _open(path) as lines:
            for line in filter(bytes.strip, lines):
                n_lines = _parse_count(line, f"{path}@{frame}") + 1
                if frame == pending:
                    taken = list(islice(lines, n_lines))
                    pending = next(chosen, None)
                    _check_whole(len(taken), n_lines, taken[-1:], f"{path}@{frame}")
                    yield taken
                else:
                    n_passed = sum(1 for _ in islice(lines, n_lines))
                    _check_whole(n_passed, n_lines, [], f"{path}@{frame}")
                    yield []
                frame += 1
    except DECODING_ERRORS as error:
        if isinstance(error, DataSetError):
            raise
        raise DataSetError(f"{path}@{frame}: damaged or cut short ({error})") from error


def _check_whole(n_found: int, n_lines: int, last: list[bytes], where: str) -> None:
    """Refuse a frame without all its lines, or whose last line does not end."""
    if n_found < n_lines or not all(line.endswith(b"\n") for line in last):
        raise DataSetError(
            f"{where}: cut short: {n_lines - 1} atoms announced, {max(0, n_found - 1)} lines of "
            "atoms found, the last perhaps not whole, before the end of the file"
        )


def _parse_count(line: bytes, where: str) -> int:
    if not line.strip().isdigit() or len(line) > _LONGEST_COUNT or int(line) > _MOST_ATOMS:
        raise DataSetError(
            f"{where}: expected a number of atoms, up to {_MOST_ATOMS}; found {line[:40]!r}"
        )
    return int(line)


def _parse(entry: Entry, lines: list[bytes], record: _Record, where: str) -> LabelledStructure:
    """Make a structure of a frame's lines."""
    keys = _parse_comment(lines[0], where)
    try:
        cell = np.array([float(word) for word in keys["Lattice"].split()]).reshape(3, 3)
        energy = float(keys["energy"])
        x, y, z = (_TRUTHS[word.encode()] for word in keys.get("pbc", "T T T").split())
    except (KeyError, ValueError) as error:
        raise DataSetError(
            f"{where}: Lattice, energy and pbc are needed in the comment line ({error})"
        ) from error
    atoms = _parse_atoms(lines[1:], keys.get("Properties", ""), where)
    info: dict[str, int | float] = {"sid": record.sid, "fid": record.fid}
    if record.reference is not None:
        info[REFERENCE_KEY] = record.reference
        info["adsorption_energy"] = energy - record.reference
    return make_structure(
        entry,
        where,
        numbers=atoms.numbers,
        positions=atoms.positions,
        energy=energy,
        forces=atoms.forces,
        cell=cell,
        pbc=(x, y, z),
        tags=atoms.tags,
        fixed=~atoms.is_free,
        info=info,
    )


def _parse_comment(line: bytes, where: str) -> dict[str, str]:
    """Return the keys of a comment line as text; ASE parses what is not plain key=value pairs."""
    try:
        text = line.decode().strip()
    except UnicodeDecodeError as error:
        raise DataSetError(f"{where}: the comment line is not UTF-8 text") from error
    keys: dict[str, str] = {}
    end = 0
    for match in _PAIR.finditer(text):
        if match.start() != end:
            break
        keys[match[1]] = match[2] if match[2] is not None else match[3]
        end = match.end()
    return keys if end == len(text) else _parse_unusual_comment(text, where)


def _parse_unusual_comment(text: str, where: str) -> dict[str, str]:
    try:
        parsed = key_val_str_to_dict(text)
        # ASE transposes a lattice; column by column are the numbers as they were written.
        words = {key: np.ravel(value, order="F").tolist() for key, value in parsed.items()}
    except Exception as error:  # ASE raises whatever its parser stumbles on
        raise DataSetError(f"{where}: the comment line cannot be parsed ({error})") from error
    return {key: " ".join(map(str, value)) for key, value in words.items()}


@dataclass(frozen=True, slots=True)
class _Atoms:
    """Columns of a frame: (n,), (n, 3) Å, (n, 3) eV/Å, (n,), (n,)."""

    numbers: list[int]
    positions: np.ndarray
    forces: np.ndarray
    tags: list[int]
    is_free: np.ndarray


def _parse_atoms(lines: list[bytes], properties: str, where: str) -> _Atoms:
    starts, n_columns = _find_columns(properties, where)
    rows = [line.split() for line in lines]
    for number, row in enumerate(rows):
        if len(row) != n_columns:
            raise DataSetError(
                f"{where}: atom {number} has {len(row)} columns, not the {n_columns} of "
                f"{properties}"
            )
    columns = list(zip(*rows, strict=True)) or [()] * n_columns
    first = {name: columns[start] for name, start in starts.items()}
    try:
        return _Atoms(
            [_NUMBERS[symbol] for symbol in first["species"]],
            _read_vectors(columns, starts["pos"]),
            _read_vectors(columns, starts["forces"]),
            list(map(int, first["tags"])),
            np.array([_TRUTHS[word] for word in first["move_mask"]], dtype=bool),
        )
    except (KeyError, ValueError) as error:
        raise DataSetError(f"{where}: an atom's line cannot be parsed ({error})") from error


def _read_vectors(columns: Sequence[tuple[bytes, ...]], start: int) -> np.ndarray:
    flat = np.array(list(map(float, chain.from_iterable(columns[start : start + 3]))))
    return np.ascontiguousarray(flat.reshape(3, -1).T)


def _find_columns(properties: str, where: str) -> tuple[Mapping[str, int], int]:
    try:
        return _divide_columns(properties)
    except ValueError as error:
        raise DataSetError(
            f"{where}: Properties are {properties!r:.120} ({error}); OC20 has species:S:1, "
            "pos:R:3, move_mask:L:1, tags:I:1 and forces:R:3"
        ) from error


@lru_cache(maxsize=64)
def _divide_columns(properties: str) -> tuple[Mapping[str, int], int]:
    """Return the first column of each quantity that is needed, and the number of columns."""
    words = properties.split(":")
    starts: dict[str, int] = {}
    n_columns = 0
    for name, kind, width in zip(words[::3], words[1::3], words[2::3], strict=True):
        if name in _NEEDED and (_NEEDED[name] != (kind, int(width)) or name in starts):
            raise ValueError(f"{name}:{kind}:{width}")
        if not 1 <= int(width) <= _MOST_COLUMNS:
            raise ValueError(f"{width} columns of {name}")
        if name in _NEEDED:
            starts[name] = n_columns
        n_columns += int(width)
    missing = [name for name in _NEEDED if name not in starts]
    if missing:
        raise ValueError(f"no {', '.join(missing)}")
    return MappingProxyType(starts), n_columns


def _recognise(path: Path) -> bool:
    files = iter_files(path, _SHARD)
    return any(text.is_file() for file in files for text in _list_texts(file))


FORMAT = make_format(
    "oc20-shards",
    recognise=_recognise,
    opener=Oc20Shards,
)
