"""Row sets: what they hold, how they are weighed, and how they are computed."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import RepresentationOptions
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import (
    RowScales,
    RowSets,
    drop_empty_columns,
    join_row_sets,
)
from labelwise.testing.potentials import sample_structures, symmetry_copies
from tests.potentials.conftest import variant


def _grams(sets: RowSets) -> list[np.ndarray]:
    parts = [sets.take(torch.tensor([i])).rows.double().numpy() for i in range(len(sets))]
    return [part.T @ part for part in parts]


def _compute(structures, *, n_probes=None, seed=0, batch_atoms=None, parameters="embedding"):
    options = RepresentationOptions(parameters=parameters, n_probes=n_probes, seed=seed)
    parts = list(iter_row_sets(structures, variant("vectors"), options, batch_atoms=batch_atoms))
    return join_row_sets(parts, parts[0].dim)


@pytest.fixture(scope="module")
def structures():
    return sample_structures(variant("vectors"))


def test_exact_rows_are_the_jacobians(structures) -> None:
    potential = variant("vectors")
    sets = _compute(structures)
    assert sets.counts.tolist() == [1 + 3 * len(atoms) for atoms in structures]
    assert sets.n_atoms.tolist() == [len(atoms) for atoms in structures]
    for i, atoms in enumerate(structures):
        linear = potential.linearise(potential.collate([potential.prepare(atoms)]))
        units = torch.eye(3 * len(atoms), dtype=potential.dtype)
        wanted = [linear.energy_rows()[0]]
        wanted += [linear.force_rows(unit.view(-1, 3))[0] for unit in units]
        got = sets.take(torch.tensor([i])).rows
        torch.testing.assert_close(got, torch.stack(wanted).float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("n_probes", [None, 3])
def test_batches_do_not_matter(structures, n_probes) -> None:
    one = _compute(structures, n_probes=n_probes)
    two = _compute(structures, n_probes=n_probes, batch_atoms=1)
    torch.testing.assert_close(one.rows, two.rows, rtol=1e-5, atol=1e-6)
    assert one.counts.tolist() == two.counts.tolist()


def test_exact_gram_matrices_are_invariant(structures) -> None:
    for atoms in structures[1:6]:
        original = _grams(_compute([atoms]))[0]
        for law, (copy, _) in symmetry_copies(atoms).items():
            got = _grams(_compute([copy]))[0]
            np.testing.assert_allclose(
                got, original, rtol=1e-4, atol=1e-5 * np.abs(original).max(), err_msg=law
            )


def test_another_unit_cell_of_a_crystal_is_the_same_structure(structures) -> None:
    crystal = structures[4]
    original = _grams(_compute([crystal]))[0]
    sheared = crystal.copy()
    sheared.set_cell([[1, 0, 0], [1, 1, 0], [0, -1, 1]] @ crystal.cell.array)
    wrapped = crystal.copy()
    wrapped.wrap(center=(0.1, 0.7, 0.3))
    for copy in (sheared, wrapped):
        got = _grams(_compute([copy]))[0]
        np.testing.assert_allclose(got, original, rtol=1e-4, atol=1e-5 * original.max())


def test_probed_gram_matrices_converge_at_the_monte_carlo_rate(structures) -> None:
    exact = np.stack(_grams(_compute(structures[1:3])))

    def mean_square_error(n_probes: int) -> float:
        errors = [
            np.stack(_grams(_compute(structures[1:3], n_probes=n_probes, seed=seed))) - exact
            for seed in range(24)
        ]
        return float(np.mean(np.square(errors)))

    ratio = mean_square_error(2) / mean_square_error(32)
    assert 8.0 < ratio < 32.0  # 16 for independent probes


def test_scales_make_the_mean_prior_variance_one(structures) -> None:
    sets = _compute(structures[:6])
    for normalise in ("cosine", "none"):
        scales = RowScales.measured(sets, normalise=normalise, energy_weight=0.3)
        energy, force = scales.weigh(sets).squares()
        np.testing.assert_allclose(float(energy.mean()), 0.3, rtol=1e-5)
        np.testing.assert_allclose(float(force.mean()), 0.7, rtol=1e-5)
    cosine = RowScales("cosine", 0.3).weigh(sets)
    np.testing.assert_allclose(sum(cosine.squares()), np.ones(6), rtol=1e-5)


def test_structures_without_forces_stay_finite(structures) -> None:
    atom = _compute([structures[7]])
    assert atom.is_finite() == [True]
    weighed = RowScales.measured(atom, normalise="cosine", energy_weight=0.5).weigh(atom)
    assert weighed.is_finite() == [True]
    assert float(weighed.squares()[1]) == 0.0


def test_taking_joining_and_dropping_keep_the_rows(structures) -> None:
    sets = _compute(structures)
    again = join_row_sets([sets.take(torch.tensor([2, 0])), sets.take(torch.tensor([5]))], sets.dim)
    grams = _grams(sets)
    for got, wanted in zip(_grams(again), [grams[2], grams[0], grams[5]], strict=True):
        np.testing.assert_array_equal(got, wanted)
    (water,) = drop_empty_columns(_compute(structures[7:8]))
    assert 0 < water.dim < sets.dim


def test_rows_that_are_not_finite_are_named_by_structure() -> None:
    rows = torch.zeros(5, 2)
    rows[3, 1] = float("inf")
    sets = RowSets(rows, torch.tensor([2, 1, 2]), torch.tensor([1, 1, 1]))
    assert sets.is_finite() == [True, True, False]


def test_wrong_arguments_raise() -> None:
    with pytest.raises(ArgumentError, match="all rows must be counted"):
        RowSets(torch.zeros(3, 2), torch.tensor([1, 1]), torch.tensor([1, 1]))
    with pytest.raises(ArgumentError, match="energy_weight"):
        RowScales("cosine", 1.5)
    with pytest.raises(ArgumentError, match="normalise"):
        RowScales("l2", 0.5)
