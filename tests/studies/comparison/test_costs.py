"""Costs as they are counted and measured."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.features.representations import RepresentationOptions
from labelwise.potentials import Potential
from labelwise.studies.comparison.costs import JOINT_ROWS, measure_costs

MIB = 2.0**20


@pytest.fixture
def sample(rattled_molecules: list[Atoms]) -> list[Atoms]:
    return rattled_molecules[:8]


def test_activation(potential: Potential, sample: list[Atoms]) -> None:
    cost = measure_costs(
        "activation-pv", sample, [potential], representation="activation", n_pool=1000
    )
    assert (cost.method, cost.n_models) == ("activation-pv", 1)
    assert (cost.n_forward, cost.n_backward) == (1.0, 0.0)
    assert cost.dim == potential.activation_size
    assert cost.feature_mib == pytest.approx(1000 * cost.dim * 4 / MIB)
    assert 0 < cost.seconds_per_structure < 1


def test_energy_tangent(potential: Potential, sample: list[Atoms]) -> None:
    cost = measure_costs("ntk-pv", sample, [potential], representation="ntk-e", n_pool=8)
    assert (cost.n_forward, cost.n_backward) == (1.0, 1.0)
    assert cost.dim == potential.tangent_size()


def test_options_reach_the_representation(potential: Potential, sample: list[Atoms]) -> None:
    options = RepresentationOptions(reduction="rms", n_probes=4)
    cost = measure_costs(
        "ntk-f-pv", sample, [potential], representation="ntk-f", options=options, n_pool=8
    )
    assert (cost.n_forward, cost.n_backward) == (1.0, 5.0)


def test_joint_rows_take_the_memory_of_all_rows(potential: Potential, sample: list[Atoms]) -> None:
    options = RepresentationOptions(n_probes=4)
    cost = measure_costs(
        "joint-pv", sample, [potential], representation=JOINT_ROWS, options=options, n_pool=100
    )
    assert (cost.n_forward, cost.n_backward) == (1.0, 6.0)
    assert cost.dim == potential.tangent_size()
    assert cost.feature_mib == pytest.approx(100 * 5 * cost.dim * 4 / MIB)


def test_committee_predicts_energies_and_forces(potential: Potential, sample: list[Atoms]) -> None:
    """Forces come from backward passes: P1's table counts none for committees."""
    cost = measure_costs("committee-e", sample, [potential] * 3, n_pool=100)
    assert (cost.n_forward, cost.n_backward, cost.n_models) == (3.0, 3.0, 3)
    assert (cost.dim, cost.feature_mib) == (0, 0.0)


def test_random_choice_costs_nothing(sample: list[Atoms]) -> None:
    cost = measure_costs("random", sample, n_pool=100)
    assert (cost.n_forward, cost.n_backward, cost.n_models) == (0.0, 0.0, 1)
    assert (cost.dim, cost.seconds_per_structure, cost.feature_mib) == (0, 0.0, 0.0)


def test_representation_without_a_model(sample: list[Atoms]) -> None:
    cost = measure_costs("r", sample, representation="random", n_pool=100)
    assert (cost.n_forward, cost.n_backward, cost.n_models) == (0.0, 0.0, 1)
    assert cost.dim > 0


def test_bits_are_held_packed(sample: list[Atoms]) -> None:
    pytest.importorskip("rdkit")
    cost = measure_costs("tanimoto-pv", sample, representation="morgan", n_pool=8000)
    assert (cost.n_forward, cost.n_backward) == (0.0, 0.0)
    assert cost.dim == 2048
    assert 8000 * 2048 / 8 <= cost.feature_mib * MIB < 8000 * 2048 / 4


def test_structures_are_left_as_they_were(potential: Potential, sample: list[Atoms]) -> None:
    before = [atoms.positions.copy() for atoms in sample]
    measure_costs("a", sample, [potential], representation="activation", n_pool=8)
    assert all(np.array_equal(a, atoms.positions) for a, atoms in zip(before, sample, strict=True))


@pytest.mark.parametrize(
    ("n_potentials", "representation"), [(1, None), (2, "ntk-e"), (0, JOINT_ROWS), (0, "ntk-e")]
)
def test_wrong_combinations(
    potential: Potential, sample: list[Atoms], n_potentials: int, representation: str | None
) -> None:
    with pytest.raises(ArgumentError, match=r"potential"):
        measure_costs(
            "m", sample, [potential] * n_potentials, representation=representation, n_pool=8
        )


def test_no_structures(potential: Potential) -> None:
    with pytest.raises(ArgumentError, match="at least one"):
        measure_costs("m", [], [potential], representation="activation", n_pool=8)
