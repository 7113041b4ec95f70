"""The papers' pools as recipes: what is drawn from a data set and how it is held out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.resources import files
from types import MappingProxyType
from typing import Any

import numpy as np
import yaml
from jaxtyping import Int64

from labelwise.errors import ArgumentError
from labelwise.structures.datasets.splits import (
    PoolSplit,
    draw_mixed,
    draw_natural,
    split_at_random,
    split_drawn,
)
from labelwise.structures.datasets.spool import Spooled
from labelwise.structures.datasets.survey import Query, Survey

Numbers = Int64[np.ndarray, " n"]
OOD_SPLITS = ("val_id", "val_ood_ads", "val_ood_cat", "val_ood_both")


@dataclass(frozen=True)
class Drawing:
    """What a recipe draws from a data set.

    Attributes:
        positions: (n,) int64, places in the data set, in the order of the files to be.
        assign: Divides the structures, read in that order, into pools and held-out sets by the
            pool's name; raises ``ArgumentError`` if they are too few to fill the sets.
    """

    positions: Numbers
    assign: Callable[[Spooled], dict[str, PoolSplit]]


@dataclass(frozen=True)
class Build(ABC):
    """A recipe.

    Attributes:
        name: For the command line.
        title: Heading.
        summary: What it makes, in a sentence.
        source: Paper and section.
        query: Which structures take part.
    """

    name: str
    title: str
    summary: str
    source: str
    query: Query

    @property
    def usual_size(self) -> int | None:
        """Structures that a size stands in place of; None where a size does not apply."""
        return None

    @abstractmethod
    def draw(self, found: Survey, size: int | None) -> Drawing:
        """Draw structures.

        Args:
            found: What the query takes, at least one structure; its seed decides everything.
            size: Structures in place of the recipe's number; None for that.

        Raises:
            ArgumentError: There is nothing to draw from, or the size does not apply.
        """


@dataclass(frozen=True)
class ReactionBuild(Build):
    """Pools of whole reactions.

    Attributes:
        is_mixed: One pool of a hundred reactions, or three natural ones of five.
    """

    is_mixed: bool = False

    def draw(self, found: Survey, size: int | None) -> Drawing:
        """Draw reactions, and take all their structures in the order of names and paths."""
        if size is not None:
            raise ArgumentError(f"{self.name} takes whole reactions; a size does not apply")
        n_lacking = int((found.families < 0).sum())
        if n_lacking:
            raise ArgumentError(
                f"{self.name} needs structures that say which reaction they belong to; "
                f"{n_lacking} do not"
            )
        if self.is_mixed:
            return self._draw_mixed(found)
        groups, changes = draw_natural(found.family_names, seed=found.seed)

        def assign(drawn: Spooled) -> dict[str, PoolSplit]:
            copies = drawn.copy_of.tolist()
            splits = split_drawn(drawn.families, copies, groups, seed=found.seed, changes=changes)
            return {f"natural_{number}": split for number, split in enumerate(splits)}

        chosen = {name for group in groups for name in group}
        return Drawing(_sort_by_path(found, chosen), assign)

    def _draw_mixed(self, found: Survey) -> Drawing:
        chosen, changes = draw_mixed(found.family_names, seed=found.seed)

        def assign(drawn: Spooled) -> dict[str, PoolSplit]:
            copies = drawn.copy_of.tolist()
            return {"mixed": split_at_random(drawn.families, copies, chosen, found.seed, changes)}

        return Drawing(_sort_by_path(found, chosen), assign)


@dataclass(frozen=True)
class SampleBuild(Build):
    """A random sample of one subset, with a fifth to test and a tenth to validate.

    Attributes:
        n_structures: Of the sample.
    """

    n_structures: int = 5_000

    @property
    def usual_size(self) -> int | None:
        """Structures of the sample."""
        return self.n_structures

    def draw(self, found: Survey, size: int | None) -> Drawing:
        """Draw structures by their ranks."""
        wanted = self.n_structures if size is None else size
        positions = found.positions[np.argsort(found.ranks, kind="stable")[:wanted]]
        changes = []
        if wanted != self.n_structures:
            changes.append(f"structures: {self.n_structures} → {wanted}, as asked")
        if len(positions) < wanted:
            changes.append(f"structures: {wanted} → {len(positions)}, which is all there are")

        def assign(drawn: Spooled) -> dict[str, PoolSplit]:
            names, copies = [""] * len(drawn), drawn.copy_of.tolist()
            return {self.name: split_at_random(names, copies, {""}, found.seed, changes)}

        return Drawing(positions, assign)


@dataclass(frozen=True)
class SurfaceBuild(Build):
    """A large pool with labels to begin with, and a test set balanced over four splits.

    Attributes:
        n_pool, n_train, n_valid, n_test: Structures of each set.
    """

    n_pool: int = 200_000
    n_train: int = 2_000
    n_valid: int = 1_000
    n_test: int = 20_000

    @property
    def usual_size(self) -> int | None:
        """Structures of the pool."""
        return self.n_pool

    def draw(self, found: Survey, size: int | None) -> Drawing:
        """Draw the test set split by split, then the others from all further splits."""
        wanted = self._sizes(size)
        ranked = np.argsort(found.ranks, kind="stable")
        names = np.array([*found.split_names, ""])[found.splits[ranked]]  # -1 is the last
        tests = [
            ranked[names == split][: wanted["test"] // len(OOD_SPLITS)] for split in OOD_SPLITS
        ]
        n_rest = wanted["train"] + wanted["valid"] + wanted["pool"]
        rest = ranked[~np.isin(names, OOD_SPLITS)][:n_rest]
        if not len(rest) or not all(len(test) for test in tests):
            present = ", ".join(found.split_names) or "none"
            raise ArgumentError(
                f"{self.name} needs structures of {', '.join(OOD_SPLITS)} and of a training split; "
                f"the data have: {present}"
            )
        changes = []
        if wanted["pool"] != self.n_pool:
            changes.append(f"pool: {self.n_pool} → {wanted['pool']}, other sets in proportion")
        if len(rest) < n_rest:
            changes.append(f"training structures: {n_rest} → {len(rest)}, which is all there are")
            part = len(rest) / n_rest
            wanted |= {role: max(1, int(part * wanted[role])) for role in ("train", "valid")}
        n_test = sum(map(len, tests))
        if n_test < wanted["test"]:
            changes.append(f"test structures: {wanted['test']} → {n_test}, which is all there are")

        def assign(drawn: Spooled) -> dict[str, PoolSplit]:
            return {self.name: _divide(drawn, n_test, wanted, tuple(changes))}

        return Drawing(found.positions[np.concatenate([*tests, rest])], assign)

    def _sizes(self, size: int | None) -> dict[str, int]:
        part = 1.0 if size is None else size / self.n_pool
        least = {"pool": 1, "train": 1, "valid": 1, "test": len(OOD_SPLITS)}
        return {
            role: max(smallest, round(part * getattr(self, f"n_{role}")))
            for role, smallest in least.items()
        }


def _divide(
    drawn: Spooled, n_test: int, wanted: Mapping[str, int], changes: tuple[str, ...]
) -> PoolSplit:
    """Divide what follows the test set; copies of held-out structures are left out."""
    test = _without_copies(range(n_test), drawn, set())
    held = {int(drawn.copy_of[i]) for i in test}
    rest = range(n_test, len(drawn))
    free = _without_copies(rest, drawn, held)
    valid, train = free[: wanted["valid"]], free[wanted["valid"] :][: wanted["train"]]
    held |= {int(drawn.copy_of[i]) for i in valid}
    used = {*valid, *train}
    pool = [i for i in rest if i not in used and int(drawn.copy_of[i]) not in held]
    sets = {"pool": pool, "train": train, "valid": valid, "test": test}
    empty = [role for role, members in sets.items() if not members]
    if empty:
        raise ArgumentError(f"{len(drawn)} structures leave none for {empty[0]}; give more")
    n_left_out = len(drawn) - sum(map(len, sets.values()))
    rows = {role: np.array(members, dtype=np.int64) for role, members in sets.items()}
    return PoolSplit(**rows, n_left_out=n_left_out, changes=changes)


def _sort_by_path(found: Survey, chosen: set[str]) -> Numbers:
    """Return the positions of some families by name and place along the path."""
    names = np.array(found.family_names)
    rows = np.flatnonzero(np.isin(names, sorted(chosen))[found.families])
    alphabetical = np.argsort(np.argsort(names))[found.families[rows]]
    order = np.lexsort((found.positions[rows], found.orders[rows], alphabetical))
    return found.positions[rows[order]]


def _without_copies(numbers: range | list[int], drawn: Spooled, held: set[int]) -> list[int]:
    """Return those that equal neither one before nor one held out."""
    seen = set(held)
    kept = []
    for number in numbers:
        original = int(drawn.copy_of[number])
        if original not in seen:
            seen.add(original)
            kept.append(number)
    return kept


_KINDS: Mapping[str, type[Build]] = MappingProxyType(
    {"reactions": ReactionBuild, "sample": SampleBuild, "surfaces": SurfaceBuild}
)


def _make(
    name: str, kind: str, query: Mapping[str, list[Any]] | None = None, **given: Any
) -> Build:
    conditions: Any = {key: frozenset(values) for key, values in (query or {}).items()}
    return _KINDS[kind](name=name, query=Query(**conditions), **given)


_LISTED = yaml.safe_load(files(__package__).joinpath("builds.yaml").read_text("utf-8"))
#: The papers' pools.
BUILDS: Mapping[str, Build] = MappingProxyType(
    {name: _make(name, **given) for name, given in _LISTED.items()}
)
