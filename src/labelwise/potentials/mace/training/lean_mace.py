"""MACE with scalar hidden features in few operations, for training.

At batch 1 the time of an update goes into the overhead of some thousand small operations, most
of them from differentiating the geometry twice. Here geometry is frozen (``frozen_geometry``),
neighbours are summed by matrix products, coupling coefficients are symmetrised once and applied
to all atoms of an element at once (``polynomial``). It is the same function of the same
parameters as mace-torch's module to rounding; ``supports`` says which models it covers, for the
others there is ``FrozenMace``.

Letters: C channels, L = (l_max + 1)² components, K = l_max + 1 orders, Z elements present.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials import Graph
from labelwise.potentials.mace.polynomial import MAX_CORRELATION
from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training.contraction import ElementContraction
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
from labelwise.potentials.mace.training.polynomial import Phase, silu

_RESIDUAL = "RealAgnosticResidualInteractionBlock"
_INTERACTIONS = (_RESIDUAL, "RealAgnosticInteractionBlock")


def supports(potential: MacePotential) -> bool:
    """Tell whether ``LeanMace`` covers a model."""
    model = potential.model
    return (
        type(model).__name__ == "ScaleShiftMACE"
        and model.scale_shift.scale.numel() == len(potential.heads)
        and not hasattr(model, "joint_embedding")
        and not hasattr(model, "pair_repulsion_fn")
        and not getattr(model, "use_agnostic_product", False)
        and not getattr(model, "use_last_readout_only", False)
        and _supports_radial(model.radial_embedding)
        and len({_network_shape(block) for block in model.interactions}) == 1
        and all(_supports_interaction(model, block) for block in model.interactions)
        and all(_supports_product(product) for product in model.products)
        and all(_supports_readout(readout) for readout in model.readouts)
    )


class LeanMace:
    """Interaction energies and forces of a MACE potential, differentiable by its weights.

    It holds no weights: it reads those of the potential anew at each call.
    """

    def __init__(self, potential: MacePotential) -> None:
        """Prepare what no update changes; ``supports(potential)`` must hold."""
        self._model = potential.model
        self._head, self._n_heads = potential.heads.index(potential.head), len(potential.heads)
        self._phase = Phase()
        blocks = self._model.interactions
        self._layers = [
            _Layer(block, product, self._phase)
            for block, product in zip(blocks, self._model.products, strict=True)
        ]
        self._networks = [list(block.conv_tp_weights.children()) for block in blocks]

    def prepare(self, graphs: Sequence[Graph]) -> Sequence[FrozenGeometry] | Sequence[Graph]:
        """Evaluate the geometry of structures, once for all epochs, if memory allows.

        A pair takes some 350 bytes; beyond ``MAX_EDGES`` it is evaluated batch by batch.
        """
        if sum(graph.n_edges for graph in graphs) > MAX_EDGES:
            return graphs
        return freeze_geometry(self._model, graphs)

    def collate(self, prepared: Sequence[Any]) -> LeanBatch:
        """Join what ``prepare`` made of structures, at least one, into a batch."""
        if isinstance(prepared[0], Graph):
            prepared = freeze_geometry(self._model, prepared)
        return join(prepared)

    def energies_and_forces(
        self, batch: LeanBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
        """Return interaction energies and forces.

        Args:
            batch: n structures, N atoms.
            training: Whether the results are to be differentiated by the weights.

        Returns:
            Energies (n,) in eV and forces (N, 3) in eV/Å.
        """
        energies, slopes = self._evaluate(batch, training=training)
        return energies, forces_of(batch, slopes)

    def energies_forces_stresses(
        self, batch: LeanBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"]]:
        """Return stress (n, 3, 3) in eV/Å³, too; see ``energies_and_forces``."""
        energies, slopes = self._evaluate(batch, training=training)
        return energies, forces_of(batch, slopes), stresses_of(batch, slopes)

    def _evaluate(
        self, batch: LeanBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "P 3"]]:
        """Return energies (n,) in eV and their slopes by the pairs' vectors, (P, 3) in eV/Å."""
        harmonics = batch.harmonics.detach().requires_grad_()
        radial = batch.radial.detach().requires_grad_()
        energies = self._energies(batch, harmonics, radial)
        return energies, differentiate(
            batch, energies, harmonics, radial, self._phase, training=training
        )

    def _energies(
        self, batch: LeanBatch, harmonics: Float[Tensor, "P L"], radial: Float[Tensor, "P B"]
    ) -> Float[Tensor, " n"]:
        model = self._model
        around = harmonics.index_select(0, batch.pairs.view(-1)).view_as(batch.signs)
        around = (around * batch.signs).transpose(1, 2)
        filters = self._filters(radial)
        embedding = model.node_embedding.linear
        table = embedding.weight.view(-1, self._layers[0].n_channels)
        features = table.index_select(0, batch.species) * embedding.instructions[0].path_weight
        scale = model.scale_shift.scale.view(-1)[self._head]
        shift = model.scale_shift.shift.view(-1)[self._head]
        total: Tensor | None = None
        for layer, weights, readout in zip(
            self._layers, filters.unbind(0), model.readouts, strict=True
        ):
            features = layer.run(batch, features, around, weights)
            out = self._read_out(readout, features, scale)
            total = out if total is None else total + out
        assert total is not None  # noqa: S101  # a model has layers
        atoms: Tensor = total[:, 0] + shift
        return atoms.new_zeros(batch.n_structures).index_add(0, batch.structure_idx, atoms)

    def _read_out(
        self, readout: Any, features: Float[Tensor, "N C"], scale: Tensor
    ) -> Float[Tensor, "N 1"]:
        """Return what the head in use reads: its units of each level see its own alone."""
        if not hasattr(readout, "linear_1"):
            return features @ self._weight(readout.linear, features, scale)
        act = readout.non_linearity.acts[0]
        hidden = features @ self._weight(readout.linear_1, features, 1.0)
        hidden = hidden if act is None else act(hidden)
        return hidden @ self._weight(readout.linear_2, hidden, scale)

    def _weight(
        self, linear: Any, features: Float[Tensor, "N c"], scale: Tensor | float
    ) -> Float[Tensor, "c d"]:
        """Return the head's part of a layer's weights, for inputs of the head or of all heads."""
        n_inputs, path = features.shape[1], linear.instructions[0]
        weight = linear.weight.view(path.path_shape)
        begin = 0 if len(weight) == n_inputs else self._head * n_inputs
        width = weight.shape[1] // self._n_heads
        columns = slice(self._head * width, (self._head + 1) * width)
        part: Tensor = weight[begin : begin + n_inputs, columns] * (scale * path.path_weight)
        return part

    def _filters(self, radial: Float[Tensor, "P B"]) -> Float[Tensor, "layers P KC"]:
        """Run the radial networks of all layers at once."""
        out = radial
        before = 1.0  # what the level before should have been multiplied by
        for level in zip(*self._networks, strict=True):
            first = level[0]
            weight = torch.stack([each.weight for each in level])
            scale = before / math.sqrt(first.h_in * first.var_in)
            if first.act is None:
                return torch.matmul(out, weight * (scale * math.sqrt(first.var_out)))
            out = silu(torch.matmul(out, weight * scale))
            before = first.act.cst * math.sqrt(first.var_out)
        return out


