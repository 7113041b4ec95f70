"""MACE's convolutions and symmetric contractions by cuEquivariance, the weights left as they are.

mace-torch converts a whole model: other names, other layouts, other coordinates of the weights, in
which a tangent would be another vector. Here nothing is converted. The two operations that cost
the time are written down as polynomials in cuEquivariance's form, with the very coefficients of
the e3nn modules for which they stand in, and are fed that module's inputs and weights; so every
gradient is the one by the e3nn weights. The other layers have no kernels of their own there:
mace-torch runs its linear layers and skip connections in plain torch with cuEquivariance too.

* The convolution has no weights. Its coefficients are e3nn's path weights times the coupling
  coefficients of the three orders.
* The contraction's couplings U span, once made symmetric in the equal features, fewer polynomials
  than there are of them (23 paths to a scalar at correlation 3 span 8). A part B of them is taken
  that spans all, the sparsest, and U = M B gives the weights of B: those of U times M, a linear
  map through which gradients flow back.

On a CUDA device both run on the kernel ``uniform_1d`` of cuequivariance-ops-torch, whose derivative
is the same kernel on another polynomial, to any order; elsewhere as plain torch, which is slow and
there for tests. Coefficients agree as far as the model keeps them: to 1e-7 for a model that was
built in float32, also when it is evaluated in float64.

Letters: N atoms, M edges, E elements, C channels, L components of the features, K paths of the
contraction, B of them kept, D = 2 l + 1 components of an output.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from itertools import accumulate, product
from typing import Any, TypeVar

import torch
from ase import Atoms
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.errors import (
    ArgumentError,
    LabelwiseError,
    LabelwiseWarning,
    MissingDependencyError,
    PotentialError,
)
from labelwise.potentials.base import Potential

PotentialT = TypeVar("PotentialT", bound=Potential)

SWITCH = "LABELWISE_CUEQ"
_SWITCH_VALUES = {"auto": None, "on": True, "off": False}

# Coupling coefficients of float32 models are rounded at 1e-7; true ones are larger than 1e-2.
_NEGLIGIBLE = 1e-6
_DEPENDENT = 1e-4
# What a kernel, its compilation or a broken installation may raise.
_FAILURES = (
    AssertionError,
    AttributeError,
    ImportError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)
_TOLERANCES = {torch.float32: 1e-4, torch.float64: 1e-6}


class KernelWarning(LabelwiseWarning):
    """Kernels that were chosen automatically cannot be used, and others are."""


def resolve_switch(cueq: bool | None) -> bool | None:
    """Return whether cuEquivariance is wanted: as the argument says, else as the environment does.

    Args:
        cueq: True, False, or None for the variable ``LABELWISE_CUEQ``: ``on``, ``off`` or
            ``auto``, which is also meant where it is not set.

    Returns:
        True, False, or None for automatic.

    Raises:
        ArgumentError: the variable has another value.
    """
    if cueq is not None:
        return cueq
    value = os.environ.get(SWITCH, "auto").strip().lower()
    if value not in _SWITCH_VALUES:
        raise ArgumentError(
            f"the environment variable {SWITCH} is {value!r}; allowed are "
            f"{', '.join(_SWITCH_VALUES)}"
        )
    return _SWITCH_VALUES[value]


def is_available(device: torch.device) -> bool:
    """Tell whether cuEquivariance's CUDA kernels are there for this device."""
    packages = ("cuequivariance", "cuequivariance_torch", "cuequivariance_ops_torch")
    return device.type == "cuda" and all(find_spec(each) is not None for each in packages)


def choose_method(device: torch.device) -> str:
    """Return cuEquivariance's name for the way to evaluate a polynomial on a device.

    Raises:
        MissingDependencyError: cuEquivariance is not installed, or not its CUDA kernels.
    """
    purpose = "cueq=True"
    for package in ("cuequivariance", "cuequivariance_torch"):
        if find_spec(package) is None:
            raise MissingDependencyError(package.replace("_", "-"), "cueq", purpose)
    if device.type != "cuda":
        return "naive"
    if find_spec("cuequivariance_ops_torch") is None:
        raise MissingDependencyError("cuequivariance-ops-torch-cu12", "cueq", f"{purpose} on CUDA")
    return "uniform_1d"


