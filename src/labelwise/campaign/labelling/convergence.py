"""Whether a calculator says that it did not converge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.structures.convergence import CONVERGED_KEYS, find_unconverged

_MOST_PARTS = 1000


def find_unconverged_part(calculator: Any) -> str:
    """Return what of a calculator, or of those that it is made of, did not converge.

    ASE's ``Vasp`` and others keep the results of a calculation that ran out of steps, and say so
    by ``converged`` alone. Sums, corrections and other wrappers are searched for what they hold.

    Returns:
        Class, name and value; empty if nothing says so.
    """
    for part in _iter_parts(calculator):
        said = {key: _read(part, key) for key in CONVERGED_KEYS}
        found = find_unconverged(said) or find_unconverged(_results_of(part))
        if found:
            return f"{type(part).__name__}: {found}"
    return ""


def _read(part: Any, name: str) -> Any:
    """Return an attribute, or what a method of that name says; None if it cannot be asked."""
    try:
        value = getattr(part, name, None)
        return value() if callable(value) else value
    except Exception:  # whatever somebody else's method raises tells nothing
        return None


def _results_of(part: Any) -> Mapping[str, Any]:
    results = getattr(part, "results", None)
    return results if isinstance(results, Mapping) else {}


def _iter_parts(calculator: Any) -> Iterator[Any]:
    """Yield a calculator and every calculator and solver that is kept in its attributes."""
    waiting, seen = [calculator], {id(calculator)}
    while waiting and len(seen) < _MOST_PARTS:
        part = waiting.pop()
        yield part
        for each in _members(part):
            if id(each) not in seen and _is_part(each):
                seen.add(id(each))
                waiting.append(each)


def _members(part: Any) -> Iterator[Any]:
    for value in getattr(part, "__dict__", {}).values():
        if isinstance(value, list | tuple):
            yield from value
        elif isinstance(value, dict):
            yield from value.values()
        else:
            yield value


def _is_part(value: Any) -> bool:
    """Return whether something calculates, holds what does, or is a solver that has run."""
    if isinstance(value, Atoms | type) or not hasattr(value, "__dict__"):
        return False
    own = vars(value)
    return (
        hasattr(value, "get_potential_energy")
        or any(isinstance(own.get(key), bool | np.bool_) for key in CONVERGED_KEYS)
        or "calcs" in own
    )
