"""Slabs and crystals: where in its images an atom is written down must not matter.

All cells are smaller than twice the cutoff, so that most neighbours lie across a border and some
atoms see images of themselves; atoms are fixed and tagged, which no model looks at.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111
from ase.constraints import FixAtoms

from labelwise.features.representations import RepresentationOptions, make_representation, represent
from labelwise.features.representations.reductions import REDUCTIONS
from labelwise.finetuning.evaluation import predict_graphs
from labelwise.potentials import Potential
from labelwise.potentials.mace.loading import make_potential
from tests.models import build_mace

#: Name, options, and whether rows are of the total energy: for a supercell of n cells n times
#: those of the cell. All others are means, and the same.
REPRESENTATIONS: dict[str, tuple[str, dict[str, Any], bool]] = {
    "activation": ("activation", {}, False),
    "activation-random": ("activation-random", {}, False),
    "ntk-e": ("ntk-e", {}, True),
    "ntk-e-sketched": ("ntk-e", {"parameters": "products", "sketch_dim": 16}, True),
    "ntk-random": ("ntk-random", {}, True),
    **{
        f"ntk-f-{reduction}": ("ntk-f", {"reduction": reduction, "n_probes": None}, False)
        for reduction in REDUCTIONS
    },
    "ntk-f-sketched": ("ntk-f", {"reduction": "fields", "sketch_dim": 24}, False),
    "soap": ("soap", {}, False),
}
CELLS = ("slab", "crystal", "triclinic", "wire")
#: An untrained network is built anew for every row, which takes 0.6 s.
PAIRS = [
    pytest.param(name, cell, marks=pytest.mark.thorough)
    if name.endswith("-random") and cell != "slab"
    else (name, cell)
    for name in REPRESENTATIONS
    for cell in CELLS
]


@cache
def potential() -> Potential:
    model = build_mace(channels=4, elements=(8, 29, 47), cutoff=4.0, dtype=torch.float64)
    return make_potential(model, name="metals")


@cache
def cells() -> dict[str, Atoms]:
    """Return a slab with an adsorbate, a cubic and a triclinic crystal, and a wire."""
    rng = np.random.default_rng(0)
    slab = fcc111("Cu", (2, 2, 2), vacuum=6.0)
    add_adsorbate(slab, "O", 1.4, "fcc")
    crystal = bulk("Cu", cubic=True)
    crystal.symbols[0] = "Ag"
    triclinic = bulk("Ag", a=4.1).repeat((2, 1, 1))
    triclinic.symbols[1] = "Cu"
    strain = np.array([[1.0, 0.2, 0.1], [0.0, 0.95, -0.15], [0.0, 0.0, 1.05]])
    triclinic.set_cell(triclinic.cell.array @ strain, scale_atoms=True)
    wire = Atoms("CuOAg", positions=[[0, 0, 0], [1.9, 0.3, 0], [3.5, 0, 0.5]], cell=[5.0, 0, 0])
    wire.pbc = (True, False, False)
    found = dict(zip(CELLS, (slab, crystal, triclinic, wire), strict=True))
    for atoms in found.values():
        atoms.positions += rng.normal(scale=0.06, size=atoms.positions.shape)
        atoms.set_constraint(FixAtoms(np.arange(0, len(atoms), 2)))
        atoms.set_tags(np.arange(len(atoms)))
    assert slab.pbc.tolist() == [True, True, False]
    return found


def in_other_images(atoms: Atoms) -> Atoms:
    """Move every atom by a lattice vector of its own, along the periodic directions."""
    steps = np.random.default_rng(1).integers(-3, 4, size=(len(atoms), 3)) * atoms.pbc
    moved = atoms.copy()
    moved.positions += steps @ atoms.cell.array
    assert steps.any()
    return moved


def wrapped_at(atoms: Atoms) -> Atoms:
    """Shift the structure and wrap it into its cell again."""
    moved = atoms.copy()
    moved.positions += (1.3, -2.7, 0.9)
    moved.wrap(eps=0.0)
    return moved


def without_constraints(atoms: Atoms) -> Atoms:
    free = atoms.copy()
    free.set_constraint()
    free.set_tags(None)
    return free


CHANGES = {
    "other images": in_other_images,
    "shifted and wrapped": wrapped_at,
    "no fixed atoms, no tags": without_constraints,
}


@cache
def rows_of(name: str, cell: str, change: str | None, repeats: tuple[int, int, int]) -> np.ndarray:
    atoms = cells()[cell]
    atoms = atoms if change is None else CHANGES[change](atoms)
    kind, options, _ = REPRESENTATIONS[name]
    representation = make_representation(kind, RepresentationOptions(**options))
    structures = [atoms.repeat(repeats)]
    return represent(structures, None if kind == "soap" else potential(), representation)[0]


def assert_equal_rows(got: np.ndarray, wanted: np.ndarray) -> None:
    assert np.abs(wanted).max() > 0
    np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-4 * np.abs(wanted).max())


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(("name", "cell"), PAIRS)
def test_rows_do_not_depend_on_the_image_of_an_atom(name: str, change: str, cell: str) -> None:
    once = (1, 1, 1)
    assert_equal_rows(rows_of(name, cell, change, once), rows_of(name, cell, None, once))


@pytest.mark.parametrize(("name", "cell"), PAIRS)
def test_rows_of_supercells(name: str, cell: str) -> None:
    repeats = (2, 1, 1) if cell == "wire" else (2, 2, 1)
    n_cells = float(np.prod(repeats)) if REPRESENTATIONS[name][2] else 1.0
    wanted = n_cells * rows_of(name, cell, None, (1, 1, 1))
    assert_equal_rows(rows_of(name, cell, None, repeats), wanted)


def test_joint_rows_of_supercells() -> None:
    """The energy's block grows with the cell, the block of the forces does not."""
    representation = make_representation("ntk-ef", RepresentationOptions())
    size = representation.blocks(potential())[0].size
    cell = cells()["triclinic"]
    one, four = represent([cell, cell.repeat((2, 2, 1))], potential(), representation)
    assert_equal_rows(four[:size], 4.0 * one[:size])
    assert_equal_rows(four[size:], one[size:])


def test_rows_see_the_borders() -> None:
    """The same atoms without their images are another structure."""
    for name in REPRESENTATIONS:
        atoms = cells()["triclinic"].copy()
        atoms.pbc = False
        kind, options, _ = REPRESENTATIONS[name]
        representation = make_representation(kind, RepresentationOptions(**options))
        row = represent([atoms], None if kind == "soap" else potential(), representation)[0]
        own = rows_of(name, "triclinic", None, (1, 1, 1))
        assert np.abs(row - own).max() > 0.01 * np.abs(own).max(), name


@pytest.mark.parametrize("cell", CELLS)
def test_predictions_of_periodic_structures(cell: str) -> None:
    atoms = cells()[cell]
    repeats = (2, 1, 1) if cell == "wire" else (2, 2, 1)
    copies = [atoms, *(change(atoms) for change in CHANGES.values()), atoms.repeat(repeats)]
    energies, forces = predict_graphs(potential(), [potential().prepare(each) for each in copies])
    np.testing.assert_allclose(energies[1:-1], energies[0], atol=1e-8)
    assert energies[-1] == pytest.approx(np.prod(repeats) * energies[0], abs=1e-7)
    for each in forces[1:-1]:
        np.testing.assert_allclose(each, forces[0], atol=1e-8)
    np.testing.assert_allclose(forces[-1], np.tile(forces[0], (np.prod(repeats), 1)), atol=1e-8)
    assert (np.abs(forces[0]).max(axis=1) > 1e-6).all()  # of fixed atoms, too
