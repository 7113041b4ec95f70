"""Functions with a second derivative written by hand, for training on forces.

Autograd differentiates what it recorded of the first derivative: many small steps, most of
which only undo each other. For the two functions that take the time, the polynomials of the
symmetric contraction and SiLU, both derivatives are known in closed form.

``Phase.weights`` says which pass is under way: the forces' pass needs no gradient for
coefficients, and autograd does not tell a function so.

Shapes as in ``labelwise.potentials.mace.polynomial``, for polynomials with d components each:
x (L, b, n), t1 (b, 1, dL), t2 (b, L, dL), t3 (b, Q, dL) or None, f (b, n, d), where dL runs over
component and, within it, the index that is left when the others are summed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labelwise.potentials.mace.polynomial import mixed_products, pair_products

#: The tables of one output: t1, t2 and t3.
_TABLES = 3


@dataclass
class Phase:
    """Which backward pass is under way.

    Attributes:
        weights: Whether gradients for the weights are wanted: not in the forces' pass.
    """

    weights: bool = True


class Polynomials(torch.autograd.Function):
    """The outputs of a symmetric contraction, polynomials of the same x, one after another.

    The forces' pass has nothing left to compute; the weights' pass needs the curvature.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, phase: Phase, *tables: Tensor | None) -> Tensor:
        """Return f, (b, n, D), the components of all outputs; ``tables`` holds three of each."""
        rows = x.permute(1, 2, 0).contiguous()
        products = pair_products(x) if any(t3 is not None for t3 in tables[2::3]) else None
        values, slopes = [], []
        for t1, t2, t3 in _by_output(tables):
            value = torch.bmm(rows, t2)
            slope = t1 + 2 * value
            value += t1
            if t3 is not None and products is not None:
                square = torch.bmm(products.permute(1, 2, 0), t3)
                value += square
                slope.add_(square, alpha=3)
            values.append(_components(value, rows))
            slopes.append(_components(slope, rows))
        slope = slopes[0] if len(slopes) == 1 else torch.cat(slopes, dim=2)
        ctx.save_for_backward(x, rows, slope, products, *tables)
        ctx.phase = phase
        value = values[0] if len(values) == 1 else torch.cat(values, dim=2)
        return (value * rows[:, :, None]).sum(-1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return gradients, for coefficients only in the weights' pass."""
        x, rows, slope, products, *tables = ctx.saved_tensors
        if not ctx.phase.weights:
            step = _PolynomialsSlope.apply(grad, x, slope, products, *tables)  # type: ignore[no-untyped-call]
            return step, None, *[None for _ in tables]
        step = (grad[..., None] * slope).sum(2).permute(2, 0, 1)
        return step, None, *_coefficient_gradients(x, products, grad, rows, tables, (1, 1, 1))


class _PolynomialsSlope(torch.autograd.Function):
    """``grad`` times ∇f, and its derivatives."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        slope: Tensor,
        products: Tensor | None,
        *tables: Tensor | None,
    ) -> Tensor:
        """Return Σ_d grad_d · ∇f_d, (L, b, n)."""
        ctx.save_for_backward(grad, x, slope, products, *tables)
        return (grad[..., None] * slope).sum(2).permute(2, 0, 1)

    @staticmethod
    def backward(ctx: Any, step: Tensor) -> Any:
        """Return gradients for grad, x and the coefficients."""
        grad, x, slope, products, *tables = ctx.saved_tensors
        step = step.contiguous()
        w = step.permute(1, 2, 0).contiguous()
        along = (w[:, :, None] * slope).sum(-1)
        mixed = None if products is None else mixed_products(x, step)
        curve: Tensor | None = None
        sizes = [t1.shape[-1] // len(x) for t1 in tables[::3]]
        for g, (_, t2, t3) in zip(torch.split(grad, sizes, dim=2), _by_output(tables), strict=True):
            bend = 2 * torch.bmm(w, t2)
            if t3 is not None and mixed is not None:
                bend.add_(torch.bmm(mixed.permute(1, 2, 0), t3), alpha=3)
            part = (g[..., None] * _components(bend, w)).sum(2)
            curve = part if curve is None else curve.add_(part)
        assert curve is not None  # noqa: S101  # a contraction has outputs
        given = _coefficient_gradients(x, products, grad, w, tables, (1, 2, 3))
        return along, curve.permute(2, 0, 1), None, None, *given


def _by_output(tables: Sequence[Any]) -> Iterator[tuple[Any, Any, Any]]:
    for i in range(0, len(tables), _TABLES):
        yield tables[i], tables[i + 1], tables[i + 2]


def _components(table: Tensor, rows: Tensor) -> Tensor:
    """View (b, n, dL) as (b, n, d, L)."""
    return table.view(*rows.shape[:2], -1, rows.shape[2])


def _coefficient_gradients(
    x: Tensor,
    products: Tensor | None,
    grad: Tensor,
    w: Tensor,
    tables: Sequence[Tensor | None],
    factors: tuple[int, int, int],
) -> list[Tensor | None]:
    """Return the gradients for t1, t2, t3 of Σ_d grad_d f_d, its last x replaced by w."""
    weighted = (grad[..., None] * w[:, :, None]).flatten(2)
    sizes = [t1.shape[-1] for t1 in tables[::3] if t1 is not None]
    out: list[Tensor | None] = []
    for part, (_, _, t3) in zip(
        torch.split(weighted, sizes, dim=2), _by_output(tables), strict=True
    ):
        out.append(part.sum(1, keepdim=True))
        out.append(_scaled(torch.bmm(x.transpose(0, 1), part), factors[1]))
        cubic = None
        if t3 is not None and products is not None:
            cubic = _scaled(torch.bmm(products.transpose(0, 1), part), factors[2])
        out.append(cubic)
    return out


def _scaled(table: Tensor, factor: int) -> Tensor:
    return table if factor == 1 else table.mul_(factor)


class Silu(torch.autograd.Function):
    """x σ(x), with first and second derivative in closed form."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        """Return x σ(x)."""
        sigmoid = torch.sigmoid(x)
        ctx.save_for_backward(x, sigmoid)
        return x * sigmoid

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return grad · σ (1 + x (1 − σ))."""
        x, sigmoid = ctx.saved_tensors
        return _SiluSlope.apply(grad, x, sigmoid)  # type: ignore[no-untyped-call]


class _SiluSlope(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, grad: Tensor, x: Tensor, sigmoid: Tensor) -> Tensor:
        slope = sigmoid * (1 + x * (1 - sigmoid))
        ctx.save_for_backward(grad, x, sigmoid, slope)
        return grad * slope

    @staticmethod
    def backward(ctx: Any, step: Tensor) -> Any:
        grad, x, sigmoid, slope = ctx.saved_tensors
        curve = sigmoid * (1 - sigmoid) * (2 + x * (1 - 2 * sigmoid))
        return step * slope, step * grad * curve, None


def silu(x: Tensor) -> Tensor:
    """Return x σ(x), any shape; fast to differentiate twice."""
    out: Tensor = Silu.apply(x)  # type: ignore[no-untyped-call]
    return out
