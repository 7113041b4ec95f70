"""Labelled structures of a campaign, and how far the predictions of its models are from them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int32, Int64

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.datasets import GivenSets
from labelwise.campaign.outcomes import Candidate
from labelwise.campaign.pool_map import MOST_ROUNDS, spread_evenly
from labelwise.campaign.predictions import CHOSEN, PREDICTIONS, Predictions, read_predictions
from labelwise.campaign.saved import SavedCampaign
from labelwise.campaign.state import CampaignState
from labelwise.finetuning.metrics import root_mean_square
from labelwise.selection.page.pool_columns import clean_text
from labelwise.structures import Frame, Source, get_labels
from labelwise.structures.fixed_atoms import free_atoms

#: Structures of a set that are shown; of more, as many are drawn at random.
MOST_STRUCTURES = 5_000
_MEV = 1000.0


@dataclass(frozen=True)
class LabelledFrames:
    """n labelled structures.

    Attributes:
        role: ``test``, ``valid`` or ``batch``.
        frames: The structures; their source as the campaign names it.
        energies: Labels, (n,), eV.
        forces: Labels, (n_atoms_i, 3) each, eV/Å.
        counted: Atoms whose forces count, (n_atoms_i,) each; none where all are left out.
        n_all: Structures of the set, of which these are all or a sample.
    """

    role: str
    frames: tuple[Frame, ...]
    energies: Float64[np.ndarray, " n"]
    forces: tuple[Float64[np.ndarray, "_ 3"], ...]
    counted: tuple[Bool[np.ndarray, " _"], ...]
    n_all: int

    def __len__(self) -> int:
        """Return the number of structures."""
        return len(self.frames)

    @property
    def atom_counts(self) -> Int64[np.ndarray, " n"]:
        """Atoms of each structure, (n,)."""
        return np.array([len(frame.atoms) for frame in self.frames], dtype=np.int64)


@dataclass(frozen=True)
class StructureErrors:
    """Errors of a model, structure by structure.

    Attributes:
        energy: Prediction minus label, (n,), meV.
        energy_per_atom: The same for an atom, (n,), meV/atom.
        forces: Root mean square over the components that count, (n,), meV/Å; NaN where none
            does.
    """

    energy: Float64[np.ndarray, " n"]
    energy_per_atom: Float64[np.ndarray, " n"]
    forces: Float64[np.ndarray, " n"]


@dataclass(frozen=True)
class ScoredSet:
    """A held-out set and what the models of some rounds predict for it.

    Attributes:
        labelled: The set, n structures.
        rounds: Rounds in ascending order, (r,).
        predictions: Of each of them.
        errors: Of each of them.
        structure: Place of each structure among those of the page, -1 if it has none, (n,).
    """

    labelled: LabelledFrames
    rounds: tuple[int, ...]
    predictions: tuple[Predictions, ...]
    errors: tuple[StructureErrors, ...]
    structure: Int32[np.ndarray, " n"]

    @property
    def title(self) -> str:
        """``test set`` or ``validation set``, and how much of it."""
        name = "test set" if self.labelled.role == "test" else "validation set"
        if len(self.labelled) == self.labelled.n_all:
            return name
        return f"{name} ({len(self.labelled):,} of its {self.labelled.n_all:,} structures)"

    @property
    def extremes(self) -> tuple[int, ...]:
        """Places in ``rounds`` of the first and the last, or of the only one."""
        return (0,) if len(self.rounds) == 1 else (0, len(self.rounds) - 1)


@dataclass(frozen=True)
class ScoredBatch:
    """What a round chose, and how the model of the round before errs on it.

    Attributes:
        n_round: The round that chose.
        candidates: The labelled structures, k of them, by rank.
        errors: Of the model of round ``n_round - 1``.
        structure: Place of each among the page's structures, -1 if none, (k,).
    """

    n_round: int
    candidates: tuple[Candidate, ...]
    errors: StructureErrors
    structure: Int32[np.ndarray, " k"]

    def pairs(self) -> Iterator[tuple[Candidate, tuple[float, float]]]:
        """Yield each structure with its errors in meV/atom and meV/Å."""
        errors = zip(self.errors.energy_per_atom.tolist(), self.errors.forces.tolist(), strict=True)
        return zip(self.candidates, errors, strict=True)


def name_of(source: Source) -> str:
    """Return a structure's name on a page: its file and frame, as one line."""
    return clean_text(str(source), 200)


