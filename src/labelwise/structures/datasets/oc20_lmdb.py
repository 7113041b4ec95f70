"""OC20 S2EF as LMDB shards of pickled torch-geometric objects.

Read with lmdb and NumPy alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    LabelledStructure,
    divide_wanted,
    make_format,
    make_structure,
)
from labelwise.structures.datasets.oc20 import REFERENCE_KEY, Shard, find_shards, iter_files
from labelwise.structures.datasets.oc20_pickle import decode, load_fields, load_plain
from labelwise.structures.lmdb_file import LmdbFile, import_lmdb

_SHARD = re.compile(r"(.+)\.lmdb")
#: As the publishers name them: other LMDB files are not taken for OC20 unless asked to.
_PUBLISHED = re.compile(r"data(?:\.\d+)?\.lmdb")
_COUNT = b"length"
#: Names of now, and of before torch-geometric 2.
_ENERGY, _FORCES = ("energy", "y"), ("forces", "force")
_REFERENCE = (REFERENCE_KEY, "ref_energy")


class Oc20Lmdb(DataFile):
    """Shards of one or more splits.

    Energies are given as they are stored: the publishers' script writes total energies, or with
    ``--ref-energy`` adsorption energies, and no field tells which.

    Args:
        path: A shard, the folder of a split, or a folder of such folders.

    Raises:
        MissingDependencyError: lmdb is not installed.
        DataSetError: There are no shards.
    """

    def __init__(self, path: Path) -> None:
        import_lmdb("reading OC20's LMDB files")
        self._path = path
        self._shards = find_shards(path, _SHARD)
        self._counts: dict[Shard, int] = {}
        self._opened: LmdbFile | None = None

    def close(self) -> None:
        """Close the shard that is open."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    def iter_entries(self) -> Iterator[Entry]:
        """Yield names and splits; only reading a structure tells its relaxation and size."""
        for shard, _, start, numbers in divide_wanted(None, self._iter_counts(), self._path):
            for number in numbers:
                yield Entry(start + number, shard.name_structure(number), split=shard.split)

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield structures; those that are not wanted are not touched."""
        for shard, _, start, numbers in divide_wanted(wanted, self._iter_counts(), self._path):
            for number in numbers:
                name = shard.name_structure(number)
                entry = Entry(start + number, name, split=shard.split)
                where = f"{shard.path}@{number}"
                value = self._open(shard).get(b"%d" % number, where)
                if value is None:
                    raise DataSetError(
                        f"{where}: no such key; a shard's keys are 0, 1, 2 and so on"
                    )
                yield _make(entry, load_fields(value, where), where)

    def _iter_counts(self) -> Iterator[tuple[Shard, int]]:
        for shard in self._shards:
            if shard not in self._counts:
                self._counts[shard] = _count(self._open(shard))
            yield shard, self._counts[shard]

    def _open(self, shard: Shard) -> LmdbFile:
        """Return an open shard; one at a time is open, because each maps its file to memory."""
        if self._opened is None or self._opened.path != shard.path:
            self.close()
            self._opened = LmdbFile(shard.path)
        return self._opened


def _count(file: LmdbFile) -> int:
    """Return the number of structures of a shard: of keys, where no key tells it."""
    path, n_keys = file.path, file.count_keys()
    stored = file.get(_COUNT, str(path))
    if stored is None:
        return n_keys
    count = load_plain(stored, f"{path}: key 'length'")
    if not isinstance(count, int) or not 0 <= count < n_keys:
        raise DataSetError(
            f"{path}: key 'length' says {count!r:.40} structures; it holds {n_keys - 1}"
        )
    if file.get(b"%d" % count, str(path)) is not None:
        raise DataSetError(f"{path}: key 'length' says {count}, but there is a key {count}")
    return count


def _make(entry: Entry, fields: dict[str, object], where: str) -> LabelledStructure:
    """Make a structure of the fields that are needed; edges and the like stay undecoded."""
    read = partial(_read, fields, where)
    numbers = _integers(read("atomic_numbers"), f"{where}: atomic_numbers")
    if "natoms" in fields and read("natoms").ravel().tolist() != [numbers.size]:
        raise DataSetError(
            f"{where}: natoms is {read('natoms').tolist()!s:.40}; atomic_numbers has {numbers.size}"
        )
    cell, sid, fid = read("cell"), _identify(fields, "sid", where), _identify(fields, "fid", where)
    family = entry.family if sid is None else f"random{sid}"
    return make_structure(
        entry._replace(family=family, order=fid),
        where,
        numbers=numbers,
        positions=read("pos"),
        energy=_number(read(*_ENERGY), f"{where}: the energy"),
        forces=read(*_FORCES).astype(np.float64),
        cell=cell[0] if cell.shape == (1, 3, 3) else cell,
        pbc=True,
        tags=_integers(read("tags"), f"{where}: tags"),
        fixed=_truths(read("fixed"), f"{where}: fixed"),
        info=_info(fields, sid, fid, where),
    )


def _info(
    fields: dict[str, object], sid: int | None, fid: int | None, where: str
) -> dict[str, int | float]:
    info: dict[str, int | float] = {}
    if sid is not None:
        info["sid"] = sid
    if fid is not None:
        info["fid"] = fid
    if any(name in fields for name in _REFERENCE):
        read = _read(fields, where, *_REFERENCE)
        info[REFERENCE_KEY] = _number(read, f"{where}: the reference energy")
    return info


def _read(fields: dict[str, object], where: str, *names: str) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the first of these fields that there is."""
    for name in names:
        if name in fields:
            return decode(fields[name], f"{where}: {name}")
    raise DataSetError(
        f"{where}: no field {' or '.join(names)}; there are {', '.join(sorted(map(str, fields)))}"
    )


def _number(values: np.ndarray[Any, np.dtype[Any]], where: str) -> float:
    if values.size != 1:
        raise DataSetError(f"{where}: {values.size} numbers; expected one")
    return float(values.reshape(())[()])


def _integers(
    values: np.ndarray[Any, np.dtype[Any]], where: str
) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return whole numbers, which old files store as real numbers."""
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise DataSetError(f"{where}: not integers ({values.tolist()!s:.60})")
    return values.astype(np.int64)


def _truths(
    values: np.ndarray[Any, np.dtype[Any]], where: str
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    if not ((values == 0) | (values == 1)).all():
        raise DataSetError(f"{where}: {values.tolist()!s:.60}; allowed are 1, fixed, and 0")
    return values.astype(np.bool_)


def _identify(fields: dict[str, object], name: str, where: str) -> int | None:
    """Return the number of a relaxation (sid) or of its frame (fid), if it is there."""
    value = fields.get(name)
    if value is None or type(value) is int:
        return value
    if isinstance(value, str) and (match := re.fullmatch(r"(?:random|frame)?(\d{1,18})", value)):
        return int(match[1])
    array = decode(value, f"{where}: {name}")
    return int(_number(_integers(array, f"{where}: {name}"), f"{where}: {name}"))


def _recognise(path: Path) -> bool:
    return any(True for _ in iter_files(path, _PUBLISHED))


FORMAT = make_format(
    "oc20-lmdb",
    recognise=_recognise,
    opener=Oc20Lmdb,
)
