from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate

from labelwise.errors import ArgumentError
from labelwise.finetuning.metrics import (
    auc_of_curve,
    error_table,
    mean_absolute,
    root_mean_square,
    round_gain,
    sparsification_area,
    spearman,
)

curves = st.lists(st.floats(0.1, 100.0), min_size=1, max_size=20)


def test_error_table_by_hand() -> None:
    """Two structures of 1 and 2 atoms; energies off by 2 and -4 meV."""
    table = error_table(
        np.array([0.002, -0.004]),
        np.full((3, 3), 0.001),
        true_energies=np.zeros(2),
        true_forces=np.zeros((3, 3)),
        atom_counts=np.array([1, 2]),
    )
    assert (table.n_structures, table.n_atoms) == (2, 3)
    assert table.energy_mae == pytest.approx(3.0)
    assert table.energy_rmse == pytest.approx(np.sqrt(10.0))
    assert table.energy_mae_per_atom == pytest.approx(2.0)
    assert table.energy_rmse_per_atom == pytest.approx(2.0)
    assert table.forces_mae == table.forces_rmse == pytest.approx(1.0)


def test_forces_are_pooled_over_components_not_structures() -> None:
    forces = np.zeros((4, 3))
    forces[0, 0] = 0.012
    table = error_table(
        np.zeros(2),
        forces,
        true_energies=np.zeros(2),
        true_forces=np.zeros((4, 3)),
        atom_counts=np.array([1, 3]),
    )
    assert table.forces_mae == pytest.approx(1.0)
    assert table.forces_rmse == pytest.approx(np.sqrt(12.0))


def test_only_the_forces_of_named_atoms_are_compared() -> None:
    forces = np.zeros((4, 3))
    forces[0], forces[2, 1] = 0.9, 0.006
    arguments: dict[str, Any] = {
        "true_energies": np.zeros(2),
        "true_forces": np.zeros((4, 3)),
        "atom_counts": np.array([1, 3]),
    }
    kept = np.array([False, True, True, False])
    table = error_table(np.array([0.001, 0.003]), forces, **arguments, force_atoms=kept)
    assert (table.n_atoms, table.n_force_atoms) == (4, 2)
    assert table.forces_mae == pytest.approx(1.0)
    assert table.forces_rmse == pytest.approx(np.sqrt(6.0))
    everything = error_table(np.array([0.001, 0.003]), forces, **arguments)
    assert everything.n_force_atoms == 4
    assert table.energy_rmse_per_atom == everything.energy_rmse_per_atom
    with pytest.raises(ArgumentError, match="names 0 atoms"):
        error_table(np.zeros(2), forces, **arguments, force_atoms=np.zeros(4, dtype=bool))


@given(st.integers(1, 6), st.integers(0, 99))
def test_rmse_is_at_least_mae(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 4, size=n)
    shape = (int(counts.sum()), 3)
    table = error_table(
        rng.normal(size=n),
        rng.normal(size=shape),
        true_energies=rng.normal(size=n),
        true_forces=rng.normal(size=shape),
        atom_counts=counts,
    )
    assert table.energy_rmse >= table.energy_mae * (1 - 1e-12)
    assert table.forces_rmse >= table.forces_mae * (1 - 1e-12)
    assert table.energy_mae_per_atom <= table.energy_mae


@pytest.mark.parametrize(
    "change",
    [
        {"atom_counts": np.array([1, 1])},
        {"true_energies": np.zeros(3)},
        {"true_forces": np.zeros((2, 3))},
    ],
)
def test_shapes_that_do_not_fit_are_refused(change: dict[str, Any]) -> None:
    arguments: dict[str, Any] = {
        "energies": np.zeros(2),
        "forces": np.zeros((3, 3)),
        "true_energies": np.zeros(2),
        "true_forces": np.zeros((3, 3)),
        "atom_counts": np.array([1, 2]),
    }
    with pytest.raises((ArgumentError, TypeError)):
        error_table(**{**arguments, **change})


def test_no_structures_have_no_errors() -> None:
    none = np.zeros(0)
    with pytest.raises(ArgumentError, match="at least one"):
        error_table(
            none,
            np.zeros((0, 3)),
            true_energies=none,
            true_forces=np.zeros((0, 3)),
            atom_counts=np.zeros(0, dtype=np.int64),
        )


