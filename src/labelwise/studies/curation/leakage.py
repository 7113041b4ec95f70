"""How much of one part of a split is found again in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from labelwise.kernels.base import Kernel
from labelwise.selection.rules import find_nearest
from labelwise.studies.curation.splitting import PARTS, TEST, TRAIN, VALID, Split

_QUANTILES = (0.0, 0.05, 0.5, 0.95, 1.0)


@dataclass(frozen=True)
class Leakage:
    """What structures of one part have in another.

    Attributes:
        held_out: Name of the part that is looked at.
        seen: Name of the part that is looked for.
        n_equal: Held-out structures with an exact duplicate in the other.
        shared_groups: Groups with structures in both; None without groups.
        distance: Least, 5 %, median, 95 % and largest kernel distance from a held-out
            structure to the nearest of the other; None without a kernel.
        random_distance: The same for a random split of equal sizes.
    """

    held_out: str
    seen: str
    n_equal: int
    shared_groups: tuple[str, ...] | None
    distance: tuple[float, ...] | None
    random_distance: tuple[float, ...] | None


def measure_leakage(
    split: Split,
    first_equal: Int64[np.ndarray, " n"],
    *,
    groups: Sequence[str] | None = None,
    kernel: Kernel | None = None,
    seed: int = 0,
) -> tuple[Leakage, ...]:
    """Compare test with train, valid with train, and test with valid.

    Args:
        split: The split of n structures.
        first_equal: Position of the first structure equal to each, (n,).
        groups: Group of each structure, (n,).
        kernel: Of all structures, (n,).
        seed: Of the random split that the distances are held against.

    Returns:
        One for each pair of parts that are not empty.
    """
    shuffled = np.random.default_rng(seed).permutation(split.part)
    found = []
    for held_out, seen in ((TEST, TRAIN), (VALID, TRAIN), (TEST, VALID)):
        rows, others = split.members(held_out), split.members(seen)
        if len(rows) == 0 or len(others) == 0:
            continue
        shared = None
        if groups is not None:
            shared = tuple(sorted({groups[i] for i in rows} & {groups[i] for i in others}))
        found.append(
            Leakage(
                held_out=PARTS[held_out],
                seen=PARTS[seen],
                n_equal=int(np.isin(first_equal[rows], first_equal[others]).sum()),
                shared_groups=shared,
                distance=_distances(kernel, split.part, held_out, seen),
                random_distance=_distances(kernel, shuffled, held_out, seen),
            )
        )
    return tuple(found)


def _distances(
    kernel: Kernel | None, part: Int64[np.ndarray, " n"], held_out: int, seen: int
) -> tuple[float, ...] | None:
    if kernel is None:
        return None
    others = torch.from_numpy(np.flatnonzero(part == seen)).to(kernel.device)
    _, distance = find_nearest(kernel, kernel.take(others), np.flatnonzero(part == held_out))
    return _to_quantiles(distance)


def _to_quantiles(distance: Float64[np.ndarray, " k"]) -> tuple[float, ...]:
    return tuple(float(value) for value in np.quantile(distance, _QUANTILES))
