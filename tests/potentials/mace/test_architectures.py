"""The models that are fine-tuned today, small and of random weights, built by mace-torch."""

from __future__ import annotations

import copy
import io
import json
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.potentials.mace.checkpoint import build, mace_warnings_silenced, save_checkpoint
from labelwise.potentials.mace.loading import make_potential
from labelwise.testing.potentials import check_potential
from tests.potentials.models import ARCHITECTURES, architecture, make_mace

# The others in the thorough tier: mace-torch takes seconds to build each.
QUICK = ("mpa-0", "omol-0")
EVERY = [
    pytest.param(name, marks=() if name in QUICK else (pytest.mark.thorough,))
    for name in ARCHITECTURES
]


@cache
def small(name: str) -> Any:
    model: Any = make_mace(**architecture(name))
    return make_potential(model, name=name, head=model.heads[-1])


def structures() -> list[Atoms]:
    crystal = bulk("C", "diamond", a=3.4, cubic=True)
    crystal.rattle(0.05, seed=1)
    return [molecule("CH3CHO"), crystal, molecule("H2O"), Atoms("O")]


def collate(potential: Any, atoms: list[Atoms]) -> Any:
    return potential.collate([potential.prepare(each) for each in atoms])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("name", EVERY)
def test_predictions_and_rows_are_those_of_mace_torch(name: str, dtype: torch.dtype) -> None:
    """Energies and forces against its calculator, rows against plain differentiation."""
    with mace_warnings_silenced():
        from mace.calculators import MACECalculator
    model: Any = make_mace(**architecture(name)).to(dtype)
    precision, head = str(dtype).removeprefix("torch."), model.heads[-1]
    calculator = MACECalculator(models=copy.deepcopy(model), default_dtype=precision, head=head)
    potential: Any = make_potential(model, name=name, head=head)
    batch = collate(potential, structures())
    energies, forces, _ = potential.predict(batch)
    by_energy, by_force = (1e-10, 1e-9) if dtype == torch.float64 else (1e-5, 1e-4)
    wanted = [calculator.get_potential_energy(atoms) for atoms in structures()]
    np.testing.assert_allclose(energies, wanted, atol=by_energy, rtol=0)
    wanted = [calculator.get_forces(atoms) for atoms in structures()]
    np.testing.assert_allclose(forces, np.concatenate(wanted), atol=by_force, rtol=0)
    reference = copy.deepcopy(model).requires_grad_(True)
    for row, single in zip(potential.energy_tangent(batch), batch.split(), strict=True):
        energy = reference(potential._inputs(single, None), compute_force=False)["energy"]
        (slope,) = torch.autograd.grad(energy.sum(), reference.node_embedding.linear.weight)
        limit = (1e-9 if dtype == torch.float64 else 1e-4) * float(slope.abs().max())
        torch.testing.assert_close(row, slope, rtol=0, atol=limit)


@pytest.mark.parametrize("name", EVERY)
def test_nothing_that_costs_time_is_left_to_mace_torch(name: str) -> None:
    view = small(name)._view._model
    kinds = {type(block.conv_tp).__name__ for block in view.interactions}
    kinds |= {type(product.symmetric_contractions).__name__ for product in view.products}
    kinds |= {type(block.skip_tp).__name__ for block in view.interactions}
    skip = "Linear" if name in ("mh", "omol-0") else "ElementwiseLinear"
    assert kinds == {"NeighbourConvolution", "ElementwiseContraction", skip}
    assert all(product.symmetric_contractions._polynomials is not None for product in view.products)


def test_constant_filters_cost_no_backward_work() -> None:
    """The NonLinear block puts elements next to features, which have gradients."""
    potential = small("omol-0")
    batch = collate(potential, structures())
    embedding = potential.node_embedding(batch).requires_grad_()
    seen = []
    for block in potential._view._model.interactions:
        network = block.conv_tp_weights
        network.register_forward_hook(lambda *call: seen.append(call[2].requires_grad))
    try:
        potential.energies(batch, embedding=embedding)
    finally:
        for block in potential._view._model.interactions:
            block.conv_tp_weights._forward_hooks.clear()
    assert seen == [False] * 3


@pytest.mark.parametrize("name", EVERY)
def test_checkpoints_hold_every_head_and_embedding(name: str) -> None:
    original = small(name)
    stream = io.BytesIO()
    checkpoint = save_checkpoint(original.model)
    json.dumps(checkpoint["config"])
    torch.save(checkpoint, stream)
    stream.seek(0)
    model: Any = build(torch.load(stream, weights_only=True))
    assert model.heads == original.model.heads
    specs = [getattr(each, "embedding_specs", None) for each in (model, original.model)]
    assert specs[0] == specs[1]
    ion = molecule("CH3")
    if specs[1] is not None:
        ion.info.update(charge=1, spin=3)
    for head in model.heads:
        one = make_potential(original.model, name=name, head=head)
        other = make_potential(model, name=name, head=head)
        assert one.content_hash == other.content_hash
        batch = collate(one, [*structures(), ion])
        for got, wanted in zip(other.predict(batch)[:2], one.predict(batch)[:2], strict=True):
            assert torch.equal(got, wanted)
        assert torch.equal(other.activations(batch), one.activations(batch))


@pytest.mark.thorough
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_they_obey_the_laws(name: str) -> None:
    check_potential(small(name))