def test_means_of_nothing_are_not_a_number() -> None:
    assert np.isnan(mean_absolute([]))
    assert np.isnan(root_mean_square([]))


@given(curves)
def test_auc_is_the_sum_of_the_rounds(curve: list[float]) -> None:
    """The trapezium rule over rounds, plus half of both ends."""
    ends = (curve[0] + curve[-1]) / 2
    assert auc_of_curve(curve) == pytest.approx(float(integrate.trapezoid(curve)) + ends)


def test_round_gain_by_hand() -> None:
    """Both reach 2: the method in round 2, random in round 4, so it saves half the rounds."""
    assert round_gain([5, 2, 1, 1], [5, 4, 3, 2]) == pytest.approx(0.5)
    assert round_gain([5, 4, 3, 2], [5, 2, 1, 1]) == pytest.approx(-0.5)
    assert round_gain([4, 3], [4, 3]) == 0.0


def test_a_curve_that_rises_again_counts_from_its_first_time() -> None:
    assert round_gain([5, 1, 4], [5, 4, 1]) == pytest.approx(1 / 3)


@given(curves, curves)
def test_round_gain_changes_sign_with_the_roles(a: list[float], b: list[float]) -> None:
    assert round_gain(a, b) == -round_gain(b, a)
    assert -1 < round_gain(a, b) < 1


@given(curves, curves, st.floats(0.5, 10.0))
def test_round_gain_does_not_depend_on_the_unit(
    a: list[float], b: list[float], unit: float
) -> None:
    scaled = round_gain(np.array(a) * unit, np.array(b) * unit)
    assert scaled == round_gain(a, b)


@pytest.mark.parametrize("curve", [[], [[1.0]], [1.0, float("nan")]])
def test_what_is_no_curve_is_refused(curve: Any) -> None:
    with pytest.raises(ArgumentError, match="errors has shape"):
        auc_of_curve(curve)


def test_spearman_by_hand() -> None:
    """Ranks 1 2 3 4 against 1 3 2 4: 1 - 6 · 2 / (4 · 15)."""
    assert spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert spearman([1, 2, 9], [-5, -3, 100]) == pytest.approx(1.0)
    assert spearman([3, 2, 1], [1, 2, 3]) == pytest.approx(-1.0)
    assert np.isnan(spearman([1, 1, 1], [1, 2, 3]))


def test_sparsification_by_hand() -> None:
    """Errors 3 and 4: both, then the one that is left, against the root of 12.5."""
    both = np.sqrt(12.5)
    assert sparsification_area([1, 2], [3, 4]) == pytest.approx((both + 3) / 2 / both)
    assert sparsification_area([2, 1], [3, 4]) == pytest.approx((both + 4) / 2 / both)
    assert sparsification_area([7], [3]) == 1.0
    assert sparsification_area([5, 5, 5], [1, -2, 6]) == pytest.approx(1.0)
    assert np.isnan(sparsification_area([1, 2], [0, 0]))


def test_equal_scores_share_their_error() -> None:
    """Scores 2 1 1 with errors 3 1 5: after the first, (1 + 25) / 2 whichever comes next."""
    values = np.sqrt([35 / 3, 13, 13])
    for errors in ([3, 1, 5], [3, 5, 1]):
        assert sparsification_area([2, 1, 1], errors) == pytest.approx(values.mean() / values[0])


@given(st.lists(st.floats(-9, 9).filter(lambda x: abs(x) > 1e-3), min_size=2, max_size=9))
def test_no_score_sparsifies_better_than_the_error(errors: list[float]) -> None:
    oracle = sparsification_area(np.abs(errors), errors)
    scores = np.random.default_rng(0).normal(size=len(errors))
    assert oracle <= sparsification_area(scores, errors) * (1 + 1e-12)
    assert oracle <= 1 + 1e-12
    worst = sparsification_area(-np.abs(errors), errors)
    assert sparsification_area(scores, errors) <= worst * (1 + 1e-12)


@pytest.mark.parametrize("metric", [spearman, sparsification_area])
@pytest.mark.parametrize(
    "score,error", [([], []), ([1, 2], [1]), ([1, np.nan], [1, 2]), ([1, 2], [1, np.inf])]
)
def test_scores_and_errors_belong_together(metric: Any, score: list, error: list) -> None:
    with pytest.raises(ArgumentError, match="as many finite numbers"):
        metric(score, error)
