"""Which atoms of a structure are fixed, and which constraints files cannot hold."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Bool

from labelwise.errors import LabelwiseWarning

#: What extended XYZ has a column for, ``move_mask``.
_WRITTEN = (FixAtoms, FixCartesian)


def free_atoms(atoms: Atoms) -> Bool[np.ndarray, " n_atoms"]:
    """Return which atoms may move.

    An atom is fixed where ``FixAtoms`` (the column ``move_mask`` of extended XYZ) names it, or
    ``FixCartesian`` holds all three of its components. An atom that may still move along one
    direction is free, and other constraints fix no atom.

    Args:
        atoms: The structure, n_atoms atoms; not modified.

    Returns:
        (n_atoms,) bool, True for an atom that may move.
    """
    held = np.zeros((len(atoms), 3), dtype=bool)
    for constraint in atoms.constraints:
        if isinstance(constraint, FixAtoms):
            held[constraint.index] = True
        elif isinstance(constraint, FixCartesian):
            held[constraint.index] |= constraint.mask
    free: Bool[np.ndarray, " n_atoms"] = np.count_nonzero(held, axis=1) < held.shape[1]
    return free


def count_unwritten(atoms: Atoms) -> Counter[str]:
    """Count a structure for each kind of its constraints that extended XYZ cannot hold.

    Args:
        atoms: The structure; not modified.
    """
    lost = (each for each in atoms.constraints if not isinstance(each, _WRITTEN))
    return Counter({type(each).__name__ for each in lost})


def warn_of_unwritten(target: str, counts: Mapping[str, int]) -> None:
    """Say which constraints were left out of a file; nothing where none were.

    Args:
        target: The file.
        counts: Structures that had them, by kind.
    """
    if counts:
        listed = ", ".join(f"{kind} of {n} structures" for kind, n in sorted(counts.items()))
        warnings.warn(
            f"{target}: extended XYZ holds no constraints but FixAtoms and FixCartesian; left out: "
            f"{listed}. Set them again where they are needed",
            LabelwiseWarning,
            stacklevel=3,
        )
