"""From a pool of structures to the batch worth labelling: the whole road.

The pool is a stream. Structures are read, screened and turned into features one after
another; only the features and each structure's source stay in memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from ase import Atoms
from jaxtyping import Float

from labelwise.errors import ArgumentError, ScreeningError, SelectionError, StructureError
from labelwise.kernels import LinearKernel
from labelwise.potentials.base import Potential
from labelwise.representations import (
    ModelRepresentation,
    RepresentationOptions,
    iter_features,
    make_representation,
)
from labelwise.selection import RULES, Selection, find_nearest, select_batch, select_random
from labelwise.structures import Frame, Screen, Screened, Source
from labelwise.structures.labels import require_label
from labelwise.timing import ProgressCallback, Stage, Stopwatch, ignore_progress

#: Info keys that a chosen structure gains.
RANK_KEY = "labelwise_rank"
POOL_INDEX_KEY = "labelwise_pool_index"
SOURCE_KEY = "labelwise_source"
SCORE_KEY = "labelwise_score"
NEAREST_TRAIN_KEY = "labelwise_nearest_train"


@dataclass(frozen=True)
class AcquisitionSettings:
    """How a batch is chosen.

    Attributes:
        n_select: Structures to choose.
        representation: A registered representation: ``ntk-e``, ``activation``, ``random``.
        parameters: Parameter block of a tangent kernel: ``embedding``, ``readout``,
            ``products`` or ``all``.
        sketch_dim: Dimension of the random sketch of the larger blocks; None for the
            representation's default.
        rule: A registered rule: ``pv``, ``lcmd``, ``k-center``, ``top``, ``random``.
        shortlist: Keep only the K structures of highest posterior variance before the
            rule is applied; None for the whole pool.
        regularisation: λ of the posterior variance, dimensionless.
        seed: Seeds the sketch and the random rule.
        batch_atoms: Atoms evaluated at once; None for the potential's default.
        strict: Raise when a structure has to be set aside.
        required_labels: Info or array keys that every labelled structure must have.
        group_by: Info key by which chosen and offered structures are counted.
    """

    n_select: int
    representation: str = "ntk-e"
    parameters: str = "embedding"
    sketch_dim: int | None = None
    rule: str = "lcmd"
    shortlist: int | None = None
    regularisation: float = 1e-3
    seed: int = 0
    batch_atoms: int | None = None
    strict: bool = False
    required_labels: tuple[str, ...] = ()
    group_by: str | None = None

    @property
    def needs_features(self) -> bool:
        """Whether the rule looks at the structures at all."""
        return self.rule != "random" or self.shortlist is not None

    @property
    def needs_potential(self) -> bool:
        """Whether a model is needed to choose."""
        return self.needs_features and isinstance(self._make_representation(), ModelRepresentation)

    def check(self) -> None:
        """Find what can be found wrong before any structure is read.

        Raises:
            ArgumentError: A name is unknown or a number out of range.
        """
        self._make_representation()
        if self.rule not in RULES:
            raise ArgumentError(f"rule is {self.rule!r}; allowed are {', '.join(RULES)}")
        if self.n_select < 1:
            raise ArgumentError(f"n_select is {self.n_select}; it must be at least 1")
        if self.shortlist is not None and self.shortlist < self.n_select:
            raise ArgumentError(
                f"shortlist is {self.shortlist}, below the {self.n_select} structures to select"
            )
        if not (np.isfinite(self.regularisation) and self.regularisation > 0):
            raise ArgumentError(
                f"regularisation is {self.regularisation}; it must be finite and above 0"
            )

    def _make_representation(self) -> object:
        options = RepresentationOptions(self.parameters, self.sketch_dim, self.seed)
        return make_representation(self.representation, options)


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
    """

    rank: int
    pool_index: int
    source: Source
    score: float
    nearest_train: Source | None = None
    nearest_distance: float | None = None


