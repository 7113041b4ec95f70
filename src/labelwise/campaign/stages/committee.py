"""How far a campaign's committee disagrees about each structure, and whether that tells errors."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, islice

import numpy as np
from jaxtyping import Bool, Float64

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.stages.finetune import member_files
from labelwise.campaign.state import CampaignState
from labelwise.errors import LabelError
from labelwise.features.fill import make_screen
from labelwise.finetuning.committee import (
    committee_energy_score,
    committee_force_score,
    predict_committee,
)
from labelwise.finetuning.metrics import spearman
from labelwise.potentials import Potential
from labelwise.structures import Frame, Source, get_labels
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.identity import Fingerprint, make_fingerprint

_CHUNK = 256


@dataclass(frozen=True)
class CommitteeScores:
    """The structures of a pool that can be chosen, and how the last round's models see them.

    Attributes:
        kept: Place in the pool, file and frame, and fingerprint of each of the n structures; those
            about which a member says something that is not finite are left out.
        score: (n,) deviation by which they are chosen, eV or eV/Å.
        rank_correlation: Under ``energy`` and ``forces`` the Spearman correlation of the
            deviation with the true absolute error of the members' mean, where the pool is
            labelled already; None where it cannot be told. The forces' deviation and error
            are means over components, without those of fixed atoms where
            ``measure.fixed_forces`` excludes them.
    """

    kept: list[tuple[int, Source, Fingerprint]]
    score: Float64[np.ndarray, " n"]
    rank_correlation: dict[str, float | None]


def score_by_committee(
    state: CampaignState, context: CampaignContext, pool: Iterator[Frame], train: list[Frame]
) -> CommitteeScores:
    """Score a pool by the disagreement of the last round's models.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, sections 3.2.2 and C.1.
    """
    config, last = state.config, state.n_round - 1
    members = [context.model_of(state, last, file) for file in member_files(config)]
    screen = make_screen(members[0])
    for frame in train:
        screen.check_train(frame)
    n_done = 0
    kept: list[tuple[int, Source, Fingerprint]] = []
    columns = [np.zeros((5, 0))]
    passing = (frame for frame in pool if screen.check_pool(frame) is None)
    while chunk := list(islice(passing, _CHUNK)):
        scored = _score(config, members, chunk)
        finite = np.isfinite(scored[[0, 1, 3]]).all(axis=0)
        columns.append(scored[:, finite])
        kept += [
            (frame.index, frame.source, make_fingerprint(frame.atoms))
            for frame in compress(chunk, finite)
        ]
        n_done += len(chunk)
        context.progress("committee", n_done, None)
    score, *pairs = np.concatenate(columns, axis=1)
    return CommitteeScores(
        kept,
        score,
        {"energy": _correlate(*pairs[:2]), "forces": _correlate(*pairs[2:])},
    )


def _score(
    config: CampaignConfig, members: list[Potential], chunk: list[Frame]
) -> Float64[np.ndarray, "5 n"]:
    """Return the score, then deviation and error of energies and of forces, NaN if unknown."""
    selection = config.selection
    structures = [frame.atoms for frame in chunk]
    energies, forces = predict_committee(members, structures, batch_atoms=selection.batch_atoms)
    with np.errstate(invalid="ignore"):  # of what is not finite
        energy_score = committee_energy_score(energies)
        force_score = committee_force_score(forces, aggregate=selection.aggregate)
    errors = np.array(
        [_errors(config, *item) for item in zip(chunk, energies.T, forces, strict=True)]
    )
    score = energy_score if selection.rule == "committee-e" else force_score
    spread = committee_force_score(
        [f[:, _counted(config, frame)] for f, frame in zip(forces, chunk, strict=True)]
    )
    return np.stack((score, energy_score, errors[:, 0], spread, errors[:, 1]))


def _counted(config: CampaignConfig, frame: Frame) -> Bool[np.ndarray, " n_atoms"]:
    """Return the atoms whose forces count; all of them where all are fixed."""
    free = free_atoms(frame.atoms)
    is_left_out = config.measure.fixed_forces == "exclude" and free.any()
    return free if is_left_out else np.ones(len(free), dtype=bool)


def _errors(
    config: CampaignConfig,
    frame: Frame,
    energies: Float64[np.ndarray, " M"],
    forces: Float64[np.ndarray, "M _ 3"],
) -> tuple[float, float]:
    """Return the absolute errors of the mean energy, eV, and the mean forces, eV/Å."""
    if config.labeller.kind != "replay":
        return np.nan, np.nan
    keys = {"energy_key": config.data.energy_key, "forces_key": config.data.forces_key}
    try:
        labels = get_labels(frame.atoms, str(frame.source), **keys)
    except LabelError:  # replaying it would fail, too, and be recorded as such
        return np.nan, np.nan
    energy_error = abs(float(energies.mean()) - labels.energy)
    force_errors = np.abs(forces.mean(axis=0) - labels.forces)[_counted(config, frame)]
    return energy_error, float(force_errors.mean())


def _correlate(
    deviation: Float64[np.ndarray, " n"], error: Float64[np.ndarray, " n"]
) -> float | None:
    known = np.isfinite(deviation) & np.isfinite(error)
    if known.sum() < 2:
        return None
    found = spearman(deviation[known], error[known])
    return None if np.isnan(found) else round(found, 6)
