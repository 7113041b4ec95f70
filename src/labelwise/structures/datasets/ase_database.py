"""ASE databases: SQLite (``.db``) and JSON (``.json``), and what a row of either says."""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixConstraint
from ase.db.jsondb import JSONDatabase
from ase.db.row import AtomsRow
from ase.db.sqlite import SQLite3Database

from labelwise.errors import ArgumentError, DataSetError, LabelwiseError, WriteError
from labelwise.runtime.files import whole_file
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    LabelledStructure,
    divide_wanted,
    make_format,
)
from labelwise.structures.datasets.database_rows import (
    describe_row,
    find_labels,
    keys_to_write,
    structure_of_row,
)
from labelwise.structures.datasets.units import check_units
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
)
from labelwise.structures.left_out import LeftOut

_SUFFIXES = (".db", ".json")
_JSON_HEAD = re.compile(rb'\s*\{\s*"(\d+|ids)"\s*:')
_COLUMNS = ("positions", "energy", "forces", "cell", "pbc", "tags")
_ROWS_A_PAGE = 500
#: Bytes 18 and 19 of an SQLite file that is written through a log.
_HAS_LOG = b"\x02\x02"
#: Size of a page (1 for 65536), changes, pages, and the changes when they were counted.
_SQLITE_HEAD = struct.Struct(">16xH6xII60xI4x")


class AseDatabase(DataFile):
    """One database, read through ``ase.db``; SQLite page by page, JSON in one piece.

    A structure is called by the key ``name`` of its row, else by file and id. Nothing is
    locked, and nothing is written.

    Args:
        path: The file.

    Raises:
        DataSetError: Not a database of ASE.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if not path.is_file():
            raise DataSetError(f"{path} is not a file")
        with path.open("rb") as stream:
            head = stream.read(100)
        self._is_sqlite = path.suffix.lower() != ".json"
        if self._is_sqlite and not head.startswith(b"SQLite format 3\0"):
            raise DataSetError(f"{path} is not an SQLite file, so it is no database of ASE")
        if self._is_sqlite:
            _check_pages(path, head)
        if not self._is_sqlite and not _JSON_HEAD.match(head):
            raise DataSetError(f"{path} is not a JSON database of ASE")

    def iter_entries(self) -> Iterator[Entry]:
        """Read every row with its labels, which is what it takes to know that they are there."""
        for position, row in self._iter_places(None):
            where = self._name_place(row)
            keys = self._keys_of(row, where)
            find_labels(row.get("energy"), row.get("forces"), keys, where)
            yield self._describe(position, row, keys, where)

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield the wanted structures; see ``check_units`` for their energies."""
        return check_units(self._iter_unjudged(wanted), self._path)

    def _iter_unjudged(self, wanted: Iterable[int] | None) -> Iterator[LabelledStructure]:
        for position, row in self._iter_places(wanted):
            where = self._name_place(row)
            keys = self._keys_of(row, where)
            entry = self._describe(position, row, keys, where)
            yield structure_of_row(
                entry,
                where,
                keys=keys,
                constraints=_get_constraints(row, where),
                numbers=row["numbers"],
                **{name: row.get(name) for name in _COLUMNS},
            )

    def _describe(self, position: int, row: AtomsRow, keys: Mapping[str, Any], where: str) -> Entry:
        name = keys.get("name")
        return describe_row(
            position,
            where,
            numbers=row["numbers"],
            keys=keys,
            name=name if isinstance(name, str) else f"{self._path.stem}/{row.id}",
        )

    def _name_place(self, row: AtomsRow) -> str:
        return f"{self._path}: row {row.id}"

    def _keys_of(self, row: AtomsRow, where: str) -> Mapping[str, Any]:
        try:
            # A row's key_value_pairs give its own property where one has the key's name: charge.
            return {**row.data, **{key: vars(row)[key] for key in row.key_value_pairs}}
        except Exception as error:  # ASE decodes them here, and raises whatever it stumbles on
            raise DataSetError(f"{where}: data cannot be decoded ({error})") from error

    def _iter_places(self, wanted: Iterable[int] | None) -> Iterator[tuple[int, AtomsRow]]:
        """Yield positions and rows, all or those that are wanted."""
        rows = self._iter_sqlite(wanted) if self._is_sqlite else self._iter_json(wanted)
        after = ""
        try:
            for position, row in rows:
                yield position, row
                after = f" after row {row.id}"
        except LabelwiseError:
            raise
        except Exception as error:  # ASE's readers raise whatever they stumble on
            reason = str(error).strip() or type(error).__name__
            raise DataSetError(f"{self._path} cannot be read{after} ({reason})") from error

    def _iter_json(self, wanted: Iterable[int] | None) -> Iterator[tuple[int, AtomsRow]]:
        rows = JSONDatabase(str(self._path), use_lock_file=False).select()
        parts = ((row, 1) for row in rows)
        for row, _, position, _ in divide_wanted(wanted, parts, self._path):
            yield position, row

    def _iter_sqlite(self, wanted: Iterable[int] | None) -> Iterator[tuple[int, AtomsRow]]:
        with _ReadOnlySQLite(self._path) as database:
            ids = (each for (each,) in database.connection.execute(_LIST_IDS))
            pages = iter(lambda: list(islice(ids, _ROWS_A_PAGE)), [])
            parts = ((page, len(page)) for page in pages)
            for page, _, first, numbers in divide_wanted(wanted, parts, self._path):
                position_of = {page[number]: first + number for number in numbers}
                for row in database.select_ids([*position_of]):
                    yield position_of[row.id], row


