"""The fused convolution against mace-torch's own tensor product and sum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.potentials import convolution as convolution_module
from labelwise.potentials.convolution import NeighbourConvolution, group_edges, sort_edges
from labelwise.potentials.mace import potential as mace
from labelwise.potentials.mace.convolution import is_channelwise
from labelwise.potentials.mace.loading import make_potential
from tests.potentials.comparing import assert_same_derivatives
from tests.potentials.conftest import variant
from tests.potentials.models import VARIANTS, make_mace

# Senders are scalars; scalars and vectors; of both parities; up to l = 3.
SENDERS: dict[str, dict[str, Any]] = {
    "0e": {},
    "0e+1o": {"hidden_irreps": "4x0e + 4x1o"},
    "0e+0o+1o": {"hidden_irreps": "3x0e + 3x0o + 3x1o"},
    "0e+1o+2e+3o": {"hidden_irreps": "3x0e + 3x1o + 3x2e + 3x3o", "max_ell": 3},
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


@pytest.mark.parametrize(("few", "most"), [(0, 1), (10**9, 10**9)], ids=["exact", "padded"])
@pytest.mark.parametrize(
    ("senders", "graph"),
    [*((each, "usual") for each in SENDERS), *(("0e+1o", each) for each in list(GRAPHS)[1:])],
)
def test_it_is_the_tensor_product_summed_over_edges(
    senders: str, graph: str, few: int, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values, first and second derivatives, by all three inputs and the cotangents."""
    monkeypatch.setattr(convolution_module, "_FEW_NUMBERS", few)
    monkeypatch.setattr(convolution_module, "_GROUP_NUMBERS", most)
    monkeypatch.setattr(convolution_module, "_WIDENING", 10.0)
    conv: Any = make_mace(**SENDERS[senders]).interactions[1].conv_tp  # type: ignore[index, union-attr]
    fused = NeighbourConvolution(conv)
    pairs, n_atoms = GRAPHS[graph]
    edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
    generator = torch.Generator().manual_seed(0)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    inputs = [
        random(n_atoms, conv.irreps_in1.dim),
        random(len(pairs), conv.irreps_in2.dim),
        random(len(pairs), conv.weight_numel),
        random(n_atoms, conv.irreps_out.dim),
    ]
    steps = [random(*x.shape) for x in inputs[:3]]

    def by_mace(x: Any, y: Any, w: Any) -> torch.Tensor:
        messages = conv(x[edges[0]], y, w)
        return torch.zeros_like(inputs[3]).index_add(0, edges[1], messages)

    def derivatives(function: Any) -> list[torch.Tensor]:
        *leaves, mix = [each.clone().requires_grad_() for each in inputs]
        value = function(*leaves)
        first = torch.autograd.grad((value * mix).sum(), leaves, create_graph=True)
        dots = [(a * b).sum() for a, b in zip(first, steps, strict=True)]
        along = torch.stack(dots).sum()
        return [value, *first, *torch.autograd.grad(along, [*leaves, mix])]

    wanted = derivatives(by_mace)
    got = derivatives(lambda *leaves: fused(*leaves, edges))
    for ours, theirs in zip(got, wanted, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


def test_constant_geometry_changes_no_gradient_of_the_features() -> None:
    conv: Any = make_mace(**SENDERS["0e+1o"]).interactions[1].conv_tp  # type: ignore[index, union-attr]
    pairs, n_atoms = GRAPHS["usual"]
    edges = torch.tensor(pairs).T
    x = torch.randn(n_atoms, conv.irreps_in1.dim, dtype=torch.float64, requires_grad=True)
    y = torch.randn(len(pairs), conv.irreps_in2.dim, dtype=torch.float64)
    w = torch.randn(len(pairs), conv.weight_numel, dtype=torch.float64)
    fused = NeighbourConvolution(conv)
    constant, tracked = (
        torch.autograd.grad(fused(x, y, w.requires_grad_(track), edges).pow(3).sum(), x)[0]
        for track in (False, True)
    )
    assert torch.equal(constant, tracked)
    assert not fused(x.detach(), y, w.detach(), edges).requires_grad


@pytest.mark.parametrize("structures", BATCHES)
@pytest.mark.parametrize("kind", VARIANTS)
def test_potentials_agree_with_the_convolution_of_mace(
    kind: str, structures: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Energies, forces, first derivatives by all weights and mixed second ones."""
    fused: Any = variant(kind)
    with monkeypatch.context() as patch:
        patch.setattr(mace, "is_channelwise", lambda block: False)
        plain: Any = make_potential(make_mace(**VARIANTS[kind]), name=kind)
    assert_same_derivatives(fused, plain, BATCHES[structures][:6], ("embedding", "all"))


@pytest.mark.parametrize("kind", VARIANTS)
def test_every_convolution_is_replaced_and_the_model_left_alone(kind: str) -> None:
    potential: Any = variant(kind)
    replaced = potential._view._model.interactions
    assert {type(block.conv_tp).__name__ for block in replaced} == {"NeighbourConvolution"}
    blocks = potential.model.interactions
    assert not any(hasattr(block, "conv_fusion") for block in blocks)
    assert {type(block.conv_tp).__name__ for block in blocks} == {"TensorProduct"}


def test_other_convolutions_are_left_alone() -> None:
    block: Any = make_mace().interactions[0]  # type: ignore[index, union-attr]
    block.conv_fusion = True
    assert not is_channelwise(block)
    assert not is_channelwise(torch.nn.Linear(1, 1))


@pytest.mark.parametrize("n_channels", [1, 10**6], ids=["few", "many"])
@pytest.mark.parametrize("graph", GRAPHS)
def test_every_edge_has_a_row_of_its_receiver(graph: str, n_channels: int) -> None:
    pairs, n_atoms = GRAPHS[graph]
    receivers = torch.tensor([b for _, b in pairs], dtype=torch.int64)
    table = group_edges(receivers, n_atoms, n_channels)
    rows = torch.arange(len(pairs)) if table.rows is None else table.rows
    filled = torch.ones_like(rows, dtype=torch.bool) if table.filled is None else table.filled
    assert sorted(rows[filled].tolist()) == list(range(len(pairs)))
    assert sorted(table.ranks.tolist()) == list(range(n_atoms))
    atoms = torch.argsort(table.ranks)
    for group in table.groups:
        width = (group.rows.stop - group.rows.start) // (group.atoms.stop - group.atoms.start)
        for place, atom in enumerate(atoms[group.atoms].tolist()):
            own = slice(group.rows.start + place * width, group.rows.start + (place + 1) * width)
            assert (receivers[rows[own][filled[own]]] == atom).all()
    assert sum(group.atoms.stop - group.atoms.start for group in table.groups) == n_atoms


def test_sorted_edges_stay_where_they_are() -> None:
    pairs, n_atoms = GRAPHS["usual"]
    receivers = torch.tensor([b for _, b in pairs])
    order = sort_edges(receivers, n_atoms)
    assert group_edges(receivers[order], n_atoms, 10**6).rows is None


def test_edges_that_change_have_another_table() -> None:
    conv: Any = make_mace().interactions[0].conv_tp  # type: ignore[index, union-attr]
    fused = NeighbourConvolution(conv)
    for pairs, n_atoms in GRAPHS.values():
        edges = torch.tensor(pairs, dtype=torch.int64).view(-1, 2).T
        x = torch.randn(n_atoms, conv.irreps_in1.dim, dtype=torch.float64)
        y = torch.randn(len(pairs), conv.irreps_in2.dim, dtype=torch.float64)
        w = torch.randn(len(pairs), conv.weight_numel, dtype=torch.float64)
        out = x.new_zeros(n_atoms, conv.irreps_out.dim)
        wanted = out.index_add(0, edges[1], conv(x[edges[0]], y, w))
        torch.testing.assert_close(fused(x, y, w, edges), wanted)
