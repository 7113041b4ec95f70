"""Refusing data sets whose energies are in another unit than eV."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labelwise.errors import DataSetError, LabelError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.energy_units import EnergyUnits, expect_energy, name_unit
from labelwise.structures.labels import DEFAULT_ENERGY_KEY

#: Structures after which a stream is judged, beside its end.
_FIRST = 100


def check_total_energy(numbers: Any, energy: float, where: str) -> None:
    """Refuse what looks like a total energy with all electrons in another unit than eV.

    It is for formats whose energies count all electrons; see ``check_units`` for others.

    Args:
        numbers: (n,) integers, atomic numbers; elements beyond krypton are not judged.
        energy: What is taken for the total energy in eV.
        where: File and structure, for the message.

    Raises:
        DataSetError: It is about what neutral atoms have in another unit.
    """
    unit = name_unit(numbers, energy)
    if unit not in (None, "eV"):
        raise DataSetError(
            f"{where}: a total energy of {energy:.6g} eV, where neutral atoms have about "
            f"{expect_energy(numbers):.4g} eV: it looks like an energy in {unit}; convert it"
        )


def check_units(structures: Iterator[LabelledStructure], path: Any) -> Iterator[LabelledStructure]:
    """Yield structures of any method, and judge their energies together.

    Args:
        structures: Of one file; judged after the first hundred and at the end.
        path: The file, for messages.

    Raises:
        DataSetError: The energies are in another unit than eV, as ``EnergyUnits`` tells it.
    """
    units = EnergyUnits("the energy")
    for n_done, structure in enumerate(structures, start=1):
        arrays = structure.arrays
        energy = arrays.info[DEFAULT_ENERGY_KEY]
        units.add(arrays.numbers, energy, structure.entry.name, arrays.info)
        if n_done == _FIRST:
            _check(units, path)
        yield structure
    _check(units, path)


def _check(units: EnergyUnits, path: Any) -> None:
    try:
        units.check()
    except LabelError as error:
        raise DataSetError(f"{path}: {error}") from error
