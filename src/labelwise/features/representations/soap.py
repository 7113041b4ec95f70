"""``soap``: how atoms lie around one another, averaged over the structure; needs no model.

DScribe lays a row out by the pairs of the elements that it is told of. Which elements a stream
of structures holds is not known before its end, so each structure is described with its own
elements only, and its blocks are laid into columns that have room for every pair. Pairs that a
structure lacks are zero in DScribe, too: the kernel is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from itertools import combinations_with_replacement
from typing import Any

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from jaxtyping import Float32, Int64
from scipy.sparse import csr_array

from labelwise.errors import MissingDependencyError, StructureError
from labelwise.features.representations.base import (
    RepresentationOptions,
    StructureRepresentation,
    register_representation,
)
from labelwise.features.representations.rows import SparseRows

R_CUT = 6.0  # Å
N_MAX = 8
L_MAX = 6
#: Columns of a pair of elements: all of N_MAX² (L_MAX + 1) if they differ, else the first ones.
PAIR_WIDTH = N_MAX * N_MAX * (L_MAX + 1)

_N_ELEMENTS = len(chemical_symbols)  # atomic numbers 0 to 118


class Soap(StructureRepresentation):
    """Power spectrum of the smooth overlap of atomic positions, averaged over the atoms.

    DScribe's SOAP with a cutoff of 6 Å, n_max 8, l_max 6 and the outer average; periodic in the
    directions in which the structure is. Rows are sparse: entry k of the pair of elements y <= z
    is column (119 y + z) · 448 + k. With H, C, N and O, 3,696 columns are used.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 3.2; Himanen et al., Comput. Phys. Commun. 247 (2020) 106949.
    """

    name = "soap"
    takes_options = False
    column_block = PAIR_WIDTH

    def __init__(self, _: RepresentationOptions) -> None:
        """Take no options.

        Raises:
            MissingDependencyError: DScribe is not installed.
        """
        if find_spec("dscribe") is None:
            raise MissingDependencyError("dscribe", "descriptors", "the representation 'soap'")

    def size(self) -> int:
        """Return the number of columns that there is room for."""
        return _N_ELEMENTS * _N_ELEMENTS * PAIR_WIDTH

    def compute(self, structures: Sequence[Atoms]) -> SparseRows:
        """Return (n, d) float32, dimensionless.

        Raises:
            StructureError: a periodic structure without the lattice vectors for it.
        """
        parts = [_describe(atoms) for atoms in structures]
        starts = np.cumsum([0, *(len(values) for values, _ in parts)])
        if not parts:
            return SparseRows(csr_array((0, self.size()), dtype=np.float32))
        values = np.concatenate([values for values, _ in parts])
        columns = np.concatenate([columns for _, columns in parts]).astype(np.int32)
        matrix = csr_array((values, columns, starts), shape=(len(parts), self.size()))
        return SparseRows(matrix)

    def name_columns(self, columns: Int64[np.ndarray, " u"]) -> list[str]:
        """Name columns by pair and place, for instance ``H-C 17``."""
        pairs, places = np.divmod(columns, PAIR_WIDTH)
        return [
            f"{chemical_symbols[pair // _N_ELEMENTS]}-{chemical_symbols[pair % _N_ELEMENTS]} {k}"
            for pair, k in zip(pairs.tolist(), places.tolist(), strict=True)
        ]


def _describe(atoms: Atoms) -> tuple[Float32[np.ndarray, " k"], Int64[np.ndarray, " k"]]:
    """Return a structure's values and the columns that they belong to, in rising order."""
    elements = tuple(np.unique(atoms.numbers).tolist())
    bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
    if bare.pbc.any():
        if bare.cell[bare.pbc].any(axis=1).sum() < bare.pbc.sum():
            raise StructureError(
                f"{atoms.get_chemical_formula()} has pbc {atoms.pbc.tolist()} but lacks lattice "
                "vectors; give it a cell or set pbc to False"
            )
        bare.cell = bare.cell.complete()
        bare.wrap(eps=0.0)  # DScribe looks for neighbours in the images next to the cell only
    row = _descriptor(elements, bool(bare.pbc.any())).create(bare)
    return row.astype(np.float32), _columns(elements)


@cache
def _descriptor(elements: tuple[int, ...], periodic: bool) -> Any:
    from dscribe.descriptors import SOAP

    return SOAP(
        species=[chemical_symbols[z] for z in elements],
        r_cut=R_CUT,
        n_max=N_MAX,
        l_max=L_MAX,
        average="outer",
        periodic=periodic,
    )


@cache
def _columns(elements: tuple[int, ...]) -> Int64[np.ndarray, " k"]:
    """Return the column of each entry of DScribe's row for these elements."""
    descriptor = _descriptor(elements, False)
    columns = np.empty(descriptor.get_number_of_features(), dtype=np.int64)
    for y, z in combinations_with_replacement(elements, 2):
        place = descriptor.get_location((chemical_symbols[y], chemical_symbols[z]))
        first = (y * _N_ELEMENTS + z) * PAIR_WIDTH
        columns[place] = np.arange(first, first + place.stop - place.start)
    return columns


register_representation(Soap.name, Soap)
