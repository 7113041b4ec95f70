"""What labels look like beside a model's predictions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.finetuning.labelled import LabelledSet
from labelwise.structures.convergence import say_unconverged
from labelwise.structures.label_judging import judge_labels
from labelwise.structures.labels import Labels


def judge_predictions(
    labelled: LabelledSet,
    idx: Int64[np.ndarray, " m"],
    energies: Float64[np.ndarray, " m"],
    forces: Sequence[Float64[np.ndarray, "_ 3"]],
    names: Sequence[object],
    sources: Sequence[object] | None,
) -> tuple[str, ...]:
    """Tell labels that look like gradients, another unit or unconverged calculations.

    Args:
        labelled: The structures with their labels, n.
        idx: (m,) those that were predicted; they have energies and forces.
        energies: (m,) float64, predicted, eV, up to one energy for each element.
        forces: (n_atoms_i, 3) float64 each, predicted, eV/Å.
        names: What to call each of the m, for messages.
        sources: Where each of the n came from, for messages; None for their places.

    Returns:
        What was noticed, in plain words.
    """
    judged = judge_labels(
        [labelled.structures[i] for i in idx],
        [Labels(float(labelled.energies[i]), labelled.forces[i]) for i in idx],
        energies,
        forces,
        names,
    )
    unconverged = say_unconverged(labelled.structures, sources)
    return judged.messages if unconverged is None else (unconverged, *judged.messages)