@dataclass(frozen=True)
class Acquisition:
    """A chosen batch and how it came about.

    Attributes:
        picks: The batch in order of choice.
        n_pool: Structures of the pool as read.
        n_train: Labelled structures as read.
        n_features: Length of a feature vector; 0 when none was computed.
        screened: Structures that were set aside.
        stages: Seconds by stage.
        groups: Value of the ``group_by`` key to (chosen, offered) structures.
    """

    picks: tuple[Pick, ...]
    n_pool: int
    n_train: int
    n_features: int
    screened: tuple[Screened, ...]
    stages: tuple[Stage, ...]
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)

    def annotate(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return copies of the chosen structures with ``labelwise_*`` info keys.

        Args:
            structures: The chosen structures in order of choice; not modified.
        """
        annotated = []
        for pick, atoms in zip(self.picks, structures, strict=True):
            copy: Atoms = atoms.copy()
            copy.calc = atoms.calc
            copy.info[RANK_KEY] = pick.rank
            copy.info[POOL_INDEX_KEY] = pick.pool_index
            copy.info[SOURCE_KEY] = str(pick.source)
            copy.info[SCORE_KEY] = pick.score
            copy.info.pop(NEAREST_TRAIN_KEY, None)
            if pick.nearest_train is not None:
                copy.info[NEAREST_TRAIN_KEY] = str(pick.nearest_train)
            annotated.append(copy)
        return annotated


@dataclass
class _Kept:
    """The structures of one role that passed the screen."""

    role: str
    n_read: int = 0
    sources: list[Source] = field(default_factory=list)
    indices: list[int] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    screened: list[Screened] = field(default_factory=list)

    def remove(self, row: int) -> Screened:
        """Take back a structure whose features are not finite."""
        if self.groups:
            del self.groups[row]
        detail = "the model gives features that are not finite"
        return Screened(
            self.role, self.indices.pop(row), self.sources.pop(row), "non-finite-features", detail
        )


def acquire(
    pool: Iterable[Frame],
    train: Iterable[Frame],
    settings: AcquisitionSettings,
    *,
    potential: Potential | None,
    progress: ProgressCallback = ignore_progress,
) -> Acquisition:
    """Choose a batch from a stream of structures.

    Args:
        pool: The unlabelled structures.
        train: The labelled structures; may be empty.
        settings: Representation, rule and the rest.
        potential: The pretrained model; None is allowed when neither the representation
            nor the rule needs one.
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
    """
    settings.check()
    if settings.needs_potential and potential is None:
        raise ArgumentError(
            f"representation {settings.representation!r} needs a model: give --model PATH, a "
            "name from 'labelwise models', or --model demo"
        )
    road = _Road(settings, potential, progress)
    train_kept, train_rows = road.load("train", train)
    pool_kept, pool_rows = road.load("pool", pool)
    n_kept = len(pool_kept.sources)
    _check_size(settings.n_select, pool_kept)
    with road.watch.stage("select", n_kept):
        if settings.needs_features:
            n_features = pool_rows[0].shape[1]
            pool_kernel = _to_kernel(pool_rows, n_features)
            train_kernel = _to_kernel(train_rows, n_features)
            selection, nearest = _select(pool_kernel, train_kernel, settings, progress)
        else:
            n_features = 0
            selection = select_random(n_kept, settings.n_select, seed=settings.seed)
            nearest = None
    return Acquisition(
        picks=_picks(selection, nearest, pool_kept, train_kept),
        n_pool=pool_kept.n_read,
        n_train=train_kept.n_read,
        n_features=n_features,
        screened=(*train_kept.screened, *pool_kept.screened),
        stages=road.watch.stages(),
        groups=_count_groups(selection, pool_kept),
    )


Rows = list[Float[np.ndarray, "_ d"]]


class _Road:
    """Reading, screening and representing, with the time of each."""

    def __init__(
        self,
        settings: AcquisitionSettings,
        potential: Potential | None,
        progress: ProgressCallback,
    ) -> None:
        self.watch = Stopwatch()
        for name in ("read train", "read pool", "screen", "represent", "select"):
            self.watch.count(name, 0)  # the order in which they are shown
        self._settings = settings
        self._potential = potential
        self._progress = progress
        elements = None if potential is None else potential.elements
        self._screen = Screen(elements, None if potential is None else potential.cutoff)

    def load(self, role: str, frames: Iterable[Frame]) -> tuple[_Kept, Rows]:
        """Return what passed the screen, and its features in chunks if any are needed."""
        kept = _Kept(role)
        structures = self._passing(kept, frames)
        if not self._settings.needs_features:
            for n_done, _ in enumerate(structures, start=1):
                self._progress(f"read {role}", n_done, None)
            return kept, []
        settings = self._settings
        stream = iter_features(
            structures,
            self._potential,
            settings.representation,
            parameters=settings.parameters,
            sketch_dim=settings.sketch_dim,
            seed=settings.seed,
            batch_atoms=settings.batch_atoms,
        )
        rows: Rows = []
        broken: list[int] = []
        n_done = 0
        for chunk in self._timed("represent", stream):
            finite = np.isfinite(chunk).all(axis=1)
            rows.append(chunk[finite])
            broken += (n_done + np.flatnonzero(~finite)).tolist()
            n_done += len(chunk)
            self._progress(f"represent {role}", n_done, None)
        for row in reversed(broken):
            self._set_aside(kept, kept.remove(row))
        return kept, rows

    def _timed(self, name: str, chunks: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """Charge the time of each chunk to a stage, and count its rows."""
        iterator = iter(chunks)
        while True:
            with self.watch.stage(name):
                chunk = next(iterator, None)
            if chunk is None:
                return
            self.watch.count(name, len(chunk))
            yield chunk

    def _passing(self, kept: _Kept, frames: Iterable[Frame]) -> Iterator[Atoms]:
        check = self._screen.check_train if kept.role == "train" else self._screen.check_pool
        required = self._settings.required_labels if kept.role == "train" else ()
        for frame in self.watch.iterate(f"read {kept.role}", frames):
            kept.n_read += 1
            for key in required:
                require_label(frame.atoms, key, str(frame.source))
            with self.watch.stage("screen", 1):
                found = check(frame) or self._check_charge(kept.role, frame)
            if found is not None:
                self._set_aside(kept, found)
                continue
            kept.sources.append(frame.source)
            kept.indices.append(frame.index)
            if self._settings.group_by is not None and kept.role == "pool":
                kept.groups.append(str(frame.atoms.info.get(self._settings.group_by, "")))
            yield frame.atoms

    def _check_charge(self, role: str, frame: Frame) -> Screened | None:
        if self._potential is None:
            return None
        try:
            self._potential.graph_builder.charge_and_spin(frame.atoms)
        except StructureError as error:
            return Screened(role, frame.index, frame.source, "unknown-charge", str(error))
        return None

    def _set_aside(self, kept: _Kept, found: Screened) -> None:
        if self._settings.strict:
            raise ScreeningError(
                f"{found.source}: {found.reason} ({found.detail}); "
                "without --strict such structures are set aside"
            )
        kept.screened.append(found)


def _select(
    pool: LinearKernel,
    train: LinearKernel,
    settings: AcquisitionSettings,
    progress: ProgressCallback,
) -> tuple[Selection, tuple[np.ndarray, np.ndarray] | None]:
    """Return the picks, and each pick's nearest labelled structure and its distance."""
    selection = select_batch(
        settings.rule,
        pool,
        train,
        settings.n_select,
        regularisation=settings.regularisation,
        seed=settings.seed,
        shortlist=settings.shortlist,
        progress=lambda n_done, n_total: progress("select", n_done, n_total),
    )
    if len(train) == 0:
        return selection, None
    return selection, find_nearest(pool, train, selection.pool_idx)


def _to_kernel(rows: Rows, n_features: int) -> LinearKernel:
    """Join chunks into a cosine kernel; no chunks make an empty one."""
    joined = np.concatenate(rows) if rows else np.zeros((0, n_features), dtype=np.float32)
    rows.clear()
    return LinearKernel(joined)


def _check_size(n_select: int, pool: _Kept) -> None:
    n_left = len(pool.sources)
    if n_left >= n_select:
        return
    if pool.n_read == 0:
        raise SelectionError("the pool holds no structures")
    counts = Counter(item.reason for item in pool.screened)
    reasons = ", ".join(f"{count} {reason}" for reason, count in counts.most_common())
    aside = f"; {len(pool.screened)} were set aside: {reasons}" if reasons else ""
    raise SelectionError(
        f"asked for {n_select} structures, but only {n_left} of the {pool.n_read} "
        f"in the pool can be chosen{aside}"
    )


def _picks(
    selection: Selection,
    nearest: tuple[np.ndarray, np.ndarray] | None,
    pool: _Kept,
    train: _Kept,
) -> tuple[Pick, ...]:
    return tuple(
        Pick(
            rank=rank,
            pool_index=pool.indices[row],
            source=pool.sources[row],
            score=float(selection.score[rank]),
            nearest_train=None if nearest is None else train.sources[int(nearest[0][rank])],
            nearest_distance=None if nearest is None else float(nearest[1][rank]),
        )
        for rank, row in enumerate(selection.pool_idx.tolist())
    )


def _count_groups(selection: Selection, pool: _Kept) -> dict[str, tuple[int, int]]:
    """Return (chosen, offered) by group, largest group first."""
    if not pool.groups:
        return {}
    chosen = Counter(pool.groups[row] for row in selection.pool_idx.tolist())
    return {name: (chosen[name], n) for name, n in Counter(pool.groups).most_common()}
