"""Which split of a data set a structure belongs to."""

from __future__ import annotations

import numpy as np
from ase import Atoms

from labelwise.errors import LabelError


def get_split(atoms: Atoms, where: str, key: str) -> str:
    """Return the name of the split that a structure belongs to.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.
        key: Info key of the name.

    Raises:
        LabelError: The key is missing, or holds neither a word nor a whole number.
    """
    value = atoms.info.get(key)
    if isinstance(value, str | int | np.integer) and str(value):
        return str(value)
    came = "is missing" if key not in atoms.info else f"holds {value!r:.40}"
    present = ", ".join(sorted(map(str, atoms.info))[:12]) or "none"
    raise LabelError(
        f"{where}: the info key {key!r} that names the split {came}; every test structure must "
        f"have it, with a word or a whole number, or none is to be asked for (split key). Info "
        f"keys present: {present}"
    )
