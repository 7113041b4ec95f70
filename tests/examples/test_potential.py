"""The shipped potential of the example: it takes every structure, and has something to learn."""

from __future__ import annotations

from pathlib import Path

import pytest
from ase.data import atomic_numbers

import labelwise
from examples.slabs import write_slab_example
from labelwise import load_potential
from labelwise.finetuning.evaluation import Evaluation, evaluate
from labelwise.potentials import Potential
from labelwise.structures import iter_frames

ASSET = Path(labelwise.__file__).parent / "potentials" / "mace" / "models" / "slab_potential.pt"
SYMBOLS = ("H", "C", "N", "O", "Al", "Ni", "Cu", "Pd", "Ag", "Pt", "Au")


@pytest.fixture(scope="module")
def potential() -> Potential:
    return load_potential(str(ASSET), device="cpu")


@pytest.fixture(scope="module")
def evaluation(potential: Potential, tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    folder = tmp_path_factory.mktemp("slabs")
    write_slab_example(folder, n_pool=60)
    test = [frame.atoms for frame in iter_frames([str(folder / "test.extxyz")])]
    return evaluate(potential, test)


def test_elements_and_size(potential: Potential) -> None:
    assert set(potential.elements) == {atomic_numbers[symbol] for symbol in SYMBOLS}
    assert ASSET.stat().st_size < 1.5e6


def test_errors_are_those_of_the_card(evaluation: Evaluation) -> None:
    """All test splits together: 42 meV/atom and 361 meV/Å."""
    assert 20.0 < evaluation.errors.energy_rmse_per_atom < 80.0
    assert 150.0 < evaluation.errors.forces_rmse < 700.0
