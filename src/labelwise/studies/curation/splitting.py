"""Training, validation and test sets of whole units, as near to the wanted sizes as they come.

A *unit* is what must stay together: the copies of a structure, a reaction, a cluster under
a kernel. Every way to split makes units first and then hands them out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64

from labelwise.errors import ArgumentError
from labelwise.kernels.base import Kernel
from labelwise.selection.rules.base import DEFAULT_REGULARISATION
from labelwise.studies.curation.neighbours import SpanningTree, merge_labels, renumber
from labelwise.studies.curation.settings import HERDING
from labelwise.studies.curation.summarising import check_rule, choose_representatives

#: The parts in the order of their numbers.
PARTS = ("train", "valid", "test")
TRAIN, VALID, TEST = 0, 1, 2
_MOST_TRIES = 200
_UNITS_TRIED = 200_000
#: How far the sizes may be from those asked for when the distance is chosen, as a part of the
#: smallest of them.
SIZE_TOLERANCE = 0.1


@dataclass(frozen=True, eq=False)
class Split:
    """Which part each structure belongs to.

    Attributes:
        part: (n,) int64: 0 train, 1 valid, 2 test.
        unit: (n,) int64, the unit that each structure could not be parted from.
        wanted: Sizes asked for, by part.
        distance: Kernel distance that test and validation structures keep from training
            structures at least; None where none is guaranteed.
    """

    part: Int64[np.ndarray, " n"]
    unit: Int64[np.ndarray, " n"]
    wanted: tuple[int, int, int]
    distance: float | None = None

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Sizes that came out, by part."""
        train, valid, test = np.bincount(self.part, minlength=3).tolist()
        return train, valid, test

    def members(self, part: int) -> Int64[np.ndarray, " k"]:
        """Return the positions of a part's structures, ascending."""
        found: np.ndarray = np.flatnonzero(self.part == part)
        return found


def wanted_sizes(n: int, valid: float, test: float) -> tuple[int, int, int]:
    """Turn fractions into sizes of train, valid and test that add up to n.

    Args:
        n: Structures.
        valid: Fraction for validation, 0 <= valid.
        test: Fraction for testing, 0 <= test, valid + test < 1.

    Raises:
        ArgumentError: A fraction is out of range, both are zero, or a part would be empty.
    """
    if not (valid >= 0 and test >= 0 and 0 < valid + test < 1):
        raise ArgumentError(
            f"valid={valid} and test={test}; allowed are fractions from 0 whose sum is above 0 "
            "and below 1: the rest is the training set"
        )
    sizes = (0, round(valid * n), round(test * n))
    sizes = (n - sizes[1] - sizes[2], *sizes[1:])
    for name, size, fraction in zip(PARTS, sizes, (1 - valid - test, valid, test), strict=True):
        if fraction > 0 and size < 1:
            raise ArgumentError(
                f"{fraction:g} of {n} structures is less than one: the {name} set would be empty; "
                "ask for a larger fraction, or for 0"
            )
    return sizes