def score_held_out(
    saved: SavedCampaign, given: GivenSets, role: str, *, seed: int
) -> ScoredSet | None:
    """Take what the models of some rounds predicted for the validation or test set.

    Of a large set as many structures are drawn as are shown.

    Returns:
        The predictions; None if there is no such set, or nothing was predicted.
    """
    found = {
        n_round: each
        for n_round in spread_evenly(saved.n_finished, MOST_ROUNDS)
        if (each := read_predictions(saved.state.round_folder(n_round) / PREDICTIONS).get(role))
    }
    frames = given.with_labels(saved.state, role)
    if not (found and frames):
        return None
    places = next(iter(found.values())).places
    places = places[places < len(frames)]
    if len(places) > MOST_STRUCTURES:
        drawn = np.random.default_rng(seed).choice(len(places), MOST_STRUCTURES, replace=False)
        places = places[np.sort(drawn)]
    shown = [frames[i] for i in places.tolist()]
    labelled = read_labelled(saved.state, role, shown, n_all=len(frames))
    taken = {n_round: each.take(places) for n_round, each in found.items()}
    known = {n_round: each for n_round, each in taken.items() if each is not None}
    errors = tuple(measure_errors(labelled, each) for each in known.values())
    return ScoredSet(labelled, tuple(known), tuple(known.values()), errors, _nowhere(len(shown)))


def score_batches(saved: SavedCampaign) -> Iterator[ScoredBatch]:
    """Hold what each round chose against what the model of the round before predicted for it."""
    for n_round in range(1, saved.n_finished + 1):
        keys = saved.state.keys_of_round(n_round, "train")
        found = read_predictions(saved.state.round_folder(n_round) / PREDICTIONS).get(CHOSEN)
        predicted = None if found is None else found.take(np.arange(len(keys)))
        if not keys or predicted is None:
            continue
        by_key = {each.key: each for each in saved.candidates if each.n_round == n_round}
        frames = saved.state.labelled_frames(keys)
        labelled = read_labelled(saved.state, "batch", frames, n_all=len(frames))
        yield ScoredBatch(
            n_round,
            tuple(by_key[key] for key in keys),
            measure_errors(labelled, predicted),
            _nowhere(len(keys)),
        )


def read_labelled(
    state: CampaignState, role: str, frames: Sequence[Frame], *, n_all: int
) -> LabelledFrames:
    """Read the labels of some structures."""
    config = state.config
    keys = {"energy_key": config.data.energy_key, "forces_key": config.data.forces_key}
    labels = [get_labels(frame.atoms, str(frame.source), **keys) for frame in frames]
    return LabelledFrames(
        role,
        tuple(map(state.name_frame, frames)),
        np.array([each.energy for each in labels], dtype=np.float64),
        tuple(each.forces for each in labels),
        tuple(_counted(config, frame) for frame in frames),
        n_all,
    )


def measure_errors(labelled: LabelledFrames, predicted: Predictions) -> StructureErrors:
    """Hold predictions against labels, structure by structure."""
    energy = (predicted.energies - labelled.energies) * _MEV
    forces = [
        root_mean_square((found - label)[counted] * _MEV)
        for found, label, counted in zip(
            predicted.forces, labelled.forces, labelled.counted, strict=True
        )
    ]
    return StructureErrors(
        energy, energy / labelled.atom_counts, np.array(forces, dtype=np.float64)
    )


def _counted(config: CampaignConfig, frame: Frame) -> Bool[np.ndarray, " _"]:
    """Return the atoms whose forces count."""
    if config.measure.fixed_forces == "exclude":
        return free_atoms(frame.atoms)
    return np.ones(len(frame.atoms), dtype=bool)


def _nowhere(n: int) -> Int32[np.ndarray, " n"]:
    return np.full(n, -1, dtype=np.int32)
