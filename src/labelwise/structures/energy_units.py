"""Telling wrong units of energies from the numbers alone, where that can be done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import numpy as np
from ase.units import Hartree, kcal, kJ, mol

from labelwise.errors import LabelError

#: Neutral atoms with all electrons, hydrogen to krypton, hartree: exact up to argon (Chakravorty
#: et al., *Phys. Rev. A* 47, 3649 (1993)), Hartree-Fock beyond (Froese Fischer, 1977).
_ATOMS = (
    -0.5, -2.904, -7.478, -14.667, -24.654, -37.845, -54.589, -75.067, -99.734, -128.938,
    -162.255, -200.053, -242.346, -289.359, -341.259, -398.110, -460.148, -527.540, -599.165,
    -676.758, -759.736, -848.406, -942.884, -1043.356, -1149.866, -1262.444, -1381.415,
    -1506.871, -1638.964, -1777.848, -1923.261, -2075.360, -2234.239, -2399.868, -2572.441,
    -2752.055,
)  # fmt: skip
_NEUTRAL_ATOMS = np.array((0.0, *_ATOMS))
_REVERSED = "eV with the sign reversed"
#: Units that total energies come in, in hartree.
_UNITS = {
    "eV": 1 / Hartree,
    "hartree": 1.0,
    "kcal/mol": kcal / mol / Hartree,
    "kJ/mol": kJ / mol / Hartree,
    "meV": 1e-3 / Hartree,
    "eV taken for hartree": 1 / Hartree**2,
    _REVERSED: -1 / Hartree,
}
#: What functionals and relativity change in the sum of the atoms, a part of it.
_METHOD = 0.015
#: What binding adds for each atom at most, and what the loss of an electron takes, hartree.
_BINDING, _IONISATION = 0.3, 0.25
#: Info key by which a structure says the unit of its energy.
UNIT_KEY = "energy_unit"
_N_NAMED = 3


def expect_energy(numbers: Any) -> float | None:
    """Return the energy of a structure's neutral atoms with all electrons, eV.

    Args:
        numbers: (n,) integers, atomic numbers.

    Returns:
        The sum; None beyond krypton, where effective core potentials begin in the usual basis
        sets.
    """
    charges = np.asarray(numbers)
    if charges.size == 0 or charges.max() >= len(_NEUTRAL_ATOMS):
        return None
    return float(_NEUTRAL_ATOMS[charges].sum()) * Hartree


def name_unit(numbers: Any, energy: float) -> str | None:
    """Return the unit that a number is in, if it is a total energy with all electrons.

    Args:
        numbers: (n,) integers, atomic numbers.
        energy: What is taken for the total energy.

    Returns:
        ``eV``, ``hartree``, ``kcal/mol``, ``kJ/mol``, ``meV``, ``eV taken for hartree`` or
        ``eV with the sign reversed``; None where it is no such energy in any of them, or elements
        beyond krypton are there.
    """
    expected = expect_energy(numbers)
    if expected is None:
        return None
    atoms = expected / Hartree
    lowest = (1 + _METHOD) * atoms - _BINDING * len(numbers)
    highest = (1 - _METHOD) * atoms + _IONISATION
    fitting = [unit for unit, size in _UNITS.items() if lowest <= energy * size <= highest]
    return min(fitting, key=lambda unit: abs(energy * _UNITS[unit] / atoms - 1), default=None)


class EnergyUnits:
    """Judges the units of the total energies of a set of structures.

    Energies of valence electrons alone, as pseudopotentials and semi-empirical methods give
    them, lie below those with all electrons and happen to look like hartree now and then. So
    hartree are refused where at least half of the structures seem to be in hartree, or at least
    half are in eV with all electrons and some in hartree. Energies of a few hydrogen atoms above
    some zero may look as if their sign were reversed: half of the structures here, too. No method
    gives as much as the other units do: one structure is enough.

    Args:
        what: What the energies are, for messages: ``REF_energy``.
        role: What the structures are: ``training structures``.
    """

    def __init__(self, what: str, role: str = "structures") -> None:
        """Count nothing yet."""
        self._what = what
        self._role = role
        self._n_structures = 0
        self._is_vouched = False
        self._n_seeming: defaultdict[str, int] = defaultdict(int)
        self._named: defaultdict[str, list[str]] = defaultdict(list)

    def add(self, numbers: Any, energy: float, where: str, info: Mapping[str, Any]) -> None:
        """Count a structure.

        Args:
            numbers: (n,) integers, atomic numbers.
            energy: What is taken for its total energy in eV.
            where: File and frame, for messages.
            info: Its info; ``energy_unit=eV`` on any structure says that none is in hartree.
        """
        self._n_structures += 1
        self._is_vouched |= str(info.get(UNIT_KEY)).lower() == "ev"
        unit = name_unit(numbers, energy)
        if unit is None:
            return
        self._n_seeming[unit] += 1
        if unit != "eV" and len(self._named[unit]) < _N_NAMED:
            expected = expect_energy(numbers)
            self._named[unit].append(f"{where}: {energy:.6g}, neutral atoms: {expected:.4g} eV")

    def check(self) -> None:
        """Raise if the energies are in another unit than eV.

        Raises:
            LabelError: They are; says how many and names some.
        """
        for unit in self._named:
            if unit == "hartree" and not self._is_hartree():
                continue
            if unit == _REVERSED and 2 * self._n_seeming[unit] < self._n_structures:
                continue
            n_seeming, named = self._n_seeming[unit], self._named[unit]
            more = ", ..." if n_seeming > len(named) else ""
            remedy = "" if unit != "hartree" else (
                f"; if they are in eV all the same, give one structure the info key {UNIT_KEY}=eV"
            )  # fmt: skip
            raise LabelError(
                f"{self._what} of {n_seeming} of {self._n_structures} {self._role} looks like an "
                f"energy in {unit} ({'; '.join(named)}{more}); energies are in eV: convert "
                f"{'it' if n_seeming == 1 else 'them'}{remedy}"
            )

    def _is_hartree(self) -> bool:
        hartree, electronvolt = self._n_seeming["hartree"], self._n_seeming["eV"]
        return not self._is_vouched and 2 * max(hartree, electronvolt) >= self._n_structures
