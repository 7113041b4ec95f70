"""What a structure carries that no calculation depends on: fixed atoms, tags, other labels.

``encode_structure`` keeps what decides a label. The rest is kept here, so that a batch is as
complete as the pool that it came from: an unrelaxed slab is relaxed with the same atoms fixed.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import all_properties
from ase.calculators.singlepoint import SinglePointCalculator
from ase.constraints import FixAtoms, FixCartesian, dict2constraint
from ase.io import jsonio

from labelwise.campaign.labelling.encoding import encode_info
from labelwise.structures.info_text import is_same_value

#: Kept by ``encode_structure``.
_ENCODED = ("numbers", "positions", "initial_charges", "initial_magmoms")
#: Results that the label replaces.
_LABELS = ("energy", "free_energy", "forces")
_KINDS = "biuf"  # arrays of truth values, integers and real numbers


def encode_carried(
    atoms: Atoms, *, left_out: Container[str] = (), with_results: bool = False
) -> dict[str, Any]:
    """Return as plain data what ``encode_structure`` leaves out.

    Fixed atoms (``FixAtoms``, ``FixCartesian``: the constraints that extended XYZ holds), arrays
    of finite numbers, per atom and in info, and per-atom words as lists; what else info and arrays
    hold (None, NaN, nested values) as ASE's JSON, if that brings it back.

    Args:
        atoms: The structure; not modified.
        left_out: Info keys and arrays that are not wanted, such as those of the labels.
        with_results: Keep stored results of a calculator, such as a stress, beside energy and
            forces: they belong to the structure if its label is one that was there.

    Returns:
        Keys ``constraints``, ``arrays``, ``info_arrays``, ``results``, ``other_info`` and
        ``other_arrays``, those that hold something.
    """
    results = getattr(atoms.calc, "results", None) or {}
    found: dict[str, Any] = {
        "constraints": [
            _as_plain_constraint(each)
            for each in atoms.constraints
            if isinstance(each, FixAtoms | FixCartesian)
        ],
        "arrays": _arrays(atoms.arrays, left_out, _ENCODED),
        "info_arrays": _arrays(
            {key: v for key, v in atoms.info.items() if isinstance(v, np.ndarray | list | tuple)},
            left_out,
        ),
        "results": _arrays(
            {key: v for key, v in results.items() if with_results and key in all_properties},
            left_out,
            _LABELS,
        ),
    }
    known = {*found["info_arrays"], *encode_info(atoms.info)}
    found["other_info"] = _others(atoms.info, known, left_out)
    found["other_arrays"] = _others(atoms.arrays, {*found["arrays"], *_ENCODED}, left_out)
    return {key: value for key, value in found.items() if value}


def restore_carried(atoms: Atoms, encoded: Mapping[str, Any]) -> None:
    """Give a structure back what ``encode_carried`` kept; it is modified.

    Args:
        atoms: The structure as ``decode_structure`` returns it.
        encoded: The same record; one of an earlier version carries nothing.
    """
    for name, values in encoded.get("arrays", {}).items():
        atoms.set_array(name, np.asarray(values))
    for key, values in encoded.get("info_arrays", {}).items():
        atoms.info[key] = np.asarray(values)
    for key, text in encoded.get("other_info", {}).items():
        atoms.info[key] = jsonio.decode(text)
    for name, text in encoded.get("other_arrays", {}).items():
        atoms.set_array(name, np.asarray(jsonio.decode(text)))
    results = {key: np.asarray(v)[()] for key, v in encoded.get("results", {}).items()}
    if results:
        atoms.calc = SinglePointCalculator(atoms, **results)
    constraints = encoded.get("constraints", [])
    if constraints:
        atoms.set_constraint([dict2constraint(each) for each in constraints])


def _as_plain_constraint(constraint: Any) -> dict[str, Any]:
    """Return a constraint as ASE describes it, with lists in place of arrays."""
    words: dict[str, Any] = constraint.todict()
    kwargs = {key: np.asarray(value).tolist() for key, value in words["kwargs"].items()}
    return {"name": words["name"], "kwargs": kwargs}


def _arrays(
    given: Mapping[str, Any], left_out: Container[str], kept_elsewhere: Container[str] = ()
) -> dict[str, Any]:
    """Return arrays as lists; real numbers keep every bit."""
    found = {}
    for key, value in given.items():
        if key in kept_elsewhere or key in left_out or not isinstance(key, str):
            continue
        plain = _plain_array(value)
        if plain is not None:
            found[key] = plain
    return found


def _others(
    given: Mapping[str, Any], kept_elsewhere: Container[str], left_out: Container[str]
) -> dict[str, str]:
    """Return values that JSON alone cannot hold, as the text that ASE makes of them."""
    found = {}
    for key, value in given.items():
        if key in kept_elsewhere or key in left_out or not isinstance(key, str):
            continue
        try:
            text = jsonio.encode(value)
            is_whole = is_same_value(jsonio.decode(text), value)
        except (TypeError, ValueError):  # an object that ASE's JSON does not know
            continue
        if is_whole:
            found[key] = text
    return found


def _plain_array(value: Any) -> Any:
    """Return an array or number that JSON can hold, or None."""
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different length
        return None
    is_word = array.dtype.kind == "U" and array.ndim > 0
    is_number = array.dtype.kind in _KINDS and bool(np.isfinite(array).all())
    return array.tolist() if is_word or is_number else None
