"""The whole pipeline: from a pool of structures to the batch worth labelling.

Frames are read, screened and turned into rows one after another, or in lots by an engine; only
the rows and a table of the frames stay, in memory or on disk.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeAlias, cast

import numpy as np
from jaxtyping import Int64

from labelwise.errors import ArgumentError, ReadError, ScreeningError, ShortPoolError
from labelwise.features.fill import AnyFrame, ExtractionCounts, Filler, Load
from labelwise.features.frames import FrameTable
from labelwise.features.store import DamagedChunkError, FeatureStore
from labelwise.features.store.memory import MemoryRows, RowCache
from labelwise.features.store.root import Say, warn
from labelwise.potentials.base import Potential
from labelwise.runtime.engines import Engine
from labelwise.runtime.timing import ProgressCallback, Stopwatch, ignore_progress
from labelwise.selection.choosing import Choice, Report, choose
from labelwise.selection.choosing_joint import JointChooser
from labelwise.selection.measurement import measure
from labelwise.selection.picks import Pick
from labelwise.selection.results import Acquisition
from labelwise.selection.rules import JOINT_RULE, select_random
from labelwise.selection.rules.batch import check_takes_target
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import make_identity
from labelwise.structures.given import paths_in
from labelwise.structures.labels import require_label
from labelwise.structures.reading import RawFrame, Spec, iter_raw_frames
from labelwise.structures.repeats import find_repeats
from labelwise.structures.screening import Screened, count_reasons

_STAGES = ("read train", "read pool", "screen", "represent train", "represent pool", "select")
#: Of structures that are chosen for, where there are any.
_TARGET_STAGES = ("read target", "represent target")
_MOST_REPAIRS = 20

#: Frames, or files as ``iter_frames`` takes them.
Offered: TypeAlias = Iterable[AnyFrame] | Sequence[Spec]
Rows: TypeAlias = MemoryRows | FeatureStore | JointChooser | None


def acquire(
    pool: Offered,
    train: Offered,
    settings: AcquisitionSettings,
    *,
    potential: Potential | None,
    target: Offered | None = None,
    rows: MemoryRows | RowCache | FeatureStore | None = None,
    memory_bytes: int | None = None,
    engine: Engine | None = None,
    load: Load | None = None,
    measured: bool = False,
    progress: ProgressCallback = ignore_progress,
    say: Say = warn,
) -> Acquisition:
    """Choose a batch from a stream of structures, or from files.

    What ``rows`` hold already is not computed again. Of files and a feature store, files whose
    rows are there are not read again; a chunk that proves damaged is set aside, its
    structures are computed again, and the choice is made anew.

    Args:
        pool: The unlabelled structures.
        train: The labelled structures; may be empty.
        settings: Representation, rule and the rest.
        potential: The pretrained model; None is allowed when neither the representation
            nor the rule needs one.
        target: The structures that matter, of the rule ``target``, labelled or not; None for
            the pool.
        rows: Where rows are kept: a store of ``open_store``, or a cache in memory for whoever
            asks again and again; None for memory that is let go.
        memory_bytes: What the process may occupy with rows on disk; None for half of what it
            may use while it chooses, and for all that is free while it represents.
        engine: Where rows are computed; None for this process.
        load: Loads the model in the workers of an engine; picklable. None to send the model.
        measured: Measure what the batch changes, too, for its page. Structures are represented
            for that although the rule looks at none, if there is what it takes.
        progress: Called with stage, done, total.
        say: Told of what was found damaged in a store.

    Returns:
        The batch, what was set aside, and seconds by stage.

    Raises:
        ArgumentError: A setting is unknown or out of range, or the store holds rows of another
            model or representation, or the rule takes no target.
        SelectionError: More structures are asked for than the pool holds, or the memory does
            not suffice.
        ScreeningError: ``settings.strict``, and a structure had to be set aside; or one of the
            target cannot be represented.
        LabelError: A required label is missing from a labelled structure.
        ReadError: A file or the store cannot be read.
        WriteError: The store cannot be written to.
        PotentialError: The model fails on a structure.
        ClusterError: Workers cannot be had.

    Warns:
        LabelwiseWarning: Chosen structures are copies of labelled ones to the kernel.
    """
    settings.check()
    settings.check_model(potential)
    if target is not None:
        check_takes_target(settings.rule)
    is_measured = measured and not (
        potential is None and settings.make_representation().needs_model
    )
    kept_rows = _open_rows(settings, potential, rows, is_measured=is_measured)
    if isinstance(kept_rows, FeatureStore):  # perhaps read more than once
        pool = paths_in(pool) or list(_frames_in(pool))
        train = paths_in(train) or list(_frames_in(train))
        target = None if target is None else paths_in(target) or list(_frames_in(target))

    def report(n_done: int, n_total: int) -> None:
        progress("select", n_done, n_total)

    watch = Stopwatch()
    for name in (*_STAGES, *(() if target is None else _TARGET_STAGES)):
        watch.count(name, 0)  # the order in which they are shown
    apply_rule = partial(
        choose,
        settings=settings,
        memory_bytes=memory_bytes,
        device="cpu" if potential is None else potential.device,
        engine=None if load is None else engine,
    )
    filler = Filler(
        settings.make_recipe(memory_bytes, is_measured=is_measured),
        kept_rows,
        potential,
        engine=engine,
        load=load,
        strict=settings.strict,
        watch=watch,
        progress=progress,
    )
    for _ in range(_MOST_REPAIRS):
        frames = _fill(filler, pool, train, settings, kept_rows, watch)
        wanted = None if target is None else _fill_target(filler, target)
        try:
            with watch.stage("select"):
                found = _choose(kept_rows, *frames, wanted, settings, apply_rule, report)
            measures = None
            if is_measured and found.kernels is not None:
                measures = measure(found.kernels(), found.selection.pool_idx, settings)
        except DamagedChunkError as error:
            if not isinstance(kept_rows, FeatureStore):
                raise
            kept_rows.set_aside(error.number)
            say(f"{error}; it was set aside, and its rows are computed again")
            continue
        counts = filler.counts if isinstance(kept_rows, FeatureStore) else None
        used_rows = kept_rows if settings.needs_features else None
        acquisition = _describe(*frames, found, used_rows, watch, counts)
        acquisition = replace(acquisition, measures=measures)
        if settings.make_representation().kernel == "linear":  # equal bits are no copies
            acquisition.warn_of_copies()
        return acquisition
    raise ReadError(
        "one chunk after another of the feature store proves damaged; the disk may be failing: "
        "choose another folder"
    )


def _frames_in(offered: Offered) -> Iterable[AnyFrame]:
    """Return what is not files."""
    return cast("Iterable[AnyFrame]", offered)


def _open_rows(
    settings: AcquisitionSettings,
    potential: Potential | None,
    rows: MemoryRows | RowCache | FeatureStore | None,
    *,
    is_measured: bool,
) -> Rows:
    """Return where rows are kept: what was given, if it is for these rows."""
    if isinstance(rows, FeatureStore):
        wanted = make_identity(settings, potential, rows.identity.storage_dtype)
        difference = rows.identity.explain_difference(wanted)
        if difference:
            raise ArgumentError(f"{rows.path} holds other rows: {difference}")
        return rows
    if not (settings.needs_features or is_measured):
        return None
    if settings.rule == JOINT_RULE:
        return JointChooser(settings, is_measured=is_measured)
    if isinstance(rows, MemoryRows):
        return rows
    cache = RowCache(0) if rows is None else rows
    return cache.open(settings.make_representation(), settings.options, potential)


def _fill(
    filler: Filler,
    pool: Offered,
    train: Offered,
    settings: AcquisitionSettings,
    rows: Rows,
    watch: Stopwatch,
) -> tuple[FrameTable, FrameTable]:
    """Return the pool and the labelled structures, screened and with their rows in place."""
    labelled = filler.fill(_iter_train(train, settings), "train")
    if isinstance(rows, JointChooser):
        rows.begin_pool()
    files = paths_in(pool)
    if files:
        candidates = filler.fill_from_files(files, "pool")
    else:
        candidates = filler.fill(_frames_in(pool), "pool")
    with watch.stage("screen", len(labelled) + len(candidates)):
        candidates = set_repeats_aside(candidates, labelled)
    screened = [*labelled.list_screened("train"), *candidates.list_screened("pool")]
    if settings.strict and screened:
        raise ScreeningError(screened[0].explain_strict())
    n_left = int(candidates.usable().sum())
    if n_left < settings.n_select:
        raise _explain_shortage(settings.n_select, n_left, candidates)
    return candidates, labelled


def _fill_target(filler: Filler, target: Offered) -> FrameTable:
    """Return the structures that matter, all with their rows in place."""
    files = paths_in(target)
    if files:
        wanted = filler.fill_from_files(files, "target")
    else:
        wanted = filler.fill(_frames_in(target), "target")
    if len(wanted) == 0:
        raise ArgumentError("the target holds no structures")
    refuse_unusable(wanted.list_screened("target"))
    return wanted


def refuse_unusable(screened: Iterable[Screened]) -> None:
    """Raise for the first structure of a target that cannot be represented.

    Raises:
        ScreeningError: There is one.
    """
    for each in screened:
        detail = f" ({each.detail})" if each.detail else ""
        raise ScreeningError(
            f"{each.source}: {each.reason}{detail}; every structure of the target must be one that "
            "the model can take: leave this one out"
        )


def _iter_train(train: Offered, settings: AcquisitionSettings) -> Iterator[AnyFrame]:
    """Yield the labelled structures if their labels are there."""
    files = paths_in(train)
    for raw in iter_raw_frames(files) if files else _frames_in(train):
        if settings.required_labels:
            frame = raw.parse() if isinstance(raw, RawFrame) else raw
            for key in settings.required_labels:
                require_label(frame.atoms, key, str(frame.source))
        yield raw


def set_repeats_aside(pool: FrameTable, train: FrameTable) -> FrameTable:
    """Return the pool without structures that equal a labelled one, or one before them."""
    passed_train, passed = (np.flatnonzero(each.passing()) for each in (train, pool))
    of_train, of_pool = find_repeats(pool.prints[passed], train.prints[passed_train])
    why = {}
    for row in np.flatnonzero((of_train >= 0) | (of_pool >= 0)).tolist():
        if of_train[row] >= 0:
            source = train.source(int(passed_train[of_train[row]]))
            why[int(passed[row])] = ("duplicate-of-train", f"equals {source}")
        else:
            source = pool.source(int(passed[of_pool[row]]))
            why[int(passed[row])] = ("duplicate-of-pool", f"equals {source}")
    return pool.without(why)


def _explain_shortage(n_select: int, n_left: int, pool: FrameTable) -> ShortPoolError:
    if len(pool) == 0:
        return ShortPoolError("the pool holds no structures", 0)
    reasons = count_reasons(pool.list_screened("pool"))
    aside = f"; {len(pool.set_aside)} were set aside: {reasons}" if reasons else ""
    return ShortPoolError(
        f"asked for {n_select} structures, but only {n_left} of the {len(pool)} "
        f"in the pool can be chosen{aside}",
        n_left,
    )


def _choose(
    rows: Rows,
    pool: FrameTable,
    train: FrameTable,
    target: FrameTable | None,
    settings: AcquisitionSettings,
    apply_rule: Callable[..., Choice],
    report: Report,
) -> Choice:
    if rows is None:
        n_kept = int(pool.usable().sum())
        return Choice(select_random(n_kept, settings.n_select, seed=settings.seed))
    if isinstance(rows, JointChooser):
        return rows.choose(report)
    tables = [pool, train, *([] if target is None else [target])]
    places = [rows.find(frames.keys[frames.usable()]) for frames in tables]
    n_gone = sum(int((each < 0).sum()) for each in places)
    if n_gone:
        raise ReadError(
            f"{n_gone} rows have gone from the feature store while it was in use; run again: they "
            "are computed anew"
        )
    found = apply_rule(rows, *places, report=report)
    return found if settings.needs_features else replace(found, nearest=None)


def _describe(
    pool: FrameTable,
    train: FrameTable,
    found: Choice,
    rows: Rows,
    watch: Stopwatch,
    counts: ExtractionCounts | None,
) -> Acquisition:
    """Return what came of it, with the names of the structures."""
    selection, nearest = found.selection, found.nearest
    kept, kept_train = (np.flatnonzero(each.usable()) for each in (pool, train))
    if rows is not None:
        for role, frames in (("train", train), ("pool", pool)):
            watch.count(f"represent {role}", int(frames.passing().sum()))
    watch.count("select", len(kept))
    picks = []
    for rank, row in enumerate(selection.pool_idx.tolist()):
        place = int(kept[row])
        near = distance = None
        if nearest is not None:
            near = train.source(int(kept_train[nearest[0][rank]]))
            distance = float(nearest[1][rank])
        picks.append(
            Pick(
                rank=rank,
                pool_index=int(pool.indices[place]),
                source=pool.source(place),
                score=float(selection.score[rank]),
                nearest_train=near,
                nearest_distance=distance,
                fingerprint=pool.prints.at(place),
            )
        )
    return Acquisition(
        picks=tuple(picks),
        n_pool=len(pool),
        n_train=len(train),
        n_features=0 if rows is None else rows.n_features,
        screened=(*train.list_screened("train"), *pool.list_screened("pool")),
        stages=watch.stages(),
        groups=_count_groups(kept[selection.pool_idx], kept, pool),
        remarks=dict(train.count_remarks() + pool.count_remarks()),
        extraction=counts,
    )


def _count_groups(
    chosen: Int64[np.ndarray, " k"], kept: Int64[np.ndarray, " n"], pool: FrameTable
) -> dict[str, tuple[int, int]]:
    """Return (chosen, offered) by group, largest group first."""
    if not pool.groups:
        return {}
    taken = Counter(pool.groups[place] for place in chosen.tolist())
    every = Counter(pool.groups[place] for place in kept.tolist())
    return {name: (taken[name], n) for name, n in every.most_common()}
