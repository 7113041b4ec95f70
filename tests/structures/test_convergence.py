"""Results that say of themselves that they did not converge are found."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import molecule

from labelwise.structures.convergence import find_unconverged, say_unconverged


@pytest.mark.parametrize("value", [False, np.False_, 0, 0.0, "F", "False", "no", [True, False]])
@pytest.mark.parametrize("key", ["converged", "is_converged", "SCF_converged"])
def test_denials_are_found(key: str, value: object) -> None:
    assert find_unconverged({"name": "x", key: value}).startswith(f"{key} = ")


@pytest.mark.parametrize(
    "said",
    [
        {},
        {"converged": True},
        {"converged": "T"},
        {"converged": 1},
        {"converged": None},
        {"converged": "unknown"},
        {"converged_path": False},
        {"converged_ionic": False},
        {"unconverged": False},
        {"n_converged": 0},
    ],
)
def test_all_else_says_nothing(said: dict[str, object]) -> None:
    assert find_unconverged(said) == ""


def test_the_opposite_word_is_understood() -> None:
    assert find_unconverged({"unconverged": "T"}) == "unconverged = T"


def test_the_first_structure_is_named_once() -> None:
    structures = [molecule("H2O") for _ in range(5)]
    assert say_unconverged(structures) is None
    for atoms in structures[2:4]:
        atoms.info["converged"] = False
    said = say_unconverged(structures, [f"a.xyz@{i}" for i in range(5)])
    assert said is not None and said.startswith("2 of 5 structures")
    assert "a.xyz@2 (converged = False)" in said
