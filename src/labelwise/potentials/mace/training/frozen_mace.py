"""Any MACE with its geometry frozen, for training: mace-torch's model with faster parts.

Models of 2024 and later differ from block to block (vectors among the features, several heads,
densities, gates, repulsion, charge and spin), but their time goes where it always went: into
differentiating geometry twice, into convolutions, contractions and selections by element. Here
the blocks of mace-torch run as they are, on stand-ins for the parts that take the time
(``component_major``, ``convolution``), with geometry from ``frozen_geometry``. It is the same
function of the same parameters to rounding; ``can_freeze`` says which models it covers.

``LeanMace`` is for models of scalars, where the overhead of small operations counts.

Letters as in ``component_major``: N atoms, P pairs, M directed edges, W places for neighbours.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.potentials import Graph
from labelwise.potentials.mace.potential import MacePotential, _with_modules
from labelwise.potentials.mace.training.component_major import (
    AtHand,
    Contraction,
    ElementLinear,
    Linear,
    RadialNetwork,
    covers_contraction,
    covers_element_linear,
    covers_linear,
    covers_network,
)
from labelwise.potentials.mace.training.convolution import Convolution, covers_convolution
from labelwise.potentials.mace.training.frozen_geometry import (
    MAX_EDGES,
    FrozenGeometry,
    freeze_geometry,
)
from labelwise.potentials.mace.training.lean_batch import (
    LeanBatch,
    differentiate,
    forces_of,
    join,
    stresses_of,
)
from labelwise.potentials.mace.training.polynomial import Phase

_GATED = "RealAgnosticResidualNonLinearInteractionBlock"
_BLOCKS = (
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    _GATED,
)
_LINEARS = ("linear_up", "linear", "linear_res", "linear_1", "linear_2")


def can_freeze(potential: MacePotential) -> bool:
    """Tell whether ``FrozenMace`` covers a model."""
    model = potential.model
    geometry = [model.radial_embedding, getattr(model, "pair_repulsion_fn", None)]
    return (
        type(model).__name__ in ("MACE", "ScaleShiftMACE")
        and not potential.cueq
        and not any(list(module.parameters()) for module in geometry if module is not None)
        and hasattr(model.node_embedding.linear, "instructions")
        and all(_covers_block(model, block) for block in model.interactions)
        and all(
            covers_contraction(product.symmetric_contractions) and covers_linear(product.linear)
            for product in model.products
        )
        and all(_reads_scalars(readout) for readout in model.readouts)
    )


@dataclass(frozen=True)
class FrozenBatch:
    """Structures as the model and its stand-ins take them.

    Attributes:
        layout: Geometry, neighbours and elements.
        edges: (N, W) int64, the directed edge of each place (0 where there is none).
        pair_of_edge: (M,) int64.
        inputs: What mace-torch's model takes.
    """

    layout: LeanBatch
    edges: Int64[Tensor, "N W"]
    pair_of_edge: Int64[Tensor, " M"]
    inputs: dict[str, Tensor]


class FrozenMace:
    """Interaction energies and forces of a MACE potential, differentiable by its weights.

    It holds no weights: it reads those of the potential anew at each call.
    """

    def __init__(self, potential: MacePotential) -> None:
        """Put the stand-ins in place; ``can_freeze(potential)`` must hold."""
        self._potential, self._phase, self._at_hand = potential, Phase(), AtHand()
        model = potential.model
        self._n_basis = int(model.radial_embedding.out_dim)
        blocks = [self._with_stand_ins(block) for block in model.interactions]
        products = [self._with_contraction(product) for product in model.products]
        references = copy.copy(model.atomic_energies_fn)
        zeros = torch.zeros_like(references.atomic_energies)
        references.__dict__["_buffers"] = {**references._buffers, "atomic_energies": zeros}
        replaced = {
            "atomic_energies_fn": references,
            "node_embedding": _Embedding(model.node_embedding, self._at_hand),
            "spherical_harmonics": _Around(self._at_hand),
            "radial_embedding": _Radial(self._at_hand, self._n_basis, _applies_cutoff(model)),
            "interactions": torch.nn.ModuleList(blocks),
            "products": torch.nn.ModuleList(products),
        }
        if hasattr(model, "pair_repulsion_fn"):
            replaced["pair_repulsion_fn"] = _Repulsion(self._at_hand)
        self._model = _with_modules(model, replaced)

    def prepare(self, graphs: Sequence[Graph]) -> Sequence[Any]:
        """Evaluate the geometry of structures, once for all epochs, if memory allows."""
        if sum(graph.n_edges for graph in graphs) > MAX_EDGES:
            return graphs
        frozen = freeze_geometry(self._potential.model, graphs)
        return list(zip(graphs, frozen, strict=True))

    def collate(self, prepared: Sequence[Any]) -> FrozenBatch:
        """Join what ``prepare`` made of structures, at least one, into a batch."""
        if isinstance(prepared[0], Graph):
            prepared = list(
                zip(prepared, freeze_geometry(self._potential.model, prepared), strict=True)
            )
        graphs = [graph for graph, _ in prepared]
        geometries = [geometry for _, geometry in prepared]
        layout = join(geometries)
        edges, pair_of_edge = _join_edges(geometries, layout)
        inputs = self._potential._inputs(self._potential.collate(graphs), None)
        return FrozenBatch(layout, edges, pair_of_edge, inputs)

    def energies_and_forces(
        self, batch: FrozenBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
        """Return interaction energies and forces; see ``LeanMace.energies_and_forces``."""
        energies, slopes = self._evaluate(batch, training=training)
        return energies, forces_of(batch.layout, slopes)

    def energies_forces_stresses(
        self, batch: FrozenBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"]]:
        """Return stress, too; see ``LeanMace.energies_forces_stresses``."""
        energies, slopes = self._evaluate(batch, training=training)
        return energies, forces_of(batch.layout, slopes), stresses_of(batch.layout, slopes)

    def _evaluate(
        self, batch: FrozenBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "P 3"]]:
        """Return energies (n,) in eV and their slopes by the pairs' vectors, (P, 3) in eV/Å."""
        layout = batch.layout
        harmonics = layout.harmonics.detach().requires_grad_()
        radial = layout.radial.detach().requires_grad_()
        at_hand = self._at_hand
        at_hand.layout, at_hand.edges = layout, batch.edges
        at_hand.pair_of_edge = batch.pair_of_edge
        at_hand.harmonics, at_hand.radial = harmonics, radial
        energies = self._model(dict(batch.inputs), compute_force=False)["energy"]
        return energies, differentiate(
            layout, energies, harmonics, radial, self._phase, training=training
        )

    def _with_stand_ins(self, block: Any) -> Any:
        by_pair = _is_by_pair(self._potential.model, block)
        replaced: dict[str, torch.nn.Module] = {
            name: Linear(getattr(block, name)) for name in _LINEARS if hasattr(block, name)
        }
        replaced["conv_tp"] = Convolution(
            block.conv_tp,
            self._at_hand,
            self._potential.model.node_embedding.linear.weight.detach(),
            by_pair=by_pair,
        )
        replaced["reshape"] = torch.nn.Identity()
        skip = block.skip_tp
        replaced["skip_tp"] = (
            ElementLinear(skip, self._at_hand) if hasattr(skip, "irreps_in2") else Linear(skip)
        )
        if by_pair:
            replaced["conv_tp_weights"] = RadialNetwork(
                block.conv_tp_weights, self._at_hand, self._n_basis
            )
        if hasattr(block, "equivariant_nonlin"):
            gate = copy.copy(block.equivariant_nonlin)
            gate._layout_is_ir_mul = True
            replaced["equivariant_nonlin"] = gate
        view = _with_modules(block, replaced)
        view.conv_fusion = True  # mace-torch then hands over nodes, and sums no messages
        return view

    def _with_contraction(self, product: Any) -> Any:
        contraction = Contraction(product.symmetric_contractions, self._at_hand, self._phase)
        return _with_modules(
            product,
            {"symmetric_contractions": contraction, "linear": Linear(product.linear)},
        )


