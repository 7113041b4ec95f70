"""The lean evaluation is the same function of the same weights as mace-torch's module."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.finetuning.networks import PreparedSet
from labelwise.finetuning.trainable import require_trainable
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training.frozen_geometry import freeze_geometry
from labelwise.potentials.mace.training.lean_batch import join
from labelwise.potentials.mace.training.lean_mace import LeanMace, supports
from labelwise.potentials.mace.training.polynomial import silu
from labelwise.potentials.training import PlainNetwork
from tests.finetuning.conftest import NAMES, make_potential_of, rattle
from tests.potentials.models import OMOL_SPECS, build_mace

LEAN: dict[str, dict[str, Any]] = {
    "scalars": {},
    "third order": {"correlation": 3},
    "first order": {"correlation": 1},
    "not residual": {"interaction_first": "RealAgnosticInteractionBlock", "correlation": 3},
    "one layer": {"n_layers": 1},
    "three layers": {"n_layers": 3},
    "several heads": {"heads": ("pbe", "Default", "r2scan")},
}


def plain_network(potential: MacePotential) -> PlainNetwork:
    return PlainNetwork(potential.interaction_energies, potential.collate)


def trainable(**settings: Any) -> MacePotential:
    view = require_trainable(make_potential_of(**settings)).copy().without_references()
    view.model.requires_grad_(True)
    return view


def structures() -> list[Atoms]:
    crystal = bulk("C", "diamond", a=3.5)
    crystal.positions[0] += 0.1
    slab = bulk("C", "diamond", a=3.6, cubic=True)
    slab.pbc = (True, True, False)
    slab.positions[3] += 0.05
    return [*rattle(NAMES, 6, seed=3), crystal, slab, Atoms("O"), molecule("H2")]


def gradients(network: Any, graphs: list[Any], weights: list[Any]) -> tuple[Any, Any, list[Any]]:
    batch = network.collate(network.prepare(graphs))
    energies, forces = network.energies_and_forces(batch, training=True)
    mix = torch.linspace(-1.0, 2.0, forces.numel(), dtype=forces.dtype).view_as(forces)
    value = (energies * energies).sum() + (forces * mix).sum() + (forces**2).sum()
    found = torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
    return energies.detach(), forces.detach(), list(found)


@pytest.mark.parametrize("kind", LEAN)
def test_lean_equals_the_module(kind: str) -> None:
    potential = trainable(**LEAN[kind])
    assert supports(potential)
    weights = list(potential.model.parameters())
    graphs = [potential.prepare(atoms) for atoms in structures()]
    plain = gradients(plain_network(potential), graphs, weights)
    lean = gradients(LeanMace(potential), graphs, weights)
    torch.testing.assert_close(lean[0], plain[0], rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(lean[1], plain[1], rtol=1e-9, atol=1e-10)
    for ours, theirs in zip(lean[2], plain[2], strict=True):
        scale = float(theirs.abs().max().clamp(min=1.0))
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-10 * scale)


def test_charged_models_can_be_differentiated_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """TorchScript's code changes after the first call, and depends on the number of elements."""
    monkeypatch.setattr("tests.potentials.models.ELEMENTS", tuple(range(1, 10)))
    model = build_mace(embedding_specs=OMOL_SPECS, n_layers=1).requires_grad_(True)
    potential = require_trainable(make_potential(model, name="charged"))
    network = PlainNetwork(potential.interaction_energies, potential.collate)
    batch = network.collate([potential.prepare(atoms) for atoms in rattle(NAMES, 2, seed=3)])
    losses = []
    for _ in range(4):
        model.requires_grad_(True)
        energies, forces = network.energies_and_forces(batch, training=True)
        loss = energies.square().sum() + forces.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        losses.append(loss.item())
    assert losses == pytest.approx([losses[0]] * 4)


def test_single_precision_agrees_to_single_precision() -> None:
    potential = trainable(dtype=torch.float32, correlation=3)
    graphs = [potential.prepare(atoms) for atoms in structures()]
    weights = list(potential.model.parameters())
    plain = gradients(plain_network(potential), graphs, weights)
    lean = gradients(LeanMace(potential), graphs, weights)
    torch.testing.assert_close(lean[1], plain[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", [LeanMace, plain_network])
def test_a_batch_is_its_structures(network: Any) -> None:
    potential = trainable(correlation=3)
    graphs = [potential.prepare(atoms) for atoms in structures()]
    model = network(potential)
    prepared = model.prepare(graphs)
    energies, forces = model.energies_and_forces(model.collate(prepared), training=False)
    singles = [
        model.energies_and_forces(model.collate([each]), training=False) for each in prepared
    ]
    torch.testing.assert_close(energies, torch.cat([energy for energy, _ in singles]))
    torch.testing.assert_close(forces, torch.cat([force for _, force in singles]))


def test_frozen_slopes_are_derivatives() -> None:
    """Against central differences of the geometry of a pair that is moved."""
    potential = trainable()
    step = 1e-5
    base = Atoms("CO", [[0, 0, 0], [0.3, -0.8, 0.9]])
    at = freeze_geometry(potential.model, [potential.prepare(base)])[0]
    for axis in range(3):
        moved = []
        for sign in (1, -1):
            atoms = base.copy()
            # The pair's vector runs to the atom that comes second among its ends.
            atoms.positions[at.ends[1, 0], axis] += sign * step
            moved.append(freeze_geometry(potential.model, [potential.prepare(atoms)])[0])
        slope = (moved[0].harmonics - moved[1].harmonics) / (2 * step)
        torch.testing.assert_close(at.harmonics_slope[..., axis], slope, rtol=1e-6, atol=1e-6)
        radial = (moved[0].radial - moved[1].radial) / (2 * step)
        expected = at.radial_slope * at.directions[:, axis : axis + 1]
        torch.testing.assert_close(expected, radial, rtol=1e-6, atol=1e-6)


def test_every_edge_belongs_to_a_pair_of_two() -> None:
    potential = trainable()
    for frozen in freeze_geometry(
        potential.model, [potential.prepare(a) for a in structures() if len(a) > 1]
    ):
        _, _, pair, _ = frozen.edges
        assert (np.bincount(pair) == 2).all()
        assert frozen.reversed_.sum() == len(pair) // 2


def test_joining_keeps_every_neighbour() -> None:
    potential = trainable()
    frozen = freeze_geometry(potential.model, [potential.prepare(a) for a in structures()])
    batch = join(frozen)
    assert int(batch.signs[..., 0].sum()) == sum(f.edges.shape[1] for f in frozen)
    assert torch.equal(batch.species[batch.group.view(-1)[batch.back]], batch.species)
    assert torch.equal(batch.group.view(-1)[batch.back], torch.arange(len(batch.species)))


def test_too_many_edges_to_keep_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    potential = trainable()
    graphs = [potential.prepare(atoms) for atoms in structures()]
    kept = PreparedSet(LeanMace(potential), graphs).predict()
    monkeypatch.setattr("labelwise.potentials.mace.training.lean_mace.MAX_EDGES", 10)
    anew = PreparedSet(LeanMace(potential), graphs).predict()
    np.testing.assert_array_equal(kept[0], anew[0])


def test_silu_has_the_right_derivatives() -> None:
    x = torch.linspace(-6, 6, 25, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(silu, x)
    assert torch.autograd.gradgradcheck(silu, x)
