"""Where labels stand in a structure."""

from __future__ import annotations

DEFAULT_ENERGY_KEY = "REF_energy"
DEFAULT_FORCES_KEY = "REF_forces"
