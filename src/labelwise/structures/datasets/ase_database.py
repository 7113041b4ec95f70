"""ASE databases: SQLite (``.db``) and JSON (``.json``), and what a row of either says."""

from __future__ import annotations

import re
import sqlite3
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixConstraint
from ase.db.jsondb import JSONDatabase
from ase.db.row import AtomsRow
from ase.db.sqlite import SQLite3Database

from labelwise.errors import ArgumentError, DataSetError, LabelwiseError, WriteError
from labelwise.runtime.files import whole_file
from labelwise.structures.datasets.base import (
    DataFile,
    Entry,
    Format,
    LabelledStructure,
    divide_wanted,
    make_structure,
)
from labelwise.structures.datasets.database_keys import keys_to_write
from labelwise.structures.datasets.units import check_units
from labelwise.structures.labels import (
    ASE_KEYS,
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    as_real,
)
from labelwise.structures.left_out import LeftOut

_SUFFIXES = (".db", ".json")
_JSON_HEAD = re.compile(rb'\s*\{\s*"(\d+|ids)"\s*:')
_ROWS_A_PAGE = 500
#: Bytes 18 and 19 of an SQLite file that is written through a log.
_HAS_LOG = b"\x02\x02"
#: Size of a page (1 for 65536), changes, pages, and the changes when they were counted.
_SQLITE_HEAD = struct.Struct(">16xH6xII60xI4x")
_LABEL_KEYS = (DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY)
_ENTRY_KEYS = ("name", "family", "frame", "subset", "split", "charge", "spin")
_NOT_EXTRA = frozenset((*_LABEL_KEYS, *_ENTRY_KEYS))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of an ASE database, whatever it lies in.

    Attributes:
        numbers: (n,) atomic numbers.
        positions: (n, 3) Å.
        energy: Of the calculator's results, eV; None for none.
        forces: Of the calculator's results, (n, 3) eV/Å; None for none.
        cell: (3, 3) Å; None or zeros for none.
        pbc: (3,) whether a direction is periodic; None for none.
        tags: (n,) integers; None for none.
        constraints: Constraints on the atoms.
        keys: Its ``data`` and its key-value pairs, which win.
    """

    numbers: Any
    positions: Any
    energy: Any
    forces: Any
    cell: Any
    pbc: Any
    tags: Any
    constraints: list[FixConstraint]
    keys: Mapping[str, Any]


def describe_row(
    position: int,
    where: str,
    *,
    numbers: Any,
    keys: Mapping[str, Any],
    name: str,
    family: str | None = None,
    order: int | None = None,
    subset: str | None = None,
) -> Entry:
    """Return the entry of a row; its own keys win over what is given.

    The keys are ``family``, ``frame``, ``subset``, ``split``, ``charge`` (e) and ``spin``
    (multiplicity 2S + 1).

    Args:
        position: Place in the data set, from 0.
        where: File and row, for messages.
        numbers: (n,) atomic numbers.
        keys: Data and key-value pairs of the row.
        name: Its name.
        family: Reaction or relaxation, where it is known otherwise.
        order: Place along it.
        subset: Source within the data set.

    Raises:
        DataSetError: ``frame``, ``charge`` or ``spin`` are not integers, a multiplicity is
                below 1, or the others are not text; atomic numbers are no numbers.
    """
    listed = _list_numbers(numbers, where)
    spin = _integer(keys, "spin", where)
    if spin is not None and spin < 1:
        raise DataSetError(f"{where}: spin is {spin}; it is the multiplicity 2S + 1, at least 1")
    own_order = _integer(keys, "frame", where)
    return Entry(
        position,
        name,
        family=_text(keys, "family", where) or family,
        order=order if own_order is None else own_order,
        subset=_text(keys, "subset", where) or subset,
        split=_text(keys, "split", where),
        n_atoms=len(listed),
        elements=tuple(sorted(set(listed))),
        charge=_integer(keys, "charge", where),
        spin=spin,
    )


def _list_numbers(numbers: Any, where: str) -> list[Any]:
    with suppress(ValueError):
        array = np.asarray(numbers)
        if array.dtype.kind in "iuf":
            return array.ravel().tolist()
    raise DataSetError(f"{where}: atomic numbers are {numbers!r:.40}; expected integers")


def _integer(keys: Mapping[str, Any], key: str, where: str) -> int | None:
    value = keys.get(key)
    if value is None or type(value) is int:
        return value
    if isinstance(value, float | np.number) and float(value).is_integer():
        return int(value)
    raise DataSetError(f"{where}: {key} is {value!r:.40}; expected an integer")


def _text(keys: Mapping[str, Any], key: str, where: str) -> str | None:
    value = keys.get(key)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return str(value)
    raise DataSetError(f"{where}: {key} is {value!r:.40}; expected text")


def find_labels(energy: Any, forces: Any, keys: Mapping[str, Any], where: str) -> tuple[float, Any]:
    """Return the labels of a row, never one of each kind.

    ``REF_energy`` and ``REF_forces`` among the keys win over the calculator's results, as they
    do in extended XYZ; ``energy`` and ``forces`` among the keys, where SchNetPack has them, count
    where there are no results.

    Returns:
        The energy (eV) and, not checked, the forces (eV/Å).

    Raises:
        DataSetError: Either is missing, or the energy is no number.
    """
    names = _LABEL_KEYS if any(key in keys for key in _LABEL_KEYS) else ASE_KEYS
    if names == _LABEL_KEYS or (energy is None and forces is None):
        energy, forces = (keys.get(key) for key in names)
    missing = [name for name, value in zip(names, (energy, forces), strict=True) if value is None]
    if missing:
        raise DataSetError(
            f"{where} has no {' and no '.join(missing)}; every row needs the energy and forces of "
            "a calculator, or REF_energy and REF_forces: label it or delete it"
        )
    try:
        return float(as_real(energy).reshape(())), forces
    except (TypeError, ValueError) as error:
        raise DataSetError(
            f"{where}: the energy is {energy!r:.40}; expected a number, eV"
        ) from error


def structure_of_row(row: Row, entry: Entry, where: str) -> LabelledStructure:
    """Return a row as a structure with its labels, constraints and keys.

    Raises:
        DataSetError: As ``find_labels`` and ``make_structure``; or a constraint on an atom that
            is not there.
    """
    energy, forces = find_labels(row.energy, row.forces, row.keys, where)
    known = _NOT_EXTRA.union(ASE_KEYS if row.energy is None and row.forces is None else ())
    extra = {k: v for k, v in row.keys.items() if v is not None and k not in known}
    try:
        cell, pbc = _take_cell(row.cell, row.pbc)
        structure = make_structure(
            entry,
            where,
            numbers=row.numbers,
            positions=row.positions,
            energy=energy,
            forces=forces,
            cell=cell,
            pbc=pbc,
            tags=row.tags,
            fixed=_mark_fixed(row, where),
            info=extra,
        )
    except (TypeError, ValueError) as error:  # NumPy, on what is no array
        raise DataSetError(f"{where}: {error}") from error
    structure.keep_constraints(row.constraints)
    return structure


def _take_cell(cell: Any, pbc: Any) -> tuple[Any, tuple[bool, bool, bool]]:
    """Return the cell, or None where nothing is said, and the periodic directions."""
    x, y, z = (False, False, False) if pbc is None else map(bool, pbc)
    if cell is None:
        return None, (x, y, z)
    vectors = np.asarray(cell, dtype=float)
    return vectors if x or y or z or vectors.any() else None, (x, y, z)


def _mark_fixed(row: Row, where: str) -> np.ndarray[Any, np.dtype[Any]] | None:
    if not row.constraints:
        return None
    mask = np.zeros(np.size(row.numbers), dtype=bool)
    for constraint in row.constraints:
        if isinstance(constraint, FixAtoms):
            try:
                mask[constraint.index] = True
            except IndexError as error:
                raise DataSetError(f"{where}: fixed atoms: {error}") from error
    return mask


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

    def close(self) -> None:
        """Do nothing: the file is open only while it is read."""

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
            yield structure_of_row(_take_apart(row, keys, where), entry, where)

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


def _take_apart(row: AtomsRow, keys: Mapping[str, Any], where: str) -> Row:
    try:
        constraints = row.constraints
    except Exception as error:  # ASE builds them here, and raises whatever it stumbles on
        raise DataSetError(f"{where}: constraints cannot be decoded ({error!r})") from error
    return Row(
        row["numbers"],
        row.get("positions"),
        row.get("energy"),
        row.get("forces"),
        row.get("cell"),
        row.get("pbc"),
        row.get("tags"),
        constraints,
        keys,
    )


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


FORMAT = Format(
    name="ase-db",
    title="Databases of ASE",
    level_of_theory="as the files say",
    citation="of the data set in the file",
    licence="of the data set in the file",
    url="https://ase-lib.org/ase/db/db.html",
    units="eV, eV/Å, Å",
    layout="rows with energy and forces, or REF_energy and REF_forces; family, frame, charge, spin",
    recognise=_recognise,
    open=AseDatabase,
    write=write_database,
    suffixes=_SUFFIXES,
)