class _Embedding(torch.nn.Module):
    """Stands in for the node embedding: rows of its weights.

    e3nn's is TorchScript, whose results cannot be added to in place once torch has optimised it.
    """

    def __init__(self, embedding: Any, at_hand: AtHand) -> None:
        super().__init__()
        self._linear, self._at_hand = embedding.linear, at_hand

    def forward(self, attributes: Float[Tensor, "N E"]) -> Float[Tensor, "N C"]:
        linear = self._linear
        table = linear.weight.view(attributes.shape[1], -1)
        rows = table.index_select(0, self._at_hand.layout.species)
        scaled: Tensor = rows * linear.instructions[0].path_weight
        return scaled


class _Around(torch.nn.Module):
    """Stands in for the spherical harmonics: those of the neighbours in their places."""

    def __init__(self, at_hand: AtHand) -> None:
        super().__init__()
        self._at_hand = at_hand

    def forward(self, vectors: Tensor) -> Float[Tensor, "N W L"]:
        del vectors
        layout = self._at_hand.layout
        around = self._at_hand.harmonics.index_select(0, layout.pairs.view(-1))
        return around.view_as(layout.signs) * layout.signs


class _Radial(torch.nn.Module):
    """Stands in for the radial basis: its values, and the cutoff function if it comes apart."""

    def __init__(self, at_hand: AtHand, n_basis: int, apply_cutoff: bool) -> None:
        super().__init__()
        self._at_hand, self._n_basis, self._apply_cutoff = at_hand, n_basis, apply_cutoff

    def forward(self, *args: Tensor) -> tuple[Float[Tensor, "M B"], Float[Tensor, "M 1"] | None]:
        del args
        table = self._at_hand.radial.index_select(0, self._at_hand.pair_of_edge)
        basis = table[:, : self._n_basis]
        if self._apply_cutoff:
            return basis, None
        return basis, table[:, self._n_basis : self._n_basis + 1]


