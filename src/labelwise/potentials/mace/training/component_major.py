"""Stand-ins for mace-torch's modules, on features with the component outside the channel.

e3nn keeps the components of a feature next to each other: every linear layer, selection and
contraction first moves them outside, and autograd moves them back, in each pass. Here the
components of an irrep lie outside, (2l + 1, channels), and parts of equal irrep are one part, so
that each layer is one matrix product for each irrep. Scalars look the same in both layouts.

A stand-in owns no weights: it reads those of the module it stands in for.

Letters: N atoms, C channels, Z rows of one element each (see ``LeanBatch``), A places in a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.polynomial import MAX_CORRELATION
from labelwise.potentials.mace.training.contraction import ElementContraction
from labelwise.potentials.mace.training.lean_batch import LeanBatch
from labelwise.potentials.mace.training.polynomial import Phase, silu


class AtHand:
    """The batch that is being evaluated.

    Attributes:
        layout: Its geometry, neighbours and elements.
        edges: (N, W), the directed edge of each place.
        pair_of_edge: (M,).
        harmonics: (P, L), to be differentiated by.
        radial: (P, B), to be differentiated by.
    """

    layout: LeanBatch
    edges: Tensor
    pair_of_edge: Tensor
    harmonics: Tensor
    radial: Tensor


@dataclass(frozen=True)
class Part:
    """The channels of one irrep among the features of an atom.

    Attributes:
        irrep: e3nn's ``Irrep``.
        n_channels: All channels of it.
    """

    irrep: Any
    n_channels: int

    @property
    def size(self) -> int:
        """Components of the irrep."""
        return 2 * int(self.irrep.l) + 1


def parts_of(irreps: Any) -> list[Part]:
    """List the parts of e3nn's ``Irreps``, each irrep once; equal ones must lie side by side."""
    return [Part(irrep, int(mul)) for mul, irrep in irreps.simplify()]


def split_parts(
    features: Float[Tensor, "N D"], parts: Sequence[Part]
) -> list[Float[Tensor, "N d C"]]:
    """Take features apart."""
    pieces = torch.split(features, [part.size * part.n_channels for part in parts], dim=1)
    return [
        piece.view(-1, part.size, part.n_channels)
        for piece, part in zip(pieces, parts, strict=True)
    ]


def has_parts(irreps: Any) -> bool:
    """Tell whether equal irreps lie side by side, so that ``parts_of`` can list them."""
    found = [irrep for _, irrep in irreps.simplify()]
    return len(found) == len(set(found))


class Linear(torch.nn.Module):
    """Stands in for ``e3nn.o3.Linear``."""

    def __init__(self, linear: Any) -> None:
        """Read the paths of a linear layer that ``covers_linear``."""
        super().__init__()
        self._inputs, self._outputs = parts_of(linear.irreps_in), parts_of(linear.irreps_out)
        self._linear = linear
        irreps = [part.irrep for part in self._inputs]
        # For each output its input, or None, and what its products are multiplied by.
        self._sources = [
            irreps.index(o.irrep) if o.irrep in irreps else None for o in self._outputs
        ]
        self._factors = {
            linear.irreps_out[ins.i_out].ir: float(ins.path_weight) for ins in linear.instructions
        }
        self._sizes = [
            self._inputs[i].n_channels * part.n_channels
            for i, part in zip(self._sources, self._outputs, strict=True)
            if i is not None
        ]

    def forward(self, features: Float[Tensor, "N D"]) -> Float[Tensor, "N E"]:
        """Mix the channels of each irrep."""
        tables = iter(torch.split(self._linear.weight, self._sizes))
        sources = split_parts(features, self._inputs)
        mixed = []
        for part, i in zip(self._outputs, self._sources, strict=True):
            if i is None:
                mixed.append(features.new_zeros(len(features), part.size * part.n_channels))
                continue
            table = next(tables).view(-1, part.n_channels) * self._factors[part.irrep]
            mixed.append((sources[i] @ table).flatten(1))
        return mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)


def covers_linear(linear: Any) -> bool:
    """Tell whether ``Linear`` can stand in for a module: e3nn's, each irrep to the same one."""
    if type(linear).__name__ != "Linear" or not hasattr(linear, "instructions"):
        return False
    paths = [(ins.i_out, ins.i_in) for ins in linear.instructions]
    expected = [
        (o, i)
        for o, (_, irrep) in enumerate(linear.irreps_out)
        for i, (_, other) in enumerate(linear.irreps_in)
        if irrep == other
    ]
    factors: dict[int, set[float]] = {}
    for ins in linear.instructions:
        factors.setdefault(ins.i_out, set()).add(float(ins.path_weight))
    return (
        has_parts(linear.irreps_in)
        and linear.irreps_out == linear.irreps_out.simplify()
        and has_parts(linear.irreps_out)
        and paths == expected
        and all(len(each) == 1 for each in factors.values())
        and int(linear.bias_numel) == 0
        and bool(linear.internal_weights)
    )


