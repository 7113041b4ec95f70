"""Trajectories: labels are those of the structures, and fixed atoms stay."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from examples.slabs.building import build_system
from examples.slabs.systems import SlabSystem
from examples.slabs.trajectories import (
    LARGEST_FORCE,
    LabelledFrame,
    iter_trajectory,
)


@pytest.fixture(scope="module")
def start() -> Atoms:
    system = SlabSystem("Cu", None, "fcc111", (2, 2, 3), "OH", "bridge")
    return build_system(system, np.random.default_rng(2))


@pytest.fixture(scope="module")
def frames(start: Atoms) -> list[LabelledFrame]:
    before = start.positions.copy()
    found = list(iter_trajectory(start, np.random.default_rng(3)))
    np.testing.assert_array_equal(start.positions, before)
    return found


def test_kinds_come_in_order(frames: list[LabelledFrame]) -> None:
    kinds = [frame.kind for frame in frames]
    assert list(dict.fromkeys(kinds)) == ["relaxation", "rattled", "md"]
    assert kinds == sorted(kinds, key=["relaxation", "rattled", "md"].index)


def test_labels_are_those_of_a_fresh_calculator(start: Atoms, frames: list[LabelledFrame]) -> None:
    for frame in frames:
        atoms = Atoms(start.numbers, frame.positions, cell=start.cell, pbc=True, calculator=EMT())
        assert frame.energy == pytest.approx(atoms.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(frame.forces, atoms.get_forces(), atol=1e-8)
        assert np.linalg.norm(frame.forces, axis=1).max() <= LARGEST_FORCE


def test_fixed_atoms_stay_and_keep_their_forces(start: Atoms, frames: list[LabelledFrame]) -> None:
    fixed = start.constraints[0].index
    for frame in frames:
        np.testing.assert_array_equal(frame.positions[fixed], start.positions[fixed])
    assert np.abs(frames[0].forces[fixed]).max() > 1e-3


def test_a_relaxation_goes_down(start: Atoms, frames: list[LabelledFrame]) -> None:
    relaxed = [frame for frame in frames if frame.kind == "relaxation"]
    assert relaxed[-1].energy < relaxed[0].energy - 0.01
    free = np.setdiff1d(np.arange(len(start)), start.constraints[0].index)
    assert np.abs(relaxed[-1].forces[free]).max() < np.abs(relaxed[0].forces[free]).max() / 3


def test_atoms_on_top_of_each_other_give_no_frames(start: Atoms) -> None:
    crushed = start.copy()
    crushed.positions[-1] = crushed.positions[-2] + [0.0, 0.0, 0.2]
    assert all(
        np.linalg.norm(frame.forces, axis=1).max() <= LARGEST_FORCE
        for frame in iter_trajectory(crushed, np.random.default_rng(0))
    )
