"""Which adsorbate lies where on which slab: the catalogue, and how systems are drawn from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

Size = tuple[int, int, int]

#: Host, the metal that replaces one atom of its top layer (None for a pure slab), and how often
#: it is drawn: the imbalance of the pool.
CATALYSTS: tuple[tuple[str, str | None, float], ...] = (
    ("Cu", None, 4.0),
    ("Ni", None, 3.0),
    ("Pd", None, 2.0),
    ("Ag", None, 2.0),
    ("Au", None, 1.0),
    ("Al", None, 1.0),
    ("Cu", "Pd", 0.5),
    ("Cu", "Au", 0.5),
    ("Ni", "Cu", 0.5),
    ("Ag", "Pt", 0.4),
    ("Pd", "Au", 0.3),
    ("Au", "Pt", 0.2),
)
#: Platinum is no host in the pool, and none of these pairs is in it.
UNSEEN_CATALYSTS: tuple[tuple[str, str | None, float], ...] = (
    ("Pt", None, 2.0),
    ("Pt", "Cu", 1.0),
    ("Pt", "Pd", 1.0),
    ("Ni", "Au", 1.0),
    ("Pd", "Al", 1.0),
)
#: Adsorbate and how often it is drawn.
ADSORBATES: tuple[tuple[str, float], ...] = (
    ("OH", 3.0),
    ("CO", 3.0),
    ("O", 3.0),
    ("H", 3.0),
    ("CH3", 2.0),
    ("C", 1.5),
    ("N", 1.5),
    ("CH", 1.0),
    ("CH2", 1.0),
    ("NH", 1.0),
    ("H2O", 1.0),
    ("NH3", 0.5),
    ("CN", 0.5),
    ("O2", 0.5),
    ("C2H2", 0.5),
)
UNSEEN_ADSORBATES: tuple[tuple[str, float], ...] = (
    ("NO", 1.0),
    ("NH2", 1.0),
    ("HCO", 1.0),
    ("CH3O", 1.0),
    ("HCN", 1.0),
)
#: Surface to its sites and to the repetitions of its cell; small slabs come more often.
FACETS: dict[str, tuple[tuple[str, ...], tuple[Size, ...]]] = {
    "fcc111": (("ontop", "bridge", "fcc", "hcp"), ((2, 2, 3), (2, 2, 4), (3, 2, 3), (3, 3, 3))),
    "fcc100": (("ontop", "bridge", "hollow"), ((2, 2, 3), (2, 2, 4), (3, 2, 3), (3, 3, 3))),
    "fcc110": (("ontop", "shortbridge", "longbridge", "hollow"), ((2, 2, 3), (2, 3, 3), (2, 3, 4))),
    "fcc211": (("ontop", "bridge", "terrace"), ((3, 2, 3), (3, 3, 3))),
}
_FACET_WEIGHTS = {"fcc111": 4.0, "fcc100": 2.0, "fcc110": 1.0, "fcc211": 1.0}


@dataclass(frozen=True, slots=True)
class SlabSystem:
    """An adsorbate at a site of a slab.

    Attributes:
        host: Metal of the slab.
        dopant: Metal of one atom of the top layer; None for a pure slab.
        facet: A key of ``FACETS``.
        size: Repetitions of the cell, layers last.
        adsorbate: Formula.
        site: Where it is put.
    """

    host: str
    dopant: str | None
    facet: str
    size: Size
    adsorbate: str
    site: str

    @property
    def metal(self) -> str:
        """The slab's metals, host first: ``Cu``, ``CuPd``."""
        return self.host + (self.dopant or "")

    @property
    def name(self) -> str:
        """A name for the combination: ``CuPd-fcc111-2x2x3-CO-ontop``."""
        size = "x".join(map(str, self.size))
        return f"{self.metal}-{self.facet}-{size}-{self.adsorbate}-{self.site}"


def draw_system(
    rng: np.random.Generator,
    catalysts: Sequence[tuple[str, str | None, float]] = CATALYSTS,
    adsorbates: Sequence[tuple[str, float]] = ADSORBATES,
) -> SlabSystem:
    """Draw a system.

    Args:
        rng: Decides.
        catalysts: Hosts, dopants and weights.
        adsorbates: Formulae and weights.
    """
    host, dopant, _ = catalysts[_draw(rng, [weight for *_, weight in catalysts])]
    adsorbate = adsorbates[_draw(rng, [weight for _, weight in adsorbates])][0]
    facet = list(FACETS)[_draw(rng, [_FACET_WEIGHTS[name] for name in FACETS])]
    sites, sizes = FACETS[facet]
    size = sizes[_draw(rng, [1.0 / np.prod(size) for size in sizes])]
    return SlabSystem(host, dopant, facet, size, adsorbate, sites[int(rng.integers(len(sites)))])


def _draw(rng: np.random.Generator, weights: Sequence[float]) -> int:
    """Return an index, drawn with the weights."""
    edges = np.cumsum(weights)
    return int(np.searchsorted(edges, rng.random() * edges[-1], side="right"))
