"""The catalogue: what can be drawn can be built, and looks like a slab with an adsorbate."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from ase.data import covalent_radii
from ase.geometry import get_distances

from examples.slabs.building import ADSORBATE, SUBSURFACE, SURFACE, build_system
from examples.slabs.systems import (
    ADSORBATES,
    CATALYSTS,
    FACETS,
    UNSEEN_ADSORBATES,
    UNSEEN_CATALYSTS,
    SlabSystem,
    draw_system,
)

EVERY_SITE = [
    (facet, size, site)
    for facet, (sites, sizes) in FACETS.items()
    for site in sites
    for size in sizes
]


@pytest.mark.parametrize(("facet", "size", "site"), EVERY_SITE)
def test_every_site_of_every_slab(facet: str, size: tuple[int, int, int], site: str) -> None:
    rng = np.random.default_rng(0)
    atoms = build_system(SlabSystem("Cu", "Au", facet, size, "OH", site), rng)
    tags = atoms.get_tags()
    assert 12 <= len(atoms) - 2 <= 36
    assert Counter(tags.tolist())[SURFACE] == size[0] * size[1]
    assert atoms.get_chemical_symbols()[-2:] == ["O", "H"]
    assert (tags[-2:] == ADSORBATE).all()
    gold = np.flatnonzero(atoms.numbers == 79)
    assert tags[gold].tolist() == [SURFACE]
    assert sorted(atoms.constraints[0].index) == np.flatnonzero(tags == SUBSURFACE).tolist()
    heights = atoms.positions[:, 2]
    assert heights[tags == SURFACE].min() > heights[tags == SUBSURFACE].max() - 1e-6
    assert atoms.pbc.all()
    assert atoms.cell[2, 2] - np.ptp(heights) >= 8.0


@pytest.mark.parametrize("adsorbate", [name for name, _ in (*ADSORBATES, *UNSEEN_ADSORBATES)])
def test_every_adsorbate_touches_the_surface_but_not_through_it(adsorbate: str) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)
        atoms = build_system(SlabSystem("Ag", None, "fcc111", (2, 2, 3), adsorbate, "fcc"), rng)
        is_adsorbate = atoms.get_tags() == ADSORBATE
        _, distances = get_distances(
            atoms.positions[is_adsorbate], atoms.positions[~is_adsorbate], cell=atoms.cell, pbc=True
        )
        radii = covalent_radii[atoms.numbers]
        ratio = distances / (radii[is_adsorbate][:, None] + radii[~is_adsorbate][None, :])
        assert 0.5 < ratio[0].min() < 1.2
        top = atoms.positions[~is_adsorbate, 2].max()
        assert (atoms.positions[is_adsorbate, 2] > top).all()


def test_unseen_ones_are_not_in_the_pool() -> None:
    assert not {name for name, _ in ADSORBATES} & {name for name, _ in UNSEEN_ADSORBATES}
    assert not {c[:2] for c in CATALYSTS} & {c[:2] for c in UNSEEN_CATALYSTS}


def test_systems_are_drawn_with_their_weights() -> None:
    rng = np.random.default_rng(1)
    drawn = [draw_system(rng) for _ in range(4000)]
    metals = Counter(system.metal for system in drawn)
    total = sum(weight for *_, weight in CATALYSTS)
    for host, dopant, weight in CATALYSTS:
        expected = 4000 * weight / total
        assert abs(metals[host + (dopant or "")] - expected) < 5 * np.sqrt(expected)
    assert {system.adsorbate for system in drawn} == {name for name, _ in ADSORBATES}
    assert {(s.facet, s.size, s.site) for s in drawn} == set(EVERY_SITE)
    assert len({system.name for system in drawn}) > 1000
