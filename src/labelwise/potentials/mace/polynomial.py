"""The symmetric contraction as polynomials with known derivatives.

MACE's contraction of correlation three or less gives D components, each a polynomial in the L
components of an atom's features,

    f_d = Σ_i x_i (t1_di + Σ_j t2_j,di x_j + Σ_{j<=k} t3_jk,di x_j x_k).

Their values do not change when the coefficients are made symmetric in i, j and k (in t3 an entry
j < k then holds the sum of its two orders), and then ∇f = t1 + 2 t2·x + 3 t3·xx, whose parts f
already has, and ∇²f·w = 2 t2·w + 3 t3·(xw + wx). Autograd would differentiate what it recorded of
the first derivative: many small steps, most of which only undo each other.

Shapes: x (L, b, n), t1 (b, 1, DL), t2 (b, L, DL), t3 (b, Q, DL) or None, f (b, n, D), where b runs
over channels (and elements), n over atoms, Q = L (L + 1) / 2 over pairs. Components of x come
first, so that products of pairs of them run over long rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError

MAX_CORRELATION = 3

# Below so many numbers picking the pairs is faster than a loop that makes no copies.
_FEW = 65_536


def is_polynomial(contraction: Any) -> bool:
    """Tell whether one output of mace-torch's symmetric contraction is of such polynomials."""
    return int(contraction.correlation) <= MAX_CORRELATION


def symmetric_basis(contraction: Any, device: torch.device) -> list[Float[Tensor, "_ _ DL"]]:
    """Symmetrise the coupling coefficients, and keep one of each pair of orders.

    Args:
        contraction: mace-torch's ``Contraction``, one output of D components; see
            ``is_polynomial``.
        device: Where the basis is wanted.

    Returns:
        For each correlation ν = 1, 2, 3: (K_1, 1, DL), (K_2, L, DL), (K_3, Q, DL), Q the
        pairs in the order of ``torch.triu_indices``, components of the output outside.
    """
    n_components = contraction.U_tensors(1).shape[-2]
    rows, columns = torch.triu_indices(n_components, n_components)
    basis = []
    for order in range(1, contraction.correlation + 1):
        coupling = contraction.U_tensors(order).double().movedim(-1, 0)
        # A contraction to scalars has no axis for the components of the output.
        coupling = coupling.reshape(len(coupling), -1, *[n_components] * order)
        orders = list(permutations(range(2, order + 2)))
        mean = torch.stack([coupling.permute(0, 1, *each) for each in orders]).mean(0)
        mean = mean.movedim(1, -2).flatten(-2)
        if order == 1:
            mean = mean[:, None, :]
        if order == MAX_CORRELATION:
            twice = torch.where(rows == columns, 1.0, 2.0).to(mean)
            mean = mean[:, rows, columns] * twice[:, None]
        basis.append(mean.to(contraction.weights_max.dtype).to(device).contiguous())
    return basis


def polynomial_coefficients(
    basis: Sequence[Float[Tensor, "_ _ DL"]],
    weights: Sequence[Float[Tensor, "b _"]],
    n_components: int,
) -> tuple[Float[Tensor, "b 1 DL"], Float[Tensor, "b L DL"], Float[Tensor, "b Q DL"] | None]:
    """Contract the basis with weights.

    Args:
        basis: What ``symmetric_basis`` returned.
        weights: For each correlation ν = 1, 2, 3: (b, K_ν).
        n_components: L.

    Returns:
        t1, t2 (zeros if the correlation is one) and t3 (None unless it is three).
    """
    tables: list[Tensor] = [
        (rows @ couplings.flatten(1)).view(-1, *couplings.shape[1:])
        for couplings, rows in zip(basis, weights, strict=True)
    ]
    linear = tables[0]
    zeros = linear.new_zeros(len(linear), n_components, linear.shape[-1])
    quadratic = tables[1] if len(tables) > 1 else zeros
    return linear, quadratic, tables[2] if len(tables) == MAX_CORRELATION else None


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


