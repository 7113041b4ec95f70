"""A slab with an adsorbate as atoms."""

from __future__ import annotations

import ase.build
import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms
from ase.data import atomic_numbers, covalent_radii

from examples.slabs.systems import Size, SlabSystem

SUBSURFACE, SURFACE, ADSORBATE = 0, 1, 2
#: Empty space above and below the slab, Å; periodic images of a slab are twice as far apart.
VACUUM = 7.0
#: Adsorbates that ASE knows under another name.
_MOLECULES = {"CH2": "CH2_s1A1d"}
#: The atom that points to the surface where it is not the first one.
_ANCHORS = {"HCN": "N", "HCO": "C", "CH3O": "O", "NO": "N", "H2O": "O"}
#: Height over the site in units of the sum of the covalent radii.
_HEIGHTS = {"ontop": 0.95, "terrace": 0.95, "bridge": 0.8, "shortbridge": 0.8, "longbridge": 0.7}
_HOLLOW_HEIGHT = 0.65
_HEIGHT_SPREAD, _SHIFT, _TILT = 0.15, 0.15, 0.25  # Å, Å, rad


def build_slab(
    host: str,
    facet: str,
    size: Size,
    *,
    dopant: str | None = None,
    dopant_place: int = 0,
) -> Atoms:
    """Build a slab in a cell that is periodic in all directions, as those of OC20 are.

    Args:
        host: Chemical symbol; the lattice constant is ASE's, the experimental one.
        facet: ``fcc111``, ``fcc100``, ``fcc110`` or ``fcc211``.
        size: Repetitions of the cell, layers last.
        dopant: Metal of one atom of the top layer; None for a pure slab.
        dopant_place: Which atom of the top layer that is, from 0.

    Returns:
        The slab; tags 0 below and 1 in the top layer, atoms below fixed.
    """
    slab: Atoms = getattr(ase.build, facet)(host, size, vacuum=VACUUM)
    slab.pbc = True
    n_top = size[0] * size[1]
    by_height = np.lexsort((np.arange(len(slab)), -slab.positions[:, 2].round(3)))
    tags = np.full(len(slab), SUBSURFACE)
    tags[by_height[:n_top]] = SURFACE
    slab.set_tags(tags)
    if dopant is not None:
        slab.numbers[by_height[dopant_place]] = atomic_numbers[dopant]
    slab.set_constraint(FixAtoms(mask=tags == SUBSURFACE))
    return slab


def build_molecule(formula: str) -> Atoms:
    """Return an adsorbate in vacuum, the atom that binds first and below the others.

    Args:
        formula: An element, or a molecule that ASE knows.
    """
    if formula in atomic_numbers:
        return Atoms(formula)
    molecule: Atoms = ase.build.molecule(_MOLECULES.get(formula, formula))
    symbols = molecule.get_chemical_symbols()
    anchor = symbols.index(_ANCHORS[formula]) if formula in _ANCHORS else 0
    order = [anchor, *(i for i in range(len(molecule)) if i != anchor)]
    molecule = molecule[order]
    molecule.positions -= molecule.positions[0]
    away = molecule.positions[1:].mean(axis=0)
    if np.linalg.norm(away) > 0.1:  # a flat molecule around its anchor has no direction
        molecule.rotate(away, "z")
    return molecule


def build_system(system: SlabSystem, rng: np.random.Generator) -> Atoms:
    """Put the adsorbate near its site, turned, tilted and shifted at random.

    Args:
        system: What lies where.
        rng: Decides the rest.

    Returns:
        Slab and adsorbate (tag 2), periodic in all directions.
    """
    place = int(rng.integers(system.size[0] * system.size[1]))
    slab = build_slab(
        system.host, system.facet, system.size, dopant=system.dopant, dopant_place=place
    )
    molecule = build_molecule(system.adsorbate)
    molecule.set_tags(ADSORBATE)
    tilt, turn, *shift = rng.standard_normal(4).tolist()
    molecule.rotate(np.degrees(_TILT * tilt), "x")
    molecule.rotate(360.0 * turn, "z")
    radii = covalent_radii[atomic_numbers[system.host]] + covalent_radii[molecule.numbers[0]]
    height = radii * _HEIGHTS.get(system.site, _HOLLOW_HEIGHT)
    height += _HEIGHT_SPREAD * float(rng.random())
    site, depth = _find_site(slab, system)
    ase.build.add_adsorbate(slab, molecule, height - depth, site)
    slab.positions[-len(molecule) :, :2] += _SHIFT * np.array(shift)
    del slab.info["adsorbate_info"]
    return slab


def _find_site(slab: Atoms, system: SlabSystem) -> tuple[str | tuple[float, float], float]:
    """Return what ASE takes for a site, and how far below the highest atom it is in Å.

    ASE names no sites of a stepped surface: there they are found from the rows of atoms.
    """
    if system.facet != "fcc211":
        return system.site, 0.0
    heights = slab.positions[:, 2].round(3)
    rows = np.unique(heights)[::-1]
    row = 1 if system.site == "terrace" else 0
    x, y, z = slab.positions[np.flatnonzero(heights == rows[row])[0]].tolist()
    if system.site == "bridge":
        y += slab.cell[1, 1] / system.size[1] / 2
    return (x, y), float(slab.positions[:, 2].max() - z)
