"""Telling a wrong unit of energy from the numbers alone, where that can be done."""

from __future__ import annotations

from typing import Any

import numpy as np
from ase.units import Hartree, kcal, kJ, mol

from labelwise.datasets.base import DataSetError

#: Of neutral atoms with all electrons, E = -0.768745 Z^(7/3) + Z^2 / 2 - 0.2699 Z^(5/3) hartree
#: (Thomas-Fermi with Scott's and Schwinger's corrections).
_SERIES = ((-0.768745, 7 / 3), (0.5, 2.0), (-0.2699, 5 / 3))
#: Up to krypton, where effective core potentials begin in the usual basis sets.
_LAST_WITHOUT_CORE = 36
#: Other units that total energies come in, in eV⁻¹.
_OTHER_UNITS = {
    "hartree": 1 / Hartree,
    "kcal/mol": mol / kcal,
    "kJ/mol": mol / kJ,
    "meV": 1000.0,
    "eV taken for hartree": Hartree,
}
#: Of the estimate; in no other unit does an energy lie between.
_LEAST_IN_EV, _MOST_IN_EV = 0.1, 10.0
#: By how much the energies of molecules differ from the estimate for neutral atoms, at most.
_DEVIATION = 0.12

_NEUTRAL_ATOMS = np.array(
    [
        Hartree * sum(coefficient * charge**power for coefficient, power in _SERIES)
        for charge in range(_LAST_WITHOUT_CORE + 1)
    ]
)


def check_total_energy(numbers: Any, energy: float, where: str) -> None:
    """Refuse what looks like a total energy with all electrons in another unit than eV.

    Energies of valence electrons alone, as semi-empirical methods give them, are taken.

    Args:
        numbers: (n,) integers, atomic numbers; elements beyond krypton are not judged.
        energy: What is taken for the total energy in eV.
        where: File and structure, for the message.

    Raises:
        DataSetError: It is within 12 % of what neutral atoms have in another unit.

    Source: J. Schwinger, *Phys. Rev. A* 22, 1827 (1980), for the energies of atoms.
    """
    charges = np.asarray(numbers)
    if charges.max() > _LAST_WITHOUT_CORE:
        return
    expected = float(_NEUTRAL_ATOMS[charges].sum())
    if _LEAST_IN_EV < energy / expected < _MOST_IN_EV:
        return
    deviations = {
        unit: abs(energy / (expected * per_ev) - 1.0) for unit, per_ev in _OTHER_UNITS.items()
    }
    unit = min(deviations, key=deviations.__getitem__)
    if deviations[unit] < _DEVIATION:
        raise DataSetError(
            f"{where}: a total energy of {energy:.6g} eV, where neutral atoms have about "
            f"{expected:.4g} eV: it looks like an energy in {unit}; convert it"
        )
