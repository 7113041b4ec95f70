"""The stage ``select``: candidates for a batch, in order of choice."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from labelwise.campaign.atomic_io import write_json
from labelwise.campaign.config import COMMITTEE_RULES
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.inputs import shorten
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.stages.committee import score_by_committee
from labelwise.campaign.state import PICKS, RANK_CORRELATION, REMARKS, CampaignState
from labelwise.campaign.stopping import remind_of_failures
from labelwise.errors import ShortPoolError
from labelwise.selection.acquire import acquire
from labelwise.selection.picks import Pick
from labelwise.selection.rules import get_rule
from labelwise.selection.rules.top import select_top
from labelwise.structures import DuplicateIndex, hash_structure, read_sources
from labelwise.structures.split_names import get_split


def run_select(state: CampaignState, context: CampaignContext) -> None:
    """Choose the candidates of the round and write them down.

    Round 0 chooses what is held out of the pool for validation and test, at random, and
    the initial batch; every later round chooses its batch. Some more than are needed are
    chosen, to take the place of calculations that fail: since every rule picks one after
    another, the first of a longer list are those of the shorter one.
    """
    wanted = _wanted(state, context)
    with suppress(ShortPoolError):  # the count is corrected: again, or there is no round
        write_json(state.folder / PICKS, choose_candidates(state, context, wanted, n_list=1))


def choose_candidates(
    state: CampaignState, context: CampaignContext, wanted: dict[str, int], *, n_list: int
) -> dict[str, Any]:
    """Choose candidates for each role.

    Args:
        state: The campaign.
        context: Model and structures.
        wanted: Role to structures; ``valid``, ``test`` and ``train``.
        n_list: 1 for the first list of a round, 2 for one that follows when too many
            calculations failed, and so on.

    Returns:
        What ``picks.json`` holds: under ``wanted`` the sizes, under ``candidates`` for each
        role a list of pool index, file, frame, content hash and score; of a committee its
        ``rank_correlation``, see ``CommitteeScores``; and ``remarks``, see ``Acquisition``.

    Raises:
        ShortPoolError: The pool has fewer structures than the inventory counts; the inventory
            is corrected.
    """
    excluded = context.used_index(state)
    n_left = context.n_left(state)
    candidates: dict[str, list[dict[str, Any]]] = {}
    diagnosis: dict[str, Any] = {}
    for number, (role, n_wanted) in enumerate(wanted.items()):
        # What later roles need must not be taken for a reserve.
        n_later = sum(list(wanted.values())[number + 1 :])
        n_most = n_left - n_later
        if state.config.selection.shortlist is not None:
            n_most = min(n_most, max(n_wanted, state.config.selection.shortlist))
        n_select = min(n_wanted + state.config.selection.n_reserve, n_most)
        try:
            chosen, found = _choose(state, context, role, n_select, excluded, n_list)
        except ShortPoolError as error:
            context.correct_count(state, n_left - error.n_left)
            raise
        diagnosis |= found
        frames = read_sources(
            [pick.source for pick in chosen], [pick.fingerprint for pick in chosen]
        )
        split_key = state.config.data.test.split_key if role == "test" else None
        for pick, atoms in zip(chosen, frames, strict=True):
            excluded.add(atoms, 0)
            if split_key is not None:  # before anything is spent on its label
                get_split(atoms, str(pick.source), split_key)
        n_left -= len(chosen)
        candidates[role] = [
            {
                "pool_index": pick.pool_index,
                "file": shorten(state.directory, pick.source.file),
                "frame": pick.source.frame,
                "key": hash_structure(atoms),
                "score": pick.score,
            }
            for pick, atoms in zip(chosen, frames, strict=True)
        ]
    picks = {"round": state.n_round, "wanted": wanted, "candidates": candidates}
    return {**picks, **diagnosis}


def _wanted(state: CampaignState, context: CampaignContext) -> dict[str, int]:
    """Return how many structures the round chooses for each role."""
    config, n_left = state.config, context.n_left(state)
    if state.n_round > 0:
        n_wanted = min(config.selection.batch_size, n_left)
        if config.stop.labels is not None:
            # The last batch is what the budget has left, but a round has one at least.
            n_paid = len(state.labels) + len(state.failures)
            n_wanted = min(n_wanted, max(1, config.stop.labels - n_paid))
        return {"train": n_wanted}
    held = {role: getattr(config.data, role).from_pool or 0 for role in ("valid", "test")}
    wanted = {**held, "train": config.selection.initial_size}
    if sum(wanted.values()) > n_left:
        message = (
            f"round 0 has to choose {wanted['train']} structures to begin with, "
            f"{wanted['valid']} for validation and {wanted['test']} for the test; the pool has "
            f"{n_left} that can be chosen, of {context.inventory['n_pool']}"
        )
        raise CampaignError("; ".join(filter(None, (message, remind_of_failures(state)))))
    return {role: n for role, n in wanted.items() if n > 0}


def _choose(
    state: CampaignState,
    context: CampaignContext,
    role: str,
    n_select: int,
    excluded: DuplicateIndex,
    n_list: int,
) -> tuple[Sequence[Pick], dict[str, Any]]:
    """Return the picks, and what else is to be written down about the choice."""
    selection = state.config.selection
    rule = "random" if role != "train" else selection.rule
    if role == "train" and state.n_round == 0:
        rule = selection.initial_rule
    pool = context.iter_pool(state, excluded)
    train = context.train_frames(state)
    if rule in COMMITTEE_RULES:
        scores = score_by_committee(state, context, pool, train)
        if len(scores.kept) < n_select:
            raise ShortPoolError(
                f"asked for {n_select} structures, but the committee can tell about "
                f"{len(scores.kept)} only",
                len(scores.kept),
            )
        top = select_top(scores.score, n_select)
        picks = [
            Pick(rank, index, source, float(scores.score[row]), fingerprint=known)
            for rank, row in enumerate(top.pool_idx.tolist())
            for index, source, known in [scores.kept[row]]
        ]
        return picks, {RANK_CORRELATION: scores.rank_correlation}
    pretrained = selection.model == "pretrained"
    acquisition = acquire(
        pool,
        train,
        selection.settings(n_select, seed=_seed(state, role, rule, n_list), rule=rule),
        potential=context.pretrained(state) if pretrained else context.current(state),
        target=(context.target_frames(state) or None) if get_rule(rule).takes_target else None,
        rows=context.shared.features,
        engine=context.shared.engine,
        progress=context.progress,
    )
    remarks = {REMARKS: acquisition.remarks} if acquisition.remarks else {}
    return acquisition.picks, remarks


def _seed(state: CampaignState, role: str, rule: str, n_list: int) -> int:
    """Return the seed of a selection.

    Random choice draws anew each time. Sketches, probes and random weights stay the same
    through the campaign, so that rows of one round can be compared with those of another.
    """
    if rule != "random":
        return derive_seed(state.config.seed, 0, "representation")
    purpose = f"select {role}" if n_list == 1 else f"select {role} {n_list}"
    return derive_seed(state.config.seed, state.n_round, purpose)
