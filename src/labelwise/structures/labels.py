"""Energy, force and stress labels of a structure, wherever the file put them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
from ase import Atoms
from ase.stress import voigt_6_to_full_3x3_stress
from jaxtyping import Float64

from labelwise.errors import LabelError
from labelwise.structures.label_keys import DEFAULT_ENERGY_KEY as DEFAULT_ENERGY_KEY
from labelwise.structures.label_keys import DEFAULT_FORCES_KEY as DEFAULT_FORCES_KEY
from labelwise.structures.label_keys import DEFAULT_STRESS_KEY as DEFAULT_STRESS_KEY

#: ASE's own, which it moves into a calculator on reading.
ASE_KEYS = ("energy", "forces")
# Where a stress is looked for under the default key, as in mace-torch.
_DEFAULT_STRESS = (DEFAULT_STRESS_KEY, "REF_virials")
# By how much of its largest component a stress may fall short of symmetry: rounded numbers.
_ASYMMETRY = 0.02


@dataclass(frozen=True)
class Labels:
    """Total energy (eV), forces (n_atoms, 3) (eV/Å) and, if known, stress (3, 3) (eV/Å³)."""

    energy: float
    forces: Float64[np.ndarray, "n_atoms 3"]
    stress: Float64[np.ndarray, "axes=3 axes=3"] | None = None


def get_labels(
    atoms: Atoms,
    where: str,
    *,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    stress_key: str | None = None,
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
        stress_key: Info key of the stress, see ``get_stress``; None does not look for one.

    Returns:
        The labels in float64.

    Example:
        >>> import labelwise as lw
        >>> from ase import Atoms
        >>> atoms = Atoms("H2", [[0, 0, 0], [0, 0, 0.75]], info={"REF_energy": -31.7})
        >>> atoms.arrays["REF_forces"] = [[0, 0, 0.1], [0, 0, -0.1]]
        >>> lw.get_labels(atoms, "h2.extxyz@0").energy
        -31.7

    Raises:
        LabelError: A key is missing, not a number, of the wrong shape or not finite.
    """
    energy, forces = get_energy(atoms, where, energy_key), get_forces(atoms, where, forces_key)
    return Labels(energy, forces, get_stress(atoms, where, stress_key) if stress_key else None)


def get_partial_labels(
    atoms: Atoms,
    where: str,
    *,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    stress_key: str | None = None,
) -> tuple[Labels, tuple[bool, bool]]:
    """Read the labels of a structure that may have an energy alone or forces alone.

    Arguments are those of ``get_labels``.

    Returns:
        The labels, zeros in place of what is not there, and whether there are energy and forces.

    Raises:
        LabelError: It has neither, or one that ``get_labels`` would refuse.
    """
    known = has_any(atoms, (energy_key,)), has_any(atoms, (forces_key,))
    if known == (False, False):
        get_energy(atoms, where, energy_key)  # says which keys there are
    energy = get_energy(atoms, where, energy_key) if known[0] else 0.0
    forces = get_forces(atoms, where, forces_key) if known[1] else np.zeros((len(atoms), 3))
    stress = get_stress(atoms, where, stress_key) if stress_key else None
    return Labels(energy, forces, stress), known


def get_energy(atoms: Atoms, where: str, key: str = DEFAULT_ENERGY_KEY) -> float:
    """Return a structure's total energy alone, eV; see ``get_labels``."""
    energy = _as_floats(_find(atoms, key, where), key, where)
    if energy.size != 1:
        raise LabelError(f"{where}: label {key!r} has {energy.size} values, not one")
    return float(energy.reshape(()))


def get_forces(
    atoms: Atoms, where: str, key: str = DEFAULT_FORCES_KEY
) -> Float64[np.ndarray, "n_atoms 3"]:
    """Return a structure's forces alone, (n_atoms, 3) float64, eV/Å; see ``get_labels``."""
    forces = _as_floats(_find(atoms, key, where), key, where)
    if forces.shape != (len(atoms), 3):
        raise LabelError(
            f"{where}: label {key!r} has shape {forces.shape}, expected {(len(atoms), 3)}"
        )
    return forces


def get_stress(
    atoms: Atoms, where: str, key: str = DEFAULT_STRESS_KEY
) -> Float64[np.ndarray, "axes=3 axes=3"] | None:
    """Return a structure's stress, positive under tension, as ASE and mace-torch have it.

    Under a key that has ``virial`` in its name stand virials, −volume · stress in eV; the default
    key stands for ``REF_virials``, too. Only a structure that is periodic in all three directions
    has a stress: what others say is not looked at.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.
        key: Info key of nine numbers, row by row, of (3, 3) or of six in Voigt's order
            (xx, yy, zz, yz, xz, xy), eV/Å³.

    Returns:
        (3, 3) float64, symmetric, eV/Å³; None if there is none.

    Raises:
        LabelError: It is not of these shapes, not finite, not symmetric, or exactly zero, which
            stands for one that was not calculated.
    """
    found = stress_key_of(atoms, key)
    if found is None or not atoms.pbc.all():
        return None
    values = _as_floats(_find(atoms, found, where), found, where)
    if values.shape == (6,):
        values = voigt_6_to_full_3x3_stress(values)
    if values.shape not in ((3, 3), (9,)):
        raise LabelError(
            f"{where}: label {found!r} has shape {values.shape}, allowed are (3, 3), (9,) and (6,)"
        )
    values = values.reshape(3, 3)
    if np.abs(values - values.T).max() > _ASYMMETRY * np.abs(values).max():
        raise LabelError(f"{where}: label {found!r} is not symmetric ({values.round(4).tolist()})")
    if not values.any():
        raise LabelError(
            f"{where}: label {found!r} is exactly zero, which looks like a placeholder; take it "
            "out of structures whose stress was not calculated"
        )
    factor = -1.0 / float(atoms.get_volume()) if _is_virial(found) else 1.0
    stress: Float64[np.ndarray, "axes=3 axes=3"] = (values + values.T) * (factor / 2)
    return stress


