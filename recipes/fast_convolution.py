"""MACE with scalar features as dense matrix products, for training on a CPU.

mace-torch forms the message of every edge, (edges, channels x components), and scatters it. Here
the edges of each atom are laid out in rows of equal length, so that summing over neighbours is a
batched matrix product and the large tensor never exists. The radial network, which depends on the
distance alone, is evaluated once for both directions of an edge. Results agree to rounding.
"""

from __future__ import annotations

import torch
from e3nn import o3


class DeferredNetwork(torch.nn.Module):
    """A radial network that hands its input through, to be evaluated by the convolution.

    Args:
        network: The network; its layers, and so the names of its parameters, are kept.
    """

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        for name, layer in network.named_children():
            self.add_module(name, layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the input."""
        return x

    def evaluate(self, x: torch.Tensor) -> torch.Tensor:
        """Return the radial weights (pairs, paths x channels) from the radial basis."""
        for layer in self.children():
            x = layer(x)
        return x


def undirected(edge_index: torch.Tensor, n_nodes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return one edge of each pair (pairs,) and the pair of each edge (edges,)."""
    sender, receiver = edge_index
    key = torch.minimum(sender, receiver) * n_nodes + torch.maximum(sender, receiver)
    keys, pair_of_edge = torch.unique(key, return_inverse=True)
    edges = torch.arange(edge_index.shape[1])
    return torch.zeros_like(keys).scatter_(0, pair_of_edge, edges), pair_of_edge


class DenseConvolution(torch.nn.Module):
    """Replacement for an interaction block's ``conv_tp`` under its ``conv_fusion`` hook.

    Args:
        product: The tensor product of the block: scalars times spherical harmonics, ``uvu``.
        network: The radial network, which the block itself no longer evaluates.

    Raises:
        ValueError: The features have components that are not scalars.
    """

    def __init__(self, product: o3.TensorProduct, network: DeferredNetwork) -> None:
        super().__init__()
        if len(product.irreps_in1) != 1 or product.irreps_in1[0].ir.l != 0:
            raise ValueError(f"scalar features are needed, not {product.irreps_in1}")
        self.channels = product.irreps_in1[0].mul
        self.network = [network]  # in a list: its parameters belong to the block
        slices = product.irreps_in2.slices()
        self.paths = []
        for ins in product.instructions:
            order = product.irreps_in2[ins.i_in2].ir.l
            factor = ins.path_weight * float(o3.wigner_3j(0, order, order)[0, 0, 0])
            self.paths.append((slices[ins.i_in2], factor, ins.i_out))
        self.order = sorted(range(len(self.paths)), key=lambda k: self.paths[k][2])

    def forward(
        self,
        node_feats: torch.Tensor,
        edge_attrs: torch.Tensor,
        edge_feats: torch.Tensor,
        edge_index: torch.Tensor,
    ) -> torch.Tensor:
        """Return the messages (nodes, irreps_out.dim), edges sorted by receiver."""
        sender, receiver = edge_index
        n_nodes, n_edges = len(node_feats), edge_index.shape[1]
        counts = torch.bincount(receiver, minlength=n_nodes)
        width = int(counts.max())
        slot = torch.arange(n_edges) - (counts.cumsum(0) - counts)[receiver]
        place = torch.full((n_nodes * width,), n_edges)
        place[receiver * width + slot] = torch.arange(n_edges)
        place_or_any = place.clamp(max=n_edges - 1)
        representative, pair_of_edge = undirected(edge_index, n_nodes)
        weights = self.network[0].evaluate(edge_feats[representative])
        blocks = weights[pair_of_edge[place_or_any]].view(n_nodes, width, -1, self.channels)
        features = node_feats[sender[place_or_any]].view(n_nodes, width, 1, self.channels)
        padded = torch.cat([edge_attrs, edge_attrs.new_zeros(1, edge_attrs.shape[1])])[place]
        attrs = padded.view(n_nodes, width, -1)
        rows = (blocks * features).unbind(2)
        messages = [
            (rows[k].transpose(1, 2) @ (factor * attrs[:, :, part])).flatten(1)
            for k, (part, factor, _) in enumerate(self.paths)
        ]
        return torch.cat([messages[k] for k in self.order], dim=1)


class DenseContraction(torch.nn.Module):
    """Replacement for a symmetric contraction of two factors to an invariant.

    Both coupling tensors are diagonal then (a product of two components is invariant only as the
    sum of squares of one irrep), which leaves squares and two small matrix products.

    Args:
        contraction: The contraction; its parameters are shared, not copied.
    """

    def __init__(self, contraction: torch.nn.Module) -> None:
        super().__init__()
        pair, single = contraction.U_matrix_2, contraction.U_matrix_1
        diagonal = torch.diagonal(pair, dim1=0, dim2=1).T
        if not torch.allclose(torch.diag_embed(diagonal.T).permute(1, 2, 0), pair):
            raise ValueError("the coupling is not diagonal: only invariants of two factors are")
        self.register_buffer("diagonal", diagonal.contiguous(), persistent=False)
        self.register_buffer("single", single, persistent=False)
        self.weights_max, self.weights = contraction.weights_max, contraction.weights
        for name, buffer in contraction.named_buffers():
            if "." not in name:
                self.register_buffer(name, buffer)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Return (nodes, channels) from features (nodes, channels, components) and elements."""
        species = y.argmax(1)
        pairs = (x.square() @ self.diagonal) * self.weights_max.transpose(1, 2)[species]
        singles = (x @ self.single) * self.weights[0].transpose(1, 2)[species]
        return pairs.sum(-1) + singles.sum(-1)


def use_dense_layers(model: torch.nn.Module) -> torch.nn.Module:
    """Replace the costly parts of a MACE model in place; return it. Parameters stay the same."""
    for interaction, product in zip(model.interactions, model.products, strict=True):
        interaction.conv_tp_weights = DeferredNetwork(interaction.conv_tp_weights)
        interaction.conv_tp = DenseConvolution(interaction.conv_tp, interaction.conv_tp_weights)
        interaction.conv_fusion = True
        contractions = product.symmetric_contractions.contractions
        for k, contraction in enumerate(contractions):
            if contraction.correlation == 2 and contraction.U_matrix_2.dim() == 3:
                contractions[k] = DenseContraction(contraction)
    return model
