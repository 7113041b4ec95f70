"""Where the labels of a structure stand."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labelwise.runtime.settings import Setting

DEFAULT_ENERGY_KEY = "REF_energy"
DEFAULT_FORCES_KEY = "REF_forces"
DEFAULT_STRESS_KEY = "REF_stress"

EnergyKey = Annotated[str, Setting("Info key of the energies, eV.")]
StressKey = Annotated[
    str,
    Setting("Info key of the stress, eV/Å³, where there is one; virials if it says so, eV."),
]


@dataclass(frozen=True)
class LabelKeys:
    """Where the labels of a structure stand."""

    energy_key: EnergyKey = DEFAULT_ENERGY_KEY
    forces_key: Annotated[str, Setting("Array key of the forces, eV/Å.")] = DEFAULT_FORCES_KEY
