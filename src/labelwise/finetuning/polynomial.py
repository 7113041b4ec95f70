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
from jaxtyping import Float
from torch import Tensor


@dataclass
class Phase:
    """Which backward pass is under way.

    Attributes:
        weights: Whether gradients for the weights are wanted: not in the forces' pass.
    """

    weights: bool = True


# Below so many numbers picking the pairs is faster than a loop that makes no copies.
_FEW = 65_536


def pair_products(x: Float[Tensor, "L b n"]) -> Float[Tensor, "Q b n"]:
    """Return x_i x_j for i <= j, in the order of ``torch.triu_indices``; Q = L (L + 1) / 2."""
    size = len(x)
    if x.numel() < _FEW:
        i, j = torch.triu_indices(size, size, device=x.device)
        return x.index_select(0, i).mul_(x.index_select(0, j))
    out = x.new_empty(size * (size + 1) // 2, *x.shape[1:])
    for i, rows in enumerate(torch.split(out, list(range(size, 0, -1)))):
        torch.mul(x[i:], x[i], out=rows)
    return out


def mixed_products(x: Float[Tensor, "L b n"], w: Float[Tensor, "L b n"]) -> Float[Tensor, "Q b n"]:
    """Return x_i w_j + x_j w_i for i <= j, in the order of ``torch.triu_indices``."""
    size = len(x)
    if x.numel() < _FEW:
        i, j = torch.triu_indices(size, size, device=x.device)
        out = x.index_select(0, i).mul_(w.index_select(0, j))
        return out.addcmul_(x.index_select(0, j), w.index_select(0, i))
    out = x.new_empty(size * (size + 1) // 2, *x.shape[1:])
    for i, rows in enumerate(torch.split(out, list(range(size, 0, -1)))):
        torch.mul(w[i:], x[i], out=rows)
        rows.addcmul_(x[i:], w[i])
    return out


class Polynomial(torch.autograd.Function):
    """f = Σ_i x_i (t1_i + Σ_j t2_ij x_j + Σ_{j<=k} t3_jk,i x_j x_k), coefficients symmetric.

    Symmetric means that all orders of the indices give the same coefficient (in t3 an entry
    j < k holds the sum of its two orders). Then ∇f = t1 + 2 t2·x + 3 t3·xx, whose parts f
    already has: the forces' pass costs nothing. In the weights' pass
    ∇²f·w = 2 t2·w + 3 t3·(xw + wx).

    Shapes: x (L, b, n), t1 (b, 1, L), t2 (b, L, L), t3 (b, Q, L), f (b, n), where b runs over
    elements and channels, n over atoms. Components come first, so that products of pairs of
    them run over long rows.
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
        rows = x.permute(1, 2, 0)
        linear = torch.bmm(rows, t2)
        value = t1 + linear
        slope = t1 + 2 * linear
        products = None
        if t3 is not None:
            products = pair_products(x)
            square = torch.bmm(products.permute(1, 2, 0), t3)
            value.add_(square)
            slope.add_(square, alpha=3)
        ctx.save_for_backward(x, t1, t2, t3, slope, products)
        ctx.phase = phase
        return (rows * value).sum(-1)

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
        curve = 2 * torch.bmm(w, t2)
        d1 = w.sum(1, keepdim=True)
        d2 = 2 * torch.bmm(x.transpose(0, 1), w)
        d3 = None
        if t3 is not None:
            mixed = mixed_products(x, towards)
            curve.add_(torch.bmm(mixed.permute(1, 2, 0), t3), alpha=3)
            d3 = 3 * torch.bmm(products.transpose(0, 1), w)
        along = (step.permute(1, 2, 0) * slope).sum(-1)
        return along, curve.permute(2, 0, 1), d1, d2, d3, None, None


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
