"""The few structures that stand for a data set, and how well they do."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from labelwise.errors import check_name
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, chunks
from labelwise.selection.measurement import subset
from labelwise.selection.rules import ProgressCallback, Selection, find_nearest, select_batch
from labelwise.selection.rules.base import DEFAULT_REGULARISATION, check_n_select
from labelwise.studies.curation.herding import moment_kernel, moment_similarity, select_herding
from labelwise.studies.curation.settings import HERDING, SUMMARY_RULES


@dataclass(frozen=True, eq=False)
class Representatives:
    """A subset and the part of the set that each of its members stands for.

    Attributes:
        idx: (k,) int64, positions in the set in order of choice.
        score: (k,) float64, the rule's own, dimensionless; of ``herding`` the MMD after
            each pick.
        weight: (k,) float64, the part of the set that is nearest to each; the sum is 1.
        nearest: (n,) int64, rank of the representative that each structure is nearest to.
        distance: (n,) float64, kernel distance to it, dimensionless.
    """

    idx: Int64[np.ndarray, " k"]
    score: Float64[np.ndarray, " k"]
    weight: Float64[np.ndarray, " k"]
    nearest: Int64[np.ndarray, " n"]
    distance: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class Coverage:
    """How well a subset stands for its set; all dimensionless, all better when smaller.

    Attributes:
        mean_distance: Mean kernel distance from a structure to its nearest representative.
        max_distance: The largest, the covering radius.
        mmd: Distance between the mean features of subset and set, (mean difference under k).
        weighted_mmd: The same with each representative counted by its weight.
        moment_mmd: MMD under 2k + k², the difference of first and second moments together.
        group_difference: Half the sum over groups of |part of the subset − part of the
            set|: the part of the subset that would have to change; None without groups.
    """

    mean_distance: float
    max_distance: float
    mmd: float
    weighted_mmd: float
    moment_mmd: float
    group_difference: float | None = None


def average_coverage(figures: Sequence[Coverage]) -> dict[str, dict[str, float | None]]:
    """Return mean and standard deviation of every figure, for instance over random subsets.

    Args:
        figures: At least one, all with groups or all without.

    Returns:
        ``mean`` and ``std`` by the figure's name; None for what is not known.
    """
    averaged: dict[str, dict[str, float | None]] = {}
    for field in fields(Coverage):
        values = [getattr(each, field.name) for each in figures]
        is_known = None not in values
        averaged[field.name] = {
            "mean": float(np.mean(values)) if is_known else None,
            "std": float(np.std(values, ddof=1)) if is_known and len(values) > 1 else None,
        }
    return averaged


def choose_representatives(
    kernel: Kernel,
    n_select: int,
    *,
    rule: str = HERDING,
    exclude: Bool[np.ndarray, " n"] | None = None,
    seed: int = 0,
    regularisation: float = DEFAULT_REGULARISATION,
    progress: ProgressCallback | None = None,
) -> Selection:
    """Pick by a rule, with nothing labelled.

    Args:
        kernel: The set's kernel, (n,) structures, dimensionless.
        n_select: Structures to pick, from 1 to the number that are not excluded.
        rule: One of ``SUMMARY_RULES``.
        exclude: (n,) bool, structures not to be picked, for instance repeats.
        seed: Seed of ``random``.
        regularisation: λ of ``pv``, in units of the kernel.
        progress: Called as ``progress(done, total)``.

    Raises:
        ArgumentError: An unknown rule.
        SelectionError: An argument out of range, or a non-finite kernel value.
    """
    check_rule(rule)
    if rule == HERDING:
        return select_herding(kernel, n_select, exclude=exclude, progress=progress)
    free = np.arange(len(kernel)) if exclude is None else np.flatnonzero(~exclude)
    picked = select_batch(
        rule,
        kernel if exclude is None else subset(kernel, free),
        subset(kernel, np.zeros(0, dtype=np.int64)),
        n_select,
        seed=seed,
        regularisation=regularisation,
        progress=progress,
    )
    return Selection(free[picked.pool_idx], picked.score)


def check_rule(rule: str) -> None:
    """Raise ``ArgumentError`` unless the rule is one that can summarise."""
    check_name("rule", rule, SUMMARY_RULES)


def assign_to(kernel: Kernel, selection: Selection) -> Representatives:
    """Assign every structure of a set to the nearest of a subset.

    Args:
        kernel: The set's kernel, (n,) structures.
        selection: The subset, (k,) positions in the set, k >= 1.
    """
    chosen = subset(kernel, selection.pool_idx)
    nearest, distance = find_nearest(kernel, chosen, np.arange(len(kernel)))
    weight = np.bincount(nearest, minlength=len(selection)) / len(kernel)
    return Representatives(selection.pool_idx, selection.score, weight, nearest, distance)


class CoverageMeter:
    """Measures how well subsets stand for one set; what concerns the set is computed once.

    Args:
        kernel: The set's kernel, (n,) structures, dimensionless.
        groups: Group of each structure, (n,); None for none.
    """

    def __init__(self, kernel: Kernel, groups: Sequence[str] | None = None) -> None:
        self._kernel = kernel
        self._groups = None if groups is None else np.asarray(groups, dtype=object)
        self._mean = kernel.mean_similarity()
        self._moment_mean = moment_similarity(kernel)

    def measure(self, subset: Representatives) -> Coverage:
        """Return the figures of a subset."""
        k = len(subset.idx)
        equal = torch.full((k,), 1.0 / k, dtype=torch.float64)
        weight = torch.from_numpy(subset.weight)
        sums = self._sums(subset.idx, weight)
        idx = torch.from_numpy(subset.idx).to(self._mean.device)
        mean, moment = self._mean[idx].cpu(), self._moment_mean[idx].cpu()
        whole, moment_whole = float(self._mean.mean()), float(self._moment_mean.mean())
        return Coverage(
            mean_distance=float(subset.distance.mean()),
            max_distance=float(subset.distance.max()),
            mmd=_root(whole - 2.0 * float(equal @ mean) + sums[0]),
            weighted_mmd=_root(whole - 2.0 * float(weight @ mean) + sums[1]),
            moment_mmd=_root(moment_whole - 2.0 * float(equal @ moment) + sums[2]),
            group_difference=self._compare_groups(subset.idx),
        )

    def measure_random(self, n_select: int, seeds: Sequence[int]) -> list[Coverage]:
        """Return the figures of random subsets of equal size, one a seed."""
        n = len(self._kernel)
        check_n_select(n_select, n)
        subsets = (np.random.default_rng(seed).permutation(n)[:n_select] for seed in seeds)
        return [
            self.measure(
                assign_to(self._kernel, Selection(idx.astype(np.int64), np.zeros(len(idx))))
            )
            for idx in subsets
        ]

    def _sums(
        self, idx: Int64[np.ndarray, " k"], weight: Float[Tensor, " k"]
    ) -> tuple[float, float, float]:
        """Return the mean of k, its weighted mean and the mean of 2k + k² over all pairs."""
        part = subset(self._kernel, idx)
        plain = weighted = moment = 0.0
        for rows in chunks(len(idx), DEFAULT_CHUNK_SIZE):
            for cols in chunks(len(idx), DEFAULT_CHUNK_SIZE):
                values = part.block64(rows, part, cols).cpu()
                plain += float(values.sum())
                weighted += float(weight[rows] @ values @ weight[cols])
                moment += float(moment_kernel(values).sum())
        return plain / len(idx) ** 2, weighted, moment / len(idx) ** 2

    def _compare_groups(self, idx: Int64[np.ndarray, " k"]) -> float | None:
        if self._groups is None:
            return None
        whole, part = Counter(self._groups.tolist()), Counter(self._groups[idx].tolist())
        n, k = len(self._groups), len(idx)
        return 0.5 * sum(abs(part[name] / k - count / n) for name, count in whole.items())


def _root(square: float) -> float:
    """Return a distance; differences below rounding, about 1e-8, come out as zero."""
    return math.sqrt(max(square, 0.0))
