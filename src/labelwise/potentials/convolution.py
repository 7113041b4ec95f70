"""Equivariant convolutions: tensor product and sum over neighbours in one.

A library of equivariant networks multiplies the sender's features into the spherical harmonics for
every edge, writes down all messages, some 40 C numbers an edge, and adds them up by receiver;
differentiated, each of these steps comes back several times. Here the harmonics are first
multiplied into the coupling coefficients, which does not concern the C channels,

    Z_ij,k,m1,m3 = Σ_m2 C_k,m1,m2,m3 Y_m2(ij)    for each path k = (l1, l2, l3),

and then the sum over an atom's edges and over m1 is one matrix product,

    A_i,k,m3,c = Σ_j,m1 Z_ij,k,m1,m3 (R_k,c(ij) h_m1,c(j)),

taken for some atoms at once, whose edges fit into the cache. The same sums in another order.

The sum is linear in h, R and Z, so that all of its derivatives are sums of the same kind, written
down below: nothing needs to be recorded but h, R and Z, and where geometry is constant, as it is
for tangents by the weights of the embedding, no derivative by R and Z is formed.

Source: equation 6 of Batzner et al., *NequIP*, Nature Communications 13 (2022) 2453; equation 8 of
Batatia et al., *MACE*, NeurIPS 2022.

Letters: N atoms, M edges, P rows for them, L components of the harmonics, K paths, F and G numbers
of an atom's features and messages, W of an edge's weights; C channels, d1 and d3 components of one
path.
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

# Numbers that the products of one path may take for a group of atoms: 1 MiB in single precision.
_GROUP_NUMBERS = 262_144
# The arguments of ``_Form``.
_FEATURES, _WEIGHTS, _COUPLINGS, _MESSAGES = range(4)
# Groups of few edges in all, and all of them on a GPU, cost more by their number than by their
# size: atoms with up to so many times as many neighbours are then put into one group.
_FEW_NUMBERS = 65_536
_WIDENING = 2.0


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

    def __init__(self, product: Any, tables: EdgeTables | None = None) -> None:
        """Read the paths of an e3nn ``TensorProduct``, which has no weights of its own.

        Args:
            product: See ``can_convolve``.
            tables: Shared by the layers of a model.
        """
        super().__init__()
        self._tables = EdgeTables() if tables is None else tables
        self._sent = _Layout.of(product.irreps_in1)
        self._received = _Layout.of(product.irreps_out)
        channels = [self._sent.channels[ins.i_in1] for ins in product.instructions]
        couplings = [_couple(product, place) for place in range(len(product.instructions))]
        shares = _slices([each.shape[1] for each in couplings])
        senders, messages = self._sent.slices(), self._received.slices()
        self._paths = [
            _Path(senders[ins.i_in1], block, share, messages[ins.i_out], n_channels)
            for ins, block, share, n_channels in zip(
                product.instructions, _slices(channels), shares, channels, strict=True
            )
        ]
        self._couplings = torch.cat(couplings, dim=1)

    def forward(
        self,
        senders: Float[Tensor, "N F"],
        harmonics: Float[Tensor, "M L"],
        weights: Float[Tensor, "M W"],
        edge_index: Int64[Tensor, "2 M"],
    ) -> Float[Tensor, "N G"]:
        """Sum the messages that every atom receives; zero without neighbours.

        Args:
            senders: (N, F), node features in e3nn's layout: irrep, channel, component.
            harmonics: (M, L), of the edges.
            weights: (M, W), for each path and channel in the order of e3nn's instructions.
            edge_index: (2, M), sender and receiver, in any order.

        Returns:
            (N, G) in e3nn's layout.
        """
        table = self._tables.of(edge_index, len(senders), max(self._sent.channels))
        couplings = table.arrange(harmonics @ self._couplings.to(harmonics))
        if table.filled is not None:
            couplings = couplings * table.filled[:, None].to(couplings)
        form = _Form(self._paths, table.groups, table.arrange(edge_index[0]))
        messages: Tensor = _Derivative.apply(  # type: ignore[no-untyped-call]
            form,
            _MESSAGES,
            self._sent.turn(senders),
            table.arrange(weights),
            couplings,
            senders.new_empty(1, 1).expand(len(senders), self._received.size),
        )
        return self._received.turn_back(messages.index_select(0, table.ranks))


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

    def __reduce__(self) -> tuple[Any, ...]:
        """Let copies and other processes start without a table: it belongs to edges at hand."""
        return EdgeTables, ()

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
class _Layout:
    """How e3nn lays out the numbers of an atom, (channel, component) for each irrep.

    Attributes:
        channels: Of each irrep.
        components: 2 l + 1 of each.
    """

    channels: Sequence[int]
    components: Sequence[int]

    @classmethod
    def of(cls, irreps: Any) -> _Layout:
        """Read it from e3nn's irreps."""
        return cls([int(part.mul) for part in irreps], [int(part.ir.dim) for part in irreps])

    @property
    def sizes(self) -> list[int]:
        """Numbers of each irrep."""
        return [mul * dim for mul, dim in zip(self.channels, self.components, strict=True)]

    @property
    def size(self) -> int:
        """Numbers of an atom."""
        return sum(self.sizes)

    def slices(self) -> list[slice]:
        """Return where the numbers of each irrep are."""
        return _slices(self.sizes)

    def turn(self, rows: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
        """Put channels inside components."""
        return self._turn(rows, self.channels, self.components)

    def turn_back(self, rows: Float[Tensor, "N F"]) -> Float[Tensor, "N F"]:
        """Put components inside channels, as e3nn has them."""
        return self._turn(rows, self.components, self.channels)

    def _turn(
        self, rows: Float[Tensor, "N F"], outer: Sequence[int], inner: Sequence[int]
    ) -> Float[Tensor, "N F"]:
        parts = torch.split(rows, self.sizes, dim=1)
        turned = [
            part.view(-1, *shape).transpose(1, 2).flatten(1)
            for part, shape in zip(parts, zip(outer, inner, strict=True), strict=True)
        ]
        return torch.cat(turned, dim=1)


@dataclass(frozen=True)
class _Path:
    """Where a path has its share of features, weights, couplings and messages."""

    senders: slice
    weights: slice
    couplings: slice
    messages: slice
    n_channels: int

    @property
    def n_messages(self) -> int:
        """Components of its messages."""
        return int(self.messages.stop - self.messages.start) // self.n_channels

    def of_senders(self, rows: Float[Tensor, "P F"]) -> Float[Tensor, "P d1 C"]:
        """Return a view of its share of features."""
        return self._split(rows[:, self.senders])

    def of_messages(self, rows: Float[Tensor, "N G"]) -> Float[Tensor, "N d3 C"]:
        """Return a view of its share of messages."""
        return self._split(rows[:, self.messages])

    def _split(self, rows: Float[Tensor, "P dC"]) -> Float[Tensor, "P d C"]:
        return rows.view(len(rows), rows.shape[1] // self.n_channels, self.n_channels)


@dataclass(frozen=True)
class _Form:
    """The sum over neighbours, times a cotangent G of the messages, as a form of four arguments.

        φ(h, R, Z, G) = Σ_i,j,k,m1,m3,c G_i,k,m3,c Z_ij,k,m1,m3 R_k,c(ij) h_m1,c(j)

    It is linear in each. Its derivative by G are the messages; by the others, what G gives back.
    Features and messages are (N, F) and (N, G), channels inside components, messages sorted by
    number of neighbours, weights and couplings (P, W) and (P, Σ d1 d3).
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
        features, weights, couplings, messages = arguments
        n_atoms, rows = group.atoms.stop - group.atoms.start, group.rows
        n_rows = rows.stop - rows.start
        senders = self.senders[rows]
        if slot == _FEATURES:
            lifted = out.new_zeros(n_rows, out.shape[1])
        else:
            lifted = features.index_select(0, senders)
        for path in self.paths:
            sent, factors = path.of_senders(lifted), weights[rows, None, path.weights]
            if slot != _COUPLINGS:
                table = couplings[rows, path.couplings].reshape(n_atoms, -1, path.n_messages)
            if slot in (_MESSAGES, _COUPLINGS):
                products = (sent * factors).view(n_atoms, -1, path.n_channels)
            else:
                along = torch.bmm(table, path.of_messages(messages[group.atoms]))
                along = along.view(n_rows, -1, path.n_channels)
            if slot == _MESSAGES:
                path.of_messages(out[group.atoms]).copy_(torch.bmm(table.transpose(1, 2), products))
            elif slot == _COUPLINGS:
                back = path.of_messages(messages[group.atoms]).transpose(1, 2)
                out[rows, path.couplings] = torch.bmm(products, back).view(n_rows, -1)
            elif slot == _WEIGHTS:
                out[rows, path.weights] = (along * sent).sum(1)
            else:
                sent.addcmul_(along, factors)
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


@torch.no_grad()
def _couple(product: Any, place: int) -> Float64[Tensor, "L _"]:
    """Return what harmonics are multiplied by in a path, one row for each of their components.

    The product itself is asked, at unit vectors, so that its normalisation is in them.

    Args:
        product: An e3nn ``TensorProduct``.
        place: That of the path among its instructions.

    Returns:
        (L, d1 d3), zero for harmonics that are not the path's own.
    """
    path = product.instructions[place]
    source, over, target = (
        irreps.slices()[i]
        for irreps, i in (
            (product.irreps_in1, path.i_in1),
            (product.irreps_in2, path.i_in2),
            (product.irreps_out, path.i_out),
        )
    )
    n_over = over.stop - over.start
    d1, d3 = product.irreps_in1[path.i_in1].ir.dim, product.irreps_out[path.i_out].ir.dim
    features = torch.zeros(d1 * n_over, product.irreps_in1.dim)
    harmonics = torch.zeros(d1 * n_over, product.irreps_in2.dim)
    for component in range(d1):  # of channel 0, with each harmonic
        rows = slice(component * n_over, (component + 1) * n_over)
        features[rows, source.start + component] = 1.0
        harmonics[rows, over] = torch.eye(n_over)
    constant = next(iter(product.buffers()))
    sent, along = features.to(constant), harmonics.to(constant)
    out = product(sent, along, sent.new_ones(len(sent), product.weight_numel))
    found = out[:, target.start : target.start + d3].double().cpu().view(d1, n_over, d3)
    rows_of_all: Tensor = found.new_zeros(product.irreps_in2.dim, d1 * d3)
    rows_of_all[over] = found.transpose(0, 1).flatten(1)
    return rows_of_all
