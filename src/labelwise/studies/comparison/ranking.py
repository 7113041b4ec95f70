"""Whose posterior variance ranks the pretrained model's errors, on a sample of a study's pool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64, Int64

from labelwise.campaign.config import CampaignConfig
from labelwise.errors import ArgumentError
from labelwise.features.fill import make_screen
from labelwise.features.representations import iter_features
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, join_row_sets
from labelwise.features.store.memory import MemoryRows
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.metrics import root_mean_square, sparsification_area, spearman
from labelwise.finetuning.recipe import Recipe
from labelwise.kernels.building import open_kernels
from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.selection.rules import JOINT_RULE, JointPosterior, posterior_variance
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import get_labels
from labelwise.structures.atom_energies import count_elements, fit_atom_energies
from labelwise.studies.comparison.inputs import StudyInputs, draw_frames
from labelwise.studies.comparison.methods import ROW_OPTIONS, name_kernel

#: Structures of the sample; labelled ones among them, drawn so often.
LARGEST_RANKING = 150
N_LABELLED, N_REPEATS = 15, 5
_LEAST_SCORED = 10
ORACLE = "oracle"


def measure_ranking(
    inputs: StudyInputs, potential: Potential, store: PartStore, part: float
) -> dict[str, dict[str, Any]]:
    """Hold posterior variances against true errors, for every kernel that a method scores by.

    Fifteen structures of the sample count as labelled, and the others are scored; five times.

    Args:
        inputs: The study's data and kernels.
        potential: The pretrained model.
        store: Where results are kept.
        part: Part of ``LARGEST_RANKING`` to take, 0 to 1.

    Returns:
        Name of the kernel to ``forces``, ``energy`` (rank correlations of variance and error) and
        ``area`` (under the sparsification curve of the force error), one number a repeat. Under
        ``oracle`` the ``area`` of the force errors themselves, the least there can be.

    Raises:
        ArgumentError: Too few structures.
        LabelError: A label is missing.
        StructureError: A structure that the model cannot take.
    """
    seed, least = inputs.asked.seed, N_LABELLED + _LEAST_SCORED
    size = max(least, round(part * LARGEST_RANKING))
    screen = make_screen(potential)
    sample = [each.atoms for each in draw_frames(inputs.files_of("pool"), screen, size, seed=seed)]
    if len(sample) < least:
        raise ArgumentError(
            f"the pool {inputs.pool} has {len(sample)} structures; a ranking takes {least}"
        )
    forces, energy = measure_errors(potential, sample, inputs.config)
    drawn = [
        np.random.default_rng((seed, number)).permutation(len(sample))
        for number in range(N_REPEATS)
    ]
    splits = [np.split(np.asarray(order, dtype=np.int64), [N_LABELLED]) for order in drawn]
    scores = _Variances(potential, sample)
    results: dict[str, dict[str, Any]] = {}
    for choice in inputs.ranked:
        found = [scores.given(choice.settings, train, rest) for train, rest in splits]
        pairs = [(each, rest) for each, (_, rest) in zip(found, splits, strict=True)]
        results[choice.label] = {
            "forces": [spearman(score, forces[rest]) for score, rest in pairs],
            "energy": [spearman(score, energy[rest]) for score, rest in pairs],
            "area": [sparsification_area(score, forces[rest]) for score, rest in pairs],
        }
        store.write(choice.label, results[choice.label])
    best = [sparsification_area(forces[rest], forces[rest]) for _, rest in splits]
    results[ORACLE] = {"area": best}
    store.write(ORACLE, results[ORACLE])
    return results


def measure_errors(
    potential: Potential, structures: Sequence[Atoms], config: CampaignConfig
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return the true errors of a potential, structure by structure.

    Labels of another level of theory have other reference energies than the checkpoint, which
    is no error that a label could teach: they are fitted to the whole set first.

    Returns:
        Root mean square error of each structure's force components, (n,) eV/Å, and absolute
        error of each energy, (n,) eV/atom.
    """
    keys: dict[str, Any] = {
        "energy_key": config.data.energy_key,
        "forces_key": config.data.forces_key,
    }
    predicted = evaluate(potential, structures, **keys, stress_key=None)
    labels = [get_labels(atoms, f"structure {i}", **keys) for i, atoms in enumerate(structures)]
    residuals = np.array([label.energy for label in labels]) - predicted.energies
    counts = count_elements([atoms.numbers for atoms in structures], potential.elements)
    fit = fit_atom_energies(
        counts,
        residuals,
        prior=np.zeros(counts.shape[1]),
        regularisation=Recipe().reference_regularisation,
    )
    of_forces = [
        root_mean_square(force - label.forces)
        for force, label in zip(predicted.forces, labels, strict=True)
    ]
    return np.array(of_forces), np.abs(residuals - counts @ fit.energies) / counts.sum(axis=1)


class _Variances:
    """Posterior variances of some structures given others; equal rows are computed once."""

    def __init__(self, potential: Potential, structures: Sequence[Atoms]) -> None:
        self._potential, self._structures = potential, structures
        self._rows: dict[str, list[Any]] = {}

    def given(
        self,
        settings: AcquisitionSettings,
        train: Int64[np.ndarray, " m"],
        rest: Int64[np.ndarray, " n"],
    ) -> Float64[np.ndarray, " n"]:
        """Return the variances of ``rest`` given ``train``, (n,), dimensionless."""
        potential, structures = self._potential, self._structures
        is_joint = settings.rule == JOINT_RULE
        representation = settings.make_representation()
        name = name_kernel(settings, ROW_OPTIONS)
        if name not in self._rows:
            self._rows[name] = list(
                iter_row_sets(structures, potential, settings.options)
                if is_joint
                else iter_features(structures, potential, representation)
            )
        normalise = settings.resolved_normalise
        regularisation = settings.resolved_regularisation
        if not is_joint:
            rows = MemoryRows(representation, potential)
            for chunk in self._rows[name]:
                rows.extend(chunk)
            known, scored = open_kernels(rows, [train, rest], normalise=normalise)
            variance = posterior_variance(scored, known, regularisation=regularisation)
            return np.asarray(variance.cpu().numpy(), dtype=np.float64)
        sets = join_row_sets(self._rows[name], 1)
        known_sets, scored_sets = (sets.take(torch.from_numpy(idx)) for idx in (train, rest))
        scales = RowScales.measured(
            known_sets, normalise=normalise, energy_weight=settings.energy_weight
        )
        posterior = JointPosterior(scales.weigh(known_sets), regularisation)
        total = posterior.variances(scales.weigh(scored_sets)).cpu().numpy()
        # Per atom: an error is an average over components, a variance grows with their number.
        return total / scored_sets.n_atoms.numpy() if normalise == "none" else total
