"""Whether results say of themselves that they did not converge."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from ase import Atoms

#: What programs and their readers call it, in any case of letters. What is said of a geometry
#: (``converged_ionic``) or of a path (``converged_path``) says nothing of a label.
CONVERGED_KEYS = (
    "converged",
    "is_converged",
    "scf_converged",
    "is_scf_converged",
    "scf_is_converged",
    "electronic_converged",
    "converged_electronic",
)
_UNCONVERGED_KEYS = ("unconverged", "not_converged", "scf_unconverged", "scf_not_converged")
_NO = ("f", "false", ".false.", "n", "no", "0")
_YES = ("t", "true", ".true.", "y", "yes", "1")


def find_unconverged(said: Mapping[str, Any]) -> str:
    """Return what says that results did not converge, such as ``converged = False``.

    Args:
        said: Info of a structure, or results of a calculator.

    Returns:
        Name and value; empty if nothing says so. None and what is no truth value say nothing.
    """
    for key, value in said.items():
        name = str(key).lower()
        is_bad = (name in CONVERGED_KEYS and _says(value, False, _NO)) or (
            name in _UNCONVERGED_KEYS and _says(value, True, _YES)
        )
        if is_bad:
            return f"{key} = {value}"
    return ""


def find_unconverged_in(atoms: Atoms) -> str:
    """Return what of a structure's info or its calculator's results says so; see above."""
    results: Mapping[str, Any] = getattr(atoms.calc, "results", None) or {}
    return find_unconverged({**results, **atoms.info})


def say_unconverged(
    structures: Sequence[Atoms], sources: Sequence[object] | None = None
) -> str | None:
    """Return a sentence on structures whose calculation did not converge; None without any.

    Args:
        structures: n labelled structures.
        sources: Where each came from, (n,); None for their places.
    """
    found = [
        (i, said) for i, atoms in enumerate(structures) if (said := find_unconverged_in(atoms))
    ]
    if not found:
        return None
    place, said = found[0]
    first = f"structure {place}" if sources is None else str(sources[place])
    return (
        f"{len(found)} of {len(structures)} structures say that their calculation did not "
        f"converge, the first is {first} ({said}); their labels are used all the same: take them "
        "out, or calculate them again."
    )


def _says(value: Any, truth: bool, words: Sequence[str]) -> bool:
    """Return whether a value is a truth; of several (two spins) one suffices."""
    if isinstance(value, str):
        return value.strip().strip("\"'").lower() in words
    if isinstance(value, list | tuple | np.ndarray):
        each = np.asarray(value, dtype=object).ravel().tolist()
        return any(_says(one, truth, words) for one in each)
    return isinstance(value, bool | int | float | np.bool_ | np.number) and bool(value) is truth