def set_stress(
    atoms: Atoms,
    stress: Float64[np.ndarray, "axes=3 axes=3"],
    key: str = DEFAULT_STRESS_KEY,
) -> None:
    """Write a stress (3, 3) in eV/Å³ into info, as ``get_stress`` reads it under a key.

    Nine numbers, row by row, stay plain numbers in extended XYZ, where ASE makes JSON of a matrix.
    """
    value = -stress * atoms.get_volume() if _is_virial(key) else stress
    atoms.info[key] = np.reshape(value, 9)


def stress_key_of(atoms: Atoms, key: str = DEFAULT_STRESS_KEY) -> str | None:
    """Return the key that a structure has its stress or virials under; None if it has none."""
    present = _keys_of(atoms)
    return next((each for each in stress_keys(key) if each in present), None)


def stress_keys(key: str | None) -> tuple[str, ...]:
    """Return all keys that a stress is looked for under, given the one that was named."""
    if key is None:
        return ()
    return _DEFAULT_STRESS if key == DEFAULT_STRESS_KEY else (key,)


def _is_virial(key: str) -> bool:
    return "virial" in key.lower()


def require_label(atoms: Atoms, key: str, where: str) -> None:
    """Raise ``LabelError`` unless a label is there and finite, whatever its shape."""
    _as_floats(_find(atoms, key, where), key, where)


def is_placeholder(atoms: Atoms, labels: Labels) -> bool:
    """Return whether zeros stand for labels that were never calculated.

    No total energy of several atoms is exactly zero; forces vanish by symmetry in crystals only.
    """
    if len(atoms) == 1:
        return False
    return labels.energy == 0.0 or not (atoms.pbc.any() or labels.forces.any())


def choose_keys(
    structures: Iterable[Atoms], energy_key: str, forces_key: str
) -> tuple[str, str] | None:
    """Return the keys that some structures have their labels under.

    Args:
        structures: Structures with labels or without; not modified.
        energy_key: Info key of the total energy.
        forces_key: Array key of the forces.

    Returns:
        The keys as given where any structure has either; ``energy`` and ``forces`` where none
        has, the defaults were given and any has either of ASE's own; else None.
    """
    given = (energy_key, forces_key)
    allowed = [given]
    if given == (DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY):
        allowed.append(ASE_KEYS)
    present = set[str]().union(*(_keys_of(atoms) for atoms in structures))
    return next((keys for keys in allowed if not present.isdisjoint(keys)), None)


def has_any(atoms: Atoms, keys: Iterable[str]) -> bool:
    """Return whether a structure or its calculator's results have any of some keys."""
    return not _keys_of(atoms).isdisjoint(keys)


def say_keys(structures: Sequence[Atoms]) -> str:
    """Return the keys of some structures that may be of energies or forces, in words."""
    scalars, vectors = set[str](), set[str]()
    for atoms in structures:
        results = getattr(atoms.calc, "results", None) or {}
        for key, value in (*atoms.info.items(), *atoms.arrays.items(), *results.items()):
            shape = np.shape(value) if isinstance(value, np.ndarray) else ()
            if shape == (len(atoms), 3):
                vectors.add(str(key))
            elif isinstance(value, Real) and not isinstance(value, bool):
                scalars.add(str(key))
    listed = [", ".join(sorted(found)[:12]) for found in (scalars, vectors - {"positions"})]
    return f"numbers: {listed[0] or 'none'}; vectors of atoms: {listed[1] or 'none'}"


def as_real(value: Any) -> np.ndarray:
    """Return real numbers in float64.

    Args:
        value: A number or an array of them.

    Raises:
        TypeError: Truth values, text, complex numbers, dates, None, masked or other objects.
        ValueError: Rows of different lengths, or a number that float64 cannot hold.
    """
    array = np.asarray(value)
    is_real = array.dtype.kind in "iuf" and not np.ma.is_masked(value)
    if array.dtype.kind == "O":
        is_real = all(isinstance(each, Real) and not isinstance(each, bool) for each in array.flat)
    if not is_real:
        raise TypeError(f"expected real numbers, got {array.dtype}")
    try:
        return array.astype(np.float64, copy=False)
    except OverflowError as error:
        raise ValueError(str(error)) from error


def _keys_of(atoms: Atoms) -> set[str]:
    return {*atoms.info, *atoms.arrays, *(getattr(atoms.calc, "results", None) or {})}


def _find(atoms: Atoms, key: str, where: str) -> Any:
    for place in (atoms.info, atoms.arrays):
        if key in place:
            return place[key]
    results = getattr(atoms.calc, "results", None) or {}
    if results.get(key) is not None:
        return results[key]
    present = sorted(map(str, _keys_of(atoms) - {"numbers", "positions"}))
    listed = ", ".join(present[:12]) or "none"
    raise LabelError(
        f"{where}: label {key!r} is missing; keys present: {listed}; name those of the labels "
        "(energy_key and forces_key, --energy-key and --forces-key)"
    )


def _as_floats(value: Any, key: str, where: str) -> np.ndarray:
    if value is None:
        raise LabelError(f"{where}: label {key!r} is not finite (None)")
    try:
        floats = as_real(value)
    except (TypeError, ValueError) as error:
        raise LabelError(f"{where}: label {key!r} is no number ({value!r:.40})") from error
    if not np.isfinite(floats).all():
        raise LabelError(f"{where}: label {key!r} is not finite")
    return floats
