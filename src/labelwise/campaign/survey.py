"""Measures what a campaign's page shows and only its models know, and keeps it."""

from __future__ import annotations

import logging

import numpy as np
from jaxtyping import Int64

from labelwise.campaign.context import CampaignContext, open_context
from labelwise.campaign.outcomes import NEVER, PointOutcomes, find_outcomes, read_candidates
from labelwise.campaign.pool_kernel import PoolKernel, represent_pool
from labelwise.campaign.pool_map import (
    FOLDER,
    MOST_ROUNDS,
    POOL_MAP,
    PoolMapData,
    digest_candidates,
    read_pool_map,
    spread_evenly,
    write_pool_map,
)
from labelwise.campaign.predictions import PREDICTIONS
from labelwise.campaign.stages.measure import predict_again
from labelwise.campaign.state import CampaignState
from labelwise.errors import LabelwiseError
from labelwise.kernels.components import find_components
from labelwise.selection.rules.nearest_labelled import find_nearest

_log = logging.getLogger(__name__)


def survey_campaign(state: CampaignState, context: CampaignContext | None = None) -> None:
    """Measure the pool under the kernel of the model that a campaign began with, and keep that.

    Nothing is done where what is kept is up to date. Predictions of finished rounds that are not
    kept, as of earlier versions, are made again.
    """
    context = open_context(state) if context is None else context
    for n_round in range(len(state.rounds)):
        if not (state.round_folder(n_round) / PREDICTIONS).exists():
            try:
                predict_again(state, context, n_round)
            except (LabelwiseError, OSError) as error:
                _log.warning("no predictions of the model of round %d: %s", n_round, error)
    candidates = read_candidates(state)
    seed, n_rounds = state.config.seed, len(state.rounds)
    folder = state.directory / FOLDER
    made_of = digest_candidates(n_rounds, candidates)
    known = read_pool_map(folder / POOL_MAP)
    if known is not None and known.made_of == made_of:
        return
    sources = [each.source for each in candidates]
    found = represent_pool(state, context, folder, sources, seed=seed)
    outcomes = find_outcomes(candidates, found.place, found.n_points, found.n_given)
    everything = np.arange(found.n_points, dtype=np.int64)
    write_pool_map(
        folder / POOL_MAP,
        PoolMapData(
            found.sources,
            found.n_given,
            found.n_pool,
            found.n_screened,
            find_components([found.part(everything)], seed=seed),
            find_neighbours(found, outcomes),
            found.variances(everything, outcomes.labelled_before(n_rounds + 1)),
            _find_deviations(found, outcomes, n_rounds),
            found.settings.representation,
            made_of,
            found.remarks,
        ),
    )


def find_neighbours(pool: PoolKernel, outcomes: PointOutcomes) -> Int64[np.ndarray, " n"]:
    """Return the nearest structure that was labelled when each point was chosen, (n,).

    Of points that were not chosen, the nearest of all that are labelled; -1 if there is none.
    """
    neighbour = np.full(pool.n_points, -1, dtype=np.int64)
    is_given = outcomes.words == "given"
    for n_round in np.unique(outcomes.rounds).tolist():
        points = np.flatnonzero((outcomes.rounds == n_round) & ~is_given).astype(np.int64)
        last = int(outcomes.rounds.max(initial=0)) + 1
        labelled = outcomes.labelled_before(last if n_round == NEVER else max(n_round, 0))
        if n_round == 0:
            labelled = np.flatnonzero(is_given).astype(np.int64)
        if len(points) and len(labelled):
            nearest, _ = find_nearest(pool.kernel, pool.part(labelled), points)
            neighbour[points] = labelled[nearest]
    return neighbour


def _find_deviations(
    pool: PoolKernel, outcomes: PointOutcomes, n_rounds: int
) -> dict[tuple[str, int], np.ndarray]:
    """Return posterior standard deviations after some rounds; see ``PoolMapData``."""
    found = {}
    for n_round in spread_evenly(n_rounds, MOST_ROUNDS):
        train = outcomes.labelled_before(n_round + 1)
        sets = {role: pool.others[role] for role in ("valid", "test")}
        for role, places in sets.items():
            found[role, n_round] = _deviations_at(pool, places, train)
        chosen = outcomes.chosen_in(n_round + 1)
        points = np.full(pool.n_points, np.nan)
        points[chosen] = _deviations_at(pool, chosen, train)
        found["points", n_round] = points
    return found


def _deviations_at(
    pool: PoolKernel, places: Int64[np.ndarray, " k"], train: Int64[np.ndarray, " m"]
) -> np.ndarray:
    """Return σ at places of the kernel, NaN at -1, (k,)."""
    sigma = np.full(len(places), np.nan)
    known = places >= 0
    if known.any():
        sigma[known] = np.sqrt(pool.variances(places[known], train))
    return sigma
