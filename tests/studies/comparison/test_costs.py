"""Costs as they are counted and measured."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from labelwise.campaign.config import SelectionSection
from labelwise.errors import ArgumentError
from labelwise.potentials import Potential
from labelwise.studies.comparison.costs import measure_costs

MIB = 2.0**20


def pv(representation: str, **options: Any) -> SelectionSection:
    return SelectionSection(rule="pv", representation=representation, **options)


@pytest.fixture
def sample(rattled_molecules: list[Atoms]) -> list[Atoms]:
    return rattled_molecules[:8]


def test_activation(potential: Potential, sample: list[Atoms]) -> None:
    cost = measure_costs("activation-pv", pv("activation"), sample, potential, n_pool=1000)
    assert (cost.method, cost.n_models) == ("activation-pv", 1)
    assert (cost.n_forward, cost.n_backward) == (1.0, 0.0)
    assert cost.dim == potential.activation_size
    assert cost.feature_mib == pytest.approx(1000 * cost.dim * 4 / MIB)
    assert 0 < cost.seconds_per_structure < 1


def test_energy_tangent(potential: Potential, sample: list[Atoms]) -> None:
    cost = measure_costs("ntk-pv", pv("ntk-e"), sample, potential, n_pool=8)
    assert (cost.n_forward, cost.n_backward) == (1.0, 1.0)
    assert cost.dim == potential.tangent_size()


def test_options_reach_the_representation(potential: Potential, sample: list[Atoms]) -> None:
    selection = pv("ntk-f", reduction="rms", n_probes=4)
    cost = measure_costs("ntk-f-pv", selection, sample, potential, n_pool=8)
    assert (cost.n_forward, cost.n_backward) == (1.0, 5.0)


def test_joint_rows_take_the_memory_of_all_rows(potential: Potential, sample: list[Atoms]) -> None:
    selection = SelectionSection(rule="joint-pv", n_probes=4)
    cost = measure_costs("joint-pv", selection, sample, potential, n_pool=100)
    assert (cost.n_forward, cost.n_backward) == (1.0, 6.0)
    assert cost.dim == potential.tangent_size()
    assert cost.feature_mib == pytest.approx(100 * 5 * cost.dim * 4 / MIB)


def test_committee_predicts_energies_and_forces(potential: Potential, sample: list[Atoms]) -> None:
    """Forces come from backward passes: P1's table counts none for committees."""
    selection = SelectionSection(rule="committee-e", members=3)
    cost = measure_costs("committee-e", selection, sample, potential, n_pool=100)
    assert (cost.n_forward, cost.n_backward, cost.n_models) == (3.0, 3.0, 3)
    assert (cost.dim, cost.feature_mib) == (0, 0.0)


def test_random_choice_costs_nothing(sample: list[Atoms]) -> None:
    cost = measure_costs("random", SelectionSection(rule="random"), sample, n_pool=100)
    assert (cost.n_forward, cost.n_backward, cost.n_models) == (0.0, 0.0, 1)
    assert (cost.dim, cost.seconds_per_structure, cost.feature_mib) == (0, 0.0, 0.0)


def test_representation_without_a_model(sample: list[Atoms]) -> None:
    cost = measure_costs("r", pv("random"), sample, n_pool=100)
    assert (cost.n_forward, cost.n_backward, cost.n_models) == (0.0, 0.0, 1)
    assert cost.dim > 0


def test_bits_are_held_packed(sample: list[Atoms]) -> None:
    pytest.importorskip("rdkit")
    cost = measure_costs("tanimoto-pv", pv("morgan"), sample, n_pool=8000)
    assert (cost.n_forward, cost.n_backward) == (0.0, 0.0)
    assert cost.dim == 2048
    assert 8000 * 2048 / 8 <= cost.feature_mib * MIB < 8000 * 2048 / 4


def test_structures_are_left_as_they_were(potential: Potential, sample: list[Atoms]) -> None:
    before = [atoms.positions.copy() for atoms in sample]
    measure_costs("a", pv("activation"), sample, potential, n_pool=8)
    assert all(np.array_equal(a, atoms.positions) for a, atoms in zip(before, sample, strict=True))


@pytest.mark.parametrize("rule", ["joint-pv", "pv", "committee-e"])
def test_a_model_is_needed(sample: list[Atoms], rule: str) -> None:
    with pytest.raises(ArgumentError, match="potential"):
        measure_costs("m", SelectionSection(rule=rule), sample, n_pool=8)
