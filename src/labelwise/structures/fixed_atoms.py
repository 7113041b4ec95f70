"""Which atoms of a structure are fixed, and which constraints files cannot hold."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Bool

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


def list_unwritten(atoms: Atoms) -> list[str]:
    """Return the kinds of a structure's constraints that extended XYZ cannot hold, sorted."""
    lost = [each for each in atoms.constraints if not isinstance(each, _WRITTEN)]
    return sorted({type(each).__name__ for each in lost})
