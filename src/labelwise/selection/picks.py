"""One chosen structure, and what it may carry."""

from __future__ import annotations

from dataclasses import dataclass, field

from labelwise.structures import Source
from labelwise.structures.identity import Fingerprint

#: Info key of a structure's predicted force error, and array key of its atoms', eV/Å.
FORCE_STD_KEY = "labelwise_force_std"


@dataclass(frozen=True)
class Pick:
    """One chosen structure.

    Attributes:
        rank: Place in the order of choice, from 0.
        pool_index: Place among all structures of the pool as read, from 0.
        source: File and frame.
        score: What the rule saw when it chose: a posterior variance or a squared kernel
            distance, dimensionless; 0 for the random rule.
        nearest_train: The labelled structure nearest under the kernel; None when
            nothing is labelled or the rule needs no kernel.
        nearest_distance: Kernel distance to it, dimensionless.
        fingerprint: Of the structure as it was read; None where nothing is known of it.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> pool = [molecule(name) for name in ("C2H6", "H2O", "CH4")]
        >>> batch = lw.select(pool, 2, potential="demo", rule="k-center")
        >>> [pick.pool_index for pick in batch.picks]
        [2, 1]
    """

    rank: int
    pool_index: int
    source: Source
    score: float
    nearest_train: Source | None = None
    nearest_distance: float | None = None
    fingerprint: Fingerprint | None = field(default=None, compare=False, repr=False)
