"""Equivariant convolutions: tensor product and sum over neighbours in one.

A library of equivariant networks multiplies the sender's features into the harmonics for every
edge, writes the messages down and adds them up by receiver; differentiated twice, each of these
steps comes back several times. For a path from order a of the features through order b of the
harmonics to order c, with a radial weight for each channel, the message to an atom i is

    A_i,u,k = Σ_j Σ_l (R_u(ij) h_j,u,l) (Σ_m C_lmk Y_m(ij)),

a matrix product over neighbours j and components l, taken for all atoms at once over neighbours
that are padded to equal number. The same sums in another order.

Source: equation 6 of Batzner et al., *NequIP*, Nature Communications 13 (2022) 2453.

Letters: N atoms, M edges, u channels, l, m, k components of orders a, b, c.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

# Padded rows for each edge up to which this is the faster way (measured for 128x0e+64x1e+32x2e).
_MAX_PADDING = 3


class _Path(NamedTuple):
    """One order of features through one of harmonics.

    Attributes:
        source: The place of its features among the product's inputs.
        n_components: 2 c + 1.
        target: Its place among the product's outputs.
    """

    source: int
    n_components: int
    target: int


def can_convolve(product: Any) -> bool:
    """Tell whether ``NeighbourConvolution`` can stand in for a tensor product.

    Args:
        product: An e3nn ``TensorProduct``. It must multiply each channel of the features by one
            harmonic and a weight from outside (``uvu``), each path into a part of its own.
    """
    return (
        type(product).__name__ == "TensorProduct"
        and not product.shared_weights
        and all(part.mul == 1 for part in product.irreps_in2)
        and all(ins.connection_mode == "uvu" and ins.has_weight for ins in product.instructions)
        and sorted(ins.i_out for ins in product.instructions)
        == list(range(len(product.irreps_out)))
    )


class NeighbourConvolution(torch.nn.Module):
    """A tensor product that ``can_convolve``, and the sum over neighbours."""

    def __init__(self, product: Any) -> None:
        """Read the paths of an e3nn ``TensorProduct``, which has no weights of its own."""
        super().__init__()
        self._scattered = [product]  # in a list, so that nothing here counts as this module's
        self._channels = [int(part.mul) for part in product.irreps_in1]
        self._components = [int(part.ir.dim) for part in product.irreps_in1]
        self._paths = [
            _Path(int(ins.i_in1), int(product.irreps_out[ins.i_out].ir.dim), int(ins.i_out))
            for ins in product.instructions
        ]
        self._weights = [self._channels[path.source] for path in self._paths]
        self._couplings = {
            source: _read_couplings(product, source) for source in {p.source for p in self._paths}
        }

    def forward(
        self,
        features: Float[Tensor, "N D"],
        harmonics: Float[Tensor, "M L"],
        weights: Float[Tensor, "M W"],
        edge_index: Int64[Tensor, "2 M"],
    ) -> Float[Tensor, "N F"]:
        """Sum the messages that every atom receives; zero without neighbours.

        Args:
            features: (N, D), of the senders, in e3nn's layout: order, channel, component.
            harmonics: (M, L), of the edges.
            weights: (M, W), for each path and channel, in the product's order.
            edge_index: (2, M), sender and receiver.

        Returns:
            (N, F), in e3nn's layout.
        """
        sender, receiver = edge_index
        n_atoms = len(features)
        width, place = place_neighbours(receiver, n_atoms)
        if n_atoms * width > _MAX_PADDING * len(place):
            messages: Tensor = self._scattered[0](features[sender], harmonics, weights)
            return messages.new_zeros(n_atoms, messages.shape[1]).index_add(0, receiver, messages)
        n_rows = n_atoms * width
        harmonics, weights = (
            each.new_zeros(n_rows, each.shape[1]).index_copy(0, place, each)
            for each in (harmonics, weights)
        )
        sender = sender.new_zeros(n_rows).index_copy(0, place, sender)
        by_path = torch.split(weights, self._weights, dim=1)
        sizes = [u * dim for u, dim in zip(self._channels, self._components, strict=True)]
        by_source = torch.split(features, sizes, dim=1)
        parts: list[Tensor] = [features] * len(self._paths)
        for source, coupling in self._couplings.items():
            n_channels, dim = self._channels[source], self._components[source]
            sent = by_source[source].view(-1, n_channels, dim).transpose(1, 2).flatten(1)
            sent = sent.index_select(0, sender).view(n_atoms, width, dim, n_channels)
            chosen = [k for k, path in enumerate(self._paths) if path.source == source]
            columns = [self._paths[k].n_components for k in chosen]
            over = harmonics @ coupling.to(harmonics)
            over = over.view(n_atoms, width * dim, sum(columns))
            for k, coupled in zip(chosen, torch.split(over, columns, dim=2), strict=True):
                rows = sent * by_path[k].view(n_atoms, width, 1, n_channels)
                rows = rows.view(n_atoms, width * dim, n_channels).transpose(1, 2)
                parts[self._paths[k].target] = torch.bmm(rows, coupled).flatten(1)
        return torch.cat(parts, dim=1)


@torch.no_grad()
def _read_couplings(product: Any, source: int) -> Float64[Tensor, "L K"]:
    """Return what the harmonics are multiplied by for the paths of one part of the features.

    The product itself is asked, at unit vectors, so that its normalisation is in them.

    Args:
        product: As in ``can_convolve``.
        source: The part's place.

    Returns:
        (L, 2 a + 1 times the sum of the paths' 2 c + 1), orders of harmonics that are not a
        path's own being zero.
    """
    parts = product.irreps_in1.slices()
    n_harmonics, dim = product.irreps_in2.dim, product.irreps_in1[source].ir.dim
    # Channel 0 of each component, with each harmonic.
    features = torch.zeros(dim, n_harmonics, product.irreps_in1.dim)
    for component in range(dim):
        features[component, :, parts[source].start + component] = 1.0
    harmonics = torch.eye(n_harmonics).expand(dim, -1, -1)
    constant = next(iter(product.buffers()))
    sent, over = (x.flatten(0, 1).to(constant) for x in (features, harmonics))
    weights = sent.new_ones(len(sent), product.weight_numel)
    out = product(sent, over, weights).double().cpu().view(dim, n_harmonics, -1)
    columns = [
        out[:, :, start : start + product.irreps_out[ins.i_out].ir.dim]
        for ins in product.instructions
        if ins.i_in1 == source
        for start in (product.irreps_out.slices()[ins.i_out].start,)
    ]
    return torch.cat(columns, dim=2).transpose(0, 1).flatten(1)


def place_neighbours(
    receivers: Int64[Tensor, " M"], n_atoms: int
) -> tuple[int, Int64[Tensor, " M"]]:
    """Give every edge a row of its own in a table of ``width`` rows for each atom.

    Args:
        receivers: (M,), the atom at which each edge ends, in any order.
        n_atoms: Atoms.

    Returns:
        The width, the greatest number of edges that end at an atom, and the row of each edge,
        (M,), from ``receiver * width`` on.
    """
    if len(receivers) == 0:
        return 0, receivers
    counts = torch.bincount(receivers, minlength=n_atoms)
    width = int(counts.max())
    order = torch.argsort(receivers, stable=True)
    sorted_ = receivers[order]
    rank = torch.arange(len(order), device=order.device) - (counts.cumsum(0) - counts)[sorted_]
    place = torch.empty_like(order)
    place[order] = sorted_ * width + rank
    return width, place
