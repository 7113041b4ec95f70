from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.features.representations.probes import (
    rademacher_directions,
    radial_fields,
    unit_directions,
)
from labelwise.potentials import Batch, Potential
from labelwise.potentials.mace.loading import make_potential
from labelwise.testing.potentials import sample_structures, symmetry_copies
from tests.potentials.models import make_mace


@pytest.fixture(scope="module")
def potential() -> Any:
    return make_potential(make_mace(), name="scalars")


def batch_of(potential: Potential, structures: list[Atoms]) -> Batch:
    return potential.collate([potential.prepare(atoms) for atoms in structures])


def fields_of(potential: Potential, atoms: Atoms, n_fields: int = 8) -> list[np.ndarray]:
    batch = batch_of(potential, [atoms])
    return [each.numpy() for each in radial_fields(batch, n_fields, cutoff=potential.cutoff)]


def test_unit_directions_are_a_basis_of_each_structure(potential: Potential) -> None:
    batch = batch_of(potential, sample_structures(potential))
    directions = torch.stack(list(unit_directions(batch)))
    assert len(directions) == 3 * max(batch.atom_counts)
    start = 0
    for n_atoms in batch.atom_counts:
        own = directions[:, start : start + n_atoms].reshape(len(directions), -1)
        assert torch.equal(own[: 3 * n_atoms], torch.eye(3 * n_atoms, dtype=own.dtype))
        assert not own[3 * n_atoms :].any()
        start += n_atoms


def test_random_signs_depend_on_place_probe_and_seed_but_not_on_the_batch(
    potential: Potential,
) -> None:
    structures = sample_structures(potential)
    batch = batch_of(potential, structures)
    signs = torch.stack(list(rademacher_directions(batch, 5, seed=3)))
    assert signs.dtype == potential.dtype
    assert torch.equal(signs.abs(), torch.ones_like(signs))
    start = 0
    for atoms in structures:
        alone = torch.stack(list(rademacher_directions(batch_of(potential, [atoms]), 5, seed=3)))
        assert torch.equal(alone, signs[:, start : start + len(atoms)])
        start += len(atoms)
    assert torch.equal(torch.stack(list(rademacher_directions(batch, 9, seed=3)))[:5], signs)
    others = torch.stack(list(rademacher_directions(batch, 5, seed=4)))
    assert 0.4 < float((others == signs).double().mean()) < 0.6


def test_random_signs_are_uncorrelated(potential: Potential) -> None:
    """E[v vᵀ] = I within five standard errors."""
    batch = batch_of(potential, [sample_structures(potential)[1]])
    n_probes = 4000
    signs = torch.stack(list(rademacher_directions(batch, n_probes))).reshape(n_probes, -1)
    gram = signs.T @ signs / n_probes
    assert float((gram - torch.eye(len(gram), dtype=gram.dtype)).abs().max()) < 5 / n_probes**0.5
    assert float(signs.mean(dim=0).abs().max()) < 5 / n_probes**0.5


@pytest.mark.parametrize("which", [1, 3, 4, 5])
def test_radial_fields_turn_with_the_structure(potential: Potential, which: int) -> None:
    atoms = sample_structures(potential)[which]
    original = fields_of(potential, atoms)
    for law, (copy, matrix) in symmetry_copies(atoms).items():
        for got, field in zip(fields_of(potential, copy), original, strict=True):
            wanted = field[::-1] if law == "atom order" else field @ matrix.T
            np.testing.assert_allclose(got, wanted, atol=1e-9, err_msg=law)


def test_radial_fields_do_not_depend_on_the_unit_cell(potential: Potential) -> None:
    crystal = sample_structures(potential)[4]
    sheared = crystal.copy()
    sheared.set_cell([[1, 0, 0], [1, 1, 0], [0, -1, 1]] @ crystal.cell.array)
    original = fields_of(potential, crystal)
    for field, other in zip(original, fields_of(potential, sheared), strict=True):
        np.testing.assert_allclose(other, field, atol=1e-9)
    for field, other in zip(original, fields_of(potential, crystal.repeat((2, 1, 1))), strict=True):
        np.testing.assert_allclose(other, np.concatenate([field, field]), atol=1e-9)


def test_radial_fields_are_the_formula_and_scaled(potential: Potential) -> None:
    atoms = sample_structures(potential)[2]
    for order, got in enumerate(fields_of(potential, atoms), start=1):
        vectors = atoms.positions[:, None] - atoms.positions[None]  # [j, i] = r_j - r_i
        length = np.linalg.norm(vectors, axis=-1) + np.eye(len(atoms))
        x = length / potential.cutoff
        strength = np.sin(order * np.pi * x) * np.clip(1 - x**2, 0, None) ** 2 / length
        field = (vectors * strength[..., None]).sum(axis=1)
        np.testing.assert_allclose(got, field / np.sqrt(np.mean(field**2)), atol=1e-9)
        assert np.mean(got**2) == pytest.approx(1.0)


def test_radial_fields_of_structures_do_not_mix_and_atoms_get_zeros(potential: Potential) -> None:
    structures = sample_structures(potential)
    batch = batch_of(potential, structures)
    together = [
        np.split(field.numpy(), np.cumsum(batch.atom_counts)[:-1])
        for field in radial_fields(batch, 3, cutoff=potential.cutoff)
    ]
    for place, atoms in enumerate(structures):
        for field, parts in zip(fields_of(potential, atoms, 3), together, strict=True):
            np.testing.assert_allclose(parts[place], field, atol=1e-9)
    for parts in together:
        assert not any(parts[place].any() for place in (6, 7, 8))  # no neighbours, or by symmetry
