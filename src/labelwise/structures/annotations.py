"""What a frame says beside its labels: how much it counts, and which head it belongs to."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np
from ase import Atoms

from labelwise.errors import ArgumentError, LabelError

#: Info keys of the weights of a structure, of its energy and of its forces, as in mace-torch.
WEIGHT_KEYS = ("config_weight", "config_energy_weight", "config_forces_weight")
_STRESS_WEIGHT = "config_stress_weight"
_HEAD = "head"
#: Every info key that decides how a structure is fitted.
ANNOTATIONS = (*WEIGHT_KEYS, _STRESS_WEIGHT, _HEAD)


def get_weights(atoms: Atoms, where: str) -> tuple[float, float]:
    """Return by what a structure's energy and forces are multiplied in the loss.

    Each is ``config_weight`` times ``config_energy_weight`` or ``config_forces_weight`` of its
    info, as in mace-torch; what is not there is 1.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.

    Returns:
        Weight of the energy and weight of the forces, dimensionless, >= 0.

    Raises:
        LabelError: A weight is not a finite number >= 0.
    """
    whole, energy, forces = (_get_weight(atoms, key, where) for key in WEIGHT_KEYS)
    return whole * energy, whole * forces


def get_stress_weight(atoms: Atoms, where: str) -> float:
    """Return by what a structure's stress is multiplied in the loss; see ``get_weights``.

    It is ``config_weight`` times ``config_stress_weight`` of its info.
    """
    return _get_weight(atoms, WEIGHT_KEYS[0], where) * _get_weight(atoms, _STRESS_WEIGHT, where)


def get_head(atoms: Atoms) -> str | None:
    """Return the head (level of theory) that a structure names in its info, or None."""
    head = atoms.info.get(_HEAD)
    return None if head is None else str(head)


def require_one_head(heads: Sequence[str | None], role: str) -> str | None:
    """Return the head that structures name.

    Args:
        heads: (n,) what each names, None for nothing.
        role: What they are, for the message: ``training``.

    Returns:
        The head; None if no structure names one.

    Raises:
        ArgumentError: They name several heads.
    """
    several = say_several_heads(heads)
    if several is not None:
        raise ArgumentError(
            f"the {role} structures {several}: give the structures of one of them alone"
        )
    return next((head for head in heads if head is not None), None)


def say_several_heads(heads: Iterable[str | None]) -> str | None:
    """Say that structures name several heads; None if they do not.

    Args:
        heads: What each names, None for nothing.
    """
    counts = Counter(head for head in heads if head is not None)
    if len(counts) < 2:
        return None
    listed = ", ".join(f"{head!r} ({n})" for head, n in counts.most_common())
    return (
        f"name {len(counts)} heads under the info key {_HEAD!r}: {listed}. Heads are levels of "
        "theory, whose energies have nothing in common"
    )


def _get_weight(atoms: Atoms, key: str, where: str) -> float:
    value = atoms.info.get(key, 1.0)
    is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or value < 0:
        raise LabelError(
            f"{where}: info key {key!r} is {value!s:.40}; allowed are finite numbers >= 0 "
            "(0 leaves the structure out)"
        )
    return float(value)
