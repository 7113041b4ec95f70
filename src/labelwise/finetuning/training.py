"""Fine-tuning: a potential, labelled structures and a recipe make a fitted potential."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols

from labelwise.errors import ArgumentError
from labelwise.finetuning.evaluation import check_fixed_forces, suspect_labels
from labelwise.finetuning.heads import (
    check_replay_head,
    describe_heads,
    on_replay_head,
    with_replay_head,
)
from labelwise.finetuning.labelled import (
    LabelledSet,
    prepare_labelled,
    report_partial,
    report_stress,
    require_free_atoms,
)
from labelwise.finetuning.loop import EpochRecord, Loop
from labelwise.finetuning.metrics import root_mean_square
from labelwise.finetuning.parametrisation import Trained, check_blocks, describe_trained
from labelwise.finetuning.pretraining_set import PretrainingSet, Retained
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.reference_energies import prior_energies
from labelwise.finetuning.references import ReferenceChoice, choose_references
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training_sets import sort_out
from labelwise.potentials import Potential
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
)

_NO_ENERGIES = (
    "Atomic reference energies ({mode}) are fitted to the energies of the training set, which has "
    "none: those of the checkpoint were kept."
)


@dataclass(frozen=True)
class FineTuned:
    """A fitted potential and how it came about.

    Attributes:
        potential: The weights of the best epoch, frozen; the input potential is unchanged.
        history: One record per validation, the start (epoch 0) first.
        best_epoch: Epoch of the returned weights; 0 if no update made them better.
        reference_energies: Atomic reference energies in use, eV by symbol, of the elements in
            the training and validation sets.
        messages: What the user should look at, in plain words.
        notes: What was found in order, in plain words.
        n_updates: Updates made.
        seconds: Wall time, s.
        trained: How many of the weights were trained.
        retained: Errors on what the model knew, before and after; None if none was given.

    Example:
        In a folder ``demo`` that ``labelwise demo`` made:

        >>> import labelwise as lw
        >>> train = lw.read_structures("demo/train.extxyz@:2")
        >>> valid = lw.read_structures("demo/test.extxyz@:2")
        >>> recipe = lw.Recipe(max_updates=1)
        >>> fitted = lw.finetune(lw.load_potential("demo"), train, valid, recipe, seed=0)
        >>> [record.epoch for record in fitted.history]
        [0, 1]
    """

    potential: Potential
    history: tuple[EpochRecord, ...]
    best_epoch: int
    reference_energies: dict[str, float]
    messages: tuple[str, ...]
    notes: tuple[str, ...]
    n_updates: int
    seconds: float
    trained: Trained
    retained: Retained | None = None


def finetune(
    potential: Potential,
    train: Sequence[Atoms],
    valid: Sequence[Atoms],
    recipe: Recipe,
    *,
    seed: int,
    isolated_atoms: Mapping[int, float] | None = None,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    stress_key: str | None = DEFAULT_STRESS_KEY,
    partial_labels: bool = False,
    train_sources: Sequence[object] | None = None,
    valid_sources: Sequence[object] | None = None,
    fixed_forces: str = "count",
    replay: PretrainingSet | None = None,
    retain: PretrainingSet | None = None,
    progress: Callable[[EpochRecord], None] | None = None,
) -> FineTuned:
    """Fit a potential to labelled structures.

    Isolated atoms among them are taken as ``isolated_atoms`` and are no samples. Weights that
    their info names (``config_weight``, ``config_energy_weight``, ``config_forces_weight``)
    count in the loss, see ``Recipe``, and in the fit of reference energies.

    All weights are trained, or those that the recipe names. The weights with the lowest
    validation loss are returned, those of the start among them; without validation structures,
    the last ones. The same arguments give the same weights, bit for bit, on the same machine
    with the same number of threads, on the CPU; nothing depends on torch's global random state.

    Args:
        potential: A potential written in torch; it is not modified.
        train: Labelled structures, at least one; they are not modified.
        valid: Labelled structures for the choice of the epoch; may be empty.
        recipe: Loss, schedule, reference energies.
        seed: Order of the structures, and the weights from scratch; >= 0.
        isolated_atoms: Energies in eV of isolated atoms by atomic number, at the labels'
            level of theory.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        stress_key: Info key of the stress, see ``get_stress``; None does not look for any.
        partial_labels: Whether structures may have energies alone or forces alone. What is not
            there has weight 0, as in mace-torch; reference energies are fitted to those that have
            energies, and kept if none has.
        train_sources: Where each training structure came from, for messages.
        valid_sources: The same for the validation structures.
        fixed_forces: ``exclude`` leaves the forces of fixed atoms out of the errors on the
            validation set; the loss has a setting of its own, ``Recipe.loss_fixed_forces``.
        replay: Structures like those of the pretraining, mixed into each update so that they are
            not forgotten; ``Recipe.replay_weight`` says what they count.
        retain: Others, on which it is measured what was forgotten; they teach nothing.
        progress: Called with each record as it is made.

    Returns:
        The fitted potential, its history and what was noticed.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> potential = lw.load_potential("demo")
        >>> train = [molecule("H2O"), molecule("CH4")]
        >>> for atoms in train:  # as a calculation would have them
        ...     atoms.rattle(0.1)
        ...     atoms.info["REF_energy"] = -10.0 * len(atoms)
        ...     atoms.arrays["REF_forces"] = 0.1 * atoms.positions
        >>> fitted = lw.finetune(potential, train, [], lw.Recipe(max_updates=2), seed=0)
        >>> fitted.n_updates
        2

    Raises:
        ArgumentError: no training structures, a negative seed, unknown blocks of weights,
            missing reference energies, structures of several heads or of another one than the
            potential's, forces of fixed atoms left out where all atoms are fixed, a replay
            from scratch, or a head for what is replayed where nothing is.
        LabelError: a label that is missing, not finite, or a zero in place of a missing one; a
            weight that is no number >= 0; isolated atoms that contradict each other.
        StructureError: a structure that the potential cannot take.
        PotentialError: a potential of a family that cannot be trained here, or has no heads to
            add.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, appendix B.
    """
    begin = time.perf_counter()
    check_fixed_forces(fixed_forces)
    source = require_trainable(potential)
    check_blocks(source, recipe)
    if replay is not None and recipe.start == "scratch":
        raise ArgumentError(
            "a model of new weights has forgotten everything: replay belongs to start='pretrained'"
        )
    check_replay_head(source, recipe, replays=replay is not None)
    for known in (replay, retain):
        if known is not None:
            known.require_same_graphs(source)
    if not train or seed < 0:
        raise ArgumentError(
            f"there are {len(train)} training structures and seed is {seed}; allowed are at "
            "least one structure and a seed >= 0"
        )
    keys: dict[str, Any] = {
        "energy_key": energy_key,
        "forces_key": forces_key,
        "stress_key": stress_key,
        "partial_labels": partial_labels,
    }
    builder = source.graph_builder
    labelled = prepare_labelled(builder, train, role="training", sources=train_sources, **keys)
    suspicions = suspect_labels(source, labelled, train_sources)
    held_out = prepare_labelled(builder, valid, role="validation", sources=valid_sources, **keys)
    if valid:
        suspicions += suspect_labels(source, held_out, valid_sources, role="validation")
    given = (("training", labelled), ("validation", held_out))
    label_notes = (*report_stress(given, stress_key), *report_partial(given))
    sets = sort_out(source, labelled, held_out, isolated_atoms, energy_key=energy_key)
    labelled, held_out = sets.train, sets.valid
    if fixed_forces == "exclude" and held_out.n_structures:
        require_free_atoms(held_out, "validation")
    if recipe.loss_fixed_forces == "exclude" and recipe.forces_weight > 0:
        require_free_atoms(labelled, "training")
    work = _start(source, labelled, recipe, seed)
    choice = _choose_references(work, labelled, held_out, recipe, sets.isolated_atoms)
    schedule = resolve_schedule(recipe, labelled.n_structures)
    before = None
    if retain is not None:
        before = retain.errors(on_replay_head(source, recipe), fixed_forces=fixed_forces)
    loop = Loop(
        work,
        labelled,
        held_out,
        choice.energies,
        recipe,
        schedule,
        seed,
        progress,
        fixed_forces,
        replay,
    )
    loop.run()
    work.set_reference_energies(choice.energies)
    work.model.requires_grad_(False)
    retained = None
    if retain is not None and before is not None:
        left = retain.errors(on_replay_head(work, recipe), fixed_forces=fixed_forces)
        retained = Retained(before, left)
    of_known = [text for each in (replay, retain) if each is not None for text in each.messages]
    told = describe_trained(loop.trained, recipe)
    of_heads = describe_heads(work, recipe)
    return FineTuned(
        potential=work,
        history=tuple(loop.history),
        best_epoch=loop.best_epoch,
        reference_energies=_by_symbol(work, labelled, held_out),
        messages=(*suspicions, *of_known, *sets.messages, *choice.messages, *loop.messages),
        notes=(*label_notes, *choice.notes, *of_heads, *(() if told is None else (told,))),
        n_updates=loop.n_updates,
        seconds=time.perf_counter() - begin,
        trained=loop.trained,
        retained=retained,
    )


def _choose_references(
    work: TorchPotential,
    labelled: LabelledSet,
    held_out: LabelledSet,
    recipe: Recipe,
    isolated_atoms: Mapping[int, float] | None,
) -> ReferenceChoice:
    """Choose reference energies by the structures that have energies.

    ``labelled`` fits them to the validation set where it alone has energies. Without any to fit to,
    those that are known beforehand are taken, and the checkpoint's kept.
    """
    with_energy = [
        each if each.has_energy.all() else each.take(np.flatnonzero(each.has_energy))
        for each in (labelled, held_out)
    ]
    mode = recipe.reference_energies
    if with_energy[0].n_structures == 0 and mode == "labelled":
        with_energy.reverse()
    if with_energy[0].n_structures == 0:
        known = {"given": recipe.given_energies, "isolated": isolated_atoms}.get(mode)
        told = () if known or mode == "checkpoint" else (_NO_ENERGIES.format(mode=mode),)
        return ReferenceChoice(
            prior_energies(work.elements, work.reference_energies, known), notes=told
        )
    return choose_references(work, with_energy[0], with_energy[1], recipe, isolated_atoms)


def _start(
    source: TorchPotential, labelled: LabelledSet, recipe: Recipe, seed: int
) -> TorchPotential:
    if recipe.start != "scratch":
        return with_replay_head(source, recipe)
    counted = np.flatnonzero(labelled.forces_weights > 0)
    forces = [np.zeros((0, 3)), *(labelled.forces[i] for i in counted)]
    scale = root_mean_square(np.concatenate(forces))
    return source.with_random_weights(seed, scale=scale if scale > 0 else None)


def _by_symbol(
    potential: TorchPotential, labelled: LabelledSet, held_out: LabelledSet
) -> dict[str, float]:
    energies = potential.reference_energies
    graphs = (*labelled.graphs, *held_out.graphs)
    present = sorted({int(place) for graph in graphs for place in np.unique(graph.species)})
    return {chemical_symbols[potential.elements[i]]: float(energies[i]) for i in present}
