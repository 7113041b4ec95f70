"""The road by way of a feature store: rows on disk, in any number, chosen from out of core.

The same structures are set aside and the same picks made as on the road in memory. What is in
the store already is not computed again, and files whose rows are there are not read again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Int64

from labelwise.errors import ArgumentError, ReadError, ScreeningError, ShortPoolError
from labelwise.features.extraction import ExtractionCounts, Extractor, Offered, StoreFiller
from labelwise.features.representations import ModelRepresentation, feature_blocks
from labelwise.features.store import DamagedChunkError, FeatureStore, Identity
from labelwise.features.store.root import Say, warn
from labelwise.potentials.base import Potential
from labelwise.runtime.engines import Engine, LocalEngine
from labelwise.runtime.timing import ProgressCallback, Stopwatch, ignore_progress
from labelwise.selection.choosing_stored import StoredChoice, choose_stored
from labelwise.selection.picks import Pick
from labelwise.selection.results import Acquisition
from labelwise.selection.rules import JOINT_RULE
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Screened
from labelwise.structures.labels import require_label
from labelwise.structures.reading import RawFrame, iter_raw_frames
from labelwise.structures.repeats import find_repeats
from labelwise.structures.screening import count_reasons

_MOST_REPAIRS = 20


@dataclass(frozen=True)
class StoreSettings:
    """Where rows are kept and how.

    Attributes:
        path: The feature store's folder; made if it is not there.
        storage_dtype: ``float32``, ``float16`` or ``bfloat16``.
        memory_bytes: What the process may occupy; None for half of what it may use while it
            chooses, and for all that is free while it represents.
        workers: Processes that parse and build neighbour lists ahead; 0 for none.
    """

    path: Path
    storage_dtype: str = "float32"
    memory_bytes: int | None = None
    workers: int = 0


def make_identity(
    settings: AcquisitionSettings, potential: Potential, storage_dtype: str
) -> Identity:
    """Return whose rows a run makes.

    Raises:
        ArgumentError: The representation or the rule cannot be had from a store.
    """
    representation = storable_representation(settings)
    return Identity(
        representation=representation.name,
        blocks=tuple((b.size, b.weight) for b in feature_blocks(representation, potential)),
        options=representation.relevant_options(settings.options),
        model=potential.content_hash,
        storage_dtype=storage_dtype,
    )


def _checked_potential(settings: AcquisitionSettings, potential: Potential | None) -> Potential:
    representation = storable_representation(settings)
    if potential is None:
        raise ArgumentError(
            f"representation {representation.name!r} needs a model: give --model PATH, a name from "
            "'labelwise models', or --model demo"
        )
    return potential


def storable_representation(settings: AcquisitionSettings) -> ModelRepresentation:
    """Return the representation if its rows can be kept in a store.

    Raises:
        ArgumentError: They cannot.
    """
    representation = settings.make_representation()
    if settings.rule == JOINT_RULE or not isinstance(representation, ModelRepresentation):
        name = settings.rule if settings.rule == JOINT_RULE else representation.name
        raise ArgumentError(
            f"{name!r} cannot be chosen from a feature store, which keeps one row of numbers of a "
            "model for each structure: leave out the store, or choose ntk-e, ntk-f, ntk-ef or "
            "activation"
        )
    return representation


def fill_store(
    files: Sequence[str],
    settings: AcquisitionSettings,
    store: StoreSettings,
    *,
    potential: Potential | None,
    engine: Engine | None = None,
    load: Callable[[], Potential | None] | None = None,
    progress: ProgressCallback = ignore_progress,
    say: Say = warn,
) -> tuple[FeatureStore, Offered, ExtractionCounts]:
    """Bring the rows of files into a store, without choosing.

    Arguments and errors are those of ``acquire_stored``.

    Returns:
        The store, the frames, and what was done.
    """
    potential = _checked_potential(settings, potential)
    identity = make_identity(settings, potential, store.storage_dtype)
    features = FeatureStore.open(store.path, identity, create=True, say=say)
    with _open_filler(features, settings, store, potential, engine, load, progress) as filler:
        offered = filler.fill_from_files(files, stage="represent")
    return features, offered, filler.counts


def acquire_stored(
    pool: Sequence[str],
    train: Sequence[str],
    settings: AcquisitionSettings,
    store: StoreSettings,
    *,
    potential: Potential | None,
    engine: Engine | None = None,
    load: Callable[[], Potential | None] | None = None,
    measured: bool = False,
    progress: ProgressCallback = ignore_progress,
    say: Say = warn,
) -> Acquisition:
    """Choose a batch from files of structures by way of a feature store.

    A chunk of the store that proves damaged is set aside, its structures are computed again,
    and the choice is made anew.

    Args:
        pool: Files of unlabelled structures, as ``iter_frames`` takes them.
        train: Files of labelled structures; may be empty.
        settings: Representation, rule and the rest.
        store: Where rows are kept.
        potential: The pretrained model; None is an error that says what needs one.
        engine: Where rows are computed and the pool is scored; None for this process.
        load: Loads the model in the workers of an engine that has any; picklable.
        measured: Measure what the batch changes, too, for its page.
        progress: Called with stage, done, total.
        say: Told of what was found damaged in the store.

    Returns:
        The batch, what was set aside, and seconds by stage.

    Raises:
        ArgumentError: A setting is out of range, or the store holds rows of another model or
            representation.
        SelectionError: More structures are asked for than the pool holds, or the memory does
            not suffice.
        ScreeningError: ``settings.strict``, and a structure had to be set aside.
        LabelError: A required label is missing from a labelled structure.
        ReadError: A file or the store cannot be read.
        WriteError: The store cannot be written to.
        PotentialError: The model fails on a structure.
        ClusterError: Workers cannot be had.

    Warns:
        LabelwiseWarning: Chosen structures are copies of labelled ones to the kernel.
    """
    settings.check()
    if not settings.needs_features:
        raise ArgumentError(
            f"the rule {settings.rule!r} looks at no features: leave out the feature store"
        )
    potential = _checked_potential(settings, potential)
    identity = make_identity(settings, potential, store.storage_dtype)
    features = FeatureStore.open(store.path, identity, create=True, say=say)
    watch = Stopwatch()
    with _open_filler(features, settings, store, potential, engine, load, progress) as filler:
        for _ in range(_MOST_REPAIRS):
            with watch.stage("represent train"):
                labelled = filler.fill(_iter_train(train, settings), stage="represent train")
            with watch.stage("represent pool"):
                offered = filler.fill_from_files(pool, stage="represent pool")
            with watch.stage("screen"):
                screened, kept, kept_train = _screen(offered, labelled, strict=settings.strict)
            _check_size(settings.n_select, offered, kept, screened)
            try:
                with watch.stage("select"):
                    choice = choose_stored(
                        features,
                        offered.keys[kept],
                        labelled.keys[kept_train],
                        settings,
                        memory_bytes=store.memory_bytes,
                        device=potential.device,
                        engine=engine,
                        measured=measured,
                        report=lambda done, total: progress("select", done, total),
                    )
            except DamagedChunkError as error:
                features.set_aside(error.number)
                say(f"{error}; it was set aside, and its rows are computed again")
                continue
            watch.count("represent train", len(labelled))
            watch.count("represent pool", len(offered))
            watch.count("screen", len(labelled) + len(offered))
            watch.count("select", len(kept))
            acquisition = Acquisition(
                picks=_picks(choice, offered, kept, labelled, kept_train),
                n_pool=len(offered),
                n_train=len(labelled),
                n_features=identity.width,
                screened=screened,
                stages=watch.stages(),
                groups=_count_groups(choice, offered, kept),
                extraction=filler.counts,
                measures=choice.measures,
            )
            acquisition.warn_of_copies()
            return acquisition
    raise ReadError(
        f"{store.path}: one chunk after another proves damaged; the disk may be failing: choose "
        "another folder"
    )


@contextmanager
def _open_filler(
    features: FeatureStore,
    settings: AcquisitionSettings,
    store: StoreSettings,
    potential: Potential,
    engine: Engine | None,
    load: Callable[[], Potential | None] | None,
    progress: ProgressCallback,
) -> Iterator[StoreFiller]:
    """Give what fills the store, here with the potential that is loaded, or in workers."""
    make = partial(_make_extractor, settings, store)
    if engine is None:
        with closing(make(features, potential)) as extractor:
            yield StoreFiller(
                features,
                LocalEngine(),
                lambda: extractor,
                group_by=settings.group_by,
                progress=progress,
            )
        return
    if load is None:
        raise ArgumentError("workers load the model themselves: load is missing")
    setup = partial(_open_extractor, make, features.path, features.identity, load)
    yield StoreFiller(features, engine, setup, group_by=settings.group_by, progress=progress)


def _make_extractor(
    settings: AcquisitionSettings,
    store: StoreSettings,
    features: FeatureStore,
    potential: Potential,
) -> Extractor:
    return Extractor(
        features,
        potential,
        storable_representation(settings),
        batch_atoms=settings.batch_atoms,
        workers=store.workers,
        group_by=settings.group_by,
        size_limit=settings.make_size_limit(potential, store.memory_bytes),
    )


def _open_extractor(
    make: Callable[[FeatureStore, Potential], Extractor],
    path: Path,
    identity: Identity,
    load: Callable[[], Potential | None],
) -> Extractor:
    """Make an extractor in a worker process."""
    potential = load()
    if potential is None:
        raise ArgumentError("load gives no model")
    return make(FeatureStore.open(path, identity), potential)


def _iter_train(train: Sequence[str], settings: AcquisitionSettings) -> Iterator[RawFrame]:
    if not train:
        return
    for raw in iter_raw_frames(train):
        frame = raw.parse()
        for key in settings.required_labels:
            require_label(frame.atoms, key, str(frame.source))
        yield raw if frame.fault else RawFrame(frame.atoms, frame.source, frame.index)


def _screen(
    offered: Offered, labelled: Offered, *, strict: bool
) -> tuple[tuple[Screened, ...], Int64[np.ndarray, " n"], Int64[np.ndarray, " m"]]:
    """Return what is set aside, and the places of the others in the pool and among labelled."""
    passed_train, passed = (np.flatnonzero(each.passing()) for each in (labelled, offered))
    of_train, of_pool = find_repeats(offered.prints[passed], labelled.prints[passed_train])
    why = dict(offered.set_aside)
    for place, number in zip(passed.tolist(), of_train.tolist(), strict=True):
        if number >= 0:
            source = labelled.source(int(passed_train[number]))
            why[place] = ("duplicate-of-train", f"equals {source}")
    for place, number in zip(passed.tolist(), of_pool.tolist(), strict=True):
        if number >= 0:
            why[place] = ("duplicate-of-pool", f"equals {offered.source(int(passed[number]))}")
    screened = tuple(
        Screened(role, place, frames.source(place), *reason)
        for role, frames, reasons in (
            ("train", labelled, labelled.set_aside),
            ("pool", offered, why),
        )
        for place, reason in sorted(reasons.items())
    )
    if strict and screened:
        raise ScreeningError(screened[0].explain_strict())
    is_kept = np.ones(len(offered), dtype=bool)
    is_kept[list(why)] = False
    return screened, np.flatnonzero(is_kept), np.flatnonzero(labelled.usable())


def _check_size(
    n_select: int,
    offered: Offered,
    kept: Int64[np.ndarray, " n"],
    screened: Sequence[Screened],
) -> None:
    if len(kept) >= n_select:
        return
    if len(offered) == 0:
        raise ShortPoolError("the pool holds no structures", 0)
    of_pool = [item for item in screened if item.role == "pool"]
    aside = f"; {len(of_pool)} were set aside: {count_reasons(of_pool)}" if of_pool else ""
    raise ShortPoolError(
        f"asked for {n_select} structures, but only {len(kept)} of the {len(offered)} "
        f"in the pool can be chosen{aside}",
        len(kept),
    )


def _picks(
    choice: StoredChoice,
    offered: Offered,
    kept: Int64[np.ndarray, " n"],
    labelled: Offered,
    kept_train: Int64[np.ndarray, " m"],
) -> tuple[Pick, ...]:
    picks = []
    for rank, row in enumerate(choice.selection.pool_idx.tolist()):
        place = int(kept[row])
        nearest = distance = None
        if choice.nearest is not None:
            nearest = labelled.source(int(kept_train[choice.nearest[0][rank]]))
            distance = float(choice.nearest[1][rank])
        score = float(choice.selection.score[rank])
        known = offered.prints.at(place)
        picks.append(Pick(rank, place, offered.source(place), score, nearest, distance, known))
    return tuple(picks)


def _count_groups(
    choice: StoredChoice, offered: Offered, kept: Int64[np.ndarray, " n"]
) -> dict[str, tuple[int, int]]:
    """Return (chosen, offered) by group, largest group first."""
    if not offered.groups:
        return {}
    chosen = Counter(offered.groups[kept[row]] for row in choice.selection.pool_idx.tolist())
    every = Counter(offered.groups[place] for place in kept.tolist())
    return {name: (chosen[name], n) for name, n in every.most_common()}
