"""Measures what a batch changed under its kernel: variances, distances, clusters, a map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64

from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel, chunks
from labelwise.kernels.components import find_components
from labelwise.kernels.linear import FeatureKernel, LinearKernel
from labelwise.selection.measures import (
    MOST_LABELLED,
    MOST_POINTS,
    ClusterAtPick,
    Measures,
    Shown,
)
from labelwise.selection.rules import (
    JOINT_RULE,
    find_nearest,
    get_rule,
    posterior_variance,
)
from labelwise.selection.rules.base import Ticker, positive_factor
from labelwise.selection.rules.batch import make_shortlist
from labelwise.selection.rules.nearest_centre import NearestCentre
from labelwise.selection.settings import AcquisitionSettings

#: Draws of random picks that a batch is compared with.
N_DRAWS = 5
_MOST_PAIRS = 10_000_000  # pool structures times random picks, beyond which one draw must do

_Variances = tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]


@dataclass(frozen=True, eq=False)
class BatchKernels:
    """The kernels that a batch was chosen by.

    Attributes:
        train: The labelled structures, (m,).
        pool: Those of the pool that were not set aside, (n,).
        variances: Posterior variance given ``train``, and given the picks, too, (n,) each, where
            it is not the kernel that gives them but the joint posterior; else None.
        target: The structures that were chosen for, (t,), where it is not the pool.
    """

    train: Kernel
    pool: Kernel
    variances: _Variances | None = None
    target: Kernel | None = None


def measure(
    kernels: BatchKernels,
    picks: Int64[np.ndarray, " k"],
    settings: AcquisitionSettings,
    *,
    most_points: int = MOST_POINTS,
) -> Measures:
    """Measure what a batch changed. Linear in the pool's size, in time and memory.

    Args:
        kernels: The kernels.
        picks: Rows of the picks in the pool, in order of choice.
        settings: Of the selection; its seed is that of random picks for comparison, of the
            points of a map and of its landmarks.
        most_points: Structures of the pool that a map shows.
    """
    pool, train = kernels.pool, kernels.train
    before, after = kernels.variances or _find_variances(pool, kernels, picks, settings)
    of_target = None
    if kernels.target is not None:
        of_target = _find_variances(kernels.target, kernels, picks, settings)
    everything = np.arange(len(pool))
    nearest, distance = find_nearest(pool, train, everything)
    owner, to_batch = find_nearest(pool, subset(pool, picks), everything)
    moved = to_batch < distance
    shortlist = _find_shortlist(kernels, before, settings)
    shown = choose_points(
        len(pool),
        len(train),
        picks,
        nearest[picks],
        shortlist,
        seed=settings.seed,
        most=most_points,
    )
    parts = [subset(pool, shown.pool), subset(train, shown.train)]
    return Measures(
        before,
        after,
        nearest,
        distance,
        np.minimum(distance, to_batch),
        np.bincount(owner[moved], minlength=len(picks)).astype(np.int64),
        _find_distances_to_random(pool, distance, len(picks), settings.seed),
        shortlist,
        _find_clusters(kernels, picks, shortlist, settings),
        shown,
        find_components(parts, seed=settings.seed),
        describe_kernel(settings),
        of_target,
    )


def subset(kernel: Kernel, idx: Int64[np.ndarray, " k"]) -> Kernel:
    """Return the kernel of some structures, (k,)."""
    return kernel.take(torch.from_numpy(idx).to(kernel.device))


def describe_kernel(settings: AcquisitionSettings) -> str:
    """Return the kernel's name in words."""
    if settings.rule == JOINT_RULE:
        return "the cosine of energy gradients"
    if settings.make_representation().kernel == "tanimoto":
        return f"the Tanimoto kernel of {settings.representation}"
    kind = "cosine" if settings.resolved_normalise == "cosine" else "linear"
    return f"the {kind} kernel of {settings.representation}"


def choose_points(
    n_pool: int,
    n_train: int,
    picks: Int64[np.ndarray, " k"],
    nearest: Int64[np.ndarray, " k"],
    shortlist: Int64[np.ndarray, " s"] | None,
    *,
    seed: int,
    most: int = MOST_POINTS,
) -> Shown:
    """Choose what is shown: everything, or a random part with all that was chosen.

    Args:
        n_pool: Structures of the pool.
        n_train: Labelled structures.
        picks: Rows of the picks; they are shown.
        nearest: Row of the labelled structure nearest to each pick, which is shown, -1 if none.
        shortlist: Rows that are shown if they are at most as many as ``most``; or None.
        seed: Of the draw.
        most: Structures of the pool that are shown, if these are not more.
    """
    wanted = picks if shortlist is None else np.concatenate([picks, shortlist[:most]])
    return Shown(
        _draw(n_pool, wanted, most, seed),
        _draw(n_train, nearest[nearest >= 0], MOST_LABELLED, seed),
    )


