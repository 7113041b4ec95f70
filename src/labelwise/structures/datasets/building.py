"""Making pools of published files: plain extended XYZ with a manifest."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Int64

from labelwise.errors import ArgumentError, DataSetError, WriteError, check_name
from labelwise.runtime.files import hash_file, write_text
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures.datasets.base import LabelledStructure, count
from labelwise.structures.datasets.builds import BUILDS, Build
from labelwise.structures.datasets.oc20 import correct_to_adsorption
from labelwise.structures.datasets.splits import PoolSplit
from labelwise.structures.datasets.spool import Spool, Spooled
from labelwise.structures.datasets.survey import DataSet, Survey, open_data_set, survey
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY

_log = logging.getLogger(__name__)

MANIFEST = "manifest.json"
#: What of a format goes into the manifest.
_FACTS = ("level_of_theory", "citation", "licence", "url")
_OWN_FILES = {MANIFEST, *(f"{role}.extxyz" for role in ("pool", "train", "valid", "test"))}
_LEAST_SIZE = 10
_MOST_LISTED = 200
Energies = Literal["stored", "adsorption"]


@dataclass(frozen=True)
class BuiltPool:
    """A pool that was made.

    Attributes:
        folder: Holds ``pool.extxyz``, ``valid.extxyz``, ``test.extxyz``, where the recipe gives
            labels to begin with ``train.extxyz``, and ``manifest.json``.
        counts: Structures of each file by role.
        changes: What had to differ from the protocol, in words.
    """

    folder: Path
    counts: dict[str, int]
    changes: tuple[str, ...]


def build_pools(
    name: str,
    paths: Sequence[Path],
    folder: Path,
    *,
    seed: int = 0,
    size: int | None = None,
    energies: Energies = "stored",
    format_name: str | None = None,
    replace: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> list[BuiltPool]:
    """Make the pools of a recipe.

    The same files, seed and size give the same bytes on every machine.

    Args:
        name: A key of ``BUILDS``.
        paths: Published files and folders.
        folder: Where the pools go, each in a folder of its own.
        seed: Decides what is drawn and held out, >= 0.
        size: Structures in place of the recipe's number, >= 10; None for that.
        energies: ``adsorption`` subtracts the reference energies that OC20's files give.
        format_name: Take all files for this format; None looks at each.
        replace: Replace files that are there and differ.
        progress: Told how far it is.

    Returns:
        The pools.

    Raises:
        ArgumentError: An unknown recipe, a value out of range, or too few structures.
        DataSetError: A file that is damaged, or not laid out as its format says.
        WriteError: Files that are there differ, or the folder cannot be written to.
    """
    build = _check(name, seed, size)
    data = open_data_set(paths, format_name)
    before = _stamp(data.paths)
    _log.info("looking at what there is")
    found = survey(data, build.query, seed=seed)
    if not len(found):
        raise ArgumentError(
            f"{name}: none of {found.n_seen} structures is what it takes "
            f"({json.dumps(build.query.describe())})"
        )
    _log.info("%d structures, %d of them fit", found.n_seen, len(found))
    drawing = build.draw(found, size)
    reading, back = np.unique(drawing.positions, return_inverse=True)
    with Spool(folder) as spool:
        structures = _adjusted(data, reading, energies)
        spooled = spool.fill(count(structures, "read", len(reading), progress))
        drawn, numbers = _reorder(spooled, back)
        pools = drawing.assign(drawn)
        record = _describe(build, data, found, size, energies)
        _refuse_changes(before, _stamp(data.paths))
        return [
            _write(spool, folder / pool, split, drawn, numbers, record, replace=replace)
            for pool, split in pools.items()
        ]


def _stamp(paths: Iterable[Path]) -> dict[Path, tuple[int, int, int]]:
    """Return what shows that a file was replaced or written to: number, size and time."""
    found = {}
    for path in paths:
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            state = file.stat()
            found[file] = (state.st_ino, state.st_size, state.st_mtime_ns)
    return found


def _refuse_changes(before: Mapping[Path, object], after: Mapping[Path, object]) -> None:
    """Refuse files that are not those that were looked at first: they are read twice."""
    changed = [path for path in {**before, **after} if before.get(path) != after.get(path)]
    if changed:
        raise DataSetError(
            f"{changed[0]} changed while it was read ({len(changed)} files in all); wait until it "
            "is written, and run again"
        )


def _check(name: str, seed: int, size: int | None) -> Build:
    check_name("the recipe", name, BUILDS)
    if seed < 0:
        raise ArgumentError(f"seed is {seed}; allowed are integers >= 0")
    if size is not None and size < _LEAST_SIZE:
        raise ArgumentError(f"size is {size}; allowed are integers >= {_LEAST_SIZE}")
    return BUILDS[name]


def _adjusted(
    data: DataSet, positions: Int64[np.ndarray, " n"], energies: Energies
) -> Iterator[LabelledStructure]:
    structures = data.iter_structures(positions.tolist())
    return map(correct_to_adsorption, structures) if energies == "adsorption" else structures


def _reorder(
    spooled: Spooled, back: Int64[np.ndarray, " n"]
) -> tuple[Spooled, Int64[np.ndarray, " n"]]:
    """Return what was read in the order in which it was drawn, and its numbers in the spool."""
    first: dict[int, int] = {}
    copies = [
        first.setdefault(original, place)
        for place, original in enumerate(spooled.copy_of[back].tolist())
    ]
    order = back.tolist()
    drawn = Spooled(
        [spooled.families[i] for i in order],
        [spooled.splits[i] for i in order],
        np.array(copies, dtype=np.int64),
        spooled.n_atoms[back],
    )
    return drawn, back.astype(np.int64)


def _write(
    spool: Spool,
    folder: Path,
    split: PoolSplit,
    drawn: Spooled,
    numbers: Int64[np.ndarray, " n"],
    record: dict[str, Any],
    *,
    replace: bool,
) -> BuiltPool:
    sets = split.by_role
    manifest = {**record, "pool": folder.name}
    manifest["counts"] = {role: len(members) for role, members in sets.items()}
    for key, names in (("families", drawn.families), ("splits", drawn.splits)):
        manifest[key] = {
            role: _count([names[i] for i in members]) for role, members in sets.items()
        }
    manifest |= {"n_copies_left_out": split.n_left_out, "changes": list(split.changes)}
    _refuse_other(folder, manifest, replace=replace)
    partial = folder.with_name(f".{folder.name}.part")
    _remove(partial)
    for role, members in sets.items():
        spool.write(partial / f"{role}.extxyz", numbers[members].tolist())
    files = [f"{role}.extxyz" for role in sets]
    manifest["files"] = {name: hash_file(partial / name) for name in files}
    text = json.dumps(manifest, indent=1, ensure_ascii=False)
    write_text(partial / MANIFEST, f"{text}\n")
    _remove(folder)
    try:
        partial.rename(folder)
    except OSError as error:
        raise WriteError(f"cannot write {folder}: {error.strerror or error}") from error
    return BuiltPool(folder, manifest["counts"], split.changes)


def _remove(folder: Path) -> None:
    """Remove a folder, a complete pool or the rest of one that was interrupted."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise WriteError(f"cannot replace {folder}: {error.strerror or error}") from error


