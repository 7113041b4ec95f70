"""Potentials with random weights, one of each kind."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest

from labelwise.potentials import Potential
from labelwise.potentials.mace.loading import make_potential
from tests.potentials.models import VARIANTS, make_mace


@cache
def variant(name: str) -> Any:
    return make_potential(make_mace(**VARIANTS[name]), name=name)


@pytest.fixture(params=sorted(VARIANTS))
def potential(request: pytest.FixtureRequest) -> Potential:
    """Each kind of MACE in float64."""
    return variant(request.param)


@pytest.fixture
def vectors() -> Any:
    """A MACE with vectors among its hidden features, correlation 3, float64."""
    return variant("vectors")
