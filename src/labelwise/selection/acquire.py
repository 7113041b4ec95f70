"""The whole road: from a pool of structures to the batch worth labelling.

The pool is a stream. Structures are read, screened and turned into features one after
another; only the features and each structure's source stay in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import numpy as np

from labelwise.errors import ArgumentError, ShortPoolError
from labelwise.features.memo import FeatureMemo
from labelwise.features.representations import ModelRepresentation
from labelwise.potentials.base import Potential
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.choosing import make_chooser
from labelwise.selection.measurement import measure
from labelwise.selection.picks import Pick
from labelwise.selection.results import Acquisition
from labelwise.selection.road import Kept, Road
from labelwise.selection.rules import Selection, select_random
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame
from labelwise.structures.screening import count_reasons


def acquire(
    pool: Iterable[Frame],
    train: Iterable[Frame],
    settings: AcquisitionSettings,
    *,
    potential: Potential | None,
    memo: FeatureMemo | None = None,
    measured: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> Acquisition:
    """Choose a batch from a stream of structures.

    Args:
        pool: The unlabelled structures.
        train: The labelled structures; may be empty.
        settings: Representation, rule and the rest.
        potential: The pretrained model; None is allowed when neither the representation
            nor the rule needs one.
        memo: Rows that are known already, for whoever asks again and again.
        measured: Measure what the batch changes, too, for its page. Structures are represented
            for that although the rule looks at none, if there is what it takes.
        progress: Called with stage, done, total.

    Returns:
        The batch, what was set aside, and seconds by stage.

    Raises:
        ArgumentError: A setting is unknown or out of range.
        SelectionError: More structures are asked for than the pool holds.
        ScreeningError: ``settings.strict``, and a structure had to be set aside.
        LabelError: A required label is missing from a labelled structure.
        ReadError: Raised by the streams themselves.
        PotentialError: The model fails on a structure.

    Warns:
        LabelwiseWarning: Chosen structures are copies of labelled ones to the kernel.
    """
    settings.check()
    if settings.needs_potential and potential is None:
        raise ArgumentError(
            f"representation {settings.representation!r} needs a model: give --model PATH, a "
            "name from 'labelwise models', or --model demo"
        )
    road = Road(settings, potential, progress)
    chooser = None
    if settings.needs_features or (measured and _can_represent(settings, potential)):
        chooser = make_chooser(settings, potential, memo, is_measured=measured)
    train_kept = road.load("train", train, chooser)
    pool_kept = road.load("pool", pool, chooser)
    n_kept = len(pool_kept.sources)
    _check_size(settings.n_select, pool_kept)
    nearest = None
    with road.watch.stage("select", n_kept):
        if chooser is None or not settings.needs_features:
            selection = select_random(n_kept, settings.n_select, seed=settings.seed)
        else:
            selection, nearest = chooser.choose(lambda done, total: progress("select", done, total))
    measures = None
    if measured and chooser is not None:
        measures = measure(chooser.kernels(selection.pool_idx), selection.pool_idx, settings)
    acquisition = Acquisition(
        picks=_picks(selection, nearest, pool_kept, train_kept),
        n_pool=pool_kept.n_read,
        n_train=train_kept.n_read,
        n_features=0 if chooser is None or not settings.needs_features else chooser.n_features,
        screened=(*train_kept.screened, *pool_kept.screened),
        stages=road.watch.stages(),
        groups=_count_groups(selection, pool_kept),
        remarks={} if chooser is None else dict(chooser.remarks),
        measures=measures,
    )
    if settings.make_representation().kernel == "linear":  # bits of bonds are equal for frames
        acquisition.warn_of_copies()
    return acquisition


def _can_represent(settings: AcquisitionSettings, potential: Potential | None) -> bool:
    representation = settings.make_representation()
    return potential is not None or not isinstance(representation, ModelRepresentation)


def _check_size(n_select: int, pool: Kept) -> None:
    n_left = len(pool.sources)
    if n_left >= n_select:
        return
    if pool.n_read == 0:
        raise ShortPoolError("the pool holds no structures", 0)
    reasons = count_reasons(pool.screened)
    aside = f"; {len(pool.screened)} were set aside: {reasons}" if reasons else ""
    raise ShortPoolError(
        f"asked for {n_select} structures, but only {n_left} of the {pool.n_read} "
        f"in the pool can be chosen{aside}",
        n_left,
    )


def _picks(
    selection: Selection,
    nearest: tuple[np.ndarray, np.ndarray] | None,
    pool: Kept,
    train: Kept,
) -> tuple[Pick, ...]:
    return tuple(
        Pick(
            rank=rank,
            pool_index=pool.indices[row],
            source=pool.sources[row],
            score=float(selection.score[rank]),
            nearest_train=None if nearest is None else train.sources[int(nearest[0][rank])],
            nearest_distance=None if nearest is None else float(nearest[1][rank]),
            fingerprint=pool.prints[row],
        )
        for rank, row in enumerate(selection.pool_idx.tolist())
    )


def _count_groups(selection: Selection, pool: Kept) -> dict[str, tuple[int, int]]:
    """Return (chosen, offered) by group, largest group first."""
    if not pool.groups:
        return {}
    chosen = Counter(pool.groups[row] for row in selection.pool_idx.tolist())
    return {name: (chosen[name], n) for name, n in Counter(pool.groups).most_common()}
