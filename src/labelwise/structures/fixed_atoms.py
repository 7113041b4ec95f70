"""Which atoms of a structure are fixed."""

from __future__ import annotations

import numpy as np
from ase import Atoms
from ase.constraints import FixAtoms, FixCartesian
from jaxtyping import Bool


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