class CueqConvolution(torch.nn.Module):
    """Stands in for a ``conv_tp``, by the hook ``conv_fusion``; sums over the edges as it goes."""

    def __init__(self, conv: Any, *, method: str, dtype: torch.dtype) -> None:
        """Read the paths of an e3nn ``TensorProduct``, which has no weights of its own.

        Args:
            conv: The product, see ``is_channelwise``.
            method: See ``choose_method``.
            dtype: Type to compute in.
        """
        super().__init__()
        self._senders = [(int(part.mul), int(part.ir.dim)) for part in conv.irreps_in1]
        self._outputs = [(int(part.mul), int(part.ir.dim)) for part in conv.irreps_out]
        self._size = int(conv.irreps_out.dim)
        self._polynomial = _build(_convolution_polynomial(conv), method, dtype)

    def forward(
        self,
        senders: Float[Tensor, "N C_in"],
        harmonics: Float[Tensor, "M L"],
        filters: Float[Tensor, "M paths"],
        edge_index: Int64[Tensor, "2 M"],
    ) -> Float[Tensor, "N C_out"]:
        """Sum the messages that every atom receives; zero without neighbours.

        Args:
            senders: (N, C_in), node features in e3nn's layout.
            harmonics: (M, L), of the edges.
            filters: (M, paths), radial weights in the order of e3nn's instructions.
            edge_index: (2, M), sender and receiver.

        Returns:
            (N, C_out) in e3nn's layout.
        """
        if edge_index.shape[1] == 0:  # kernels take no empty batches
            nothing = senders.index_select(0, edge_index[0])[:, :1].expand(0, self._size)
            return senders.new_zeros(len(senders), self._size).index_add(0, edge_index[1], nothing)
        rows = _channels_last(senders, self._senders)
        (out,) = self._polynomial(
            [filters, rows, harmonics], {1: edge_index[0]}, {0: rows}, {0: edge_index[1]}
        )
        return _channels_first(out, self._outputs)


