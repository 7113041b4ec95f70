"""Two potentials that must agree in everything that is derived from their energies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms


def assert_same_derivatives(
    one: Any, other: Any, structures: Sequence[Atoms], blocks: Sequence[str]
) -> None:
    """Compare energies, forces, and first and mixed second derivatives by blocks of weights."""
    batch = other.collate([other.prepare(atoms) for atoms in structures])
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(batch.n_atoms, 3, generator=generator, dtype=torch.float64)
    for parameters in blocks:
        ours, theirs = (p.linearise(batch, parameters=parameters) for p in (one, other))
        for got, wanted in (
            (ours.energies, theirs.energies),
            (ours.forces, theirs.forces),
            (ours.energy_rows(), theirs.energy_rows()),
            (ours.force_rows(directions), theirs.force_rows(directions)),
        ):
            scale = float(wanted.abs().max().clamp(min=1.0))
            torch.testing.assert_close(got, wanted, rtol=1e-10, atol=1e-10 * scale)
