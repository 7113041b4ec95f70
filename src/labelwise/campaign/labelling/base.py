"""The contract of every labeller: structures in, labels or reasons out, one by one."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import LabelwiseError
from labelwise.structures import Source


class LabellingError(LabelwiseError, RuntimeError):
    """Labelling as such does not work: a missing calculator, a foreign file."""


class LabelsPending(LabelwiseError, RuntimeError):  # noqa: N818 - a state, not a mistake
    """Labels are being made elsewhere; run again when they are there."""


@dataclass(frozen=True)
class Task:
    """One structure to be labelled.

    Attributes:
        key: Its content hash, see ``hash_structure``.
        atoms: The structure as read; not to be modified. Positions in Å.
        source: File and frame.
    """

    key: str
    atoms: Atoms
    source: Source


@dataclass(frozen=True)
class Label:
    """What a calculation gave.

    Attributes:
        key: The structure's content hash.
        energy: Total energy, eV.
        forces: (n_atoms, 3) float64, eV/Å.
        n_tries: Calculations that were started for it.
        seconds: Wall time of all of them.
    """

    key: str
    energy: float
    forces: Float64[np.ndarray, "n_atoms 3"]
    n_tries: int = 1
    seconds: float = 0.0


@dataclass(frozen=True)
class Failure:
    """Why there is no label.

    ==============  ==============================================================
    reason          what happened
    ==============  ==============================================================
    not-converged   the calculation, its results or the file says that it did not converge
    exception       it raised something else
    time-out        it took longer than the limit and was killed
    crashed         its process ended
    not-finite      the energy or a force is NaN or infinite
    zeros           the energy or all forces of a molecule are exactly zero
    absurd-energy   far from what the composition lets expect
    absurd-forces   a force component beyond the limit
    no-label        the pool holds no label for it (replay)
    reported        the returned file says that it failed (files)
    ==============  ==============================================================

    Attributes:
        key: The structure's content hash.
        reason: One of the names above.
        detail: What was found, in words.
        n_tries: Calculations that were started for it.
        seconds: Wall time of all of them.
    """

    key: str
    reason: str
    detail: str
    n_tries: int = 1
    seconds: float = 0.0


Outcome: TypeAlias = Label | Failure


@runtime_checkable
class Labeller(Protocol):
    """Makes labels; ``replay``, ``calculator`` and ``files`` fulfil it."""

    name: str

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Label the tasks of a queue, one outcome for each.

        Tasks are taken from the left when there is room for one. The caller may append
        to the queue whenever it has got an outcome, for instance a replacement for a
        failed structure, and keeps each outcome safe before it asks for the next.

        Yields:
            A label or a failure for each task, in any order, as soon as it is known.

        Raises:
            LabelsPending: The rest is being made elsewhere (``files``).
            LabellingError: No label can be made at all.
        """
        ...
