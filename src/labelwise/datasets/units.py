"""Telling a wrong unit of energy from the numbers alone, where that can be done."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase.units import Hartree

from labelwise.datasets.base import DataSetError

#: Of neutral atoms with all electrons, E = -0.768745 Z^(7/3) + Z^2 / 2 - 0.2699 Z^(5/3) hartree
#: (Thomas-Fermi with Scott's and Schwinger's corrections).
_SERIES = ((-0.768745, 7 / 3), (0.5, 2.0), (-0.2699, 5 / 3))
#: Up to krypton, where effective core potentials begin in the usual basis sets.
_LAST_WITHOUT_CORE = 36
#: Molecules differ from neutral atoms by a percent; hartree is 27 and kcal/mol 23 times off.
_FACTOR = 2.0


def check_total_energy(numbers: Sequence[int], energy: float, where: str) -> None:
    """Refuse a total energy with all electrons that is not in eV.

    Args:
        numbers: (n,) atomic numbers; structures with elements beyond krypton are not judged.
        energy: What is taken for the total energy in eV.
        where: File and structure, for the message.

    Raises:
        DataSetError: It is more than twice or less than half of what neutral atoms have.

    Source: J. Schwinger, *Phys. Rev. A* 22, 1827 (1980), for the energies of atoms.
    """
    charges = np.asarray(numbers, dtype=np.float64)
    if charges.max() > _LAST_WITHOUT_CORE:
        return
    atoms = sum(coefficient * charges**power for coefficient, power in _SERIES)
    expected = float(Hartree * np.sum(atoms))
    if not 1 / _FACTOR < energy / expected < _FACTOR:
        raise DataSetError(
            f"{where}: a total energy of {energy:.6g} eV, where neutral atoms have about "
            f"{expected:.4g}: another unit (hartree, kcal/mol), or not a total energy"
        )
