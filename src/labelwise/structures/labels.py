"""Energy and force labels of a structure, wherever the file put them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import LabelError

DEFAULT_ENERGY_KEY = "REF_energy"
DEFAULT_FORCES_KEY = "REF_forces"


@dataclass(frozen=True)
class Labels:
    """Total energy (eV) and forces (n_atoms, 3) (eV/Å) of one structure."""

    energy: float
    forces: Float64[np.ndarray, "n_atoms 3"]


def get_labels(
    atoms: Atoms,
    where: str,
    *,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
) -> Labels:
    """Read a structure's labels.

    Keys are looked for in ``info`` and ``arrays`` and then among the results of an
    attached calculator, where ASE moves ``energy`` and ``forces`` on reading. Forces
    are taken as stored: constraints do not zero them.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.

    Returns:
        The labels in float64.

    Raises:
        LabelError: A key is missing, not a number, of the wrong shape or not finite.
    """
    return Labels(get_energy(atoms, where, energy_key), get_forces(atoms, where, forces_key))


def get_energy(atoms: Atoms, where: str, key: str = DEFAULT_ENERGY_KEY) -> float:
    """Read a structure's total energy alone, looked for as ``get_labels`` does.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.
        key: Info key of the total energy, eV.

    Returns:
        The energy in eV.

    Raises:
        LabelError: The key is missing, not one number or not finite.
    """
    energy = np.asarray(_find(atoms, key, where), dtype=object)
    if energy.size != 1:
        raise LabelError(f"{where}: label {key!r} has {energy.size} values, not one")
    return float(_as_floats(energy.reshape(()), key, where))


def get_forces(
    atoms: Atoms, where: str, key: str = DEFAULT_FORCES_KEY
) -> Float64[np.ndarray, "n_atoms 3"]:
    """Read a structure's forces alone, looked for and taken as ``get_labels`` does.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.
        key: Array key of the forces, eV/Å.

    Returns:
        (n_atoms, 3) float64, eV/Å.

    Raises:
        LabelError: The key is missing, not a number, of the wrong shape or not finite.
    """
    forces = _as_floats(_find(atoms, key, where), key, where)
    if forces.shape != (len(atoms), 3):
        raise LabelError(
            f"{where}: label {key!r} has shape {forces.shape}, expected {(len(atoms), 3)}"
        )
    return forces


def require_label(atoms: Atoms, key: str, where: str) -> None:
    """Raise unless a label is there and finite.

    Args:
        atoms: The structure.
        key: The info or array key.
        where: File and frame, for the error message.

    Raises:
        LabelError: The key is missing, not numeric or not finite.
    """
    _as_floats(_find(atoms, key, where), key, where)


def _find(atoms: Atoms, key: str, where: str) -> Any:
    for place in (atoms.info, atoms.arrays):
        if key in place:
            return place[key]
    results = getattr(atoms.calc, "results", None) or {}
    if results.get(key) is not None:
        return results[key]
    present = sorted({*atoms.info, *atoms.arrays, *results} - {"numbers", "positions"})
    listed = ", ".join(present[:12]) or "none"
    raise LabelError(f"{where}: label {key!r} is missing; keys present: {listed}")


def _as_floats(value: Any, key: str, where: str) -> np.ndarray:
    try:
        floats = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise LabelError(f"{where}: label {key!r} is not numeric ({value!r:.40})") from error
    if not np.isfinite(floats).all():
        raise LabelError(f"{where}: label {key!r} is not finite")
    return floats
