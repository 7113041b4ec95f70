"""The contraction as a polynomial against Horner's scheme, which autograd differentiates."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import molecule

from labelwise.errors import PotentialError
from labelwise.potentials.mace import polynomial as mace_polynomial
from labelwise.potentials.mace import products as mace_products
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.polynomial import is_polynomial
from labelwise.potentials.mace.products import ElementwiseContraction, _contract_by_horner
from tests.potentials.comparing import assert_same_derivatives
from tests.potentials.conftest import variant
from tests.potentials.models import VARIANTS, make_mace

KINDS: dict[str, dict[str, Any]] = {
    "first order": {"correlation": 1},
    "second order": {"correlation": 2},
    "third order": {"correlation": 3},
    "vectors": {"hidden_irreps": "6x0e + 6x1o", "correlation": 3},
    "odd": {"hidden_irreps": "5x0e + 5x0o + 5x1o"},
}
STRUCTURES = [molecule("CH3CHO"), molecule("H2O"), Atoms("O")]


def frozen(**settings: Any) -> Any:
    model: Any = make_mace(**settings)
    return model.requires_grad_(False)


def derivatives(function: Any, x: torch.Tensor) -> list[torch.Tensor]:
    """Return the value, a first and a second derivative, the second also by the cotangent."""
    x = x.clone().requires_grad_()
    value = function(x)
    mix = torch.linspace(-1.0, 2.0, value.numel(), dtype=x.dtype).view_as(value).requires_grad_()
    (first,) = torch.autograd.grad((value * mix).sum(), x, create_graph=True)
    step = torch.linspace(0.5, -1.0, x.numel(), dtype=x.dtype).view_as(x)
    return [value, first, *torch.autograd.grad((first * step).sum(), (x, mix), allow_unused=True)]


def by_horner(contraction: Any, x: torch.Tensor, element: int) -> torch.Tensor:
    parts = [_contract_by_horner(each, x, element) for each in contraction.contractions]
    return torch.cat(parts, dim=1)


@pytest.mark.parametrize("few", [0, 10**9], ids=["loop", "pick"])
@pytest.mark.parametrize("kind", KINDS)
def test_polynomials_equal_horner(kind: str, few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mace_polynomial, "_FEW", few)
    for product in frozen(**KINDS[kind]).products:
        contraction = product.symmetric_contractions
        fast = ElementwiseContraction(contraction)
        first = contraction.contractions[0]
        n_channels, n_components = first.weights_max.shape[2], first.U_tensors(1).shape[-2]
        x = torch.randn(5, n_channels, n_components, dtype=torch.float64)
        for element in range(3):
            got = derivatives(lambda x, f=fast, z=element: f.contract(x, z), x)
            wanted = derivatives(lambda x, c=contraction, z=element: by_horner(c, x, z), x)
            for ours, theirs in zip(got, wanted, strict=True):
                # A linear function has no second derivative, and autograd says None.
                theirs = torch.zeros_like(ours) if theirs is None else theirs
                torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("kind", VARIANTS)
def test_potentials_agree_with_horner(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fast: Any = variant(kind)
    with monkeypatch.context() as patch:
        patch.setattr(mace_products, "is_polynomial", lambda contraction: False)
        slow: Any = make_potential(make_mace(**VARIANTS[kind]), name=kind)
    assert_same_derivatives(fast, slow, STRUCTURES, ("embedding", "readout"))


def test_only_contractions_of_low_order_are_polynomials() -> None:
    def found(**settings: Any) -> list[bool]:
        contractions = frozen(**settings).products[0].symmetric_contractions.contractions
        return [is_polynomial(each) for each in contractions]

    assert found(hidden_irreps="6x0e + 6x1o", correlation=3) == [True, True]
    assert found(correlation=4) == [False]


@pytest.mark.parametrize("most", [1, 2**20], ids=["one element", "all"])
def test_coefficients_that_are_kept_are_those_of_the_weights(
    most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever changes the weights: in place, behind autograd's back, or by another tensor."""
    monkeypatch.setattr(mace_products, "_MAX_KEPT", most)
    contraction = frozen(**KINDS["vectors"]).products[0].symmetric_contractions
    fast = ElementwiseContraction(contraction)
    x = torch.randn(4, 6, 9, dtype=torch.float64)
    species = torch.eye(3, dtype=torch.float64)[[0, 2, 0, 1]]
    last = contraction.contractions[1].weights[0]

    def replace() -> None:
        last.data = last.detach().flip(0)

    for change in (lambda: None, lambda: last.mul_(1.1), lambda: last.data.mul_(1.1), replace):
        change()
        for _ in range(2):
            torch.testing.assert_close(fast(x, species), contraction(x, species))
    n_kept = len(fast._polynomials._kept)  # type: ignore[union-attr]
    assert n_kept == (1 if most == 1 else 3)


def test_weights_that_require_gradients_get_them() -> None:
    contraction = frozen(correlation=3).products[0].symmetric_contractions
    fast = ElementwiseContraction(contraction)
    x = torch.randn(4, 8, 9, dtype=torch.float64)
    species = torch.eye(3, dtype=torch.float64)[[0, 2, 0, 1]]
    assert not fast(x, species).requires_grad
    weights = [contraction.contractions[0].weights_max, *contraction.contractions[0].weights]
    for weight in weights:  # any one of them
        weight.requires_grad_(True)
        (got,) = torch.autograd.grad(fast(x, species).square().sum(), weight)
        (wanted,) = torch.autograd.grad(contraction(x, species).square().sum(), weight)
        torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10)
        weight.requires_grad_(False)


@pytest.mark.parametrize("correlation", [1, 2, 3])
def test_a_third_derivative_raises(correlation: int) -> None:
    """Rather than being wrong: what the second one is made of was not recorded."""
    output = ElementwiseContraction(
        frozen(correlation=correlation).products[0].symmetric_contractions
    )
    x = torch.randn(4, 8, 9, dtype=torch.float64, requires_grad=True)
    (first,) = torch.autograd.grad(output.contract(x, 0).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(PotentialError, match="third derivatives"):
        torch.autograd.grad(second.square().sum(), x)


def test_a_third_derivative_of_the_energy_raises() -> None:
    potential: Any = variant("scalars")
    batch = potential.collate([potential.prepare(molecule("H2O"))])
    positions = batch.positions.clone().requires_grad_()
    value = potential.energies(batch, positions=positions).sum()
    for _ in range(2):
        (gradient,) = torch.autograd.grad(value, positions, create_graph=True)
        value = gradient.square().sum()
    with pytest.raises(PotentialError, match="third derivatives"):
        torch.autograd.grad(value, positions, retain_graph=True)
    with pytest.raises(PotentialError, match="third derivatives"):
        value.backward()
