"""From labelled structures to the files of a study: pools with validation and test sets."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.campaign.config import HeldOut
from labelwise.errors import ArgumentError, LabelError, StructureError
from labelwise.runtime.files import hash_file, write_bytes
from labelwise.structures import DuplicateIndex, get_labels
from labelwise.structures.compression import strip_compression
from labelwise.structures.datasets.building import build_pools
from labelwise.structures.datasets.builds import BUILDS
from labelwise.structures.datasets.splits import (
    PoolSplit,
    split_at_random,
    split_mixed,
    split_natural,
)
from labelwise.structures.demo_data import DEMO_FILES, demo_file_content
from labelwise.structures.extxyz import iter_frame_texts, parse_frame
from labelwise.structures.isolated_atoms import is_isolated_atom
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.structures.reading import FileSlice, expand_specs
from labelwise.studies.comparison.protocols import Layout
from labelwise.studies.comparison.study import PoolSection

DATA = "data"
MANIFEST = "manifest.json"
_ROLES = ("pool", "valid", "test")
_ISOLATED = "isolated_atoms.extxyz"
_SUFFIXES = (".xyz", ".extxyz")


@dataclass(frozen=True)
class DataKeys:
    """Where structures say what they are.

    Attributes:
        family: Info key of the reaction, or whatever the structures are grouped by.
        order: Info key of the place along the path, a number.
        energy: Info key of the total energy, eV.
        forces: Array key of the forces, eV/Å.
    """

    family: str = "reaction"
    order: str = "frame"
    energy: str = DEFAULT_ENERGY_KEY
    forces: str = DEFAULT_FORCES_KEY


@dataclass(frozen=True)
class LabelledText:
    """A frame as it stands in its file, and what the making of pools looks at.

    Attributes:
        text: The frame, with its last newline.
        family: Reaction; None if the structure does not say.
        order: Place along the path; None if the structure does not say.
        energy: Label, eV.
        copy_of: Number of the first structure that this is an exact copy of, or its own.
        where: File and frame.
    """

    text: str
    family: str | None
    order: float | None
    energy: float
    copy_of: int
    where: str


@dataclass(frozen=True)
class PoolFiles:
    """The pools of a study.

    Attributes:
        pools: Name to files; paths within the study's folder are relative to it.
        changes: What had to differ from the protocol, in words.
    """

    pools: dict[str, PoolSection]
    changes: tuple[str, ...]


def prepare_pools(
    data: Sequence[str],
    folder: Path,
    *,
    layout: Layout,
    seed: int,
    keys: DataKeys | None = None,
    n_pools: int | None = None,
) -> PoolFiles:
    """Take or make the pools of a study.

    Args:
        data: Folders with ``pool.extxyz``, ``valid.extxyz`` and ``test.extxyz``, which are
            taken as they are, together with ``train.extxyz`` and ``isolated_atoms.extxyz`` if
            they have them; or extended XYZ files with labels, of which pools are made below
            ``data`` in the study's folder; or nothing, for the embedded reactions.
        folder: The study's folder; made if missing.
        layout: ``natural`` or ``mixed``, see ``datasets.splits``, or ``random``, for structures
            of no families. Folders keep their own.
        seed: Decides how files are split, >= 0.
        keys: Where structures say what they are; None for the defaults.
        n_pools: Pools to make of files in the ``natural`` layout; None for three.

    Returns:
        The pools and what had to differ from the protocol.

    Raises:
        ArgumentError: Folders and files together, a folder without its three files, a file
            that is not extended XYZ, a family key that is missing, or too few structures.
        LabelError: A structure without labels.
        ReadError: A file that cannot be read.
        WriteError: The study's folder cannot be written to.
    """
    keys = DataKeys() if keys is None else keys
    folders = [spec for spec in data if Path(spec).is_dir()]
    if folders and len(folders) < len(data):
        files = next(spec for spec in data if spec not in folders)
        raise ArgumentError(
            f"data holds folders ({folders[0]}) and files ({files}); allowed are folders with "
            "pool.extxyz, valid.extxyz and test.extxyz, or files of which pools are made"
        )
    if folders:
        return _take_folders([Path(spec).absolute() for spec in folders])
    sources, isolated = _write_demo(folder) if not data else (list(data), None)
    lone: list[str] = []
    frames = sort_canonically(read_labelled(sources, keys, lone=lone))
    if lone:
        isolated = f"{DATA}/{_ISOLATED}"
        write_if_changed(folder / isolated, "".join(lone).encode("utf-8", "surrogateescape"))
    splits = _split(frames, keys, layout, seed, n_pools)
    names = [layout] if layout != "natural" else [f"natural_{i}" for i in range(len(splits))]
    record = {"sources": _describe(sources, embedded=not data), "seed": seed, "layout": layout}
    pools = {}
    for name, split in zip(names, splits, strict=True):
        _write_split(folder / DATA / name, frames, split, record)
        pools[name] = _section(f"{DATA}/{name}", isolated=isolated)
    told = f"pools: {len(lone)} isolated atoms are reference energies, not in them"
    changes = [
        f"{name}: {change}" if len(splits) > 1 and not change.startswith("pools:") else change
        for name, split in zip(names, splits, strict=True)
        for change in split.changes
    ]
    return PoolFiles(pools, (told, *changes) if lone else tuple(changes))


def prepare_built(
    data: Sequence[str], folder: Path, *, build: str, seed: int, size: int | None = None
) -> PoolFiles:
    """Take the pools that a recipe made of a published data set, or make them.

    Args:
        data: Folders with ``pool.extxyz``, ``valid.extxyz`` and ``test.extxyz``; or published
            files and folders, of which pools are made below ``data`` in the study's folder.
        folder: The study's folder; made if missing.
        build: Name of the recipe.
        seed: Decides what is drawn, >= 0.
        size: Structures in place of the recipe's number.

    Raises:
        ArgumentError: No data, or too few structures.
        DataSetError: A file that is damaged or of no format.
    """
    if not data:
        raise ArgumentError(
            f"this preset needs --data: the published files of {BUILDS[build].title}, or pools "
            f"made of them with 'labelwise data build {build} PATH... --out DIR'"
        )
    paths = [Path(spec).absolute() for spec in data]
    if all((path / "pool.extxyz").is_file() for path in paths):
        return _take_folders(paths)
    pools = build_pools(build, paths, folder / DATA, seed=seed, size=size)
    sections = {}
    for made in pools:
        name = made.folder.name
        section = _section(f"{DATA}/{name}", isolated=None)
        if "train" in made.counts:
            section = section.model_copy(update={"train": [f"{DATA}/{name}/train.extxyz"]})
        sections[name] = section
    changes = [f"{made.folder.name}: {change}" for made in pools for change in made.changes]
    return PoolFiles(sections, tuple(changes))


def read_labelled(
    specs: Sequence[str], keys: DataKeys, *, lone: list[str] | None = None
) -> list[LabelledText]:
    """Read labelled frames of extended XYZ files, each as it stands, in order.

    Isolated atoms, whose labels are reference energies, are not among them; their texts are
    added to ``lone``.

    Raises:
        ArgumentError: A file that is not extended XYZ.
        LabelError: A label, or a place along the path, is not what it should be.
        StructureError: A position that is not finite.
        ReadError: A file that cannot be read.
    """
    index = DuplicateIndex()
    frames: list[LabelledText] = []
    for part in expand_specs(list(specs)):
        for number, text in _iter_texts(part):
            where = f"{part.path}@{number}"
            if not _is_isolated(text, where):
                frames.append(_parse(text, where, keys, index, len(frames)))
            elif lone is not None:
                lone.append(text if text.endswith("\n") else f"{text}\n")
    return frames


def sort_canonically(frames: Sequence[LabelledText]) -> list[LabelledText]:
    """Sort structures by family and place along the path, so that pools are the same.

    Whatever the order of files, the same structures then come to the same pools. Those that do
    not say keep their order.
    """
    order = sorted(
        range(len(frames)),
        key=lambda i: (frames[i].family or "", frames[i].order or 0.0, frames[i].copy_of, i),
    )
    first: dict[int, int] = {}
    return [
        replace(frames[i], copy_of=first.setdefault(frames[i].copy_of, place))
        for place, i in enumerate(order)
    ]


def require_family(frames: Sequence[LabelledText], key: str) -> list[str]:
    """Return the family of each frame; raise ``ArgumentError`` if one does not say."""
    families = [frame.family for frame in frames if frame.family is not None]
    if len(families) < len(frames):
        lacking = next(frame for frame in frames if frame.family is None)
        raise ArgumentError(
            f"group_by is {key!r}, which {lacking.where} does not have; name the info key "
            "that tells which reaction a structure belongs to"
        )
    return families


def write_if_changed(path: Path, content: bytes) -> None:
    """Write a file unless it is there with this content."""
    if not path.is_file() or path.read_bytes() != content:
        write_bytes(path, content)


def write_manifest(folder: Path, content: dict[str, Any]) -> None:
    """Write what a pool was made of, unless it stands there."""
    text = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
    write_if_changed(folder / MANIFEST, text.encode())


def count_families(frames: Sequence[LabelledText]) -> dict[str, int]:
    """Return how many structures each family has, by name."""
    return dict(sorted(Counter(str(frame.family) for frame in frames).items()))


def _take_folders(folders: list[Path]) -> PoolFiles:
    pools: dict[str, PoolSection] = {}
    for folder in folders:
        lacking = [role for role in _ROLES if not (folder / f"{role}.extxyz").is_file()]
        if lacking:
            raise ArgumentError(
                f"data: {folder} has no {lacking[0]}.extxyz; a folder needs pool.extxyz, "
                "valid.extxyz and test.extxyz; to have pools made, give the files themselves: "
                f"'{folder}/*.extxyz'"
            )
        has_isolated = (folder / _ISOLATED).is_file()
        section = _section(str(folder), isolated=str(folder / _ISOLATED) if has_isolated else None)
        if (folder / "train.extxyz").is_file():
            section = section.model_copy(update={"train": [str(folder / "train.extxyz")]})
        pools[_free_name(folder.name, pools)] = section
    return PoolFiles(pools, ())


def _free_name(name: str, taken: dict[str, PoolSection]) -> str:
    plain = re.sub(r"[^A-Za-z0-9._+-]", "_", name).lstrip("._+-") or "pool"
    number = 1
    while (found := plain if number == 1 else f"{plain}-{number}") in taken:
        number += 1
    return found


def _section(place: str, *, isolated: str | None) -> PoolSection:
    return PoolSection(
        pool=[f"{place}/pool.extxyz"],
        valid=HeldOut(files=[f"{place}/valid.extxyz"]),
        test=HeldOut(files=[f"{place}/test.extxyz"]),
        isolated_atoms=isolated,
    )


def _write_demo(folder: Path) -> tuple[list[str], str]:
    """Write the embedded reactions; return the files, and the isolated atoms' as stored."""
    home = folder / DATA / "demo"
    for name in (*DEMO_FILES, _ISOLATED):
        write_if_changed(home / name, demo_file_content(name))
    return [str(home / name) for name in DEMO_FILES], f"{DATA}/demo/{_ISOLATED}"


