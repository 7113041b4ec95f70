"""The fused convolution against mace-torch's own tensor product and sum."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.potentials.mace import convolution as mace_convolution
from labelwise.potentials.mace import potential as mace
from labelwise.potentials.mace.convolution import (
    NeighbourConvolution,
    has_scalar_convolution,
    place_neighbours,
)
from labelwise.potentials.mace.loading import make_potential
from tests.potentials.comparing import assert_same_derivatives
from tests.potentials.conftest import variant
from tests.potentials.models import VARIANTS, make_mace

# Layers of each kind of MACE whose senders are scalars.
SCALAR_LAYERS = {
    "scalars": [True, True],
    "vectors": [True, False],
    "plain": [True, True],
    "heads": [True, True],
    "repulsion": [True, True],
    "one-layer": [True],
    "agnostic": [True, True],
    "nonlinear": [True, True],
    "charged": [True, True],
}


def crystal() -> Atoms:
    atoms = bulk("C", "diamond", a=3.5, cubic=True)
    atoms.rattle(0.05, seed=1)
    return atoms


def far_atom() -> Atoms:
    return molecule("CH3OH") + Atoms("O", positions=[[30.0, 0.0, 0.0]])


BATCHES: dict[str, list[Atoms]] = {
    "molecules": [molecule("CH3CHO"), molecule("H2O"), far_atom()],
    "crystal": [crystal()],
    "uneven": [crystal(), *[Atoms("H")] * 40],
    "no edges": [Atoms("O"), Atoms("H"), Atoms("CH", positions=[[0, 0, 0], [20.0, 0, 0]])],
}
# Edges (M, in any order), atoms: usual, an atom without neighbours, one atom's only, none.
GRAPHS: dict[str, tuple[list[tuple[int, int]], int]] = {
    "usual": ([(2, 0), (0, 1), (1, 2), (1, 0), (2, 1), (0, 2), (3, 0), (0, 3), (0, 0)], 4),
    "isolated": ([(4, 0), (0, 4), (1, 0)], 6),
    "uneven": ([(i, 5) for i in range(6)], 20),
    "no edges": ([], 3),
}


@pytest.mark.parametrize("padding", [0, 1000], ids=["scattered", "padded"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_it_is_the_tensor_product_summed_over_edges(
    graph: str, padding: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, first and second derivatives, by all three inputs."""
    monkeypatch.setattr(mace_convolution, "_MAX_PADDING", padding)
    conv: Any = make_mace().interactions[0].conv_tp  # type: ignore[index, union-attr]
    fused = NeighbourConvolution(conv)
    pairs, n_atoms = GRAPHS[graph]
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [
        random(n_atoms, 8),
        random(len(pairs), conv.irreps_in2.dim),
        random(len(pairs), conv.weight_numel),
    ]
    mix, steps = random(n_atoms, conv.irreps_out.dim), [torch.ones_like(x) for x in inputs]

    def by_mace(x: Any, y: Any, w: Any) -> torch.Tensor:
        messages = conv(x[edges[0]], y, w)
        return torch.zeros_like(mix).index_add(0, edges[1], messages)

    def derivatives(function: Any) -> list[torch.Tensor]:
        leaves = [each.clone().requires_grad_() for each in inputs]
        value = function(*leaves)
        first = torch.autograd.grad((value * mix).sum(), leaves, create_graph=True)
        along = sum((a * b).sum() for a, b in zip(first, steps, strict=True))
        return [value, *first, *torch.autograd.grad(along, leaves)]

    wanted = derivatives(by_mace)
    got = derivatives(lambda *leaves: fused(*leaves, edges))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("structures", BATCHES)
@pytest.mark.parametrize("kind", VARIANTS)
def test_potentials_agree_with_the_convolution_of_mace(
    kind: str, structures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energies, forces, first derivatives by all weights and mixed second ones."""
    fused: Any = variant(kind)
    with monkeypatch.context() as patch:
        patch.setattr(mace, "has_scalar_convolution", lambda block: False)
        plain: Any = make_potential(make_mace(**VARIANTS[kind]), name=kind)
    assert_same_derivatives(fused, plain, BATCHES[structures][:6], ("embedding", "all"))


def test_uneven_batches_are_not_padded() -> None:
    potential: Any = variant("scalars")
    batch = potential.collate([potential.prepare(atoms) for atoms in BATCHES["uneven"]])
    width, _ = place_neighbours(batch.edge_index[1], batch.n_atoms)
    assert batch.n_atoms * width > mace_convolution._MAX_PADDING * batch.n_edges
    together = potential.predict(batch)
    alone = potential.predict(next(batch.split()))
    torch.testing.assert_close(together.energies[:1], alone.energies, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(together.forces[:8], alone.forces, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("kind", VARIANTS)
def test_only_layers_with_scalar_senders_are_replaced(kind: str) -> None:
    potential: Any = variant(kind)
    blocks = potential.model.interactions
    assert [has_scalar_convolution(block) for block in blocks] == SCALAR_LAYERS[kind]
    replaced = [type(b.conv_tp).__name__ for b in potential._view._model.interactions]
    wanted = {True: "NeighbourConvolution", False: "TensorProduct"}
    assert replaced == [wanted[scalar] for scalar in SCALAR_LAYERS[kind]]
    assert not any(hasattr(block, "conv_fusion") for block in blocks)
    assert all(type(block.conv_tp).__name__ == "TensorProduct" for block in blocks)


def test_other_convolutions_are_left_alone() -> None:
    block: Any = make_mace().interactions[0]  # type: ignore[index, union-attr]
    block.conv_fusion = True
    assert not has_scalar_convolution(block)
    assert not has_scalar_convolution(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("graph", GRAPHS)
def test_every_edge_has_a_row_of_its_receiver(graph: str) -> None:
    pairs, n_atoms = GRAPHS[graph]
    receivers = torch.tensor([b for _, b in pairs], dtype=torch.int64)
    width, place = place_neighbours(receivers, n_atoms)
    groups = [list(g) for _, g in itertools.groupby(sorted(receivers.tolist()))]
    assert width == max((len(group) for group in groups), default=0)
    assert len(set(place.tolist())) == len(pairs)
    if pairs:
        assert torch.equal(place // width, receivers)
