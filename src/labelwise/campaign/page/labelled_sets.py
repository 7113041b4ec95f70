"""Labelled structures of a campaign, and how far a prediction is from their labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.predictions import Predictions
from labelwise.campaign.state import CampaignState
from labelwise.finetuning.metrics import root_mean_square
from labelwise.selection.page.pool_columns import clean_text
from labelwise.structures import Frame, Source, get_labels
from labelwise.structures.fixed_atoms import free_atoms

#: Structures of a set that are predicted for a page; of more, as many are drawn at random.
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
    def names(self) -> list[str]:
        """``file@frame`` of each structure, fit to be shown."""
        return [name_of(frame.source) for frame in self.frames]

    @property
    def atom_counts(self) -> Int64[np.ndarray, " n"]:
        """Atoms of each structure, (n,)."""
        counts: Int64[np.ndarray, " n"] = np.array(
            [len(frame.atoms) for frame in self.frames], dtype=np.int64
        )
        return counts


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


def name_of(source: Source) -> str:
    """Return a structure's name on a page: its file and frame, as one line."""
    return clean_text(str(source), 200)


def held_out_set(
    state: CampaignState,
    context: CampaignContext,
    role: str,
    places: Int64[np.ndarray, " k"] | None = None,
    *,
    seed: int,
) -> LabelledFrames | None:
    """Return the validation or test set, or a sample of it; None if it is empty.

    Args:
        state: The campaign.
        context: Its given structures.
        role: ``valid`` or ``test``.
        places: Structures of the set that predictions are kept of, ascending; None for all.
        seed: Of the sample.

    Raises:
        LabelError: A label cannot be used; names file and frame.
    """
    frames = context.held_out_frames(state, role)
    n_all = len(frames)
    if places is not None:
        frames = [frames[i] for i in places.tolist() if i < n_all]
    if len(frames) > MOST_STRUCTURES:
        drawn = np.random.default_rng(seed).choice(len(frames), MOST_STRUCTURES, replace=False)
        frames = [frames[i] for i in np.sort(drawn)]
    return make_set(state, role, frames, n_all=n_all) if frames else None


def batch_set(state: CampaignState, keys: Sequence[str]) -> LabelledFrames | None:
    """Return the structures that a round labelled, by rank; None if there are none.

    Raises:
        DamagedStateError: A label is missing.
    """
    frames = state.labelled_frames(keys)
    return make_set(state, "batch", frames, n_all=len(frames)) if frames else None


def make_set(
    state: CampaignState, role: str, frames: Sequence[Frame], *, n_all: int
) -> LabelledFrames:
    """Read the labels of some structures.

    Raises:
        LabelError: A label cannot be used; names file and frame.
    """
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
