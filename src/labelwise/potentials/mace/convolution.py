"""The convolution of MACE: tensor product and sum over neighbours in one.

mace-torch multiplies the sender's features into the spherical harmonics for every edge, writes
down all messages, some 40 C numbers an edge, and adds them up by receiver; differentiated, each of
these steps comes back several times. Here the harmonics are first multiplied into the coupling
coefficients, which does not concern the C channels,

    Z_ij,k,m1,m3 = Σ_m2 C_k,m1,m2,m3 Y_m2(ij)    for each path k = (l1, l2, l3),

and then the sum over an atom's edges and over m1 is one matrix product,

    A_i,k,m3,c = Σ_j,m1 Z_ij,k,m1,m3 (R_k,c(ij) h_m1,c(j)),

taken for some atoms at once, whose edges fit into the cache. The same sums in another order.

The sum is linear in h, R and Z, so that all of its derivatives are sums of the same kind, written
down below: nothing needs to be recorded but h, R and Z, and where geometry is constant, as it is
for tangents by the weights of the embedding, no derivative by R and Z is formed.

Source: Batatia et al., *MACE*, NeurIPS 2022, equation 8.

Letters: N atoms, M edges, P rows for them, C channels, L components of the harmonics, K paths,
D1 and D3 components of the features and of the messages, d1 and d3 those of one path.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import torch
from jaxtyping import Bool, Float, Float64, Int64, Shaped
from torch import Tensor

# Those that hand ``conv_tp`` nodes and edges when they have the attribute ``conv_fusion``.
_INTERACTIONS = {
    "RealAgnosticInteractionBlock",
    "RealAgnosticResidualInteractionBlock",
    "RealAgnosticDensityInteractionBlock",
    "RealAgnosticDensityResidualInteractionBlock",
    "RealAgnosticAttResidualInteractionBlock",
    "RealAgnosticResidualNonLinearInteractionBlock",
}
# Numbers that the products of one path may take for a group of atoms: 1 MiB in single precision.
_GROUP_NUMBERS = 262_144
# The arguments of ``_Form``.
_FEATURES, _FILTERS, _COUPLINGS, _MESSAGES = range(4)
# Groups of few edges in all, and all of them on a GPU, cost more by their number than by their
# size: atoms with up to so many times as many neighbours are then put into one group.
_FEW_NUMBERS = 65_536
_WIDENING = 2.0


def is_channelwise(block: Any) -> bool:
    """Tell whether an interaction block's ``conv_tp`` multiplies channel by channel.

    So do mace-torch's own: senders and messages have as many channels, each path is weighted by
    channel and makes a message of its own, and weights come from outside.
    """
    if type(block).__name__ not in _INTERACTIONS or hasattr(block, "conv_fusion"):
        return False
    conv = block.conv_tp
    if type(conv).__name__ != "TensorProduct":
        return False
    channels = {part.mul for irreps in (conv.irreps_in1, conv.irreps_out) for part in irreps}
    targets = sorted(ins.i_out for ins in conv.instructions)
    return bool(
        len(channels) == 1
        and all(part.mul == 1 for part in conv.irreps_in2)
        and all(ins.connection_mode == "uvu" and ins.has_weight for ins in conv.instructions)
        and not conv.shared_weights
        and targets == list(range(len(conv.irreps_out)))
    )


class NeighbourConvolution(torch.nn.Module):
    """Stands in for a ``conv_tp`` that ``is_channelwise``, by the hook ``conv_fusion``."""

    def __init__(self, conv: Any, tables: EdgeTables | None = None) -> None:
        """Read the paths of an e3nn ``TensorProduct``, which has no weights of its own.

        Args:
            conv: The product, see ``is_channelwise``.
            tables: Shared by the layers of a model.
        """
        super().__init__()
        self._tables = EdgeTables() if tables is None else tables
        self._n_channels = int(conv.irreps_in1[0].mul)
        self._sender_dims = [int(part.ir.dim) for part in conv.irreps_in1]
        self._message_dims = [int(part.ir.dim) for part in conv.irreps_out]
        senders, messages = _slices(self._sender_dims), _slices(self._message_dims)
        filters = _slices([self._n_channels] * len(conv.instructions))
        couplings = [_couple(conv, ins) for ins in conv.instructions]
        shares = _slices([each.shape[1] for each in couplings])
        self._paths = [
            _Path(senders[ins.i_in1], block, share, messages[ins.i_out])
            for ins, block, share in zip(conv.instructions, filters, shares, strict=True)
        ]
        self._couplings = torch.cat(couplings, dim=1)

    def forward(
        self,
        senders: Float[Tensor, "N D1C"],
        harmonics: Float[Tensor, "M L"],
        filters: Float[Tensor, "M KC"],
        edge_index: Int64[Tensor, "2 M"],
    ) -> Float[Tensor, "N D3C"]:
        """Sum the messages that every atom receives; zero without neighbours.

        Args:
            senders: (N, D1 C), node features in e3nn's layout: irrep, channel, component.
            harmonics: (M, L), of the edges.
            filters: (M, K C), radial weights in the order of e3nn's instructions.
            edge_index: (2, M), sender and receiver, in any order.

        Returns:
            (N, D3 C) in e3nn's layout.
        """
        n_channels = self._n_channels
        table = self._tables.of(edge_index, len(senders), n_channels)
        couplings = table.arrange(harmonics @ self._couplings.to(harmonics))
        if table.filled is not None:
            couplings = couplings * table.filled[:, None].to(couplings)
        form = _Form(self._paths, table.groups, table.arrange(edge_index[0]))
        messages: Tensor = _Derivative.apply(  # type: ignore[no-untyped-call]
            form,
            _MESSAGES,
            _components_first(senders, self._sender_dims, n_channels),
            table.arrange(filters),
            couplings,
            senders.new_empty(1, 1, 1).expand(len(senders), sum(self._message_dims), n_channels),
        )
        messages = messages.index_select(0, table.ranks)
        return _channels_first(messages, self._message_dims)


@dataclass(frozen=True)
class EdgeTable:
    """Edges arranged by receiver, atoms with as many neighbours side by side.

    Attributes:
        ranks: (N,), place of each atom when sorted by number of neighbours.
        groups: Atoms that are treated at once, in this order, each with equally many rows.
        rows: (P,), the edge in each row; None if it is the edge of the same number.
        filled: (P,), False where a row is empty and holds any edge; None if none is.
    """

    ranks: Int64[Tensor, " N"]
    groups: list[_Group]
    rows: Int64[Tensor, " P"] | None
    filled: Bool[Tensor, " P"] | None

    def arrange(self, edges: Shaped[Tensor, "M ..."]) -> Shaped[Tensor, "P ..."]:
        """Put what belongs to edges into rows."""
        return edges if self.rows is None else edges.index_select(0, self.rows)


@dataclass(frozen=True)
class _Group:
    """Places of atoms and of their rows."""

    atoms: slice
    rows: slice


class EdgeTables:
    """Keeps the table of the last edges for the layers of a model, which all have the same."""

    def __init__(self) -> None:
        """Start without one."""
        self._edges: Callable[[], Tensor | None] = lambda: None
        self._sizes = (0, 0)
        self._table: EdgeTable | None = None

    def of(self, edge_index: Int64[Tensor, "2 M"], n_atoms: int, n_channels: int) -> EdgeTable:
        """Return what ``group_edges`` makes of these edges."""
        table, sizes = self._table, (n_atoms, n_channels)
        if table is None or self._edges() is not edge_index or self._sizes != sizes:
            table = group_edges(edge_index[1], n_atoms, n_channels)
            self._table, self._sizes = table, sizes
            self._edges = weakref.ref(edge_index)
        return table


def sort_edges(receivers: Int64[Tensor, " M"], n_atoms: int) -> Int64[Tensor, " M"]:
    """Return an order of edges in which ``NeighbourConvolution`` need not move what it gets.

    Args:
        receivers: (M,), the atom at which each edge ends.
        n_atoms: Atoms.
    """
    ranks, _ = _rank_atoms(receivers, n_atoms)
    return torch.argsort(ranks[receivers], stable=True)


def _rank_atoms(
    receivers: Int64[Tensor, " M"], n_atoms: int
) -> tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]:
    """Sort atoms by number of neighbours: the place of each, and the numbers, rising."""
    counts = torch.bincount(receivers, minlength=n_atoms)
    rising, order = torch.sort(counts, stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(n_atoms, device=order.device)
    return ranks, rising


def group_edges(receivers: Int64[Tensor, " M"], n_atoms: int, n_channels: int) -> EdgeTable:
    """Arrange edges for matrix products over the neighbours of several atoms.

    Args:
        receivers: (M,), the atom at which each edge ends, in any order.
        n_atoms: Atoms, N.
        n_channels: Channels, by which the size of groups is chosen.
    """
    ranks, counts = _rank_atoms(receivers, n_atoms)
    sizes = counts.tolist()
    groups, widths = [], []
    few = receivers.is_cuda or len(receivers) * n_channels <= _FEW_NUMBERS
    widening = _WIDENING if few else 1.0
    most_rows = _GROUP_NUMBERS // n_channels
    start = end = 0
    while start < n_atoms:
        stop = start + 1
        while (
            stop < n_atoms
            and sizes[stop] <= widening * sizes[start]
            and sizes[stop] * (stop + 1 - start) <= most_rows
        ):
            stop += 1
        width = sizes[stop - 1]
        widths += [width] * (stop - start)
        groups.append(_Group(slice(start, stop), slice(end, end + width * (stop - start))))
        start, end = stop, groups[-1].rows.stop
    edges = torch.argsort(ranks[receivers], stable=True)
    if end == len(receivers):
        in_order = bool((edges[1:] > edges[:-1]).all())
        return EdgeTable(ranks, groups, None if in_order else edges, None)
    # Each atom's edges come first in its rows.
    width = torch.tensor(widths, device=edges.device)
    before = (width - counts).cumsum(0) - (width - counts)
    place = torch.arange(len(edges), device=edges.device) + before[ranks[receivers[edges]]]
    filled = torch.zeros(end, dtype=torch.bool, device=edges.device)
    filled[place] = True
    rows = torch.zeros_like(filled, dtype=torch.int64)
    rows[place] = edges
    return EdgeTable(ranks, groups, rows, filled)


@dataclass(frozen=True)
class _Path:
    """Where a path has its share of features, filters, couplings and messages."""

    senders: slice
    filters: slice
    couplings: slice
    messages: slice

    @property
    def n_messages(self) -> int:
        """Components of its messages."""
        return int(self.messages.stop - self.messages.start)


@dataclass(frozen=True)
class _Form:
    """The sum over neighbours, times a cotangent G of the messages, as a form of four arguments.

        φ(h, R, Z, G) = Σ_i,j,k,m1,m3,c G_i,k,m3,c Z_ij,k,m1,m3 R_k,c(ij) h_m1,c(j)

    It is linear in each. Its derivative by G are the messages; by the others, what G gives back.
    Features and messages are (N, D1, C) and (N, D3, C), messages sorted by number of neighbours,
    filters and couplings (M, K C) and (M, Σ d1 d3).
    """

    paths: Sequence[_Path]
    groups: Sequence[_Group]
    senders: Int64[Tensor, " M"]

    def derive(self, slot: int, arguments: Sequence[Tensor], like: Tensor) -> Tensor:
        """Return the derivative by one argument, as large as ``like``; not to be differentiated."""
        out = like.new_zeros(like.shape)
        for group in self.groups:
            if group.rows.stop > group.rows.start:
                self._derive_group(slot, arguments, group, out)
        return out

    def _derive_group(
        self, slot: int, arguments: Sequence[Tensor], group: _Group, out: Tensor
    ) -> None:
        features, filters, couplings, messages = arguments
        n_atoms, rows = group.atoms.stop - group.atoms.start, group.rows
        n_rows = rows.stop - rows.start
        senders = self.senders[rows]
        if slot == _FEATURES:
            lifted = out.new_zeros(n_rows, *out.shape[1:])
        else:
            lifted = features.index_select(0, senders)
        for path in self.paths:
            if slot != _COUPLINGS:
                table = couplings[rows, path.couplings].reshape(n_atoms, -1, path.n_messages)
            if slot in (_MESSAGES, _COUPLINGS):
                products = lifted[:, path.senders] * filters[rows, None, path.filters]
                products = products.view(n_atoms, -1, products.shape[2])
            else:
                along = torch.bmm(table, messages[group.atoms, path.messages])
                along = along.view(n_rows, -1, along.shape[2])
            if slot == _MESSAGES:
                out[group.atoms, path.messages] = torch.bmm(table.transpose(1, 2), products)
            elif slot == _COUPLINGS:
                back = messages[group.atoms, path.messages].transpose(1, 2)
                out[rows, path.couplings] = torch.bmm(products, back).view(n_rows, -1)
            elif slot == _FILTERS:
                out[rows, path.filters] = (along * lifted[:, path.senders]).sum(1)
            else:
                lifted[:, path.senders].addcmul_(along, filters[rows, None, path.filters])
        if slot == _FEATURES:
            out.index_add_(0, senders, lifted)


class _Derivative(torch.autograd.Function):
    """A derivative of the form by one argument; its own derivatives are others of them.

    The argument by which is derived stands for its shape alone.
    """

    @staticmethod
    def forward(ctx: Any, form: _Form, slot: int, *arguments: Tensor) -> Tensor:
        ctx.form, ctx.slot = form, slot
        ctx.save_for_backward(*arguments)
        return form.derive(slot, arguments, arguments[slot])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        arguments = list(ctx.saved_tensors)
        arguments[ctx.slot] = grad.contiguous()
        gradients: list[Tensor | None] = [None] * len(arguments)
        for slot in range(len(arguments)):
            if slot != ctx.slot and ctx.needs_input_grad[2 + slot]:
                gradients[slot] = _Derivative.apply(ctx.form, slot, *arguments)  # type: ignore[no-untyped-call]
        return None, None, *gradients


def _slices(sizes: Sequence[int]) -> list[slice]:
    stops = list(accumulate(sizes))
    return [slice(stop - size, stop) for stop, size in zip(stops, sizes, strict=True)]


def _couple(conv: Any, instruction: Any) -> Float64[Tensor, "L _"]:
    """Return what harmonics are multiplied by in a path, one row for each of their components."""
    from e3nn import o3

    which = (instruction.i_in1, instruction.i_in2, instruction.i_out)
    every = (conv.irreps_in1, conv.irreps_in2, conv.irreps_out)
    orders = [int(irreps[i].ir.l) for irreps, i in zip(every, which, strict=True)]
    coupling = o3.wigner_3j(*orders, dtype=torch.float64) * float(instruction.path_weight)
    rows: Tensor = coupling.new_zeros(conv.irreps_in2.dim, coupling[:, 0].numel())
    rows[conv.irreps_in2.slices()[instruction.i_in2]] = coupling.transpose(0, 1).flatten(1)
    return rows


def _components_first(
    rows: Float[Tensor, "N DC"], dims: Sequence[int], n_channels: int
) -> Float[Tensor, "N D C"]:
    """Turn e3nn's layout, components inside channels, into channels inside components."""
    parts = torch.split(rows, [n_channels * dim for dim in dims], dim=1)
    turned = [
        part.view(-1, n_channels, dim).transpose(1, 2)
        for part, dim in zip(parts, dims, strict=True)
    ]
    return torch.cat(turned, dim=1)


def _channels_first(rows: Float[Tensor, "N D C"], dims: Sequence[int]) -> Float[Tensor, "N DC"]:
    """Turn it back."""
    parts = torch.split(rows, list(dims), dim=1)
    return torch.cat([part.transpose(1, 2).flatten(1) for part in parts], dim=1)
