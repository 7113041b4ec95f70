"""The electronic state that a structure asks for: total charge, multiplicity, initial moments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.errors import StructureError

#: A structure that says nothing is neutral and a singlet.
DEFAULT_CHARGE = 0.0
DEFAULT_SPIN = 1.0
#: Info keys of the total charge, e, and of the multiplicity 2S + 1.
_CHARGE_KEYS = ("total_charge", "charge")
_SPIN_KEYS = ("total_spin", "spin")
#: The same in the words of other programs, read where those are absent.
_OTHER_CHARGE_KEYS = ("net_charge", "molecular_charge", "Charge")
_OTHER_SPIN_KEYS = ("multiplicity", "spin_multiplicity", "mult", "uhf", "n_unpaired")
#: What is added to counts of unpaired electrons.
_SHIFTS = {"uhf": 1.0, "n_unpaired": 1.0}
_ALL_CHARGE_KEYS = frozenset({*_CHARGE_KEYS, *_OTHER_CHARGE_KEYS})
_ALL_SPIN_KEYS = frozenset({*_SPIN_KEYS, *_OTHER_SPIN_KEYS})
_ALL_KEYS = _ALL_CHARGE_KEYS | _ALL_SPIN_KEYS
#: Initial magnetic moments that agree to so many decimals are the same, μB.
_MOMENT_DECIMALS = 3


def get_charge(atoms: Atoms) -> float:
    """Return the total charge that a structure asks for, e: ``total_charge`` or ``charge``.

    Where neither is there, ``net_charge``, ``molecular_charge`` and ``Charge`` are read.

    Args:
        atoms: The structure; info without these keys means 0.

    Raises:
        StructureError: The value is not one number, or two keys differ.
    """
    return _get_agreed(atoms, _CHARGE_KEYS, _OTHER_CHARGE_KEYS, DEFAULT_CHARGE)


def get_spin(atoms: Atoms) -> float:
    """Return the multiplicity 2S + 1 that a structure asks for: ``total_spin`` or ``spin``.

    Where neither is there, ``multiplicity``, ``spin_multiplicity``, ``mult``, ``uhf`` and
    ``n_unpaired`` (unpaired electrons, one less than the multiplicity) are read.

    Args:
        atoms: The structure; info without these keys means 1.

    Raises:
        StructureError: The value is not one number, or two keys differ.
    """
    return _get_agreed(atoms, _SPIN_KEYS, _OTHER_SPIN_KEYS, DEFAULT_SPIN)


def is_charged(atoms: Atoms) -> bool:
    """Return whether a structure says that it has another total charge than 0, however it does."""
    return bool(_find_charges(atoms.info, atoms.arrays))


def says_state(atoms: Atoms) -> bool:
    """Return whether a structure says anything about its charge or multiplicity."""
    return not _ALL_KEYS.isdisjoint(atoms.info)


def encode_state(info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """Return what tells electronic states of one geometry apart, for use in a hash.

    The total charge (info, or the sum of the initial charges of the atoms, to the nearest
    integer) and the multiplicity, under whichever of their names, and the initial magnetic
    moments to 0.001 μB. Values that are no numbers count as they are written.

    Args:
        info: Info of a structure.
        arrays: Its arrays by name.

    Returns:
        Nothing for a neutral singlet without initial moments, whether it says so or not.
    """
    charges, spins = _find_charges(info, arrays), _find_spins(info)
    moments = _encode_moments(arrays.get("initial_magmoms"))
    if not (charges or spins or moments):
        return b""
    return f"state {sorted(charges)} {sorted(spins)} ".encode() + moments


def describe_charge(atoms: Atoms) -> str:
    """Return the total charge of a structure in words, whatever is written there."""
    return " or ".join(sorted(_find_charges(atoms.info, atoms.arrays))) or f"{DEFAULT_CHARGE}"


def describe_spin(atoms: Atoms) -> str:
    """Return the multiplicity of a structure in words, whatever is written there."""
    return " or ".join(sorted(_find_spins(atoms.info))) or f"{DEFAULT_SPIN}"


def find_contradiction(atoms: Atoms, other: Atoms) -> str:
    """Say that two structures state different charges or multiplicities; '' if they do not.

    What one of them does not state contradicts nothing.

    Args:
        atoms: The structure that is wrong if they do.
        other: What it is held against.
    """
    for name, keys, default in (
        ("total charge", _ALL_CHARGE_KEYS, DEFAULT_CHARGE),
        ("multiplicity", _ALL_SPIN_KEYS, DEFAULT_SPIN),
    ):
        if keys.isdisjoint(atoms.info) or keys.isdisjoint(other.info):
            continue
        found, asked = (_find_stated(each.info, keys, default) for each in (atoms, other))
        if found != asked:
            written = [" or ".join(sorted(each)) or f"{default}" for each in (found, asked)]
            return f"its {name} is {written[0]}, not {written[1]}"
    return ""


def _find_charges(info: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> set[str]:
    stated = _find_stated(info, _ALL_CHARGE_KEYS, DEFAULT_CHARGE)
    return stated | _find_net_charge(arrays.get("initial_charges"))


def _find_spins(info: Mapping[str, Any]) -> set[str]:
    return _find_stated(info, _ALL_SPIN_KEYS, DEFAULT_SPIN)


def _get_agreed(atoms: Atoms, first: Sequence[str], others: Sequence[str], default: float) -> float:
    """Return the value of the first keys that are there, else of the others, else the default."""
    is_there = any(atoms.info.get(name) is not None for name in first)
    keys = first if is_there else others
    names = [name for name in keys if atoms.info.get(name) is not None]
    try:
        values = {name: _as_number(atoms.info[name]) for name in names}
    except (TypeError, ValueError) as error:
        raise StructureError(
            f"{atoms.get_chemical_formula()}: info {names} must be one number; {error}"
        ) from error
    found = {values[name] + _SHIFTS.get(name, 0.0) for name in names}
    if len(found) > 1:
        raise StructureError(f"{atoms.get_chemical_formula()} has {values}: keep only one of them")
    return next(iter(found), default)


def _find_stated(info: Mapping[str, Any], keys: frozenset[str], default: float) -> set[str]:
    """Return the different values of some keys, without the default."""
    found: set[str] = set()
    for key in () if keys.isdisjoint(info) else keys:
        if key not in info:
            continue
        value = info[key]
        try:
            number = None if value is None else _as_number(value) + _SHIFTS.get(key, 0.0)
        except (TypeError, ValueError):
            found.add(str(np.asarray(value, dtype=object).tolist()))
            continue
        if number is not None and number != default:
            found.add(repr(number))
    return found


def _find_net_charge(charges: np.ndarray | None) -> set[str]:
    """Return the sum of the initial charges of atoms if it rounds to another integer than 0."""
    total = 0.0 if charges is None else float(np.sum(charges))
    if not np.isfinite(total) or round(total) == 0:
        return set()
    return {repr(float(round(total)))}


def _encode_moments(moments: np.ndarray | None) -> bytes:
    if moments is None:
        return b""
    # Adding zero turns -0.0 into 0.0.
    rounded = np.round(np.asarray(moments, dtype="<f8"), _MOMENT_DECIMALS) + 0.0
    return rounded.tobytes() if rounded.any() else b""


def _as_number(value: Any) -> float:
    """Return a number, whichever way it is kept: text and arrays of one element too."""
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"it has {array.size} values")
    return float(array.reshape(-1)[0])
