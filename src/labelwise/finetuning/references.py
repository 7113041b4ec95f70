"""Which atomic reference energies a fine-tuning uses, and what to say about it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Float64, Int64

from labelwise.finetuning.evaluation import predict_graphs
from labelwise.finetuning.labelled import LabelledSet
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.reference_energies import (
    Judgement,
    count_compositions,
    explain_far_from_model,
    explain_far_off,
    explain_undetermined,
    explain_unreached,
    judge_references,
    prior_energies,
    write_size,
)
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures.atom_energies import (
    AtomEnergyFit,
    count_elements,
    fit_atom_energies,
    in_row_space,
)

# A shift of the reference energies that is worth a word, eV.
_NOTABLE_SHIFT = 0.1
# Reference energies that leave more than this, and on how many structures it is judged, eV/atom.
_MISFIT, _MOST_HELD_AGAINST = 1.0, 100
_FIXED_MODES = ("checkpoint", "isolated", "given")
_CHECKPOINT, _ISOLATED = "the checkpoint", "the isolated atoms"


@dataclass(frozen=True)
class ReferenceChoice:
    """Atomic reference energies and what the user should know about them.

    Attributes:
        energies: (E,) float64, eV, in the order of the potential's elements, as the model
            will hold them (rounded to its floating-point type).
        messages: What to look at, in plain words.
        notes: What was found in order, in plain words.
    """

    energies: Float64[np.ndarray, " E"]
    messages: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def choose_references(
    potential: TorchPotential,
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
    checkpoint = potential.reference_energies
    mode = _resolve(recipe, isolated_atoms)
    if mode in ("auto", "refit", "labelled"):
        sets = [train, valid] if mode == "labelled" and valid.n_structures > 0 else [train]
        evidence = _gather(potential, sets, recipe)
        choice = _fit_or_keep(
            potential, evidence, valid, recipe, isolated_atoms, is_free=mode != "auto"
        )
    elif mode == "checkpoint":
        choice = ReferenceChoice(checkpoint)
    else:
        known = recipe.given_energies if mode == "given" else isolated_atoms
        name = "given_energies" if mode == "given" else "isolated_atoms"
        present = _list_present(potential, [train])
        choice = ReferenceChoice(
            prior_energies(potential.elements, checkpoint, known, required=present, name=name)
        )
    if recipe.start != "scratch":
        messages = choice.messages
        if mode in _FIXED_MODES:
            messages = _report_misfit(potential, train, choice.energies, recipe, mode)
        if mode != "labelled" and valid.n_structures > 0:
            offset = _gather(potential, [valid], recipe).offset(choice.energies)
            messages = (*messages, *explain_far_from_model(valid.names, offset))
        choice = replace(choice, messages=messages)
    if potential.dtype.itemsize > 4:
        return choice
    return replace(choice, energies=choice.energies.astype(np.float32).astype(np.float64))


def _report_misfit(
    potential: TorchPotential,
    train: LabelledSet,
    energies: Float64[np.ndarray, " E"],
    recipe: Recipe,
    mode: str,
) -> tuple[str, ...]:
    """Say that energies which were asked for have nothing to do with the labels."""
    idx = np.unique(np.linspace(0, train.n_structures - 1, _MOST_HELD_AGAINST).astype(np.int64))
    left = float(np.median(np.abs(_gather(potential, [train.take(idx)], recipe).offset(energies))))
    if left < _MISFIT:
        return ()
    message = (
        f"The atomic reference energies that were asked for ({mode}) leave {write_size(left)} of "
        "the training set's energies: they and the labels seem to be of different levels of "
        "theory, or in different units; with 'auto' they are fitted where that is so."
    )
    return (message,)


@dataclass(frozen=True)
class _Evidence:
    """What reference energies have to explain: (n,) structures, see ``fit_atom_energies``."""

    counts: Int64[np.ndarray, "n E"]
    energies: Float64[np.ndarray, " n"]
    weights: Float64[np.ndarray, " n"]
    names: tuple[str, ...]

    def offset(self, references: Float64[np.ndarray, " E"]) -> Float64[np.ndarray, " n"]:
        """Return what references leave, (n,) eV/atom."""
        left: np.ndarray = (self.energies - self.counts @ references) / self.counts.sum(axis=1)
        return left


def _resolve(recipe: Recipe, isolated_atoms: Mapping[int, float] | None) -> str:
    """Settle what ``auto`` is for new weights, which know nothing that could be judged."""
    if recipe.reference_energies != "auto" or recipe.start != "scratch":
        return recipe.reference_energies
    return "isolated" if isolated_atoms else "refit"


def _gather(potential: TorchPotential, sets: Sequence[LabelledSet], recipe: Recipe) -> _Evidence:
    return _Evidence(
        _count(potential, sets),
        np.concatenate([_unexplained(potential, each, recipe) for each in sets]),
        np.concatenate([each.energy_weights for each in sets]),
        tuple(name for each in sets for name in each.names),
    )


def _unexplained(
    potential: TorchPotential, labelled: LabelledSet, recipe: Recipe
) -> Float64[np.ndarray, " n"]:
    """Return label minus interaction energy, eV; that of new weights, which know nothing, is 0."""
    if recipe.start == "scratch":
        return labelled.energies
    predicted, _ = predict_graphs(potential.without_references(), labelled.graphs)
    left: np.ndarray = labelled.energies - predicted
    return left


def _fit_or_keep(
    potential: TorchPotential,
    evidence: _Evidence,
    valid: LabelledSet,
    recipe: Recipe,
    isolated_atoms: Mapping[int, float] | None,
    *,
    is_free: bool,
) -> ReferenceChoice:
    """Fit reference energies; unless ``is_free``, keep known ones that explain the labels."""
    checkpoint = potential.reference_energies
    known = {_CHECKPOINT: checkpoint}
    if isolated_atoms:
        merged = prior_energies(potential.elements, checkpoint, isolated_atoms)
        known = {_ISOLATED: merged, **known}
    name, prior = next(iter(known.items()))
    fit = fit_atom_energies(
        evidence.counts,
        evidence.energies,
        prior=prior,
        regularisation=recipe.reference_regularisation,
        weights=evidence.weights,
    )
    judged = {
        each: judge_references(evidence.counts, evidence.energies, references, fit)
        for each, references in known.items()
    }
    least = min(judgement.left for judgement in judged.values())
    best = min(
        judged,
        key=lambda each: (judged[each].is_refuted, judged[each].left > 2 * least, each != name),
    )
    if not (is_free or judged[best].is_refuted):
        kept = known[best]
        notes = _report_kept(fit, evidence, judged, best, kept)
        far_off = explain_far_off(evidence.names, evidence.offset(kept), judged[best].far_off)
        if best != name:  # isolated atoms were given, and are not what the labels rest on
            return ReferenceChoice(kept, (*notes, *far_off))
        return ReferenceChoice(kept, far_off, notes)
    shift = _report_shift(fit, potential, evidence, checkpoint, None if is_free else judged)
    messages = (
        *shift,
        *explain_undetermined(fit, count_compositions(evidence.counts), potential.elements, name),
        *_report_unreached(fit, potential, evidence, valid, recipe, name),
        *explain_far_off(evidence.names, evidence.offset(fit.energies), fit.far_off),
    )
    return ReferenceChoice(fit.energies, messages)


def _count(potential: TorchPotential, sets: Sequence[LabelledSet]) -> Int64[np.ndarray, "n E"]:
    """Count the atoms of each element in each structure of some sets."""
    numbers = [graph.numbers for each in sets for graph in each.graphs]
    return count_elements(numbers, potential.elements)


def _list_present(potential: TorchPotential, sets: Sequence[LabelledSet]) -> list[int]:
    """Return the atomic numbers in some sets."""
    totals = _count(potential, sets).sum(axis=0)
    return [z for z, n in zip(potential.elements, totals, strict=True) if n > 0]


def _report_unreached(
    fit: AtomEnergyFit,
    potential: TorchPotential,
    evidence: _Evidence,
    valid: LabelledSet,
    recipe: Recipe,
    name: str,
) -> tuple[str, ...]:
    if valid.n_structures == 0:
        return ()
    others = _count(potential, [valid])
    known = evidence.counts[fit.used]
    if in_row_space(known, others).all():
        return ()
    errors = _unexplained(potential, valid, recipe) - others @ fit.energies
    return explain_unreached(known, others, errors, elements=potential.elements, prior_name=name)


def _report_kept(
    fit: AtomEnergyFit,
    evidence: _Evidence,
    judged: Mapping[str, Judgement],
    best: str,
    references: Float64[np.ndarray, " E"],
) -> tuple[str, ...]:
    """Say that known energies were kept, where fitted ones would have been notably different."""
    known = judged[best]
    present = evidence.counts.any(axis=0)
    if not (np.abs(fit.energies - references)[present] > _NOTABLE_SHIFT).any():
        return ()
    others = [
        f"; those of {each} leave {write_size(judgement.left)}"
        for each, judgement in judged.items()
        if each != best
    ]
    why = f"less than {known.share:.0%} of that would be a reason to replace them"
    if not np.isfinite(known.left_out):
        why = "so few compositions are no evidence against them"
    message = (
        f"The atomic reference energies of {best} were kept: they leave {write_size(known.left)} "
        f"of the training set's energies{''.join(others)}. {_describe_fit(fit, evidence, known)}; "
        f"{why}."
    )
    return (message,)


def _describe_fit(fit: AtomEnergyFit, evidence: _Evidence, known: Judgement) -> str:
    """Write what the fit leaves, for comparison with what known energies leave."""
    n = count_compositions(evidence.counts)
    text = (
        f"A fit of {fit.n_determined} number{'s' if fit.n_determined > 1 else ''} to its {n} "
        f"composition{'s' if n > 1 else ''} leaves {write_size(fit.residual_rms)}"
    )
    if np.isfinite(known.left_out):
        text += (
            f", and {write_size(known.left_out)} of compositions that were kept from it (of which "
            f"the known energies leave {write_size(known.left_there)})"
        )
    return text


def _report_shift(
    fit: AtomEnergyFit,
    potential: TorchPotential,
    evidence: _Evidence,
    checkpoint: Float64[np.ndarray, " E"],
    judged: Mapping[str, Judgement] | None,
) -> tuple[str, ...]:
    """Say from where to where the energies were shifted, and why if ``auto`` decided so."""
    shift = fit.energies - checkpoint
    shifted: np.ndarray = evidence.counts.sum(axis=0) > 0
    if not (np.abs(shift[shifted]) > _NOTABLE_SHIFT).any():
        return ()
    parts = [
        f"{chemical_symbols[z]} {checkpoint[i]:.3f} → {fit.energies[i]:.3f}"
        for i, z in enumerate(potential.elements)
        if shifted[i]
    ]
    why = ""
    if judged is not None:
        known = next(iter(judged.values()))
        left = " and ".join(
            f"those of {name} leave {write_size(judgement.left)}"
            for name, judgement in judged.items()
        )
        why = f"{left} of the training set's energies. {_describe_fit(fit, evidence, known)}."
        why = f" {why[0].upper()}{why[1:]}"
    message = (
        f"The atomic reference energies were fitted to the labels (eV): {', '.join(parts)}.{why} "
        f"{1000 * fit.residual_rms:.0f} meV/atom are left for the network to learn."
    )
    return (message,)
