from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.errors import ArgumentError, WriteError
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential, load_potential


@pytest.fixture
def fitted(student: Potential, train: list[Atoms]) -> Potential:
    return finetune(student, train, [], Recipe(max_updates=3, batch_size=4), seed=0).potential


@pytest.mark.parametrize("name", ["fitted.pt", "fitted.model"])
def test_a_potential_comes_back_equal(
    fitted: Potential, valid: list[Atoms], tmp_path: Path, name: str
) -> None:
    save_potential(fitted, tmp_path / name)
    again = load_potential(tmp_path / name, trust=name.endswith(".model"))
    assert again.content_hash == fitted.content_hash
    ours, theirs = evaluate(fitted, valid), evaluate(again, valid)
    np.testing.assert_array_equal(ours.energies, theirs.energies)
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_checkpoints_hold_no_code(fitted: Potential, tmp_path: Path) -> None:
    save_potential(fitted, tmp_path / "fitted.pt")
    assert torch.load(tmp_path / "fitted.pt", weights_only=True)["format_version"] == 1


def test_mace_torchs_calculator_takes_the_model(
    fitted: Potential, valid: list[Atoms], tmp_path: Path
) -> None:
    from mace.calculators import MACECalculator

    save_potential(fitted, tmp_path / "fitted.model")
    expected = evaluate(fitted, valid)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calculator = MACECalculator(
            model_paths=str(tmp_path / "fitted.model"), device="cpu", default_dtype="float64"
        )
        for atoms, energy, forces in zip(valid, expected.energies, expected.forces, strict=True):
            other = atoms.copy()
            other.calc = calculator
            assert other.get_potential_energy() == pytest.approx(energy, abs=1e-8)
            np.testing.assert_allclose(other.get_forces(), forces, atol=1e-8)


def test_wrong_names_and_places_are_refused(fitted: Potential, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"can be written to names ending in .model or .pt"):
        save_potential(fitted, tmp_path / "fitted.pth")
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="cannot write"):
        save_potential(fitted, tmp_path / "file" / "fitted.pt")
