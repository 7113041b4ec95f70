"""Passes are counted where they happen, and nowhere else."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from ase import Atoms

from labelwise.features.representations import (
    RepresentationOptions,
    iter_features,
    make_representation,
)
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.passes import count_passes, note_backward, note_forward


@pytest.fixture(scope="module")
def model(model_path: Path) -> Potential:
    return load_potential(model_path, trust=True)


def count(model: Potential, structures: list[Atoms], name: str, **options: object) -> tuple:
    with count_passes() as passes:
        chosen = RepresentationOptions(**options)  # type: ignore[arg-type]
        representation = make_representation(name, chosen)
        list(iter_features(structures, model, representation, batch_atoms=20))
    n = len(structures)
    return passes.n_forward / n, passes.n_backward / n


def test_activation_is_one_forward_pass(model: Potential, rattled_molecules: list[Atoms]) -> None:
    assert count(model, rattled_molecules[:6], "activation") == (1, 0)


@pytest.mark.parametrize("parameters", ["embedding", "readout"])
def test_energy_tangent_is_one_of_each(
    model: Potential, rattled_molecules: list[Atoms], parameters: str
) -> None:
    found = count(model, rattled_molecules[:6], "ntk-e", parameters=parameters)
    assert found == (1, 1)


@pytest.mark.parametrize("n_probes", [1, 5])
def test_force_tangents_take_a_backward_pass_a_probe(
    model: Potential, rattled_molecules: list[Atoms], n_probes: int
) -> None:
    """One for the forces, k for the probes, and for the joint rows one for the energy."""
    some = rattled_molecules[:6]
    found = count(model, some, "ntk-f", reduction="rms", n_probes=n_probes)
    assert found == (1, 1 + n_probes)
    joint = count(model, some, "ntk-ef", reduction="rms", n_probes=n_probes)
    assert joint == (1, 2 + n_probes)


def test_joint_rows(model: Potential, rattled_molecules: list[Atoms]) -> None:
    options = RepresentationOptions(n_probes=3)
    with count_passes() as passes:
        list(iter_row_sets(rattled_molecules[:4], model, options))
    assert (passes.n_forward, passes.n_backward) == (4, 20)


def test_exact_rows_take_three_passes_an_atom(model: Potential, water: Atoms) -> None:
    with count_passes() as passes:
        list(iter_row_sets([water], model, RepresentationOptions(n_probes=None)))
    assert (passes.n_forward, passes.n_backward) == (1, 1 + 1 + 9)


@pytest.mark.parametrize(("forces", "n_backward"), [(True, 3), (False, 0)])
def test_prediction(model: Potential, water: Atoms, forces: bool, n_backward: int) -> None:
    batch = model.collate([model.prepare(water)] * 3)
    with count_passes() as passes:
        model.predict(batch, forces=forces)
    assert (passes.n_forward, passes.n_backward) == (3, n_backward)


def test_what_is_not_differentiated_is_not_counted(model: Potential) -> None:
    """The forces of a lone atom are zero without a backward pass through a model."""
    batch = model.collate([model.prepare(Atoms("H"))])
    with count_passes() as passes:
        linear = model.linearise(batch)
    assert passes.n_forward == 1
    assert passes.n_backward <= 1
    assert linear.forces.abs().max() == 0


def test_representations_without_a_model_take_none(rattled_molecules: list[Atoms]) -> None:
    with count_passes() as passes:
        list(iter_features(rattled_molecules, None, "random"))
    assert (passes.n_forward, passes.n_backward) == (0, 0)


def test_blocks_nest_and_end() -> None:
    with count_passes() as outer:
        note_forward(1)
        with count_passes() as inner:
            note_forward(2)
            note_backward(3)
        note_backward(4)
    note_forward(5)
    assert (outer.n_forward, outer.n_backward) == (3, 7)
    assert (inner.n_forward, inner.n_backward) == (2, 3)


def test_an_error_ends_the_block() -> None:
    with pytest.raises(RuntimeError), count_passes() as passes:
        raise RuntimeError
    note_forward(1)
    assert passes.n_forward == 0


def test_other_threads_are_not_counted() -> None:
    with count_passes() as passes:
        thread = threading.Thread(target=note_forward, args=(7,))
        thread.start()
        thread.join()
    assert passes.n_forward == 0
