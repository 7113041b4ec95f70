"""OMol25, and other data sets that lie in ``.aselmdb`` files."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ase.constraints import FixConstraint, dict2constraint
from ase.db.core import now

from labelwise.errors import ArgumentError, DataSetError
from labelwise.structures.aselmdb import AselmdbRows, restore, write_rows
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
from labelwise.structures.datasets.units import check_total_energy, check_units
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.structures.left_out import LeftOut
from labelwise.structures.lmdb_file import check_pages

_SUFFIX = ".aselmdb"
_SPLIT_BY_SOURCE = "reactivity"
_STEP = re.compile(r"(?:(?P<family>.+)_)?step(?P<order>\d+)(?:_.*)?")
_NO_ORDER = (None, None)


class OmolData(DataFile):
    """A file or a folder of files, in the order of the numbers in their names.

    Args:
        path: An ``.aselmdb`` file, or a folder with such files.

    Raises:
        DataSetError: There is no such file, or one is not LMDB or truncated.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files = _list_files(path)
        if not self._files:
            raise DataSetError(f"{path} holds no {_SUFFIX} file")
        for file in self._files:
            check_pages(file)

    def iter_entries(self) -> Iterator[Entry]:
        """Decode every row, which is what it takes; rows without labels are refused here."""
        for position, file, number, raw in self._iter_raw(None):
            where = f"{file}: row {number}"
            keys = _keys_of(raw, where)
            find_labels(raw.get("energy"), raw.get("forces"), keys, where)
            yield _describe(position, file, number, raw, keys)

    def iter_structures(self, wanted: Iterable[int] | None = None) -> Iterator[LabelledStructure]:
        """Yield the wanted structures; other rows are not even decompressed."""
        return check_units(self._iter_unjudged(wanted), self._path)

    def _iter_unjudged(self, wanted: Iterable[int] | None) -> Iterator[LabelledStructure]:
        for position, file, number, raw in self._iter_raw(wanted):
            where = f"{file}: row {number}"
            keys = _keys_of(raw, where)
            entry = _describe(position, file, number, raw, keys)
            structure = _make(raw, entry, keys, where)
            if keys.get("data_id") is not None:
                arrays = structure.arrays
                check_total_energy(arrays.numbers, arrays.info[DEFAULT_ENERGY_KEY], where)
            yield structure

    def _iter_raw(
        self, wanted: Iterable[int] | None
    ) -> Iterator[tuple[int, Path, int, dict[str, Any]]]:
        """Yield position, file, id and row, all or those that are wanted."""
        for rows, _, first, numbers in divide_wanted(wanted, self._iter_files(), self._path):
            ids = (rows.ids[number] for number in numbers)
            for number, (row_id, raw) in zip(numbers, rows.iter_rows(ids), strict=True):
                yield first + number, rows.path, row_id, raw

    def _iter_files(self) -> Iterator[tuple[AselmdbRows, int]]:
        for file in self._files:
            rows = AselmdbRows(file)
            yield rows, len(rows.ids)
            rows.close()


def parse_source(source: str) -> tuple[str | None, int | None]:
    """Return the path or relaxation that a ``source`` of OMol25 belongs to, and the place on it.

    The family is all that stands before the step, so all steps of a path share it, whatever
    their charge and multiplicity, which stand behind the step:

    * ``rgd_uks/MR_693393_1_13_0_1/…`` → ``rgd_uks/MR_693393_1``, 13: the third field from the
      end is the step, 0 the reactant and 18 the product.
    * ``trans1x/trans1x_2157_90_25_0_1/…`` → ``trans1x/trans1x_2157_90``, 25: the fourth field
      is the image.
    * ``pmechdb/r_12345_step3_0_1/…`` → ``pmechdb/r_12345``, 3, and so for every source with
      ``_step<k>`` at the end of a field of its path.
    * ``omol/electrolytes/…/<system>/step4/…`` → ``omol/electrolytes/…/<system>``, 4.

    Args:
        source: Path of the calculation, as the row has it.

    Returns:
        Family and order; None and None where the source names no step.
    """
    parts = source.split("/")
    if len(parts) > 1:
        fields = parts[1].split("_")
        if parts[0].startswith("rgd"):
            return _split_fields(parts[0], fields, len(fields) - 3)
        if parts[0] == "trans1x":
            return _split_fields(parts[0], fields, 3)
    for depth, part in enumerate(parts[1:], start=1):
        found = _STEP.fullmatch(part)
        if found:
            family = [*parts[:depth], found["family"]] if found["family"] else parts[:depth]
            return "/".join(family), int(found["order"])
    return _NO_ORDER


def _split_fields(folder: str, fields: list[str], step: int) -> tuple[str | None, int | None]:
    if not 1 <= step < len(fields) or not fields[step].isdecimal():
        return _NO_ORDER
    return f"{folder}/{'_'.join(fields[:step])}", int(fields[step])


def name_subset(data_id: str | None, source: str | None) -> str | None:
    """Return the subset of OMol25: ``data_id``, with ``reactivity`` split by its sources.

    Args:
        data_id: As the row has it; None for files that are not of OMol25.
        source: Path of the calculation; its first component is ``pmechdb``, ``rmechdb`` or
            ``ani1xbb`` within ``reactivity``.
    """
    if data_id == _SPLIT_BY_SOURCE and source:
        return source.split("/")[0]
    return data_id


