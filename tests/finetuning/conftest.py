"""Small labelled sets, labelled by a second random model or by numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule

from labelwise.finetuning.labelled import LabelledSet, prepare_labelled
from labelwise.finetuning.loss import Targets, collate_targets
from labelwise.finetuning.trainable import require_trainable
from labelwise.potentials import Potential
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.potential import MacePotential
from tests.potentials.models import make_mace

NAMES = ("H2O", "CH4", "CH3OH", "C2H4", "CO2", "CH3CHO")


def make_potential_of(**settings: Any) -> Potential:
    return make_potential(make_mace(**settings), name="small")


def make_trainable(**settings: Any) -> MacePotential:
    """Return a small model without reference energies, its last head in use, to be trained."""
    heads = settings.get("heads", ("Default",))
    potential = make_potential(make_mace(**settings), name="small", head=heads[-1])
    view = require_trainable(potential).copy().without_references()
    assert isinstance(view, MacePotential)
    view.model.requires_grad_(True)
    return view


def label_targets(potential: Potential, structures: Sequence[Atoms]) -> tuple[LabelledSet, Targets]:
    """Return labels as they are aimed at, with reference energies of zero."""
    labelled = prepare_labelled(potential.graph_builder, structures, role="training")
    targets = collate_targets(
        labelled,
        np.zeros(len(structures)),
        range(len(structures)),
        dtype=potential.dtype,
        device=potential.device,
    )
    return labelled, targets


def rattle(names: tuple[str, ...], n: int, seed: int) -> list[Atoms]:
    rng = np.random.default_rng(seed)
    structures = []
    for i in range(n):
        atoms = molecule(names[i % len(names)])
        atoms.positions += rng.normal(scale=0.08, size=atoms.positions.shape)
        structures.append(atoms)
    return structures


def label(structures: list[Atoms], teacher: Potential, *, offsets: dict[int, float]) -> list[Atoms]:
    """Label with a teacher; ``offsets`` shift its energies by composition."""
    batch = teacher.collate([teacher.prepare(atoms) for atoms in structures])
    predicted = teacher.predict(batch)
    assert predicted.forces is not None
    start = 0
    for atoms, energy in zip(structures, predicted.energies.tolist(), strict=True):
        stop = start + len(atoms)
        shift = sum(offsets.get(int(z), 0.0) for z in atoms.numbers)
        atoms.info["REF_energy"] = energy + shift
        atoms.arrays["REF_forces"] = predicted.forces[start:stop].numpy().astype(float)
        start = stop
    return structures


OFFSETS = {1: -3.0, 6: -50.0, 8: -90.0}


@pytest.fixture(scope="session")
def student() -> Potential:
    return make_potential_of(seed=0)


@pytest.fixture(scope="session")
def teacher() -> Potential:
    return make_potential_of(seed=1)


@pytest.fixture
def train(teacher: Potential) -> list[Atoms]:
    return label(rattle(NAMES, 12, seed=0), teacher, offsets=OFFSETS)


@pytest.fixture
def valid(teacher: Potential) -> list[Atoms]:
    return label(rattle(NAMES, 6, seed=1), teacher, offsets=OFFSETS)