class CueqContraction(torch.nn.Module):
    """Stands in for ``mace.modules.symmetric_contraction.SymmetricContraction``.

    It owns no weights: it reads those of the module it stands in for.
    """

    def __init__(self, contraction: Any, *, method: str, dtype: torch.dtype) -> None:
        """Find the polynomials that the couplings span.

        Args:
            contraction: A ``SymmetricContraction``.
            method: See ``choose_method``.
            dtype: Type to compute in.

        Raises:
            PotentialError: couplings that are not spanned by some of them.
        """
        super().__init__()
        self.contractions: torch.nn.ModuleList = contraction.contractions
        first: Any = self.contractions[0]
        n_channels = int(first.weights_max.shape[-1])
        self._outputs = [(n_channels, _n_outputs(each)) for each in self.contractions]
        starts = accumulate((dim for _, dim in self._outputs), initial=0)
        spans = [
            _Span(each, order, start)
            for each, start in zip(self.contractions, starts, strict=False)
            for order in _orders(each)
        ]
        mixing = _block_diagonal([span.mixing for span in spans])
        self.register_buffer("_mixing", mixing.to(first.weights_max), persistent=False)
        n_components = int(first.U_tensors(1).shape[-2])
        descriptor = _contraction_polynomial(spans, self._outputs, n_components)
        self._polynomial = _build(descriptor, method, dtype)

    def forward(
        self, features: Float[Tensor, "N C L"], attributes: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N out"]:
        """Contract the features of every atom with themselves.

        Args:
            features: (N, C, L) floating point.
            attributes: (N, E) one-hot.

        Returns:
            (N, sum of C (2l + 1) over the output irreps), in e3nn's layout.
        """
        rows = features.transpose(1, 2).flatten(1).contiguous()
        (out,) = self._polynomial([self._weights(), rows], {0: attributes.argmax(dim=1)})
        return _channels_first(out, self._outputs)

    def _weights(self) -> Float[Tensor, "E BC"]:
        """Return the weights of the polynomials kept, those of e3nn times the mixing."""
        every = [_weights_of(each, order) for each in self.contractions for order in _orders(each)]
        kept = torch.einsum("zku,kb->zbu", torch.cat(every, dim=1), self._mixing)
        return kept.flatten(1)


class _Span:
    """The polynomials of one order in one output of a contraction, and those that span them.

    Attributes:
        order: Features that are multiplied.
        start: Place of the first component of the output.
        terms: (Q, order), components that are multiplied in each term, in rising order.
        kept: (B, D, Q) float64, coefficients of the polynomials kept.
        mixing: (K, B) float64, all polynomials in those kept.
    """

    def __init__(self, contraction: Any, order: int, start: int) -> None:
        self.order, self.start = order, start
        coupling = contraction.U_tensors(order).detach().cpu().double()
        if coupling.dim() == order + 1:  # to a scalar, without an axis for its component
            coupling = coupling[None]
        n_outputs, n_components, n_paths = coupling.shape[0], coupling.shape[1], coupling.shape[-1]
        places = torch.tensor(list(product(range(n_components), repeat=order)))
        self.terms, target = torch.unique(places.sort(dim=1).values, dim=0, return_inverse=True)
        flat = coupling.movedim(-1, 0).reshape(n_paths, n_outputs, -1)
        summed = flat.new_zeros(n_paths, n_outputs, len(self.terms)).index_add(2, target, flat)
        rows = torch.where(summed.abs() > _NEGLIGIBLE, summed, 0.0)
        chosen = _spanning_rows(rows.flatten(1))
        self.kept = rows[chosen]
        self.mixing = rows.new_zeros(n_paths, len(chosen))
        if chosen:
            basis = self.kept.flatten(1)
            self.mixing = torch.linalg.lstsq(basis.T, summed.flatten(1).T).solution.T
            gap = float((self.mixing @ basis - summed.flatten(1)).abs().max())
            if gap > _DEPENDENT:
                raise PotentialError(
                    f"couplings of order {order} are off by {gap:.1e} in cuEquivariance's form; "
                    "use cueq=False"
                )


def _spanning_rows(rows: Float[Tensor, "K Q"]) -> list[int]:
    """Choose rows that span all of them, those with the fewest entries first."""
    basis = rows.new_zeros(0, rows.shape[1])
    chosen = []
    for i in torch.argsort((rows != 0).sum(1), stable=True).tolist():
        rest = rows[i] - basis.T @ (basis @ rows[i])
        rest = rest - basis.T @ (basis @ rest)
        if float(rest.norm()) > _DEPENDENT * max(1.0, float(rows[i].norm())):
            basis = torch.cat([basis, (rest / rest.norm())[None]])
            chosen.append(i)
    return sorted(chosen)


def _block_diagonal(blocks: list[Float[Tensor, "_ _"]]) -> Float[Tensor, "K B"]:
    joined: Tensor = torch.block_diag(*blocks)  # type: ignore[no-untyped-call]
    return joined


def _orders(contraction: Any) -> range:
    return range(1, len(contraction.weights) + 2)


def _weights_of(contraction: Any, order: int) -> Float[Tensor, "E K C"]:
    highest_first = (contraction.weights_max, *contraction.weights)
    weight: Tensor = highest_first[len(highest_first) - order]
    return weight


def _n_outputs(contraction: Any) -> int:
    coupling = contraction.U_tensors(1)
    return 1 if coupling.dim() == 2 else int(coupling.shape[0])


def _convolution_polynomial(conv: Any) -> Any:
    """Write an e3nn ``TensorProduct`` as a polynomial of filters, senders and harmonics."""
    from e3nn import o3

    cue = import_module("cuequivariance")
    n_channels = int(conv.irreps_in1[0].mul)
    descriptor = cue.SegmentedTensorProduct.from_subscripts("u,u,,u")
    every = (conv.irreps_in1, conv.irreps_in2, conv.irreps_out)
    starts = []
    for operand, irreps in enumerate(every, start=1):
        dims = [int(part.ir.dim) for part in irreps]
        shape = () if irreps is conv.irreps_in2 else (n_channels,)
        descriptor.add_segments(operand, [shape] * sum(dims))
        starts.append(list(accumulate(dims, initial=0)))
    for path, ins in enumerate(conv.instructions):
        descriptor.add_segment(0, (n_channels,))
        which = (ins.i_in1, ins.i_in2, ins.i_out)
        parts = [irreps[i] for irreps, i in zip(every, which, strict=True)]
        coupling = o3.wigner_3j(*[part.ir.l for part in parts], dtype=torch.float64)
        base = [start[i] for start, i in zip(starts, which, strict=True)]
        for place in (coupling.abs() > _NEGLIGIBLE).nonzero().tolist():
            where = [b + i for b, i in zip(base, place, strict=True)]
            value = float(ins.path_weight) * float(coupling[tuple(place)])
            descriptor.add_path(path, *where, c=value)
    return cue.SegmentedPolynomial(
        descriptor.operands[:3],
        descriptor.operands[3:],
        [(cue.Operation((0, 1, 2, 3)), descriptor)],
    )


def _contraction_polynomial(
    spans: list[_Span], outputs: list[tuple[int, int]], n_components: int
) -> Any:
    """Write a symmetric contraction as a polynomial of weights and features.

    Args:
        spans: One for each output and order, orders inside.
        outputs: Channels and components of each output.
        n_components: Components of the features.
    """
    cue = import_module("cuequivariance")
    channels = (outputs[0][0],)
    n_kept = [len(span.kept) for span in spans]
    highest = max(span.order for span in spans)
    operations = []
    for order in range(1, highest + 1):
        descriptor = cue.SegmentedTensorProduct.from_subscripts(",".join("u" * (order + 2)))
        descriptor.add_segments(0, [channels] * sum(n_kept))
        for operand in range(1, order + 1):
            descriptor.add_segments(operand, [channels] * n_components)
        descriptor.add_segments(order + 1, [channels] * sum(dim for _, dim in outputs))
        for i, span in enumerate(spans):
            if span.order != order:
                continue
            for kept, output, term in span.kept.nonzero().tolist():
                descriptor.add_path(
                    sum(n_kept[:i]) + kept,
                    *span.terms[term].tolist(),
                    span.start + output,
                    c=float(span.kept[kept, output, term]),
                )
        if descriptor.num_paths:
            operations.append((cue.Operation((0, *[1] * order, 2)), descriptor))
    _, example = operations[0]
    return cue.SegmentedPolynomial(example.operands[:2], example.operands[2:], operations)


def _build(polynomial: Any, method: str, dtype: torch.dtype) -> Any:
    cuet = import_module("cuequivariance_torch")
    return cuet.SegmentedPolynomial(polynomial, method=method, math_dtype=dtype)


def _channels_last(
    rows: Float[Tensor, "N d"], parts: list[tuple[int, int]]
) -> Float[Tensor, "N d"]:
    """Turn e3nn's layout, components inside channels, into cuEquivariance's."""
    return _transpose(rows, [(dim, mul) for mul, dim in parts], [mul * dim for mul, dim in parts])


def _channels_first(
    rows: Float[Tensor, "N d"], parts: list[tuple[int, int]]
) -> Float[Tensor, "N d"]:
    """Turn cuEquivariance's layout, channels inside components, into e3nn's."""
    return _transpose(rows, parts, [mul * dim for mul, dim in parts])


def _transpose(
    rows: Float[Tensor, "N d"], shapes: list[tuple[int, int]], sizes: list[int]
) -> Float[Tensor, "N d"]:
    if all(1 in shape for shape in shapes):
        return rows
    pieces = [
        piece.reshape(len(rows), inner, outer).transpose(1, 2).flatten(1)
        for piece, (outer, inner) in zip(torch.split(rows, sizes, dim=1), shapes, strict=True)
    ]
    return torch.cat(pieces, dim=1)


def choose_kernels(
    build: Callable[[bool], PotentialT], cueq: bool | None, *, available: bool
) -> PotentialT:
    """Decide for or against cuEquivariance, and check what it gives before it is used.

    Args:
        build: Makes the potential with (True) or without cuEquivariance.
        cueq: As of ``load_potential``; None looks at the environment.
        available: Whether it is to be used automatically, see ``is_available``.

    Returns:
        The potential.

    Raises:
        PotentialError: cuEquivariance was asked for and has nothing for this model, fails, or
            gives other results.
        MissingDependencyError: it was asked for and is not installed.
        ArgumentError: the environment variable has an unknown value.

    Warns:
        KernelWarning: it was chosen automatically, and fails or gives other results.
    """
    wanted = resolve_switch(cueq)
    own = build(False)
    if wanted is False or (wanted is None and not available):
        return own
    cause: Exception | None = None
    try:
        fast = build(True)
        fault = compare_kernels(fast, own)
    except _FAILURES as error:
        if wanted and isinstance(error, LabelwiseError):
            raise
        cause, fault = error, f"fails with {type(error).__name__}: {error}"
    if fault is None:
        return fast
    message = f"{own.name} through cuEquivariance {fault}"
    if wanted:
        raise PotentialError(f"{message}; use cueq=False, or {SWITCH}=off") from cause
    warnings.warn(
        f"{message}; it goes without, as cueq=False or {SWITCH}=off would have it",
        KernelWarning,
        stacklevel=4,
    )
    return own


def compare_kernels(one: Potential, other: Potential) -> str | None:
    """Compare two roads through one model on five atoms, derivatives included.

    Energies, forces, their rows of embedding tangents and activations are looked at.

    Args:
        one: The potential with the kernels in question.
        other: The same with those that are trusted.

    Returns:
        None if they agree to 1e-4 (1e-6 in float64) of the largest entry; else what does not.
    """
    numbers = [other.elements[i % len(other.elements)] for i in range(5)]
    positions = [[0, 0, 0], [1.1, 0.2, 0], [-0.3, 1.3, 0.4], [0.5, -0.6, 1.4], [-1.2, -0.7, -0.5]]
    batch = other.collate([other.prepare(Atoms(numbers=numbers, positions=positions))])
    results = []
    for potential in (one, other):
        linear = potential.linearise(batch)
        results.append(
            {
                "energies": linear.energies,
                "forces": linear.forces,
                "tangents of energies": linear.energy_rows(),
                "tangents of forces": linear.force_rows(batch.positions.detach()),
                "activations": potential.activations(batch),
            }
        )
    for name, wanted in results[1].items():
        scale = float(wanted.abs().max())
        gap = float((results[0][name] - wanted).abs().max())
        if not gap <= _TOLERANCES[other.dtype] * scale:
            return f"gives other {name}: they differ by {gap:.1e}, of at most {scale:.1e}"
    return None