class ElementLinear(torch.nn.Module):
    """Stands in for a ``FullyConnectedTensorProduct`` with the one-hot element."""

    def __init__(self, product: Any, at_hand: AtHand) -> None:
        """Read the paths of a product that ``covers_element_linear``."""
        super().__init__()
        self._inputs, self._outputs = parts_of(product.irreps_in1), parts_of(product.irreps_out)
        self._product, self._at_hand = product, at_hand
        self._shape = (len(product.instructions), -1, int(product.irreps_in2.dim))
        # For each output its path, or None.
        places = {ins.i_out: place for place, ins in enumerate(product.instructions)}
        self._places = [places.get(i) for i in range(len(self._outputs))]

    def forward(
        self, features: Float[Tensor, "N D"], attributes: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N F"]:
        """Mix the channels of each irrep by the weights of each atom's element."""
        del attributes
        batch, product, mixed = self._at_hand.layout, self._product, []
        n_rows, length = batch.group.shape
        grouped = features.index_select(0, batch.group.view(-1))
        sources = split_parts(grouped, self._inputs)
        weight = product.weight.view(*self._shape, self._outputs[0].n_channels)
        tables = weight.index_select(2, batch.present).transpose(1, 2).unbind(0)
        for part, place in zip(self._outputs, self._places, strict=True):
            if place is None:
                mixed.append(features.new_zeros(len(grouped), part.size * part.n_channels))
                continue
            ins = product.instructions[place]
            source = sources[ins.i_in1].reshape(n_rows, length * part.size, -1)
            # The coupling of order l with a scalar is the unit matrix over sqrt(2 l + 1).
            table = tables[place] * (ins.path_weight / math.sqrt(part.size))
            mixed.append(torch.bmm(source, table).view(n_rows * length, -1))
        joined = mixed[0] if len(mixed) == 1 else torch.cat(mixed, dim=1)
        return joined.index_select(0, batch.back)


def covers_element_linear(product: Any) -> bool:
    """Tell whether ``ElementLinear`` can stand in for a module."""
    if type(product).__name__ != "FullyConnectedTensorProduct":
        return False
    inputs, outputs = product.irreps_in1, product.irreps_out
    paths = [(ins.i_in1, ins.i_in2, ins.i_out) for ins in product.instructions]
    expected = [
        (i, 0, o)
        for i, (_, irrep) in enumerate(inputs)
        for o, (_, other) in enumerate(outputs)
        if irrep == other
    ]
    return (
        all(each == each.simplify() and has_parts(each) for each in (inputs, outputs))
        and len(product.irreps_in2) == 1
        and product.irreps_in2[0].ir.l == 0
        and product.irreps_in2[0].ir.p == 1
        and sorted(paths) == sorted(expected)
        and all(len({part.mul for part in each}) == 1 for each in (inputs, outputs))
        and all(ins.connection_mode == "uvw" and ins.has_weight for ins in product.instructions)
        and bool(product.internal_weights)
    )


class Contraction(torch.nn.Module):
    """Stands in for ``SymmetricContraction``."""

    def __init__(self, contraction: Any, at_hand: AtHand, phase: Phase) -> None:
        """Prepare the couplings."""
        super().__init__()
        self._inner, self._at_hand = ElementContraction(contraction, phase), at_hand
        self._n_components = sum(2 * int(part.ir.l) + 1 for part in contraction.irreps_in)

    def forward(
        self, features: Float[Tensor, "N LC"], attributes: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N DC"]:
        """Contract the features of every atom with themselves."""
        del attributes
        batch = self._at_hand.layout
        grouped = features.index_select(0, batch.group.view(-1))
        grouped = grouped.view(*batch.group.shape, self._n_components, -1)
        x = grouped.permute(2, 0, 3, 1).contiguous()
        out = self._inner.contract(batch, x).permute(0, 2, 3, 1)
        return out.flatten(2).flatten(0, 1).index_select(0, batch.back)


def covers_contraction(contraction: Any) -> bool:
    """Tell whether ``Contraction`` can stand in for a module."""
    if type(contraction).__name__ != "SymmetricContraction":
        return False
    channels = {part.mul for part in (*contraction.irreps_in, *contraction.irreps_out)}
    return (
        len(channels) == 1
        and has_parts(contraction.irreps_in)
        and all(each.correlation <= MAX_CORRELATION for each in contraction.contractions)
    )


class RadialNetwork(torch.nn.Module):
    """Stands in for e3nn's ``FullyConnectedNet`` with SiLU, evaluated for pairs."""

    def __init__(self, network: Any, at_hand: AtHand, n_basis: int) -> None:
        """Read the layers of a network that ``covers_network``."""
        super().__init__()
        self._layers, self._at_hand = list(network.children()), at_hand
        self._n_basis = n_basis

    def forward(self, edge_feats: Tensor) -> Float[Tensor, "P out"]:
        """Evaluate the network for every pair, whatever edges are handed over."""
        del edge_feats
        *hidden, last = self._layers
        out, before = self._at_hand.radial[:, : self._n_basis], 1.0
        for layer in hidden:
            scale = before / math.sqrt(layer.h_in * layer.var_in)
            out = silu(out @ (layer.weight * scale))
            before = layer.act.cst * math.sqrt(layer.var_out)
        scale = before * math.sqrt(last.var_out / (last.h_in * last.var_in))
        scaled: Tensor = out @ (last.weight * scale)
        return scaled


def covers_network(network: Any) -> bool:
    """Tell whether ``RadialNetwork`` can stand in for a module."""
    if type(network).__name__ != "FullyConnectedNet":
        return False
    activations = [layer.act for layer in network.children()]
    return activations[-1] is None and all(
        act is not None and act.f is torch.nn.functional.silu for act in activations[:-1]
    )
