"""Structures that are too large, by number and by memory."""

from __future__ import annotations

import pickle
from functools import partial

import pytest
from ase import Atoms
from ase.build import bulk, molecule
from torch import Tensor

from labelwise.potentials import Batch, Potential, load_potential
from labelwise.potentials.size_limit import ORDINARY_ATOMS, SizeLimit
from labelwise.runtime.memory import available_bytes, resident_bytes


def crystal(repeat: int) -> Atoms:
    return bulk("C", "diamond", a=3.57, cubic=True).repeat(repeat)


@pytest.fixture(scope="module")
def potential() -> Potential:
    return load_potential("demo")


def tangent(potential: Potential, batch: Batch) -> Tensor:
    return potential.energy_tangent(batch)


def test_numbers_of_atoms() -> None:
    limit = SizeLimit(None, None, max_atoms=3)
    assert limit.find(molecule("H2O")) is None
    assert limit.find(molecule("NH3")) == "4 atoms, more than the 3 allowed"
    assert limit.estimate(crystal(5)) is None


def test_a_structure_is_held_against_the_memory_of_the_process(potential: Potential) -> None:
    compute = partial(tangent, potential)
    large = crystal(6)
    needed = SizeLimit(potential, compute).estimate(large)
    assert needed is not None
    assert 5e8 < needed < 4e9
    generous = SizeLimit(potential, compute, memory_bytes=resident_bytes() + 2 * needed)
    assert (generous.find(large) is None) == (needed < available_bytes())
    found = SizeLimit(potential, compute, memory_bytes=resident_bytes() + needed // 2).find(large)
    assert found is not None
    assert found.startswith("1,728 atoms need about ")


def test_ordinary_structures_cost_nothing(potential: Potential) -> None:
    def never(_: Batch) -> Tensor:
        raise AssertionError("the model was run")

    limit = SizeLimit(potential, never, memory_bytes=1)
    assert limit.find(crystal(3)) is None
    assert len(crystal(4)) == ORDINARY_ATOMS
    assert limit.find(crystal(4)) is None


def test_another_process_needs_no_model(potential: Potential) -> None:
    limit = SizeLimit(potential, partial(tangent, potential), memory_bytes=1)
    content = pickle.dumps(limit)
    assert len(content) < 2000
    assert pickle.loads(content).find(crystal(5)) is not None