def split_units(
    unit: Int64[np.ndarray, " n"], wanted: tuple[int, int, int], *, seed: int = 0
) -> Split:
    """Hand out whole units at random, so that the sizes come as near as they can.

    Units come in random order, and each goes to the part whose size is then nearest to the
    one wanted; where several parts have room for it, one is drawn in proportion to the room.
    Several orders are tried (200, fewer where there are many units) and the best is kept.

    Args:
        unit: (n,) unit of each structure.
        wanted: Sizes of train, valid and test.
        seed: Of orders and draws; equal seeds give equal splits.

    Raises:
        ArgumentError: There are fewer units than parts to fill.
    """
    unit = renumber(unit)
    sizes = np.bincount(unit)
    n_parts = sum(size > 0 for size in wanted)
    if len(sizes) < n_parts:
        raise ArgumentError(
            f"{len(unit)} structures make {len(sizes)} groups that must stay together, which "
            f"cannot fill {n_parts} sets; ask for fewer sets (--valid-fraction 0 or "
            "--test-fraction 0), or split by something finer"
        )
    rng = np.random.default_rng(seed)
    best: tuple[int, list[int]] | None = None
    for _ in range(min(_MOST_TRIES, max(1, _UNITS_TRIED // len(sizes)))):
        dealt = _deal(sizes.tolist(), wanted, rng)
        cost = _misfit(np.bincount(dealt, sizes, minlength=3).astype(int).tolist(), wanted)
        if best is None or cost < best[0]:
            best = (cost, dealt)
        if cost == 0:
            break
    if best is None:
        raise AssertionError("at least one order is tried")
    return Split(np.array(best[1], dtype=np.int64)[unit], unit, wanted)


def units_of_groups(
    groups: Sequence[str], first_equal: Int64[np.ndarray, " n"]
) -> Int64[np.ndarray, " n"]:
    """Return units that keep groups whole, and those together that share a structure.

    Args:
        groups: Group of each structure, (n,).
        first_equal: Position of the first structure equal to each, (n,).
    """
    _, number = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    return merge_labels(number.astype(np.int64), first_equal)


def split_by_distance(
    tree: SpanningTree,
    first_equal: Int64[np.ndarray, " n"],
    wanted: tuple[int, int, int],
    *,
    distance: float | None = None,
    seed: int = 0,
) -> Split:
    """Split so that no structure has one of another part within a kernel distance.

    The units are the connected components of the graph of all pairs within the distance.

    Args:
        tree: Of the set, (n,) structures; see ``single_linkage``.
        first_equal: Position of the first structure equal to each, (n,).
        wanted: Sizes of train, valid and test.
        distance: Kernel distance d >= 0, dimensionless; None takes the largest that leaves
            the sizes within a tenth of the smallest part asked for.
        seed: See ``split_units``.

    Raises:
        ArgumentError: The distance is out of range, or so large that too few components are
            left.
    """
    if distance is None:
        return _split_widest(tree, first_equal, wanted, seed)
    if not (math.isfinite(distance) and distance >= 0):
        raise ArgumentError(f"distance is {distance}; it must be finite and at least 0")
    return _split_at(tree, first_equal, wanted, distance, seed)


def split_to_cover(
    kernel: Kernel,
    first_equal: Int64[np.ndarray, " n"],
    wanted: tuple[int, int, int],
    *,
    rule: str = HERDING,
    seed: int = 0,
    regularisation: float = DEFAULT_REGULARISATION,
) -> Split:
    """Let a rule choose the test set so that it stands for the whole, then the validation set.

    The validation set is chosen from what the test set leaves. Copies of a structure go
    where it goes.

    Args:
        kernel: The set's kernel, (n,) structures, dimensionless.
        first_equal: Position of the first structure equal to each, (n,).
        wanted: Sizes of train, valid and test.
        rule: One of ``SUMMARY_RULES``.
        seed: Seed of ``random``.
        regularisation: λ of ``pv``.

    Raises:
        ArgumentError: An unknown rule.
        SelectionError: A kernel value is not finite.
    """
    check_rule(rule)
    unit = renumber(first_equal)
    part = np.zeros(len(unit), dtype=np.int64)
    for name in (TEST, VALID):
        free = np.flatnonzero(part == TRAIN)
        open_kernel = kernel.take(torch.from_numpy(free).to(kernel.device))
        is_copy = first_equal[free] != free
        n_pick = min(wanted[name], int((~is_copy).sum()))
        if n_pick == 0:
            continue
        chosen = choose_representatives(
            open_kernel,
            n_pick,
            rule=rule,
            exclude=is_copy,
            seed=seed,
            regularisation=regularisation,
        )
        part[_with_copies(free[chosen.pool_idx], unit, wanted[name])] = name
    return Split(part, unit, wanted)


def _with_copies(
    order: Int64[np.ndarray, " k"], unit: Int64[np.ndarray, " n"], size: int
) -> Int64[np.ndarray, " m"]:
    """Return the first structures of an order and all their copies, ``size`` at most."""
    ends = np.cumsum(np.bincount(unit)[unit[order]])
    n_taken = max(1, int((ends <= size).sum()))
    taken: np.ndarray = np.flatnonzero(np.isin(unit, unit[order[:n_taken]]))
    return taken


def misfit(split: Split) -> int:
    """Return how many structures would have to change parts for the sizes wanted."""
    return sum(max(0, got - want) for got, want in zip(split.sizes, split.wanted, strict=True))


def _split_at(
    tree: SpanningTree,
    first_equal: Int64[np.ndarray, " n"],
    wanted: tuple[int, int, int],
    distance: float,
    seed: int,
) -> Split:
    unit = merge_labels(tree.components(distance), first_equal)
    n_units = int(unit.max()) + 1
    if n_units < sum(size > 0 for size in wanted):
        raise ArgumentError(
            f"within a kernel distance of {distance:.4g} all {len(unit)} structures hang together "
            f"in {n_units} cluster{'s' if n_units > 1 else ''}; take a smaller distance, or leave "
            "it out for the largest that can be kept"
        )
    split = split_units(unit, wanted, seed=seed)
    return Split(split.part, split.unit, wanted, distance)


def _split_widest(
    tree: SpanningTree,
    first_equal: Int64[np.ndarray, " n"],
    wanted: tuple[int, int, int],
    seed: int,
) -> Split:
    """Bisect over the links of the tree for the largest distance that keeps the sizes.

    The guarantee is strict: just below the first link that is cut.
    """
    allowed = SIZE_TOLERANCE * min(size for size in wanted if size > 0)
    steps = np.unique(np.concatenate([[0.0], tree.distance]))
    best = _split_at(tree, first_equal, wanted, 0.0, seed)
    low, high = 0, len(steps) - 1
    while low < high:
        middle = (low + high + 1) // 2
        try:
            split = _split_at(tree, first_equal, wanted, float(steps[middle]), seed)
        except ArgumentError:
            high = middle - 1
            continue
        if misfit(split) <= allowed:
            low, best = middle, split
        else:
            high = middle - 1
    return best


def _deal(sizes: list[int], wanted: tuple[int, int, int], rng: np.random.Generator) -> list[int]:
    """Hand out units in random order; return the part of each."""
    room = list(wanted)
    dealt = [0] * len(sizes)
    order = rng.permutation(len(sizes)).tolist()
    draws = rng.random(len(sizes)).tolist()
    open_parts = [part for part in range(3) if wanted[part] > 0]
    for unit, draw in zip(order, draws, strict=True):
        size = sizes[unit]
        fits = [part for part in open_parts if room[part] >= size]
        if fits:
            part = _draw(fits, room, draw)
        else:  # the part whose size is then nearest to what is wanted
            part = min(open_parts, key=lambda p: abs(room[p] - size) - abs(room[p]))
        dealt[unit] = part
        room[part] -= size
    return dealt


def _draw(parts: list[int], room: list[int], draw: float) -> int:
    """Draw one of the parts in proportion to its room, by a number in [0, 1)."""
    level = draw * sum(room[part] for part in parts)
    for part in parts[:-1]:
        level -= room[part]
        if level < 0:
            return part
    return parts[-1]


def _misfit(sizes: list[int], wanted: tuple[int, int, int]) -> int:
    """Return the sum of deviations; a part left empty outweighs all else."""
    n = sum(wanted)
    empty = sum(want > 0 and got == 0 for got, want in zip(sizes, wanted, strict=True))
    return sum(abs(got - want) for got, want in zip(sizes, wanted, strict=True)) + 2 * n * empty
