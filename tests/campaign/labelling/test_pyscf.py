from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pytest
from ase.build import molecule
from ase.units import Hartree

from labelwise.campaign.labelling import (
    CalculatorLabeller,
    CalculatorSettings,
    Failure,
    Label,
    Task,
)
from labelwise.structures import Source

pytest.importorskip("pyscf", reason="PySCF is not installed")

NAME = "pyscf"


def label(tmp_path: Path, **arguments) -> Label | Failure:
    arguments = {"xc": "hf", "basis": "sto-3g", **arguments}
    settings = CalculatorSettings(calculator=NAME, arguments=arguments, n_retries=0)
    labeller = CalculatorLabeller(settings, tmp_path)
    task = Task("water", molecule("H2O"), Source("pool", 0))
    (outcome,) = labeller.label(deque([task]))
    return outcome


def test_hartree_fock_of_water(tmp_path: Path) -> None:
    found = label(tmp_path)
    assert isinstance(found, Label)
    assert found.energy / Hartree == pytest.approx(-74.96, abs=0.01)  # the textbooks' value
    assert np.abs(found.forces.sum(axis=0)).max() < 1e-5


def test_forces_are_the_slope_of_the_energy() -> None:
    from labelwise.campaign.labelling.pyscf import PySCF

    atoms = molecule("H2O")
    atoms.calc = PySCF(xc="pbe", basis="sto-3g", grid_level=4)
    force = atoms.get_forces()[1, 1]
    energies = []
    for step in (-1e-3, 1e-3):
        moved = atoms.copy()
        moved.positions[1, 1] += step
        moved.calc = PySCF(xc="pbe", basis="sto-3g", grid_level=4)
        energies.append(moved.get_potential_energy())
    assert force == pytest.approx((energies[0] - energies[1]) / 2e-3, abs=5e-3)


def test_no_convergence_is_a_failure_with_its_reason(tmp_path: Path) -> None:
    found = label(tmp_path, max_cycle=1)
    assert isinstance(found, Failure)
    assert found.reason == "not-converged"


def test_open_shells(tmp_path: Path) -> None:
    found = label(tmp_path, charge=1, n_unpaired=1)
    assert isinstance(found, Label)
    closed = label(tmp_path)
    assert isinstance(closed, Label)
    assert 5.0 < found.energy - closed.energy < 20.0  # an ionisation energy
