"""Which atomic reference energies a fine-tuning uses, and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float64, Int64

from labelwise.finetuning.evaluation import predict_graphs
from labelwise.finetuning.labelled import LabelledSet
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.reference_energies import (
    ReferenceFit,
    count_elements,
    explain_undetermined,
    explain_unreached,
    fit_reference_energies,
    prior_energies,
)
from labelwise.finetuning.trainable import get_reference_energies, interaction_view
from labelwise.potentials.mace import MacePotential

# A shift of the reference energies that is worth a word, eV.
_NOTABLE_SHIFT = 0.1


@dataclass(frozen=True)
class ReferenceChoice:
    """Atomic reference energies and what the user should know about them.

    Attributes:
        energies: (E,) float64, eV, in the order of the potential's elements, as the model
            will hold them (rounded to its floating-point type).
        messages: In plain words.
    """

    energies: Float64[np.ndarray, " E"]
    messages: tuple[str, ...]


def choose_references(
    potential: MacePotential,
    train: LabelledSet,
    valid: LabelledSet,
    recipe: Recipe,
    isolated_atoms: Mapping[int, float] | None,
) -> ReferenceChoice:
    """Take, fit or keep atomic reference energies, as the recipe says.

    Args:
        potential: The potential as it starts.
        train: The training set.
        valid: The validation set, for the report and for ``labelled``.
        recipe: ``reference_energies`` and its companions.
        isolated_atoms: eV by atomic number, or None.

    Returns:
        The energies and messages.

    Raises:
        ArgumentError: isolated or given energies lack an element of the training set.
    """
    checkpoint = get_reference_energies(potential)
    elements = potential.elements
    mode = _resolve(recipe, isolated_atoms)
    counts = _count(potential, [train])
    present = [z for z, n in zip(elements, counts.sum(axis=0), strict=True) if n > 0]
    messages: tuple[str, ...] = ()
    if mode in ("refit", "labelled"):
        prior = prior_energies(elements, checkpoint, isolated_atoms)
        sets = [train, valid] if mode == "labelled" and valid.n_structures > 0 else [train]
        fit = _refit(potential, sets, prior, recipe)
        energies = fit.energies
        messages = _report(fit, potential, sets, valid, isolated_atoms, checkpoint)
    elif mode == "checkpoint":
        energies = checkpoint
    else:
        known = recipe.given_energies if mode == "given" else isolated_atoms
        name = "given_energies" if mode == "given" else "isolated_atoms"
        energies = prior_energies(elements, checkpoint, known, required=present, name=name)
    as_held = energies.astype(np.float32) if potential.dtype.itemsize == 4 else energies
    return ReferenceChoice(as_held.astype(np.float64), messages)


def _resolve(recipe: Recipe, isolated_atoms: Mapping[int, float] | None) -> str:
    if recipe.reference_energies != "auto":
        return recipe.reference_energies
    if recipe.start == "scratch" and isolated_atoms:
        return "isolated"
    return "refit"


def _refit(
    potential: MacePotential,
    sets: Sequence[LabelledSet],
    prior: Float64[np.ndarray, " E"],
    recipe: Recipe,
) -> ReferenceFit:
    """Fit to label minus interaction energy; new weights know nothing, so theirs counts as 0."""
    energies = np.concatenate([each.energies for each in sets])
    if recipe.start != "scratch":
        view = interaction_view(potential)
        energies = energies - np.concatenate([predict_graphs(view, s.graphs)[0] for s in sets])
    return fit_reference_energies(
        _count(potential, sets),
        energies,
        elements=potential.elements,
        prior=prior,
        regularisation=recipe.reference_regularisation,
    )


def _count(potential: MacePotential, sets: Sequence[LabelledSet]) -> Int64[np.ndarray, "n E"]:
    """Count the atoms of each element in each structure of some sets."""
    n_elements = len(potential.elements)
    return np.concatenate([count_elements(each.graphs, n_elements) for each in sets])


def _report(
    fit: ReferenceFit,
    potential: MacePotential,
    sets: Sequence[LabelledSet],
    valid: LabelledSet,
    isolated_atoms: Mapping[int, float] | None,
    checkpoint: Float64[np.ndarray, " E"],
) -> tuple[str, ...]:
    name = "the isolated atoms" if isolated_atoms else "the checkpoint"
    counts = _count(potential, sets)
    composition = counts / counts.sum(axis=1, keepdims=True)
    n_compositions = len(np.unique(composition.round(9), axis=0))
    messages = (
        *_report_shift(fit, potential, counts, checkpoint),
        *explain_undetermined(fit, n_compositions, name),
    )
    if valid.n_structures == 0:
        return messages
    others = _count(potential, [valid])
    unreached = explain_unreached(counts, others, elements=potential.elements, prior_name=name)
    return (*messages, *unreached)


def _report_shift(
    fit: ReferenceFit,
    potential: MacePotential,
    counts: np.ndarray,
    checkpoint: Float64[np.ndarray, " E"],
) -> tuple[str, ...]:
    shift = fit.energies - checkpoint
    shifted: np.ndarray = counts.sum(axis=0) > 0
    if not (np.abs(shift[shifted]) > _NOTABLE_SHIFT).any():
        return ()
    parts = [
        f"{chemical_symbols[z]} {checkpoint[i]:.3f} → {fit.energies[i]:.3f}"
        for i, z in enumerate(potential.elements)
        if shifted[i]
    ]
    message = (
        "The atomic reference energies were fitted anew, because the labels are of another level "
        f"of theory than the checkpoint (eV): {', '.join(parts)}; "
        f"{1000 * fit.residual_rms:.0f} meV/atom are left for the network to learn."
    )
    return (message,)
