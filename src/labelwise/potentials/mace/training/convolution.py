"""The convolution of MACE for senders of any order, as matrix products over neighbours.

For a path p from order l1 of the sender and l2 of the harmonics to l3,

    A_i,m3,c = Σ_j Σ_m1 T_ij,m3,m1 R_p,c(ij) h_j,m1,c,   T = Σ_m2 C_m1,m2,m3 Y_l2,m2(ij):

geometry and coupling first, then one matrix product for all atoms over neighbours and m1. The
products R h take (2 l1 + 1) C numbers for an edge, less than the messages would.

Source: Batatia et al., *MACE*, NeurIPS 2022, equation 8.

Letters: N atoms, W places for neighbours, P pairs, C channels, L components of the harmonics.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.mace.training.component_major import (
    AtHand,
    has_parts,
    parts_of,
    split_parts,
)


@dataclass(frozen=True)
class _Path:
    """A path: its place among the radial weights, its output, and its coupling.

    ``coupling`` (L, d3 d1) takes the harmonics of an edge to the path's matrix (m3, m1).
    """

    place: int
    output: int
    size: int
    coupling: Float[Tensor, "L d3d1"]


class Convolution(torch.nn.Module):
    """Stands in for an interaction block's ``conv_tp``, by mace-torch's hook ``conv_fusion``."""

    def __init__(self, conv: Any, at_hand: AtHand, like: Tensor, *, by_pair: bool) -> None:
        """Read the paths of an e3nn ``TensorProduct`` that ``covers_convolution``.

        Args:
            conv: The tensor product.
            at_hand: Where the batch is found.
            like: Of the type and on the device of the model.
            by_pair: Whether radial weights come for pairs, not for directed edges.
        """
        super().__init__()
        self._at_hand, self._by_pair = at_hand, by_pair
        self._senders = parts_of(conv.irreps_in1)
        outputs = [part.irrep for part in parts_of(conv.irreps_out)]
        self._n_outputs, self._n_paths = len(outputs), len(conv.instructions)
        self._paths: list[list[_Path]] = [[] for _ in self._senders]
        for place, ins in enumerate(conv.instructions):
            irrep = conv.irreps_out[ins.i_out].ir
            size = 2 * int(irrep.l) + 1
            path = _Path(place, outputs.index(irrep), size, _coupling(conv, ins).to(like))
            self._paths[ins.i_in1].append(path)

    def forward(
        self,
        features: Float[Tensor, "N D"],
        around: Float[Tensor, "N W L"],
        filters: Float[Tensor, "rows PC"],
        edge_index: Tensor,
    ) -> Float[Tensor, "N E"]:
        """Sum the messages that every atom receives."""
        del edge_index
        layout = self._at_hand.layout
        n_atoms, width = layout.neighbours.shape
        rows = layout.pairs if self._by_pair else self._at_hand.edges
        if filters.shape[0] == 0:  # free atoms alone, whose places hold no edge
            filters = filters.new_zeros(1, filters.shape[1])
        senders = features.index_select(0, layout.neighbours.view(-1))
        weights = filters.index_select(0, rows.view(-1)).view(n_atoms * width, self._n_paths, -1)
        by_path = weights.unbind(1)
        sums: list[list[Tensor]] = [[] for _ in range(self._n_outputs)]
        sources = split_parts(senders, self._senders)
        for part, sent, paths in zip(self._senders, sources, self._paths, strict=True):
            for path in paths:
                left = (around.flatten(0, 1) @ path.coupling).view(
                    n_atoms, width, path.size, part.size
                )
                left = left.transpose(1, 2).reshape(n_atoms, path.size, width * part.size)
                right = (by_path[path.place][:, None] * sent).view(n_atoms, width * part.size, -1)
                sums[path.output].append(torch.bmm(left, right))
        return torch.cat([torch.cat(each, dim=2).flatten(1) for each in sums], dim=1)


def covers_convolution(conv: Any) -> bool:
    """Tell whether ``Convolution`` can stand in for a module: weights by channel and path."""
    if type(conv).__name__ != "TensorProduct" or not all(
        hasattr(conv, name) for name in ("instructions", "shared_weights")
    ):
        return False
    sent, orders = conv.irreps_in1, conv.irreps_in2
    outputs = [ins.i_out for ins in conv.instructions]
    return (
        sent == sent.simplify()
        and has_parts(sent)
        and has_parts(conv.irreps_out)
        and len({part.mul for part in (*sent, *conv.irreps_out)}) == 1
        and all(part.mul == 1 for part in orders)
        and outputs == list(range(len(conv.irreps_out)))
        and all(ins.connection_mode == "uvu" and ins.has_weight for ins in conv.instructions)
        and not conv.shared_weights
    )


def _coupling(conv: Any, ins: Any) -> Float[Tensor, "L d3d1"]:
    from e3nn.o3 import wigner_3j

    first, third = conv.irreps_in1[ins.i_in1].ir.l, conv.irreps_out[ins.i_out].ir.l
    orders = [part.ir.l for part in conv.irreps_in2]
    coupling = wigner_3j(first, orders[ins.i_in2], third, dtype=torch.float64) * ins.path_weight
    start = sum(2 * order + 1 for order in orders[: ins.i_in2])
    n_components = sum(2 * order + 1 for order in orders)
    out: Tensor = coupling.new_zeros(n_components, (2 * third + 1) * (2 * first + 1))
    out[start : start + coupling.shape[1]] = coupling.permute(1, 2, 0).flatten(1)
    return out