def _describe(specs: Sequence[str], *, embedded: bool) -> list[dict[str, str]]:
    """Return name and SHA-256 of each file."""
    paths = list(dict.fromkeys(part.path for part in expand_specs(list(specs))))
    return [
        {
            "file": f"embedded {path.name}" if embedded else str(path.absolute()),
            "sha256": hash_file(path),
        }
        for path in paths
    ]


def _split(
    frames: list[LabelledText], keys: DataKeys, layout: Layout, seed: int, n_pools: int | None
) -> list[PoolSplit]:
    copy_of = [frame.copy_of for frame in frames]
    if layout == "random":
        return [split_at_random([""] * len(frames), copy_of, {""}, seed, [])]
    families = require_family(frames, keys.family)
    if layout == "mixed":
        return [split_mixed(families, copy_of, seed=seed)]
    if n_pools is None:
        return split_natural(families, copy_of, seed=seed)
    return split_natural(families, copy_of, seed=seed, n_pools=n_pools)


def _write_split(
    folder: Path, frames: list[LabelledText], split: PoolSplit, record: dict[str, Any]
) -> None:
    counts = {}
    for role in _ROLES:
        chosen = [frames[i] for i in getattr(split, role).tolist()]
        content = "".join(frame.text for frame in chosen).encode("utf-8", "surrogateescape")
        write_if_changed(folder / f"{role}.extxyz", content)
        counts[role] = count_families(chosen)
    left_out = {"n_copies_left_out": split.n_left_out, "changes": list(split.changes)}
    write_manifest(folder, {**record, "counts": counts, **left_out})


