"""Predicted force errors: the leave-one-out identity, calibration, and what they are worth."""

from __future__ import annotations

from io import StringIO

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.io import read
from scipy.stats import spearmanr

from labelwise.errors import ArgumentError, LabelError
from labelwise.features.representations import RepresentationOptions
from labelwise.features.representations.row_sets import RowSets
from labelwise.potentials import Potential, load_potential
from labelwise.selection.force_uncertainty import (
    force_variances,
    left_out_force_variances,
    predict_force_uncertainty,
)
from labelwise.selection.rules.joint_posterior import JointPosterior
from labelwise.structures.demo_data import demo_file_content


@pytest.fixture(scope="module")
def potential() -> Potential:
    return load_potential("demo", device="cpu")


@pytest.fixture(scope="module")
def frames() -> list[Atoms]:
    text = demo_file_content("pool.extxyz").decode()
    return read(StringIO(text), ":", format="extxyz")


@pytest.fixture(scope="module")
def structures(frames: list[Atoms]) -> list[Atoms]:
    return frames[::100]


def _random_sets(n: int, seed: int) -> RowSets:
    rng = np.random.default_rng(seed)
    n_atoms = torch.from_numpy(rng.integers(1, 4, n))
    counts = 1 + 3 * n_atoms
    return RowSets(torch.from_numpy(rng.normal(size=(int(counts.sum()), 15))), counts, n_atoms)


def test_leaving_one_out_is_conditioning_on_the_others() -> None:
    sets = _random_sets(6, 0)
    got = left_out_force_variances(JointPosterior(sets, 0.7), sets)
    for i in range(len(sets)):
        others = torch.tensor([j for j in range(len(sets)) if j != i])
        posterior = JointPosterior(sets.take(others), 0.7)
        wanted = force_variances(posterior, sets.take(torch.tensor([i])))
        np.testing.assert_allclose(got[i], wanted[0], rtol=1e-8)


def test_atoms_add_up_to_structures(potential: Potential, structures: list[Atoms]) -> None:
    found = predict_force_uncertainty(structures[8:12], potential, train=structures[:8])
    assert found.atom_std is not None
    for std, atoms, total in zip(
        found.atom_std, structures[8:12], found.structure_std, strict=True
    ):
        assert std.shape == (len(atoms),)
        np.testing.assert_allclose(np.sqrt(np.mean(std**2)), total, rtol=1e-6)
    assert found.n_calibration == 8


def test_probes_estimate_the_exact_value(potential: Potential, structures: list[Atoms]) -> None:
    exact = predict_force_uncertainty(structures[8:], potential, train=structures[:8])
    probed = predict_force_uncertainty(
        structures[8:],
        potential,
        train=structures[:8],
        options=RepresentationOptions(n_probes=24, seed=1),
    )
    assert probed.atom_std is None
    ratio = probed.structure_std / exact.structure_std
    assert 0.7 < np.median(ratio) < 1.4
    assert spearmanr(probed.structure_std, exact.structure_std).statistic > 0.8


def test_true_errors_are_ranked_and_covered(potential: Potential, frames: list[Atoms]) -> None:
    train, rest = frames[10::160], frames[::60]
    found = predict_force_uncertainty(rest, potential, train=train)
    forces = [
        potential.predict(potential.collate([potential.prepare(atoms)])).forces.numpy()
        for atoms in rest
    ]
    errors = [f - atoms.arrays["REF_forces"] for f, atoms in zip(forces, rest, strict=True)]
    rmse = [np.sqrt(np.mean(error**2)) for error in errors]
    assert spearmanr(found.structure_std, rmse).statistic > 0.5
    within = [
        np.abs(error).ravel() <= 1.645 * std
        for error, std in zip(errors, found.structure_std, strict=True)
    ]
    assert 0.8 < np.concatenate(within).mean() < 0.97


@pytest.mark.thorough
def test_separate_calibration_structures_are_used(
    potential: Potential, structures: list[Atoms]
) -> None:
    train, calibration = structures[:6], structures[6:14]
    one = predict_force_uncertainty(
        structures[14:], potential, train=train, calibration=calibration
    )
    doubled = []
    for atoms in calibration:
        copy = atoms.copy()
        forces = potential.predict(potential.collate([potential.prepare(atoms)])).forces
        error = atoms.arrays["REF_forces"] - forces.numpy()
        copy.arrays["REF_forces"] = forces.numpy() + 2.0 * error
        doubled.append(copy)
    two = predict_force_uncertainty(structures[14:], potential, train=train, calibration=doubled)
    assert one.n_calibration == 8
    np.testing.assert_allclose(two.structure_std, 2.0 * one.structure_std, rtol=1e-4)


def test_wrong_arguments_raise(potential: Potential, structures: list[Atoms]) -> None:
    with pytest.raises(ArgumentError, match="labelled"):
        predict_force_uncertainty(structures[:1], potential, train=structures[:1])
    bare = [Atoms(atoms.numbers, atoms.positions) for atoms in structures[:3]]
    with pytest.raises(LabelError, match="REF_forces"):
        predict_force_uncertainty(structures[:1], potential, train=bare)
    lone = [Atoms("H"), Atoms("O")]
    for atoms in lone:
        atoms.arrays["REF_forces"] = np.zeros((1, 3))
    with pytest.raises(ArgumentError, match="isolated atoms"):
        predict_force_uncertainty(structures[:1], potential, train=lone)