def _draw(n: int, wanted: Int64[np.ndarray, " _"], most: int, seed: int) -> Int64[np.ndarray, " p"]:
    """Return ascending rows of 0..n: those wanted, and others at random up to ``most``."""
    if n <= most:
        return np.arange(n)
    must = np.unique(wanted)
    others = np.setdiff1d(np.arange(n), must, assume_unique=True)
    size = max(0, min(most - len(must), len(others)))
    drawn = np.random.default_rng(seed).choice(others, size, replace=False)
    return np.sort(np.concatenate([must, drawn])).astype(np.int64)


def _find_variances(
    of: Kernel, kernels: BatchKernels, picks: Int64[np.ndarray, " k"], settings: AcquisitionSettings
) -> _Variances:
    """Return posterior variances given the labelled structures, and given the batch, too."""
    regularisation = settings.resolved_regularisation
    pool, train = kernels.pool, kernels.train
    before = posterior_variance(of, train, regularisation=regularisation)
    if isinstance(pool, FeatureKernel):
        chosen = pool.rows(torch.from_numpy(picks).to(pool.device))
        labelled = pool.checked_partner(train).rows(slice(None))
        both = LinearKernel.from_rows(torch.cat([labelled, chosen]), pool.normalise)
        after = posterior_variance(of, both, regularisation=regularisation)
    else:
        after = _condition_on_both(of, train, subset(pool, picks), regularisation)
    return before.cpu().numpy(), after.cpu().numpy()


def _condition_on_both(
    pool: Kernel, train: Kernel, batch: Kernel, regularisation: float
) -> torch.Tensor:
    """Return variances given two sets of structures that no one kernel holds, (n,)."""
    every = slice(None)
    sets = (train, batch)
    gram = torch.cat([torch.cat([a.block64(every, b, every) for b in sets], dim=1) for a in sets])
    lower = positive_factor(gram, regularisation)
    variance = pool.diagonal64()
    for rows in chunks(len(pool), DEFAULT_CHUNK_SIZE):
        values = torch.cat([pool.block64(rows, each, every) for each in sets], dim=1)
        white = torch.linalg.solve_triangular(lower, values.T, upper=False)
        variance[rows] -= white.square().sum(dim=0)
    return variance.clamp_min_(0.0)


def _find_distances_to_random(
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


def _find_shortlist(
    kernels: BatchKernels, variance: Float64[np.ndarray, " n"], settings: AcquisitionSettings
) -> Int64[np.ndarray, " s"] | None:
    if settings.shortlist is None:
        return None
    if settings.rule == JOINT_RULE:
        best = np.argsort(-variance, kind="stable")[: settings.shortlist]
        return np.sort(best).astype(np.int64)
    kept: Int64[np.ndarray, " s"] = make_shortlist(
        settings.rule,
        kernels.pool,
        kernels.train,
        settings.shortlist,
        target=kernels.target,
        regularisation=settings.resolved_regularisation,
    )
    return kept


def _find_clusters(
    kernels: BatchKernels,
    picks: Int64[np.ndarray, " k"],
    shortlist: Int64[np.ndarray, " s"] | None,
    settings: AcquisitionSettings,
) -> tuple[ClusterAtPick | None, ...]:
    """Return the clusters that the picks were taken from; nothing for rules that have none."""
    if not get_rule(settings.rule).has_clusters:
        return ()
    if shortlist is None:
        return replay_clusters(kernels.pool, kernels.train, picks)
    within = np.searchsorted(shortlist, picks).astype(np.int64)
    return replay_clusters(subset(kernels.pool, shortlist), kernels.train, within)


def replay_clusters(
    pool: Kernel, train: Kernel, picks: Int64[np.ndarray, " k"]
) -> tuple[ClusterAtPick | None, ...]:
    """Return the cluster that each pick was taken from.

    Every structure belongs to its nearest centre among the labelled structures and the picks
    so far, as the rules have it.

    Args:
        pool: The structures on which the rule worked, (n,).
        train: The labelled structures, (m,), may be empty.
        picks: Rows of the picks, in order of choice.

    Returns:
        One entry a pick; None for the first where nothing was labelled.
    """
    state = NearestCentre(pool, train, DEFAULT_CHUNK_SIZE, Ticker(None, 0))
    order = picks.tolist()
    clusters: list[ClusterAtPick | None] = []
    for rank, pick in enumerate(order):
        clusters.append(None if state.n_centres == 0 else _cluster_of(state, pick))
        coming = order[rank + 1 :]
        state.add(pick, lambda count, coming=coming: coming[:count])  # type: ignore[misc]
    return tuple(clusters)


def _cluster_of(state: NearestCentre, pick: int) -> ClusterAtPick:
    centre = int(state.centre[pick])
    members = (state.centre == centre) & ~state.taken
    mass = torch.bincount(state.centre, weights=state.sq_dist, minlength=state.n_centres)
    total = float(mass.sum())
    return ClusterAtPick(
        centre,
        int(members.sum()),
        float(mass[centre]) / total if total > 0 else 0.0,
        float(state.sq_dist[pick]),
    )