def _refuse_other(folder: Path, manifest: dict[str, Any], *, replace: bool) -> None:
    """Refuse to write over anything but this pool, or with ``replace`` any built pool."""
    if not folder.exists():
        return
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    strange = sorted(names - _OWN_FILES)
    if strange:
        raise WriteError(
            f"{folder} holds what is no built pool ({strange[0] or 'a file'}); choose another place"
        )
    try:
        known = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    known.pop("files", None)
    if names and not replace and known != json.loads(json.dumps(manifest)):
        raise WriteError(
            f"{folder} holds something else; choose another place, or replace it with --force"
        )


def _count(names: Sequence[str]) -> dict[str, int]:
    """Return how often each name occurs; of many names only how many there are."""
    counts = Counter(name for name in names if name)
    return (
        dict(sorted(counts.items())) if len(counts) <= _MOST_LISTED else {"different": len(counts)}
    )


def _describe(
    build: Build, data: DataSet, found: Survey, size: int | None, energies: Energies
) -> dict[str, Any]:
    formats = {each.name: each for each in data.formats}
    return {
        "build": build.name,
        "title": build.title,
        "protocol": build.source,
        "query": build.query.describe(),
        "seed": found.seed,
        "size": size,
        "energies": energies,
        "keys": {"energy": DEFAULT_ENERGY_KEY, "forces": DEFAULT_FORCES_KEY},
        "units": {"energy": "eV", "forces": "eV/Å", "positions": "Å"},
        "n_seen": found.n_seen,
        "n_fit": len(found),
        "formats": {
            name: {key: getattr(each, key) for key in _FACTS} for name, each in formats.items()
        },
        "sources": [
            {"name": path.name, "format": each.name, "sha256": hash_source(path)}
            for path, each in zip(data.paths, data.formats, strict=True)
        ],
    }


def hash_source(path: Path) -> str:
    """Return the SHA-256 of a file, or of the names and hashes of a folder's files.

    Raises:
        ReadError: A file cannot be read.
    """
    if path.is_file():
        return hash_file(path)
    digest = hashlib.sha256()
    for each in sorted(path.rglob("*")):
        if each.is_file():
            digest.update(f"{each.relative_to(path).as_posix()}\0{hash_file(each)}\n".encode())
    return digest.hexdigest()
