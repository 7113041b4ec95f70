"""The convolution of MACE for scalar senders: tensor product and sum over neighbours in one.

mace-torch multiplies the sender's features into the spherical harmonics for every edge, writes
down C (l_max + 1)² numbers an edge, and adds them up by receiver; differentiated twice, each of
these steps comes back several times. With scalar senders the product is an outer product, so that
the sum over the edges j of an atom i is a matrix product,

    A_i,clm = f_l Σ_j R_l,c(ij) h_c(j) Y_lm(ij),

taken for all atoms at once over neighbours that are padded to equal number. The same sums in
another order.

Source: Batatia et al., *MACE*, NeurIPS 2022, equation 8, for node features with l = 0.

Letters: N atoms, M edges, C channels, L = (l_max + 1)² components, K = l_max + 1 orders.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.potentials.convolution import place_neighbours

# Those that hand ``conv_tp`` nodes and edges when they have the attribute ``conv_fusion``.
_INTERACTIONS = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
}
# Padded rows for each edge at which adding up edge by edge is as fast (measured for C = 64 and
# 128); for l_max = 3 they then hold as many numbers as the messages would.
_MAX_PADDING = 4


def has_scalar_convolution(block: Any) -> bool:
    """Tell whether ``NeighbourConvolution`` can stand in for an interaction block's ``conv_tp``.

    It can where mace-torch's own convolution of scalars runs: senders are even scalars, and
    each order k of the harmonics makes the one path (0, k, k), weighted by channel.
    """
    if type(block).__name__ not in _INTERACTIONS or hasattr(block, "conv_fusion"):
        return False
    conv = block.conv_tp
    if type(conv).__name__ != "TensorProduct" or len(conv.irreps_in1) != 1:
        return False
    (n_channels, sender), orders = conv.irreps_in1[0], conv.irreps_in2
    paths = [(ins.i_in1, ins.i_in2, ins.i_out) for ins in conv.instructions]
    return bool(
        (sender.l, sender.p) == (0, 1)
        and paths == [(0, k, k) for k in range(len(orders))]
        and [(part.mul, part.ir) for part in conv.irreps_out]
        == [(n_channels, part.ir) for part in orders]
        and all(part.mul == 1 for part in orders)
        and all(ins.connection_mode == "uvu" and ins.has_weight for ins in conv.instructions)
        and not conv.shared_weights
    )


class NeighbourConvolution(torch.nn.Module):
    """Stands in for a ``conv_tp`` that ``has_scalar_convolution``, by the hook ``conv_fusion``."""

    def __init__(self, conv: Any) -> None:
        """Read the paths of an e3nn ``TensorProduct``, which has no weights of its own."""
        super().__init__()
        self._sizes = [2 * int(part.ir.l) + 1 for part in conv.irreps_in2]
        # The coupling of order l with a scalar is the unit matrix over sqrt(2 l + 1).
        factors = [
            ins.path_weight / math.sqrt(size)
            for ins, size in zip(conv.instructions, self._sizes, strict=True)
        ]
        sizes = torch.tensor(self._sizes)
        self._factors = torch.tensor(factors, dtype=torch.float64).repeat_interleave(sizes)

    def forward(
        self,
        senders: Float[Tensor, "N C"],
        harmonics: Float[Tensor, "M L"],
        filters: Float[Tensor, "M KC"],
        edge_index: Int64[Tensor, "2 M"],
    ) -> Float[Tensor, "N LC"]:
        """Sum the messages that every atom receives; zero without neighbours.

        Args:
            senders: (N, C), node features.
            harmonics: (M, L), of the edges.
            filters: (M, K C), radial weights, orders outside.
            edge_index: (2, M), sender and receiver.

        Returns:
            (N, L C) in e3nn's layout: order, channel, component.
        """
        (n_atoms, n_channels), n_orders = senders.shape, len(self._sizes)
        harmonics = harmonics * self._factors.to(harmonics)
        lifted = senders.index_select(0, edge_index[0])[:, None, :]
        radial = filters.view(-1, n_orders, n_channels) * lifted
        width, place = place_neighbours(edge_index[1], n_atoms)
        if n_atoms * width > _MAX_PADDING * len(place):
            return self._sum_scattered(radial, harmonics, edge_index[1], n_atoms)
        padded = [
            each.new_zeros(n_atoms * width, each.shape[1])
            .index_copy(0, place, each)
            .view(n_atoms, width, each.shape[1])
            for each in (radial.flatten(1), harmonics)
        ]
        by_order = zip(
            torch.split(padded[0], n_channels, dim=2),
            torch.split(padded[1], self._sizes, dim=2),
            strict=True,
        )
        parts = [torch.bmm(r.transpose(1, 2), y).flatten(1) for r, y in by_order]
        return torch.cat(parts, dim=1)

    def _sum_scattered(
        self,
        radial: Float[Tensor, "M K C"],
        harmonics: Float[Tensor, "M L"],
        receivers: Int64[Tensor, " M"],
        n_atoms: int,
    ) -> Float[Tensor, "N LC"]:
        """Sum edge by edge, for atoms whose numbers of neighbours differ too much to pad them."""
        parts = []
        for r, y in zip(radial.unbind(1), torch.split(harmonics, self._sizes, dim=1), strict=True):
            messages = (r[:, :, None] * y[:, None, :]).flatten(1)
            total = messages.new_zeros(n_atoms, messages.shape[1])
            parts.append(total.index_add(0, receivers, messages))
        return torch.cat(parts, dim=1)
