"""Labels minus predictions, with and without the model's own reference energies."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import LabelError
from labelwise.finetuning.evaluation import evaluate
from labelwise.potentials import Batch, Potential, Prediction
from labelwise.studies.diagnostics.pretrained_residuals import compute_residuals, read_energies


class Foreign(Potential):
    """Another family, whose reference energies nobody can take out: a model behind a wall."""

    def __init__(self, inner: Potential) -> None:
        self._inner = inner
        self.elements, self.device = inner.elements, inner.device
        self.dtype, self.graph_builder = inner.dtype, inner.graph_builder

    def predict(self, batch: Batch, *, forces: bool = True) -> Prediction:
        return self._inner.predict(batch, forces=forces)


Foreign.__abstractmethods__ = frozenset()  # type: ignore[attr-defined]


@pytest.fixture
def labelled(rattled_molecules: list[Atoms], rng: np.random.Generator) -> list[Atoms]:
    """Energies of a few hundred eV, and forces that are not looked at."""
    for atoms in rattled_molecules:
        atoms.info["REF_energy"] = float(-50.0 * len(atoms) + rng.normal())
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
    return rattled_molecules


@pytest.mark.parametrize("is_foreign", [False, True])
def test_residuals_are_labels_minus_predictions(
    potential: Potential, labelled: list[Atoms], is_foreign: bool
) -> None:
    energies = read_energies(labelled, role="pool")
    source = Foreign(potential) if is_foreign else potential  # type: ignore[abstract]
    residuals = compute_residuals(source, labelled, energies)
    idx = np.array([4, 0, 29])
    expected = (energies - evaluate(potential, labelled).energies)[idx]
    found = residuals.at(idx, residuals.checkpoint)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert residuals.checkpoint.any() != is_foreign
    formula = labelled[4].get_chemical_symbols()
    assert residuals.counts[4].tolist() == [formula.count(symbol) for symbol in "HCNO"]


def test_references_are_a_least_squares_fit_to_the_structures_given(
    potential: Potential, labelled: list[Atoms]
) -> None:
    energies = read_energies(labelled, role="pool")
    residuals = compute_residuals(potential, labelled, energies)
    idx = np.arange(2, 25)
    per_atom = residuals.counts[idx] / residuals.counts[idx].sum(axis=1, keepdims=True)
    targets = residuals.unreferenced[idx] / residuals.counts[idx].sum(axis=1)
    expected, *_ = np.linalg.lstsq(per_atom, targets, rcond=None)
    np.testing.assert_allclose(residuals.fit_references(idx), expected, rtol=1e-4)
    assert residuals.reached(idx, np.arange(30)).all()
    methane, water = np.array([1, 7]), np.array([0])
    assert labelled[1].get_chemical_formula() == "CH4"
    assert not residuals.reached(methane, water).any() and residuals.reached(methane, methane).all()


def test_forces_are_not_needed(labelled: list[Atoms]) -> None:
    del labelled[3].arrays["REF_forces"]
    assert len(read_energies(labelled, role="pool")) == 30
    labelled[3].info["REF_energy"] = [1.0, 2.0]
    with pytest.raises(LabelError, match=r"pool structure 3 .*has 2 values, not one"):
        read_energies(labelled, role="pool")
