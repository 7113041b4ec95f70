"""Structures of the kind that a model was pretrained on: to be replayed, and to be retained."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import ArgumentError, StructureError, check_name
from labelwise.finetuning.evaluation import (
    evaluate_labelled,
    predict_all,
    reference_of,
    suspect_labels,
)
from labelwise.finetuning.labelled import LabelledSet, hash_labelled, prepare_labelled
from labelwise.finetuning.metrics import ErrorTable
from labelwise.finetuning.recipe import PretrainingLabels
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training_sets import require_head
from labelwise.potentials import Graph, GraphBuilder, Potential
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures import DuplicateIndex
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
    Labels,
    set_stress,
    stress_key_of,
)


@dataclass(frozen=True)
class PretrainingSet:
    """Labels at the pretrained model's own level of theory.

    Whatever reference energies a fine-tuning fits to the new labels, what is held against these
    are the network's energies beside the reference energies that the model was pretrained with.

    Attributes:
        labelled: n structures with graphs and labels.
        reference: (n,) float64, eV, their reference energies in the pretrained model.
        builder: The pretrained model's, which made the graphs.
        messages: What of the labels looks wrong beside the pretrained model, in plain words.
    """

    labelled: LabelledSet
    reference: Float64[np.ndarray, " n"]
    builder: GraphBuilder
    messages: tuple[str, ...] = ()

    @property
    def content_hash(self) -> str:
        """Hash of structures, labels and reference energies, exact to the last bit: 64 digits."""
        known, digest = self.labelled, hashlib.sha256()
        for i, atoms in enumerate(known.structures):
            stress = known.stresses[i] if known.has_stress[i] else None
            labels = Labels(float(known.energies[i]), known.forces[i], stress)
            digest.update(hash_labelled(atoms, labels).encode())
        for weights in (known.energy_weights, known.forces_weights, known.stress_weights):
            digest.update(weights.tobytes())
        digest.update(np.concatenate(known.free).tobytes())
        digest.update(self.reference.tobytes())
        return digest.hexdigest()

    def require_same_graphs(self, potential: Potential) -> None:
        """Raise ``ArgumentError`` unless a model takes the graphs that the pretrained one took."""
        if potential.graph_builder != self.builder:
            raise ArgumentError(
                f"{potential.name} has other elements ({len(potential.elements)}, not "
                f"{len(self.builder.elements)}) or another cutoff than the model that the "
                "structures were prepared for; prepare them with the model that is fitted"
            )

    def require_unseen(self, train: Sequence[Atoms], replay: PretrainingSet | None = None) -> None:
        """Raise ``ArgumentError`` if a structure of this set is trained on or replayed.

        Args:
            train: Structures that are trained on.
            replay: What is replayed.
        """
        index = DuplicateIndex()
        for number, atoms in enumerate(
            [*train, *(() if replay is None else replay.labelled.structures)]
        ):
            index.add(atoms, number)
        pairs = zip(self.labelled.structures, self.labelled.names, strict=True)
        seen = [name for atoms, name in pairs if index.find(atoms) is not None]
        if seen:
            raise ArgumentError(
                f"{len(seen)} structures are retained, and trained on or replayed as well, so that "
                f"nothing would look forgotten: {seen[0]}; take them out of one of the files"
            )

    def errors(self, potential: Potential, *, fixed_forces: str = "count") -> ErrorTable:
        """Return the errors of a model, the pretrained one or one that came of it.

        Args:
            potential: A potential written in torch, of the pretrained model's elements; it is not
                modified.
            fixed_forces: See ``evaluate``.

        Returns:
            Errors in meV and meV/Å.

        Raises:
            ArgumentError: other elements or another cutoff.
            PotentialError: a potential of a family that cannot be trained here.
        """
        self.require_same_graphs(potential)
        view = require_trainable(potential).without_references()
        return evaluate_labelled(
            view, self.labelled, self.reference, fixed_forces=fixed_forces
        ).errors


@dataclass(frozen=True)
class Retained:
    """What a fine-tuning left of what a model knew.

    Attributes:
        before: Errors of the model that the fine-tuning began with, meV and meV/Å.
        after: Errors of the fitted model on the same structures.
    """

    before: ErrorTable
    after: ErrorTable

    def as_record(self) -> dict[str, dict[str, int | float]]:
        """Return both as ``ErrorTable.as_record`` does, by name."""
        return {"before": self.before.as_record(), "after": self.after.as_record()}


def prepare_pretraining_set(
    pretrained: Potential,
    structures: Sequence[Atoms],
    *,
    labels: str = "file",
    role: str = "replayed",
    sources: Sequence[object] | None = None,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    stress_key: str | None = DEFAULT_STRESS_KEY,
) -> PretrainingSet:
    """Prepare structures like those that a model was pretrained on.

    Args:
        pretrained: The model as published, a potential written in torch; it is not modified.
        structures: At least one that is no isolated atom; isolated atoms are left out, since
            their labels are reference energies. They are not modified.
        labels: ``file`` takes the labels that the structures have, which must be of the level of
            theory that the model was pretrained at; ``model`` lets the pretrained model label
            them, so that any structures without labels serve.
        role: What they are, for messages.
        sources: Where each came from, for messages.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        stress_key: Info key of the stress, see ``get_stress``; None does not look for any. The
            model labels the stress of those structures that have one.

    Returns:
        The set.

    Raises:
        ArgumentError: an unknown word for labels, no structures but isolated atoms, or structures
            of several heads or of another one than the potential's.
        LabelError: a label that is missing, not finite, or a zero in place of a missing one.
        StructureError: a structure that the potential cannot take.
        PotentialError: a potential of a family that cannot be trained here.

    Example:
        >>> import labelwise as lw
        >>> from labelwise.finetuning.pretraining_set import prepare_pretraining_set
        >>> from ase.build import molecule
        >>> model = lw.load_potential("demo")
        >>> known = prepare_pretraining_set(model, [molecule("CH3OH")], labels="model")
        >>> known.errors(model).forces_rmse < 1e-3
        True
    """
    check_name("labels", labels, get_args(PretrainingLabels))
    source = require_trainable(pretrained)
    frames, graphs = list(structures), None
    if labels == "model":
        where = (
            [f"{role} structure {i}" for i in range(len(frames))] if sources is None else sources
        )
        frames, graphs = _label(source, frames, where, energy_key, forces_key, stress_key)
    labelled = prepare_labelled(
        source.graph_builder,
        frames,
        role=role,
        sources=sources,
        energy_key=energy_key,
        forces_key=forces_key,
        stress_key=stress_key,
        graphs=graphs,
    )
    kept = np.flatnonzero(~labelled.is_isolated)
    if not len(kept):
        raise ArgumentError(
            f"there are {len(frames)} {role} structures, none of them more than an isolated atom; "
            "give structures like those that the model was pretrained on"
        )
    labelled = labelled.take(kept)
    require_head(source, labelled.head)
    messages: tuple[str, ...] = ()
    if labels == "file":
        names = None if sources is None else [sources[int(i)] for i in kept]
        messages = suspect_labels(source, labelled, names, role=role)
    reference = reference_of(labelled.graphs, source.reference_energies)
    return PretrainingSet(labelled, reference, source.graph_builder, messages)


def _label(
    source: TorchPotential,
    structures: list[Atoms],
    names: Sequence[object],
    energy_key: str,
    forces_key: str,
    stress_key: str | None,
) -> tuple[list[Atoms], list[Graph]]:
    """Return copies of structures with the model's own values as labels, and their graphs.

    Only those that have a stress get one: what is fitted without stress is replayed without it.
    """
    wanted = [
        None if stress_key is None or not atoms.pbc.all() else stress_key_of(atoms, stress_key)
        for atoms in structures
    ]
    graphs = []
    for atoms, name in zip(structures, names, strict=True):
        try:
            graphs.append(source.prepare(atoms))
        except StructureError as error:
            raise StructureError(f"{name}: {error}") from error
    energies, forces, stresses = predict_all(
        source.without_references(), graphs, stress=any(wanted)
    )
    energies = energies + reference_of(graphs, source.reference_energies)
    labelled = []
    for i, (atoms, energy, force) in enumerate(zip(structures, energies, forces, strict=True)):
        copy = atoms.copy()
        copy.calc = None
        key = wanted[i]
        if key is not None and stresses is not None:
            set_stress(copy, stresses[i], key)
        copy.info[energy_key], copy.arrays[forces_key] = float(energy), force
        labelled.append(copy)
    return labelled, graphs
