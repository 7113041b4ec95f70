from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.finetuning.committee import (
    committee_energy_score,
    committee_force_score,
    draw_bootstrap,
    member_seeds,
    predict_committee,
)
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from tests.finetuning.conftest import NAMES, OFFSETS, label, make_potential_of, rattle

RECIPE = Recipe(batch_size=4, learning_rate=0.01, max_updates=4)


@pytest.fixture(scope="module")
def student() -> Potential:
    return make_potential_of(seed=0)


@pytest.fixture(scope="module")
def train() -> list[Atoms]:
    teacher = make_potential_of(seed=1)
    return label(rattle(NAMES, 8, seed=0), teacher, offsets=OFFSETS)


def test_energy_score_by_hand() -> None:
    energies = np.array([[1.0, 5.0], [3.0, 5.0]])
    np.testing.assert_allclose(committee_energy_score(energies), [1.0, 0.0])


def test_force_score_by_hand(rng: np.random.Generator) -> None:
    """Two members that differ by 2 eV/Å in one of six components: deviation 1 there."""
    forces = rng.normal(size=(1, 2, 3)).repeat(2, axis=0)
    forces[1, 0, 1] += 2.0
    assert committee_force_score([forces])[0] == pytest.approx(1 / 6)
    assert committee_force_score([forces], aggregate="max")[0] == pytest.approx(1.0)


def test_scores_are_the_standard_deviation_over_members(rng: np.random.Generator) -> None:
    energies = rng.normal(size=(3, 5))
    expected = np.sqrt(((energies - energies.mean(0)) ** 2).mean(0))
    np.testing.assert_allclose(committee_energy_score(energies), expected)
    forces = [rng.normal(size=(3, n, 3)) for n in (1, 4)]
    deviations = [np.sqrt(((f - f.mean(0)) ** 2).mean(0)) for f in forces]
    np.testing.assert_allclose(committee_force_score(forces), [d.mean() for d in deviations])


def test_a_common_shift_and_the_order_of_members_do_not_count(rng: np.random.Generator) -> None:
    energies = rng.normal(size=(3, 5))
    score = committee_energy_score(energies)
    np.testing.assert_allclose(committee_energy_score(energies[::-1] + 7.0), score)


def test_predictions_are_the_members_own(student: Potential, train: list[Atoms]) -> None:
    seeds = member_seeds(0, 2)
    potentials = [finetune(student, train, [], RECIPE, seed=seed).potential for seed in seeds]
    energies, forces = predict_committee(potentials, train)
    assert energies.shape == (2, 8)
    assert [f.shape for f in forces] == [(2, len(atoms), 3) for atoms in train]
    for m, potential in enumerate(potentials):
        own = evaluate(potential, train)
        np.testing.assert_allclose(energies[m], own.energies, atol=1e-9)
        np.testing.assert_allclose(forces[3][m], own.forces[3], atol=1e-9)
    assert (committee_energy_score(energies) > 0).all()
    assert (committee_force_score(forces) > 0).all()


def test_bootstrap_draws_with_replacement() -> None:
    drawn = draw_bootstrap(1000, seed=3)
    assert len(drawn) == 1000
    assert drawn.min() >= 0
    assert drawn.max() < 1000
    # A fraction 1 - 1/e is drawn at least once.
    assert len(np.unique(drawn)) == pytest.approx(632, abs=40)
    np.testing.assert_array_equal(drawn, draw_bootstrap(1000, seed=3))
    assert not np.array_equal(drawn, draw_bootstrap(1000, seed=4))


def test_member_seeds_differ_and_do_not_depend_on_their_number() -> None:
    assert len(set(member_seeds(0, 5))) == 5
    assert member_seeds(0, 5)[:3] == member_seeds(0, 3)
    assert member_seeds(1, 3) != member_seeds(0, 3)
    with pytest.raises(ArgumentError, match="seed is -1"):
        member_seeds(-1, 3)


def test_one_member_is_no_committee(student: Potential, train: list[Atoms]) -> None:
    with pytest.raises(ArgumentError, match="there are 1 members"):
        predict_committee([student], train)
    with pytest.raises(ArgumentError, match="at least two"):
        committee_energy_score(np.zeros((1, 3)))
    with pytest.raises(ArgumentError, match="at least two"):
        committee_force_score([np.zeros((1, 2, 3))])
    with pytest.raises(ArgumentError, match="aggregate is 'sum'"):
        committee_force_score([np.zeros((2, 2, 3))], aggregate="sum")
