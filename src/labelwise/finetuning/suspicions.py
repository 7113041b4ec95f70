"""What labels look like beside a pretrained model, before anything is fitted to them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from ase import Atoms

from labelwise.finetuning.evaluation import predict_graphs
from labelwise.finetuning.labelled import LabelledSet
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures.convergence import say_unconverged
from labelwise.structures.label_judging import judge_labels
from labelwise.structures.labels import Labels

#: Structures that are looked at, evenly spread: enough for a tenth of them to be seen.
_MOST = 100


def suspect_labels(
    potential: TorchPotential,
    labelled: LabelledSet,
    structures: Sequence[Atoms],
    sources: Sequence[object] | None,
    *,
    role: str = "training",
) -> tuple[str, ...]:
    """Tell labels that look like gradients, another unit or unconverged calculations.

    Args:
        potential: As it starts.
        labelled: The structures with their labels, n; at most a hundred are held against the
            model.
        structures: The same structures.
        sources: Where each came from, (n,); None for their places.
        role: What they are, for messages.

    Returns:
        What was noticed, in plain words.
    """
    whole = np.flatnonzero(labelled.has_energy & labelled.has_forces)
    n = len(whole)
    if n == 0:
        return ()
    idx = whole[np.unique(np.linspace(0, n - 1, min(n, _MOST)).round().astype(np.int64))].tolist()
    energies, forces = predict_graphs(
        potential.without_references(), [labelled.graphs[i] for i in idx]
    )
    judged = judge_labels(
        [structures[i] for i in idx],
        [Labels(float(labelled.energies[i]), labelled.forces[i]) for i in idx],
        energies,
        forces,
        [f"{role} structure {i}" if sources is None else sources[i] for i in idx],
    )
    unconverged = say_unconverged(structures, sources)
    return judged.messages if unconverged is None else (unconverged, *judged.messages)