def write_omol(path: Path, structures: Iterable[LabelledStructure]) -> int:
    """Write structures to an ``.aselmdb`` file in one step; return how many.

    The layout is that of ase-db-backends: labels as results of a calculator, info in ``data``,
    a structure's name as its ``source`` where it has none.

    Args:
        path: The file, with the suffix ``.aselmdb``; one that is there is replaced when all
            structures are written.
        structures: What to write, in order; not modified.

    Raises:
        ArgumentError: Another suffix.
        WriteError: The file cannot be written.
        MissingDependencyError: lmdb is not installed.

    Warns:
        LabelwiseWarning: Info that a database cannot hold was left out.
    """
    if path.suffix.lower() != _SUFFIX:
        raise ArgumentError(f"{path} is a database to write; its suffix must be {_SUFFIX}")
    left_out = LeftOut("an ASE database")
    n_written = write_rows(path, (_as_raw(structure, left_out) for structure in structures))
    left_out.warn(path)
    return n_written


def _list_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    if not path.is_dir():
        return []
    return sorted((each for each in path.iterdir() if each.suffix.lower() == _SUFFIX), key=_order)


def _order(path: Path) -> tuple[list[tuple[int, str]], str]:
    """Return a key that sorts ``data2`` before ``data10``."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in parts], path.name


def _keys_of(raw: dict[str, Any], where: str) -> dict[str, Any]:
    """Return ``data`` and key-value pairs with their arrays."""
    keys: dict[str, Any] = {}
    for name in ("data", "key_value_pairs"):
        part = raw.get(name)
        if part is None:
            continue
        restored = restore(part, f"{where}: {name}")
        if not isinstance(restored, dict):
            raise DataSetError(f"{where}: {name} is {restored!r:.40}; expected a JSON object")
        keys.update(restored)
    return keys


def _describe(
    position: int, file: Path, number: int, raw: dict[str, Any], keys: Mapping[str, Any]
) -> Entry:
    where = f"{file}: row {number}"
    source, data_id = (_text_or_none(keys, key, where) for key in ("source", "data_id"))
    family, order = _NO_ORDER if source is None else parse_source(source)
    raw["numbers"] = _values(raw, "numbers", where)
    return describe_row(
        position,
        where,
        numbers=raw["numbers"],
        keys=keys,
        name=source or f"{file.stem}/{number}",
        family=family,
        order=order,
        subset=name_subset(data_id, source),
    )


def _text_or_none(keys: Mapping[str, Any], key: str, where: str) -> str | None:
    value = keys.get(key)
    if value is None or isinstance(value, str):
        return value
    raise DataSetError(f"{where}: {key} is {value!r:.40}; expected text")


def _values(raw: dict[str, Any], key: str, where: str) -> Any:
    """Return an array of the row, which must have it."""
    if key not in raw:
        raise DataSetError(f"{where} has no {key}; it is not a row of ASE")
    return restore(raw[key], f"{where}: {key}")


def _make(
    raw: dict[str, Any], entry: Entry, keys: Mapping[str, Any], where: str
) -> LabelledStructure:
    cell, pbc, forces, tags = (
        restore(raw.get(key), f"{where}: {key}") for key in ("cell", "pbc", "forces", "tags")
    )
    return structure_of_row(
        entry,
        where,
        keys=keys,
        constraints=_restore_constraints(raw.get("constraints"), where),
        numbers=raw["numbers"],
        positions=_values(raw, "positions", where),
        energy=raw.get("energy"),
        forces=forces,
        cell=cell.get("array") if isinstance(cell, dict) else cell,  # older versions of ASE
        pbc=pbc,
        tags=tags,
    )


def _restore_constraints(listed: Any, where: str) -> list[FixConstraint]:
    if not listed:
        return []
    try:
        return [dict2constraint(each) for each in restore(listed, f"{where}: constraints")]
    except Exception as error:  # ASE raises whatever it stumbles on
        raise DataSetError(f"{where}: constraints cannot be decoded ({error!r})") from error


def _as_raw(structure: LabelledStructure, left_out: LeftOut) -> dict[str, Any]:
    atoms = structure.atoms
    data = keys_to_write(structure, left_out)
    name = data.pop("name", structure.entry.name)
    data.setdefault("source", name)
    raw = {
        "numbers": atoms.numbers,
        "positions": atoms.positions,
        "unique_id": _identify(structure),
        "ctime": now(),
        "mtime": now(),
        "user": None,
        "calculator": "unknown",
        "calculator_parameters": {},
        "cell": atoms.cell.array,
        "pbc": atoms.pbc,
        "energy": atoms.info[DEFAULT_ENERGY_KEY],
        "forces": atoms.arrays[DEFAULT_FORCES_KEY],
        "data": data,
    }
    if "tags" in atoms.arrays:
        raw["tags"] = atoms.arrays["tags"]
    if atoms.constraints:
        raw["constraints"] = [each.todict() for each in atoms.constraints]
    return raw


def _identify(structure: LabelledStructure) -> str:
    """Return 32 hexadecimal digits that are the same whenever the structure is written."""
    content = blake2b(f"{structure.entry.position} {structure.entry.name}".encode(), digest_size=16)
    content.update(structure.atoms.numbers.tobytes())
    content.update(structure.atoms.positions.tobytes())
    return content.hexdigest()


FORMAT = make_format(
    "omol",
    recognise=lambda path: any(each.suffix.lower() == _SUFFIX for each in _list_files(path)),
    opener=OmolData,
    write=write_omol,
)