def _check_pages(path: Path, head: bytes) -> None:
    """Refuse a file that is shorter than it says: SQLite notices only what it happens to read."""
    if len(head) < _SQLITE_HEAD.size:
        raise DataSetError(f"{path} is truncated: it ends within its first page")
    page_size, changes, n_pages, counted_at = _SQLITE_HEAD.unpack_from(head)
    needed = n_pages * (65536 if page_size == 1 else page_size)
    if changes == counted_at and path.stat().st_size < needed:
        raise DataSetError(
            f"{path} is truncated: {path.stat().st_size} bytes, where its pages need {needed}; "
            "copy it again"
        )


_LIST_IDS = "SELECT id FROM systems ORDER BY id"


class _ReadOnlySQLite(SQLite3Database):
    """A database that SQLite itself refuses to write to, and creates no file for."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), use_lock_file=False)
        self._address = f"file:{quote(str(path.resolve()))}?mode=ro"
        with path.open("rb") as stream:
            uses_log = stream.read(20)[18:] == _HAS_LOG
        if uses_log and not Path(f"{path}-wal").exists():
            self._address += "&immutable=1"  # else SQLite makes an empty log

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._address, timeout=20, uri=True)

    def select_ids(self, ids: list[int]) -> Iterator[AtomsRow]:
        """Yield the rows of some ascending ids, at least one."""
        wanted = set(ids)
        for row in self.select([("id", ">=", ids[0]), ("id", "<=", ids[-1])], sort="id"):
            if row.id in wanted:
                yield row


def _get_constraints(row: AtomsRow, where: str) -> list[FixConstraint]:
    try:
        constraints: list[FixConstraint] = row.constraints
    except Exception as error:  # ASE builds them here, and raises whatever it stumbles on
        raise DataSetError(f"{where}: constraints cannot be decoded ({error!r})") from error
    return constraints


def write_database(path: Path, structures: Iterable[LabelledStructure]) -> int:
    """Write structures to an SQLite database in one step; return how many.

    Labels go where a calculator's results go, info goes into ``data``.

    Args:
        path: The file, with the suffix ``.db``; one that is there is replaced when all
            structures are written.
        structures: What to write, in order; not modified.

    Raises:
        ArgumentError: Another suffix.
        WriteError: The file cannot be written.

    Warns:
        LabelwiseWarning: Info that a database cannot hold was left out.
    """
    if path.suffix.lower() != ".db":
        raise ArgumentError(f"{path} is an ASE database to write; its suffix must be .db")
    n_written = 0
    left_out = LeftOut("an ASE database")
    try:
        with (
            whole_file(path) as temporary,
            SQLite3Database(str(temporary), use_lock_file=False) as database,
        ):
            database.metadata = {}
            for structure in structures:
                database.write(_with_results(structure), data=keys_to_write(structure, left_out))
                n_written += 1
    except (sqlite3.Error, AssertionError, AttributeError) as error:
        # ASE raises the last two for info that its encoder does not know.
        raise WriteError(f"cannot write {path} at structure {n_written} ({error})") from error
    left_out.warn(path)
    return n_written


def _with_results(structure: LabelledStructure) -> Atoms:
    atoms: Atoms = structure.atoms.copy()
    forces = atoms.arrays.pop(DEFAULT_FORCES_KEY)
    energy = structure.atoms.info[DEFAULT_ENERGY_KEY]
    atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
    return atoms


def _recognise(path: Path) -> bool:
    if not path.is_file() or path.suffix.lower() not in _SUFFIXES:
        return False
    if path.suffix.lower() == ".db":
        return True
    with path.open("rb") as stream:
        return _JSON_HEAD.match(stream.read(100)) is not None


FORMAT = make_format(
    "ase-db",
    recognise=_recognise,
    opener=AseDatabase,
    write=write_database,
)