def _iter_texts(part: FileSlice) -> Iterator[tuple[int, str]]:
    if strip_compression(part.path).suffix.lower() not in _SUFFIXES:
        raise ArgumentError(
            f"data: {part.path} is not extended XYZ; pools are made of .xyz and .extxyz files: "
            "convert it with: ase convert"
        )
    numbered = enumerate(iter_frame_texts(part.path))
    if part.frames == slice(None):
        yield from numbered
        return
    yield from list(numbered)[part.frames]


def _is_isolated(text: str, where: str) -> bool:
    has_one = text.split("\n", 1)[0].strip() == "1"
    return has_one and is_isolated_atom(parse_frame(text, where))


def _parse(
    text: str, where: str, keys: DataKeys, index: DuplicateIndex, number: int
) -> LabelledText:
    atoms = parse_frame(text, where)
    if not np.isfinite(atoms.positions).all() or not np.isfinite(atoms.cell.array).all():
        raise StructureError(f"{where}: a position is not finite; take the structure out")
    labels = get_labels(atoms, where, energy_key=keys.energy, forces_key=keys.forces)
    original = index.find(atoms)
    if original is None:
        index.add(atoms, number)
    family, order = atoms.info.get(keys.family), atoms.info.get(keys.order)
    return LabelledText(
        text=text if text.endswith("\n") else f"{text}\n",
        family=None if family is None else str(family),
        order=None if order is None else _as_number(order, keys.order, where),
        energy=labels.energy,
        copy_of=number if original is None else original,
        where=where,
    )


def _as_number(value: Any, key: str, where: str) -> float:
    try:
        return float(value)
    except (TypeError, ValueError) as error:
        raise LabelError(f"{where}: {key!r} is {value!r:.40}, not a number") from error
