"""Structures of the embedded pool, and its potential."""

from __future__ import annotations

import io

import pytest
from ase import Atoms
from ase.io import read

from labelwise.potentials import Potential, load_potential
from labelwise.structures.demo_data import demo_file_content


def _read(name: str, frames: str) -> list[Atoms]:
    return list(read(io.StringIO(demo_file_content(name).decode()), frames, format="extxyz"))


@pytest.fixture(scope="session")
def demo_pool() -> list[Atoms]:
    """Twenty-five structures from all over the pool."""
    structures = _read("pool.extxyz", ":")
    return structures[:: len(structures) // 25][:25]


@pytest.fixture(scope="session")
def demo_test() -> list[Atoms]:
    structures = _read("test.extxyz", ":")
    return structures[:: len(structures) // 6][:6]


@pytest.fixture(scope="session")
def demo_potential() -> Potential:
    return load_potential("demo", device="cpu")
