"""What of the given structures is fitted, what else they tell, and what is said about it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from labelwise.errors import ArgumentError
from labelwise.finetuning.labelled import LabelledSet
from labelwise.finetuning.reference_energies import list_symbols
from labelwise.potentials import Potential
from labelwise.structures.annotations import WEIGHT_KEYS, get_head, require_one_head
from labelwise.structures.isolated_atoms import collect_isolated_energies
from labelwise.structures.labels import DEFAULT_ENERGY_KEY


@dataclass(frozen=True)
class TrainingSets:
    """What a fine-tuning works with.

    Attributes:
        train: Structures to fit to, none of weight zero, no isolated atoms.
        valid: The same of the validation structures.
        isolated_atoms: Energies in eV by atomic number, given and found; None if there are none.
        messages: What was left out, in plain words.
    """

    train: LabelledSet
    valid: LabelledSet
    isolated_atoms: dict[int, float] | None
    messages: tuple[str, ...]


def sort_out(
    potential: Potential,
    train: LabelledSet,
    valid: LabelledSet,
    isolated_atoms: Mapping[int, float] | None,
    *,
    energy_key: str = DEFAULT_ENERGY_KEY,
) -> TrainingSets:
    """Take isolated atoms for reference energies, and leave out what has no weight.

    Args:
        potential: The model, whose head the structures must not be at odds with.
        train: The training structures as given.
        valid: The validation structures as given.
        isolated_atoms: Energies in eV by atomic number, or None.
        energy_key: Info key of the total energy, eV.

    Raises:
        ArgumentError: Nothing is left to train on, or the structures name another head.
        LabelError: Two energies of isolated atoms of an element contradict each other.
    """
    heads = [get_head(atoms) for atoms in (*train.structures, *valid.structures)]
    require_head(potential, require_one_head(heads, "labelled"))
    lone = [
        (atoms, name)
        for each in (train, valid)
        for atoms, name, alone in zip(each.structures, each.names, each.is_isolated, strict=True)
        if alone
    ]
    found = collect_isolated_energies(lone, known=isolated_atoms, energy_key=energy_key)
    messages = [*_report_head(potential, train, valid)]
    if lone:
        numbers = sorted({int(atoms.numbers[0]) for atoms, _ in lone})
        messages.append(describe_isolated(numbers, len(lone), lone[0][1]))
    sets = []
    for each, role in ((train, "training"), (valid, "validation")):
        kept = ~each.is_isolated & each.counts
        messages += _report_weights(each, role)
        sets.append(each if kept.all() else each.take(np.flatnonzero(kept)))
    if sets[0].n_structures == 0:
        raise ArgumentError(
            f"of {train.n_structures} training structures none is left: {len(lone)} are isolated "
            f"atoms, the others have weight 0 ({WEIGHT_KEYS[0]}); give structures to train on"
        )
    return TrainingSets(sets[0], sets[1], found if found else None, tuple(messages))


def require_head(potential: Potential, head: str | None) -> None:
    """Raise unless a head that structures name is the one in use, or none of the model's.

    Args:
        potential: The model.
        head: What the structures name, or None.

    Raises:
        ArgumentError: The model has that head, and another one is in use.
    """
    if head is not None and head != potential.head and head in potential.heads:
        raise ArgumentError(
            f"the structures name the head {head!r} in their info, but {potential.head!r} of "
            f"{potential.name} is in use; choose the head {head!r}, or correct the structures"
        )


def describe_isolated(numbers: list[int], n_found: int, first: str) -> str:
    """Say that isolated atoms were found among labelled structures.

    Args:
        numbers: Their atomic numbers.
        n_found: How many they are.
        first: What to call the first one.
    """
    atoms = "isolated atom is" if n_found == 1 else "isolated atoms are"
    return (
        f"{n_found} labelled {atoms} no sample to fit ({list_symbols(numbers)}; the first is "
        f"{first}): energies of isolated atoms are taken as reference energies, and left out of "
        "the training and of errors."
    )


def _report_head(potential: Potential, *sets: LabelledSet) -> tuple[str, ...]:
    heads = [get_head(atoms) for each in sets for atoms in each.structures]
    named = next((head for head in heads if head is not None), None)
    if named is None:
        return ()
    n_lacking = sum(head is None for head in heads)
    messages = []
    if named != potential.head:
        messages.append(
            f"The structures name the head {named!r} in their info, which the model does not have: "
            f"its head {potential.head!r} is fitted to them."
        )
    if n_lacking:
        messages.append(
            f"{n_lacking} of {len(heads)} labelled structures name no head, the others {named!r}: "
            "they are fitted together, as one level of theory."
        )
    return tuple(messages)


def _report_weights(labelled: LabelledSet, role: str) -> tuple[str, ...]:
    """Say which structures do not count at all, or only in part."""
    if not any(key in atoms.info for atoms in labelled.structures for key in WEIGHT_KEYS):
        return ()  # what is weighted otherwise has no label
    if not labelled.is_weighted:
        return ()
    energy, forces = (
        ((weights == 0) & is_known)[~labelled.is_isolated]
        for weights, is_known in (
            (labelled.energy_weights, labelled.has_energy),
            (labelled.forces_weights, labelled.has_forces),
        )
    )
    nothing = energy & forces
    by_stress = nothing & labelled.counts[~labelled.is_isolated]
    parts = [
        (int((nothing & ~by_stress).sum()), "have weight 0 and are left out"),
        (int(by_stress.sum()), "count by their stress alone"),
        (int((energy & ~forces).sum()), "have energies of weight 0, which do not count"),
        (int((forces & ~energy).sum()), "have forces of weight 0, which do not count"),
        (int((~energy & ~forces).sum()), "count with their weights"),
    ]
    listed = "; ".join(f"{n} {text}" for n, text in parts if n)
    keys = ", ".join(WEIGHT_KEYS)
    return (f"Of {len(energy)} {role} structures with {keys} in their info, {listed}.",)
