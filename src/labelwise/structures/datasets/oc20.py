"""What both layouts of OC20 share: shards in folders of splits, and adsorption energies."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.labels import DEFAULT_ENERGY_KEY

#: Info key of the energy of slab and gas that an adsorption energy is counted from, eV.
REFERENCE_KEY = "reference_energy"
#: Info key that says what the label is.
ENERGY_IS_KEY = "energy_is"
#: As the publishers name them.
KNOWN_SPLITS = frozenset(
    f"{prefix}{name}"
    for prefix, names in (
        ("", ("train", "200k", "2M", "20M", "all", "rattled", "md")),
        ("train_", ("200K", "2M", "20M", "all")),
        ("val_", ("id", "ood_ads", "ood_cat", "ood_both")),
    )
    for name in names
)
#: Folders that lie between what is opened and the shards.
_DEPTH = 2


@dataclass(frozen=True, slots=True)
class Shard:
    """A file of a split.

    Attributes:
        path: The file.
        name: Of the file, without endings.
        split: Name of the folder; None for a single file in a folder that is no known split.
    """

    path: Path
    name: str
    split: str | None

    def name_structure(self, number: int) -> str:
        """Return the name of a structure, ``<split>/<shard>/<number>``."""
        folder = "" if self.split is None else f"{self.split}/"
        return f"{folder}{self.name}/{number}"


def iter_files(path: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    """Yield the files under a folder, or the file itself, whose name matches all of a pattern.

    Args:
        path: A file or folder; folders within are looked into twice, hidden ones not at all.
        pattern: Of file names.
    """
    if path.is_file():
        if pattern.fullmatch(path.name):
            yield path
        return
    yield from _iter_folder(path, pattern, _DEPTH)


def _iter_folder(folder: Path, pattern: re.Pattern[str], depth: int) -> Iterator[Path]:
    within = sorted(folder.iterdir(), key=lambda path: _order(path.name))
    yield from (path for path in within if pattern.fullmatch(path.name) and path.is_file())
    if depth > 0:
        for path in within:
            if path.is_dir() and not path.name.startswith("."):
                yield from _iter_folder(path, pattern, depth - 1)


def _order(name: str) -> list[tuple[int, str]]:
    """Return what sorts names by the numbers in them: 2 before 10."""
    return [(int(number or -1), word) for word, number in re.findall(r"([^\d]*)(\d*)", name)]


def find_shards(
    path: Path, pattern: re.Pattern[str], name_split: Callable[[str], str] = str
) -> tuple[Shard, ...]:
    """Return the shards of a file, split or folder of splits in the order of their numbers.

    Args:
        path: What was opened.
        pattern: Of file names; its first group is the shard's name.
        name_split: Makes a split's name of that of a folder.

    Raises:
        DataSetError: There is none, or two of one split have the same name: a shard twice, or
            two sizes of the training split, which hold the same structures.
    """
    shards: dict[tuple[str | None, str], Shard] = {}
    for file in iter_files(path, pattern):
        match = pattern.fullmatch(file.name)
        folder = file.absolute().parent.name
        split: str | None = name_split(folder)
        if path.is_file() and split not in KNOWN_SPLITS:
            split = None
        shard = Shard(file, match[1] if match is not None else file.name, split)
        other = shards.setdefault((split, shard.name), shard)
        if other is not shard:
            raise DataSetError(
                f"{file} and {other.path} are both shard {shard.name} of {split}: they would hold "
                "the same structures; open one of the two folders, or move one file away"
            )
    if not shards:
        raise DataSetError(f"{path}: no file in it or its folders is named as a shard of OC20")
    return tuple(shards.values())


def correct_to_adsorption(structure: LabelledStructure) -> LabelledStructure:
    """Return a structure whose label is its adsorption energy: total less reference energy.

    The total energy is kept in info ``total_energy``, and ``energy_is`` becomes ``adsorption``; a
    structure that says so already is returned as it is. Forces are the same.

    Raises:
        DataSetError: The data set gives no reference energy for it.
    """
    info = structure.atoms.info
    if info.get(ENERGY_IS_KEY) == "adsorption":
        return structure
    if REFERENCE_KEY not in info:
        raise DataSetError(
            f"{structure.entry.name}: no reference energy is known, so there is no adsorption "
            "energy; OC20 gives them in the .txt files beside its shards"
        )
    atoms = structure.atoms.copy()
    total = info[DEFAULT_ENERGY_KEY]
    atoms.info |= {
        DEFAULT_ENERGY_KEY: total - info[REFERENCE_KEY],
        "total_energy": total,
        ENERGY_IS_KEY: "adsorption",
    }
    return LabelledStructure(structure.entry, atoms)
