"""The structures of largest posterior variance in one pass: a map over pieces, and its reduction.

*Map.* ``VarianceFilter.score`` multiplies the rows of one piece in float32 and bounds the
variance of each from both sides. It needs nothing but the rows and the factor of the labelled
structures, so it can run anywhere.

*Reduce.* ``RunningTop`` takes in the bounds of pieces, in any order, and forgets what cannot be
among the K largest. At the end some are certain; the rest are decided in float64.

The bound on rounding. Entries of y = Bφ are off by at most γ‖B_j‖‖φ‖, with γ of
``rounding_of_width``: eight times the √d units that a sum of independent roundings spreads over.
By the same reckoning s = Σ y_j² is off by 2γ √s max‖B_j‖ ‖φ‖ from the terms 2 y_j δ_j, which are
independent too, and by (γ/8)²‖B‖²‖φ‖² (Frobenius norm) in the mean from the δ_j², of which
sixteen times is taken, and more where few rows of B dominate. Rounding B itself to float32
adds at most 2√s u‖B‖‖φ‖ (u half a unit), and summing the squares γs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from labelwise.features.row_parts import rounding_of_width, squared_norms
from labelwise.kernels.base import chunks
from labelwise.selection.rules.linear_posterior import LinearPrior

# benchmarks/results/constants.md: 2 to 32 blocks are as fast; 256 rows cost 15 %, 4096 6 % more.
_FACTOR_BLOCKS = 8
_LEAST_BLOCK = 128
_ROWS_AT_ONCE = 1024
# Bounds of structures beyond 2 K that may be held before some are forgotten: 1 MiB of them.
_LEAST_HELD = 2**16


@dataclass(frozen=True, eq=False)
class ScoredRows:
    """Posterior variances within bounds, of consecutive structures.

    Attributes:
        start: Pool index of the first.
        lower: (r,) float64, in units of the kernel.
        upper: (r,) float64.
        largest_diagonal: The largest k(x, x) among them.
    """

    start: int
    lower: Float64[Tensor, " r"]
    upper: Float64[Tensor, " r"]
    largest_diagonal: float


class VarianceFilter:
    """Bounds on posterior variances from products in float32. It can be pickled.

    Args:
        prior: P of the labelled structures.
    """

    def __init__(self, prior: LinearPrior) -> None:
        factor = prior.factor
        self._subtracts = prior.subtracts
        self._factor = factor.to(torch.float32)
        norms = torch.linalg.vector_norm(factor, dim=1)
        self._largest_row = float(norms.max()) if len(norms) else 0.0
        self._frobenius = float(torch.linalg.vector_norm(norms))

    def score(
        self,
        rows: Float[Tensor, "r d"],
        start: int,
        sq_norms: Float64[Tensor, " r"] | None = None,
    ) -> ScoredRows:
        """Return bounds on the variances of consecutive rows.

        Args:
            rows: φ, (r, d) float32, r >= 1.
            start: Pool index of the first.
            sq_norms: ‖φ‖², (r,), if it is known.
        """
        own = squared_norms(rows) if sq_norms is None else sq_norms
        explained = self._squared_lengths(rows)
        margin = self._margin(explained, own)
        value = own - explained if self._subtracts else explained
        return ScoredRows(start, (value - margin).clamp_min_(0.0), value + margin, float(own.max()))

    def _squared_lengths(self, rows: Float[Tensor, "r d"]) -> Float64[Tensor, " r"]:
        """Return ‖Bφ‖², (r,); where B is triangular, only its filled blocks are multiplied.

        Products go to one place again and again: fresh memory would cost more than they do.
        """
        n, width = self._factor.shape
        total = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        size = n if self._subtracts else max(_LEAST_BLOCK, -(-n // _FACTOR_BLOCKS))
        buffer = torch.empty(
            min(len(rows), _ROWS_AT_ONCE) * size, dtype=torch.float32, device=rows.device
        )
        few = zip(torch.split(rows, _ROWS_AT_ONCE), torch.split(total, _ROWS_AT_ONCE), strict=True)
        for some, lengths in few:
            for part in chunks(n, max(size, 1)):
                stop = width if self._subtracts else part.stop
                factor = self._factor[part, :stop]
                product = buffer[: len(some) * len(factor)].view(len(some), len(factor))
                torch.mm(some[:, :stop], factor.T, out=product)
                lengths += product.square_().sum(dim=1)
        return total

    def _margin(
        self, explained: Float64[Tensor, " r"], own: Float64[Tensor, " r"]
    ) -> Float64[Tensor, " r"]:
        """Return how far ‖Bφ‖² may be off, (r,)."""
        unit = rounding_of_width(self._factor.shape[1], torch.float32)
        of_factor = 0.5 * torch.finfo(torch.float32).eps * self._frobenius
        cross = 2.0 * (unit * self._largest_row + of_factor) * torch.sqrt(explained * own)
        squares = unit**2 * (self._largest_row**2 + 0.25 * self._frobenius**2)
        return cross + squares * own + unit * explained


class RunningTop:
    """Bounds of the structures that may be among the K of largest value.

    What it holds in the end does not depend on the order in which pieces arrive.

    Args:
        n_keep: K >= 1.
    """

    def __init__(self, n_keep: int) -> None:
        self._n_keep = n_keep
        self._parts: list[tuple[Int64[Tensor, " r"], Float64[Tensor, "2 r"]]] = []
        self._n_held = 0
        self._forgets_at = 2 * n_keep + _LEAST_HELD
        self._narrowest_gap = math.inf
        self.largest_diagonal = 0.0

    def add(self, scored: ScoredRows) -> None:
        """Take in the bounds of a piece."""
        n = len(scored.lower)
        idx = torch.arange(scored.start, scored.start + n, device=scored.lower.device)
        self._parts.append((idx, torch.stack([scored.lower, scored.upper])))
        self._n_held += n
        self.largest_diagonal = max(self.largest_diagonal, scored.largest_diagonal)
        if self._n_held > max(self._forgets_at, self._n_keep):
            self._forget()

    def finish(
        self, width: float
    ) -> tuple[Int64[Tensor, " c"], Int64[Tensor, " u"], Float64[Tensor, "2 u"]] | None:
        """Tell certain members of the K largest from those to be decided.

        Args:
            width: Values that differ by less may count as equal.

        Returns:
            Certain pool indices (c,), c <= K; undecided ones (u,), ascending, among which
            the other K - c are; and the bounds of these, (2, u). None if structures were
            forgotten by too narrow a gap for this width.
        """
        if self._narrowest_gap <= width:
            return None
        idx, bounds = self._joined()
        if len(idx) <= self._n_keep:
            return idx.sort().values, idx[:0], bounds[:, :0]
        lower, upper = bounds
        least = torch.topk(lower, self._n_keep).values[-1]
        bar = torch.topk(upper, self._n_keep + 1).values[-1]
        certain = lower > bar + width
        undecided = torch.nonzero(~certain & (upper >= least - width)).squeeze(1)
        undecided = undecided[idx[undecided].argsort()]
        return idx[certain].sort().values, idx[undecided], bounds[:, undecided]

    def _forget(self) -> None:
        """Drop what is below the K largest lower bounds."""
        idx, bounds = self._joined()
        least = torch.topk(bounds[0], self._n_keep).values[-1]
        stays = bounds[1] >= least
        if not bool(stays.all()):
            gap = float(least - bounds[1][~stays].max())
            self._narrowest_gap = min(self._narrowest_gap, gap)
        self._parts = [(idx[stays], bounds[:, stays])]
        self._n_held = int(stays.sum())
        self._forgets_at = 2 * max(self._n_keep, self._n_held) + _LEAST_HELD

    def _joined(self) -> tuple[Int64[Tensor, " r"], Float64[Tensor, "2 r"]]:
        idx, bounds = zip(*self._parts, strict=True)
        return torch.cat(idx), torch.cat(bounds, dim=1)
