"""Energies against a reference that a data set gives."""

from __future__ import annotations

from labelwise.errors import DataSetError
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.labels import DEFAULT_ENERGY_KEY

#: Info key of the energy of slab and gas that an adsorption energy is counted from, eV.
REFERENCE_KEY = "reference_energy"
#: Info key that says what the label is.
ENERGY_IS_KEY = "energy_is"


def correct_to_adsorption(structure: LabelledStructure) -> LabelledStructure:
    """Return a structure whose label is its adsorption energy: total less reference energy.

    The total energy is kept in info ``total_energy``, and ``energy_is`` becomes ``adsorption``; a
    structure that says so already is returned as it is. Forces are the same.

    Raises:
        DataSetError: The data set gives no reference energy for it.
    """
    info = structure.atoms.info
    if info.get(ENERGY_IS_KEY) == "adsorption":
        return structure
    if REFERENCE_KEY not in info:
        raise DataSetError(
            f"{structure.entry.name}: no reference energy is known, so there is no adsorption "
            "energy; OC20 gives them in the .txt files beside its shards"
        )
    atoms = structure.atoms.copy()
    total = info[DEFAULT_ENERGY_KEY]
    atoms.info |= {
        DEFAULT_ENERGY_KEY: total - info[REFERENCE_KEY],
        "total_energy": total,
        ENERGY_IS_KEY: "adsorption",
    }
    return LabelledStructure(structure.entry, atoms)
