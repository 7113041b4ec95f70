"""What a batch changed: variances, distances and neighbours, before it and with it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.kernels.base import Kernel
from labelwise.selection.page.representing import KernelView, subset
from labelwise.selection.rules import (
    JOINT_RULE,
    find_nearest,
    posterior_variance,
    shortlist_by_variance,
)
from labelwise.selection.settings import AcquisitionSettings

#: Draws of random picks that a batch is compared with.
N_DRAWS = 5
_MOST_PAIRS = 10_000_000  # pool structures times random picks, beyond which one draw must do


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of the n structures of a pool, of which k were picked.

    Attributes:
        variance_before, variance_after: Posterior variance given the labelled structures, and
            given the batch, too, (n,).
        nearest: Row of the nearest labelled structure, -1 without any, (n,).
        distance_before, distance_after: Kernel distance to the nearest labelled structure,
            infinite without any, and to the nearest of them and the batch, (n,).
        stands_for: Structures, itself included, that are nearer to each pick than to any other
            pick or labelled structure, (k,).
        random_distances: As ``distance_after`` with as many random picks, one array a draw.
        shortlist: Rows on which the rule worked, ascending; None for all.
    """

    variance_before: Float64[np.ndarray, " n"]
    variance_after: Float64[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]
    distance_before: Float64[np.ndarray, " n"]
    distance_after: Float64[np.ndarray, " n"]
    stands_for: Int64[np.ndarray, " k"]
    random_distances: tuple[Float64[np.ndarray, " n"], ...]
    shortlist: Int64[np.ndarray, " s"] | None


def measure(
    view: KernelView, picks: Int64[np.ndarray, " k"], settings: AcquisitionSettings, *, seed: int
) -> Measures:
    """Measure what a batch changed. Linear in the pool's size, in time and memory.

    Args:
        view: The kernels.
        picks: Rows of the picks in the pool, in order of choice.
        settings: Of the selection.
        seed: Of the random picks for comparison.
    """
    before, after = _variances(view, settings)
    everything = np.arange(len(view.pool))
    nearest, distance = find_nearest(view.pool, view.train, everything)
    owner, to_batch = find_nearest(view.pool, subset(view.pool, picks), everything)
    moved = to_batch < distance
    return Measures(
        before,
        after,
        nearest,
        distance,
        np.minimum(distance, to_batch),
        np.bincount(owner[moved], minlength=len(picks)).astype(np.int64),
        _distances_to_random(view.pool, distance, len(picks), seed),
        _shortlist(view, before, settings),
    )


def _variances(
    view: KernelView, settings: AcquisitionSettings
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    if view.variances is not None:
        return view.variances
    found = [
        posterior_variance(view.pool, given, regularisation=settings.resolved_regularisation)
        for given in (view.train, view.both)
    ]
    return found[0].cpu().numpy(), found[1].cpu().numpy()


def _distances_to_random(
    pool: Kernel, distance: Float64[np.ndarray, " n"], n_picks: int, seed: int
) -> tuple[Float64[np.ndarray, " n"], ...]:
    """Return the distances that random picks would leave."""
    n_draws = N_DRAWS if len(pool) * n_picks * N_DRAWS <= _MOST_PAIRS else 1
    random = np.random.default_rng(seed)
    draws = []
    for _ in range(n_draws):
        drawn = np.sort(random.choice(len(pool), n_picks, replace=False)).astype(np.int64)
        _, to_drawn = find_nearest(pool, subset(pool, drawn), np.arange(len(pool)))
        draws.append(np.minimum(distance, to_drawn))
    return tuple(draws)


def _shortlist(
    view: KernelView, variance: Float64[np.ndarray, " n"], settings: AcquisitionSettings
) -> Int64[np.ndarray, " s"] | None:
    if settings.shortlist is None:
        return None
    if settings.rule == JOINT_RULE:
        best = np.argsort(-variance, kind="stable")[: settings.shortlist]
        return np.sort(best).astype(np.int64)
    kept: Int64[np.ndarray, " s"] = shortlist_by_variance(
        view.pool, view.train, settings.shortlist, regularisation=settings.resolved_regularisation
    )
    return kept
