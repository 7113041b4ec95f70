"""Functions with a second derivative written by hand, for training on forces.

Autograd differentiates what it recorded of the first derivative: many small steps, most of
which only undo each other. For the two functions that take the time, the polynomial of the
symmetric contraction and SiLU, both derivatives are known in closed form.

``Phase.weights`` says which pass is under way: the forces' pass needs no gradient for
coefficients, and autograd does not tell a function so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from labelwise.potentials.mace.polynomial import apply_curvature, evaluate_polynomial


@dataclass
class Phase:
    """Which backward pass is under way.

    Attributes:
        weights: Whether gradients for the weights are wanted: not in the forces' pass.
    """

    weights: bool = True


class Polynomial(torch.autograd.Function):
    """The polynomial of ``labelwise.potentials.mace.polynomial``, with gradients for coefficients.

    The forces' pass has nothing left to compute; the weights' pass needs the curvature.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        t1: Tensor,
        t2: Tensor,
        t3: Tensor | None,
        phase: Phase,
    ) -> Tensor:
        """Return f."""
        value, slope, products = evaluate_polynomial(x, t1, t2, t3)
        ctx.save_for_backward(x, t1, t2, t3, slope, products)
        ctx.phase = phase
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        """Return gradients, for coefficients only in the weights' pass."""
        x, t1, t2, t3, slope, products = ctx.saved_tensors
        if not ctx.phase.weights:
            step = _PolynomialSlope.apply(grad, x, t1, t2, t3, slope, products)  # type: ignore[no-untyped-call]
            return step, None, None, None, None
        weighted = grad[..., None] * x.permute(1, 2, 0)
        d3 = None if t3 is None else torch.bmm(products.transpose(0, 1), weighted)
        d2 = torch.bmm(x.transpose(0, 1), weighted)
        d1 = weighted.sum(1, keepdim=True)
        return (grad[..., None] * slope).permute(2, 0, 1), d1, d2, d3, None


class _PolynomialSlope(torch.autograd.Function):
    """``grad`` times ∇f, and its derivatives."""

    @staticmethod
    def forward(
        ctx: Any,
        grad: Tensor,
        x: Tensor,
        t1: Tensor,  # noqa: ARG004  # the slope is linear in it
        t2: Tensor,
        t3: Tensor | None,
        slope: Tensor,
        products: Tensor | None,
    ) -> Tensor:
        """Return grad · ∇f, (L, b, n)."""
        ctx.save_for_backward(grad, x, t2, t3, slope, products)
        return (grad[..., None] * slope).permute(2, 0, 1)

    @staticmethod
    def backward(ctx: Any, step: Tensor) -> Any:
        """Return gradients for grad, x and the coefficients."""
        grad, x, t2, t3, slope, products = ctx.saved_tensors
        towards = (grad * step).contiguous()
        w = towards.permute(1, 2, 0)
        d1 = w.sum(1, keepdim=True)
        d2 = 2 * torch.bmm(x.transpose(0, 1), w)
        d3 = None if t3 is None else 3 * torch.bmm(products.transpose(0, 1), w)
        along = (step.permute(1, 2, 0) * slope).sum(-1)
        return along, apply_curvature(x, towards, t2, t3), d1, d2, d3, None, None


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