class _Layer:
    """One interaction and its product."""

    def __init__(self, block: Any, product: Any, phase: Phase) -> None:
        self._block, self._product = block, product
        self.n_channels = int(block.conv_tp.irreps_in1[0].mul)
        self._residual = type(block).__name__ == _RESIDUAL
        weight = product.linear.weight
        scale = product.linear.instructions[0].path_weight
        self._contraction = ElementContraction(product.symmetric_contractions, phase, scale)
        orders = [int(ir.ir.l) for ir in block.conv_tp.irreps_in2]
        self._order = torch.tensor(
            [k for k, order in enumerate(orders) for _ in range(2 * order + 1)],
            device=weight.device,
        )
        # Path k reaches only the components of its order, with this factor: everything constant
        # that multiplies a message is in it.
        up = block.linear_up.instructions[0].path_weight
        factors = [
            up * ins.path_weight / math.sqrt(2 * order + 1) / float(block.avg_num_neighbors)
            for ins, order in zip(block.conv_tp.instructions, orders, strict=True)
        ]
        reach = torch.zeros(len(self._order), len(orders), 1, dtype=weight.dtype)
        for m, k in enumerate(self._order.tolist()):
            reach[m, k] = factors[k] * block.linear.instructions[k].path_weight
        self._reach = reach.to(weight.device)

    def run(
        self,
        batch: LeanBatch,
        features: Float[Tensor, "N C"],
        around: Float[Tensor, "N L W"],
        filters: Float[Tensor, "P KC"],
    ) -> Float[Tensor, "N C"]:
        """Return the next layer's features."""
        n_channels = self.n_channels
        message = self._message(batch, features, around, filters)
        grouped = message.index_select(1, batch.group.view(-1))
        grouped = grouped.view(len(message), *batch.group.shape, n_channels)
        skip = None
        if self._residual:
            skip = self._skip_scalars(batch, features)
        else:
            grouped = self._skip_message(batch, grouped)
        x = grouped.transpose(2, 3).contiguous()
        value = self._contraction.contract(batch, x)[..., 0].transpose(1, 2)
        out: Tensor = value @ self._product.linear.weight.view(n_channels, n_channels)
        out = out if skip is None else out + skip
        return out.reshape(-1, n_channels).index_select(0, batch.back)

    def _message(
        self,
        batch: LeanBatch,
        features: Float[Tensor, "N C"],
        around: Float[Tensor, "N L W"],
        filters: Float[Tensor, "P KC"],
    ) -> Float[Tensor, "L N C"]:
        """Sum over neighbours and mix channels."""
        n_atoms, n_channels = features.shape
        n_components, n_orders = len(self._order), filters.shape[1] // n_channels
        lifted = features @ self._block.linear_up.weight.view(n_channels, n_channels)
        senders = lifted.index_select(0, batch.neighbours.view(-1)).view(-1, 1, n_channels)
        edges = filters.index_select(0, batch.pairs.view(-1)).view(-1, n_orders, n_channels)
        edges = (edges * senders).view(*batch.pairs.shape, n_orders * n_channels)
        summed = torch.bmm(around, edges)
        summed = summed.view(n_atoms, n_components, n_orders, n_channels) * self._reach
        weight = self._block.linear.weight.view(n_orders, n_channels, n_channels)
        return torch.bmm(summed.sum(2).transpose(0, 1), weight.index_select(0, self._order))

    def _skip_scalars(
        self, batch: LeanBatch, features: Float[Tensor, "N C"]
    ) -> Float[Tensor, "Z A C"]:
        skip, n_channels = self._block.skip_tp, self.n_channels
        weight = (
            skip.weight.view(n_channels, -1, n_channels)
            .transpose(0, 1)
            .index_select(0, batch.present)
        )
        grouped = features.index_select(0, batch.group.view(-1))
        grouped = grouped.view(*batch.group.shape, n_channels)
        return torch.bmm(grouped, weight * skip.instructions[0].path_weight)

    def _skip_message(
        self, batch: LeanBatch, grouped: Float[Tensor, "L Z A C"]
    ) -> Float[Tensor, "L Z A C"]:
        skip, n_channels = self._block.skip_tp, self.n_channels
        n_orders = self._reach.shape[1]
        # The coupling of order l with a scalar is the unit matrix over sqrt(2 l + 1).
        factors = [
            ins.path_weight / math.sqrt(2 * k + 1) for k, ins in enumerate(skip.instructions)
        ]
        factor = grouped.new_tensor(factors).view(-1, 1, 1, 1)
        weight = skip.weight.view(n_orders, n_channels, -1, n_channels).transpose(1, 2)
        weight = weight.index_select(1, batch.present) * factor
        out: Tensor = grouped @ weight.index_select(0, self._order)
        return out