def evaluate_polynomials(
    x: Float[Tensor, "L b n"],
    t1: Float[Tensor, "b 1 DL"],
    t2: Float[Tensor, "b L DL"],
    t3: Float[Tensor, "b Q DL"] | None,
) -> tuple[Float[Tensor, "b n D"], Float[Tensor, "b n D L"], Float[Tensor, "Q b n"] | None]:
    """Return f, ∇f and the products of pairs (None without t3); not to be differentiated."""
    rows = x.permute(1, 2, 0)
    value = torch.baddbmm(t1, rows, t2)
    slope = (2 * value).sub_(t1)
    products = None
    if t3 is not None:
        products = pair_products(x)
        square = torch.bmm(products.permute(1, 2, 0), t3)
        value.add_(square)
        slope.add_(square, alpha=3)
    shape = (*value.shape[:2], -1, len(x))
    return (value.view(shape) * rows[:, :, None]).sum(-1), slope.view(shape), products


def apply_curvatures(
    x: Float[Tensor, "L b n"],
    w: Float[Tensor, "L b n"],
    t2: Float[Tensor, "b L DL"],
    t3: Float[Tensor, "b Q DL"] | None,
) -> Float[Tensor, "b n D L"]:
    """Return ∇²f·w; not to be differentiated."""
    curve = 2 * torch.bmm(w.permute(1, 2, 0), t2)
    if t3 is not None:
        curve.add_(torch.bmm(mixed_products(x, w).permute(1, 2, 0), t3), alpha=3)
    return curve.view(*curve.shape[:2], -1, len(x))


def frozen_polynomials(
    x: Float[Tensor, "L b n"],
    t1: Float[Tensor, "b 1 DL"],
    t2: Float[Tensor, "b L DL"],
    t3: Float[Tensor, "b Q DL"] | None,
) -> Float[Tensor, "b n D"]:
    """Return f for constant coefficients, twice differentiable by x.

    Args:
        x: (L, b, n), contiguous.
        t1: (b, 1, DL), symmetric like the others, not requiring gradients.
        t2: (b, L, DL).
        t3: (b, Q, DL) or None.

    Returns:
        (b, n, D). To differentiate it a third time raises ``PotentialError``.
    """
    out: Tensor = _FrozenPolynomials.apply(x, t1, t2, t3)  # type: ignore[no-untyped-call]
    return out


class _FrozenPolynomials(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, t1: Tensor, t2: Tensor, t3: Tensor | None) -> Tensor:
        value, slope, _ = evaluate_polynomials(x, t1, t2, t3)
        ctx.save_for_backward(x, t2, t3, slope)
        return value

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        x, t2, t3, slope = ctx.saved_tensors
        return _FrozenSlopes.apply(grad, x, t2, t3, slope), None, None, None  # type: ignore[no-untyped-call]


class _FrozenSlopes(torch.autograd.Function):
    """``grad`` times ∇f, a function of ``grad`` and, through the slope handed to it, of x."""

    @staticmethod
    def forward(
        ctx: Any, grad: Tensor, x: Tensor, t2: Tensor, t3: Tensor | None, slope: Tensor
    ) -> Tensor:
        ctx.save_for_backward(grad, x, t2, t3, slope)
        return _weigh(grad, slope)

    @staticmethod
    def backward(ctx: Any, step: Tensor) -> Any:
        along, curve = _FrozenCurvatures.apply(step, *ctx.saved_tensors)  # type: ignore[no-untyped-call]
        return along, curve, None, None, None


class _FrozenCurvatures(torch.autograd.Function):
    """What ``_FrozenSlopes`` hands back; a function of its own so that its derivative can raise.

    ``once_differentiable`` raises from ``backward`` only: ``torch.autograd.grad`` would pass by
    the node that it hangs up and leave the term out.
    """

    @staticmethod
    def forward(
        ctx: Any,  # noqa: ARG004
        step: Tensor,
        grad: Tensor,
        x: Tensor,
        t2: Tensor,
        t3: Tensor | None,
        slope: Tensor,
    ) -> tuple[Tensor, Tensor]:
        along = (step.permute(1, 2, 0)[:, :, None] * slope).sum(-1)
        return along, _weigh(grad, apply_curvatures(x, step.contiguous(), t2, t3))

    @staticmethod
    def backward(ctx: Any, *steps: Tensor) -> Any:  # noqa: ARG004
        raise PotentialError(
            "third derivatives of a MACE potential are not available while its weights are "
            "constant; differentiate twice at most, or let the product weights require gradients"
        )


def _weigh(
    weights: Float[Tensor, "b n D"], rows: Float[Tensor, "b n D L"]
) -> Float[Tensor, "L b n"]:
    """Sum over the components of the output, each times its weight."""
    return (weights[..., None] * rows).sum(2).permute(2, 0, 1)
