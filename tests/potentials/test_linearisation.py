"""Mixed derivatives against finite differences and ``torch.autograd.functional``."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from ase import Atoms
from torch.autograd.functional import jacobian

from labelwise.errors import ArgumentError
from labelwise.features.representations.sketch import CountSketch
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch
from labelwise.testing.potentials import central_difference, sample_structures


def _batch(potential: Potential, structures: list[Atoms]) -> Batch:
    return potential.collate([potential.prepare(atoms) for atoms in structures])


def _force_jacobian(potential: Potential, batch: Batch, parameters: str) -> torch.Tensor:
    """Return J_F row by row: (3N, n, p)."""
    linearisation = potential.linearise(batch, parameters=parameters)
    units = torch.eye(3 * batch.n_atoms, dtype=potential.dtype)
    return torch.stack([linearisation.force_rows(unit.view(-1, 3)) for unit in units])


@pytest.mark.parametrize("parameters", ("embedding", "readout", "products", "interaction", "all"))
@pytest.mark.parametrize("which", [1, 4], ids=["molecule", "crystal"])
def test_rows_are_slopes_of_the_energy_tangent(
    potential: Potential, parameters: str, which: int
) -> None:
    atoms = sample_structures(potential)[which]
    exact = _force_jacobian(potential, _batch(potential, [atoms]), parameters)[:, 0]

    for atom, axis in ((0, 2), (3, 1)):

        def tangent(shift: float, atom: int = atom, axis: int = axis) -> np.ndarray:
            moved = atoms.copy()
            moved.positions[atom, axis] += shift
            return potential.energy_tangent(_batch(potential, [moved]), parameters=parameters)[
                0
            ].numpy()

        slope = -central_difference(tangent, 1e-3)
        row = exact[3 * atom + axis].numpy()
        np.testing.assert_allclose(row, slope, atol=1e-7 * max(1.0, np.abs(slope).max()))


def test_rows_are_those_of_the_functional_jacobian(potential: Potential) -> None:
    """∂F/∂h by ``torch.autograd.functional``, pulled back by hand to the embedding table."""
    batch = _batch(potential, sample_structures(potential)[:2])
    embedding = potential.node_embedding(batch)

    def forces(h: torch.Tensor) -> torch.Tensor:
        positions = batch.positions.clone().requires_grad_()
        energies = potential.energies(batch, positions=positions, embedding=h)
        return -torch.autograd.grad(energies.sum(), positions, create_graph=True)[0]

    whole = jacobian(forces, embedding)  # (N, 3, N, C)
    wanted = torch.stack(
        [potential.embedding_pullback(batch, each) for each in whole.reshape(-1, *embedding.shape)]
    )
    got = _force_jacobian(potential, batch, "embedding")
    torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-12)


def test_a_row_of_one_structure_is_zero_in_the_others(potential: Potential) -> None:
    batch = _batch(potential, sample_structures(potential)[:3])
    directions = torch.zeros_like(batch.positions)
    directions[: batch.atom_counts[0]] = 1.0
    directions[0] = -2.0
    rows = potential.linearise(batch).force_rows(directions)
    assert rows[0].abs().max() > 1e-6
    assert not rows[1:].any()


def test_projected_rows_are_projections_of_rows(potential: Potential) -> None:
    batch = _batch(potential, sample_structures(potential))
    sketch = CountSketch(potential.tangent_size("readout"), 5, seed=3)
    directions = torch.randn(batch.n_atoms, 3, dtype=potential.dtype)
    plain = potential.linearise(batch, parameters="readout")
    short = potential.linearise(batch, parameters="readout", project=sketch)
    torch.testing.assert_close(short.force_rows(directions), sketch(plain.force_rows(directions)))
    torch.testing.assert_close(short.energy_rows(), sketch(plain.energy_rows()))


def test_nothing_is_left_behind(potential: Potential) -> None:
    batch = _batch(potential, sample_structures(potential))
    weights = potential.block_weights("all")
    potential.linearise(batch, parameters="all").force_rows(torch.ones_like(batch.positions))
    assert not any(weight.requires_grad or weight.grad is not None for weight in weights)
    assert not batch.positions.requires_grad


def test_wrong_arguments_raise(potential: Potential) -> None:
    batch = _batch(potential, sample_structures(potential)[:1])
    with pytest.raises(ArgumentError, match="parameters is 'weights'"):
        potential.linearise(batch, parameters="weights")
    with pytest.raises(ArgumentError, match="one vector an atom"):
        potential.linearise(batch).force_rows(torch.zeros(1, 3, dtype=potential.dtype))