def _only_scalars(irreps: Any) -> bool:
    return len(irreps) == 1 and irreps[0].ir.l == 0 and irreps[0].ir.p == 1


def _supports_radial(radial: Any) -> bool:
    return (
        not hasattr(radial, "distance_transform")
        and bool(getattr(radial, "apply_cutoff", True))
        and not list(radial.parameters())
    )


def _network_shape(block: Any) -> tuple[int, ...]:
    return tuple(getattr(block.conv_tp_weights, "hs", ()))


def _supports_interaction(model: Any, block: Any) -> bool:
    """Every order of the harmonics makes one path, in order, all of the same channels."""
    if type(block).__name__ not in _INTERACTIONS or not _only_scalars(block.conv_tp.irreps_in1):
        return False
    n_channels = block.conv_tp.irreps_in1[0].mul
    n_orders = int(model.spherical_harmonics._lmax) + 1
    paths = [(ins.i_in1, ins.i_in2, ins.i_out) for ins in block.conv_tp.instructions]
    mixing = [(ins.i_in, ins.i_out) for ins in block.linear.instructions]
    skips = [ins.i_in1 for ins in block.skip_tp.instructions]
    residual = type(block).__name__ == _RESIDUAL
    activations = [layer.act for layer in block.conv_tp_weights.children()]
    return (
        [ir.ir.l for ir in block.conv_tp.irreps_in2] == list(range(n_orders))
        and paths == [(0, k, k) for k in range(n_orders)]
        and mixing == [(k, k) for k in range(n_orders)]
        and skips == list(range(1 if residual else n_orders))
        and all(part.mul == n_channels for part in block.irreps_out)
        and _only_scalars(block.linear_up.irreps_in)
        and block.linear_up.irreps_in[0].mul == n_channels
        and activations[-1] is None
        and all(act.f is torch.nn.functional.silu for act in activations[:-1])
    )


def _supports_product(product: Any) -> bool:
    contraction = product.symmetric_contractions
    return (
        type(contraction).__name__ == "SymmetricContraction"
        and len(contraction.contractions) == 1
        and contraction.contractions[0].correlation <= MAX_CORRELATION
        and _only_scalars(product.linear.irreps_in)
        and product.linear.irreps_in == product.linear.irreps_out
    )


def _supports_readout(readout: Any) -> bool:
    if hasattr(readout, "linear_1"):
        return (
            type(readout).__name__ == "NonLinearReadoutBlock"
            and len(readout.non_linearity.acts) == 1
        )
    return type(readout).__name__ == "LinearReadoutBlock"