class _Repulsion(torch.nn.Module):
    """Stands in for the pair repulsion: the last of the radial functions."""

    def __init__(self, at_hand: AtHand) -> None:
        super().__init__()
        self._at_hand = at_hand

    def forward(self, *args: Tensor) -> Float[Tensor, " N"]:
        del args
        layout, share = self._at_hand.layout, self._at_hand.radial[:, -1]
        energies = share.new_zeros(layout.species.shape[0])
        for ends in layout.ends.unbind(0):
            energies = energies.index_add(0, ends, share)
        return energies


def _join_edges(
    geometries: Sequence[FrozenGeometry], layout: LeanBatch
) -> tuple[Int64[Tensor, "N W"], Int64[Tensor, " M"]]:
    """Return the directed edge of each place and the pair of each edge."""
    n_atoms = np.cumsum([0, *[len(each.species) for each in geometries]])
    n_pairs = np.cumsum([0, *[each.ends.shape[1] for each in geometries]])
    width = layout.pairs.shape[1]
    edges = np.concatenate([each.edges for each in geometries], axis=1)
    sizes = [each.edges.shape[1] for each in geometries]
    receiver = edges[1] + np.repeat(n_atoms[:-1], sizes)
    pair = edges[2] + np.repeat(n_pairs[:-1], sizes)
    table = np.zeros(int(n_atoms[-1]) * width, dtype=np.int64)
    table[receiver * width + edges[3]] = np.arange(edges.shape[1])
    device = layout.pairs.device
    return (
        torch.from_numpy(table.reshape(-1, width)).to(device),
        torch.from_numpy(pair).to(device),
    )


def _covers_block(model: Any, block: Any) -> bool:
    return (
        type(block).__name__ in _BLOCKS
        and not hasattr(block, "conv_fusion")
        and covers_convolution(block.conv_tp)
        and (covers_element_linear(block.skip_tp) or covers_linear(block.skip_tp))
        and all(covers_linear(getattr(block, name)) for name in _LINEARS if hasattr(block, name))
        and (not _is_by_pair(model, block) or covers_network(block.conv_tp_weights))
    )


def _is_by_pair(model: Any, block: Any) -> bool:
    """Tell whether radial weights are the same for both directions of a pair."""
    return type(block).__name__ != _GATED and _applies_cutoff(model)


def _applies_cutoff(model: Any) -> bool:
    """Tell whether the radial basis is cut off, not the weights that are made of it."""
    return bool(getattr(model.radial_embedding, "apply_cutoff", True))


def _reads_scalars(readout: Any) -> bool:
    """Tell whether a readout reads scalars only, which look the same in both layouts."""
    first = readout.linear_1 if hasattr(readout, "linear_1") else readout.linear
    return all(part.ir.l == 0 for part in first.irreps_out)
