"""A MACE with frozen geometry is the same function of the same weights as mace-torch's module."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.finetuning.loss import weighted_huber_loss
from labelwise.potentials import Graph
from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training.frozen_mace import FrozenMace, can_freeze
from labelwise.potentials.mace.training.lean_mace import supports
from labelwise.potentials.training import PlainNetwork
from tests.finetuning.conftest import NAMES, make_trainable, rattle
from tests.finetuning.test_networks import gradients, plain_network
from tests.finetuning.test_traced import RECIPE, targets_of
from tests.potentials.models import OMOL_SPECS, VARIANTS

_DENSITY = {
    "interaction": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_first": "RealAgnosticDensityInteractionBlock",
}
KINDS: dict[str, dict[str, Any]] = {
    "vectors": VARIANTS["vectors"],
    "plain": VARIANTS["plain"],
    "agnostic": VARIANTS["agnostic"],
    "first order": {"hidden_irreps": "4x0e + 4x1o", "correlation": 1},
    # as MPA-0 and OMAT-0
    "density": {
        **_DENSITY,
        "hidden_irreps": "6x0e + 6x1o",
        "pair_repulsion": True,
        "distance_transform": "Agnesi",
        "correlation": 3,
    },
    "several heads": {**_DENSITY, "heads": ("pbe", "r2scan"), "hidden_irreps": "6x0e + 6x1o"},
    "tensors": {"hidden_irreps": "4x0e + 4x1o + 4x2e", "correlation": 3},
    # as OMOL-0
    "charged": {
        "interaction": "RealAgnosticResidualNonLinearInteractionBlock",
        "interaction_first": "RealAgnosticResidualNonLinearInteractionBlock",
        "n_layers": 3,
        "hidden_irreps": "6x0e + 6x1o",
        "apply_cutoff": False,
        "embedding_specs": OMOL_SPECS,
        "use_embedding_readout": True,
    },
    "cutoff apart": {**_DENSITY, "apply_cutoff": False, "pair_repulsion": True},
}
#: Models that go through mace-torch's module.
OTHERS: dict[str, dict[str, Any]] = {
    "attention": {"interaction": "RealAgnosticAttResidualInteractionBlock"},
    "fourth order": {"correlation": 4, "hidden_irreps": "2x0e + 2x1o"},
}


def graphs_of(potential: MacePotential) -> list[Graph]:
    return [potential.prepare(atoms) for atoms in structures(potential)]


def structures(potential: MacePotential) -> list[Atoms]:
    crystal = bulk("C", "diamond", a=3.5)
    crystal.positions[0] += 0.1
    close = molecule("H2")
    close.positions *= 0.6  # where the repulsion acts
    atoms = [*rattle(NAMES, 3, seed=3), crystal, Atoms("O"), close]
    for i, each in enumerate(atoms if potential.graph_builder.charge_range is not None else []):
        each.info.update(charge=i % 3 - 1, spin=1 + i % 2)
    return atoms


@pytest.mark.parametrize("kind", KINDS)
def test_energies_forces_and_gradients_equal_the_modules(kind: str) -> None:
    potential = make_trainable(**KINDS[kind])
    network = potential.training_network()
    assert isinstance(network, FrozenMace)
    weights = list(potential.model.parameters())
    graphs = graphs_of(potential)
    plain = gradients(plain_network(potential), graphs, weights)
    for _ in range(3):  # TorchScript's code changes with the calls
        found = gradients(network, graphs, weights)
    torch.testing.assert_close(found[0], plain[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(found[1], plain[1], rtol=1e-9, atol=1e-10)
    assert any(float(theirs.abs().max()) > 0.1 for theirs in plain[2])
    for ours, theirs in zip(found[2], plain[2], strict=True):
        scale = float(theirs.abs().max().clamp(min=1e-3))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9 * scale)


@pytest.mark.parametrize("kind", OTHERS)
def test_other_models_go_through_the_module(kind: str) -> None:
    potential = make_trainable(**OTHERS[kind])
    assert not supports(potential) and not can_freeze(potential)
    assert isinstance(potential.training_network(), PlainNetwork)


@pytest.mark.parametrize("kind", ["density", "charged"])
def test_the_loss_and_its_gradient_are_the_modules(kind: str) -> None:
    potential = make_trainable(**KINDS[kind])
    weights = list(potential.model.parameters())
    atoms = structures(potential)
    targets = targets_of(potential, atoms)
    found = []
    networks: list[Any] = [FrozenMace(potential), plain_network(potential)]
    for network in networks:
        batch = network.collate(network.prepare([potential.prepare(each) for each in atoms]))
        energies, forces = network.energies_and_forces(batch, training=True)
        loss = weighted_huber_loss(energies, forces, targets, RECIPE)
        found.append(
            (loss, torch.autograd.grad(loss, weights, allow_unused=True, materialize_grads=True))
        )
    (ours, our_gradients), (theirs, their_gradients) = found
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=0)
    for a, b in zip(our_gradients, their_gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(b.abs().max()))


@pytest.mark.parametrize("kind", ["tensors", "charged"])
def test_single_precision_agrees_to_single_precision(kind: str) -> None:
    potential = make_trainable(**KINDS[kind], dtype=torch.float32)
    weights = list(potential.model.parameters())
    graphs = graphs_of(potential)
    plain = gradients(plain_network(potential), graphs, weights)
    found = gradients(FrozenMace(potential), graphs, weights)
    pairs = [(found[0], plain[0]), (found[1], plain[1])]
    joined = [torch.cat([g.flatten() for g in each[2]]) for each in (found, plain)]
    pairs.append((joined[0], joined[1]))
    for ours, theirs in pairs:
        assert float(torch.linalg.norm(ours - theirs)) < 1e-5 * float(torch.linalg.norm(theirs))


@pytest.mark.parametrize("kind", ["density", "charged"])
def test_a_batch_is_its_structures(kind: str) -> None:
    potential = make_trainable(**KINDS[kind])
    network = FrozenMace(potential)
    prepared = network.prepare(graphs_of(potential))
    energies, forces = network.energies_and_forces(network.collate(prepared), training=False)
    singles = [
        network.energies_and_forces(network.collate([each]), training=False) for each in prepared
    ]
    torch.testing.assert_close(energies, torch.cat([energy for energy, _ in singles]))
    torch.testing.assert_close(forces, torch.cat([force for _, force in singles]))


def test_too_many_edges_to_keep_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = make_trainable(**KINDS["density"])
    graphs = graphs_of(potential)
    network = FrozenMace(potential)
    kept = network.energies_and_forces(network.collate(network.prepare(graphs)), training=False)
    monkeypatch.setattr("labelwise.potentials.mace.training.frozen_mace.MAX_EDGES", 10)
    prepared = network.prepare(graphs)
    assert isinstance(prepared[0], Graph)
    anew = network.energies_and_forces(network.collate(prepared), training=False)
    assert torch.equal(kept[0], anew[0]) and torch.equal(kept[1], anew[1])
