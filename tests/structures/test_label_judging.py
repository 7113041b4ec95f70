"""Gradients and wrong units are told beside a model; a bad model says nothing."""

from __future__ import annotations

import re

import numpy as np
import pytest
from ase.units import Bohr, Hartree, kcal, mol

from labelwise.structures.label_judging import judge_energies, judge_forces

N = 100
SOURCES = [f"a.xyz@{i}" for i in range(N)]


def make_forces(rng: np.random.Generator, noise: float) -> tuple[list[np.ndarray], ...]:
    """Forces of a hundred structures, and what a model with relative errors says of them."""
    labels = [rng.normal(size=(rng.integers(4, 20), 3)) for _ in range(N)]
    predicted = [0.8 * (f + noise * rng.normal(size=f.shape)) for f in labels]
    return labels, predicted


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.8, 3.0])
def test_right_forces_are_left_alone(rng: np.random.Generator, noise: float) -> None:
    assert judge_forces(*make_forces(rng, noise), SOURCES).messages == ()


@pytest.mark.parametrize(
    ("factor", "words"),
    [
        (-1.0, "against those of the model, as gradients do"),
        (Bohr / Hartree, "as if in hartree/bohr"),
        (1 / Hartree, "as if in .*hartree/Å"),
        (mol / kcal, "as if in .*kcal/mol/Å"),
        (Hartree / Bohr, "as if in eV/Å taken for hartree/bohr"),
    ],
)
def test_wrong_sets_are_told(rng: np.random.Generator, factor: float, words: str) -> None:
    labels, predicted = make_forces(rng, 0.8)
    found = judge_forces([factor * f for f in labels], predicted, SOURCES)
    assert len(found.messages) == 1
    (message,) = found.messages
    assert "a.xyz@0, a.xyz@1" in message
    places = found.reversed_idx if factor < 0 else found.scaled_idx
    assert len(places) > 0.9 * N
    assert re.search(words, message)


def test_gradients_in_atomic_units_are_told_twice(rng: np.random.Generator) -> None:
    labels, predicted = make_forces(rng, 0.8)
    found = judge_forces([-Bohr / Hartree * f for f in labels], predicted, SOURCES)
    assert [word in found.messages[i] for i, word in enumerate(("gradients", "hartree"))] == [1, 1]


@pytest.mark.parametrize("factor", [-1.0, Bohr / Hartree, mol / kcal, -Bohr / Hartree])
def test_a_tenth_is_named(rng: np.random.Generator, factor: float) -> None:
    labels, predicted = make_forces(rng, 0.6)
    wrong = tuple(range(5, N, 10))
    changed = [factor * f if i in wrong else f for i, f in enumerate(labels)]
    found = judge_forces(changed, predicted, SOURCES)
    assert all(
        "of 100 structures" in message and "a.xyz@5" in message for message in found.messages
    )
    assert found.reversed_idx == (wrong if factor < 0 else ())
    assert found.scaled_idx == (wrong if abs(factor) != 1 else ())


def test_half_that_are_reversed_are_named(rng: np.random.Generator) -> None:
    labels, predicted = make_forces(rng, 0.3)
    found = judge_forces([f if i % 2 else -f for i, f in enumerate(labels)], predicted, SOURCES)
    assert found.reversed_idx == tuple(range(0, N, 2))


def test_a_close_unit_needs_a_good_model(rng: np.random.Generator) -> None:
    labels, predicted = make_forces(rng, 0.02)
    scaled = [Bohr * f * 0.8 for f in labels]
    assert "eV/bohr" in judge_forces(scaled, predicted, SOURCES).messages[0]
    labels, predicted = make_forces(rng, 0.5)
    assert judge_forces([Bohr * f * 0.8 for f in labels], predicted, SOURCES).messages == ()


def test_an_ignorant_model_says_nothing(rng: np.random.Generator) -> None:
    labels, _ = make_forces(rng, 0.0)
    for factor in (1.0, -1.0, 0.02, 50.0):
        other = [factor * rng.normal(size=f.shape) for f in labels]
        assert judge_forces(labels, other, SOURCES).messages == ()


def test_few_atoms_and_no_forces_are_not_judged() -> None:
    dimers = [np.array([[0.0, 0, 1], [0, 0, -1]])] * N
    assert judge_forces(dimers, [-f for f in dimers], SOURCES).messages == ()
    nothing = [np.zeros((8, 3))] * N
    assert judge_forces(nothing, nothing, SOURCES).messages == ()
    assert judge_forces([], [], []).messages == ()


def test_energies_are_told_by_how_they_vary(rng: np.random.Generator) -> None:
    numbers = [np.array([6, 1, 1, 1, 1]), np.array([8, 1, 1])] * 20
    core = np.array([-1100.0, -2080.0] * 20)
    relative = rng.normal(size=40)
    predicted = relative + 0.4 * rng.normal(size=40)
    assert judge_energies(core + relative, predicted, numbers) is None
    for size, word in ((Hartree, "hartree"), (kcal / mol, "kcal/mol"), (1e-3, "meV")):
        assert f"in {word}" in (judge_energies((core + relative) / size, predicted, numbers) or "")
    assert "against" in (judge_energies(-relative, predicted, numbers) or "")
    assert judge_energies(relative / Hartree, rng.normal(size=40), numbers) is None
    assert judge_energies(relative[:6] / Hartree, predicted[:6], numbers[:6]) is None
