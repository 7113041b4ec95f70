"""From structures to kernels: one for each set, all under one representation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from ase import Atoms

from labelwise.kernels import Kernel, LinearKernel
from labelwise.potentials.base import Potential
from labelwise.representations import (
    RepresentationOptions,
    feature_blocks,
    make_representation,
    normalise_rows,
    represent,
)


def build_kernels(
    sets: Sequence[Sequence[Atoms]],
    potential: Potential | None = None,
    representation: str = "ntk-e",
    *,
    options: RepresentationOptions | None = None,
    normalise: str = "cosine",
    batch_atoms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> tuple[Kernel, ...]:
    """Make the kernels of several sets of structures, which can be paired with each other.

    Args:
        sets: For instance labelled structures and a pool; not modified. Sets may be empty.
        potential: Where features come from; None for representations without a model.
        representation: A registered name.
        options: Of the representation; None for the defaults.
        normalise: ``cosine``, or ``none``: one common scale over all sets, see
            ``normalise_rows``.
        batch_atoms: Atoms evaluated at once.
        progress: Called with the number of structures finished so far, over all sets.

    Returns:
        One kernel a set, dimensionless.

    Raises:
        ArgumentError: An unknown name, an option out of range, or a model is needed.
        StructureError: A structure that the potential cannot take, or whose features are not
            finite.
    """
    chosen = make_representation(representation, options)
    joined = [atoms for structures in sets for atoms in structures]
    rows = represent(joined, potential, chosen, batch_atoms=batch_atoms, progress=progress)
    empty = np.zeros((0, rows.shape[1]), dtype=np.float32)
    normalise_rows(empty, rows, feature_blocks(chosen, potential), normalise=normalise)
    ends = np.cumsum([len(structures) for structures in sets])[:-1]
    return tuple(LinearKernel(part, normalise="none") for part in np.split(rows, ends))
