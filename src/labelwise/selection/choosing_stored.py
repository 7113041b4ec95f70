"""From rows in a feature store to a selection, within a bound on memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from labelwise.errors import ReadError
from labelwise.features.store import FeatureStore, StoreView, find_common_norms
from labelwise.features.store.view import DEFAULT_PIECE_BYTES
from labelwise.kernels.linear import FeatureKernel, LinearKernel
from labelwise.runtime.engines import Engine
from labelwise.runtime.memory import usable_memory_bytes
from labelwise.selection.measurement import BatchKernels, measure
from labelwise.selection.measures import Measures
from labelwise.selection.rules import Selection, find_nearest, select_batch
from labelwise.selection.rules.linear_posterior import LinearPrior
from labelwise.selection.rules.planning import open_kernel, plan_selection
from labelwise.selection.rules.shortlist import decide_shortlist
from labelwise.selection.rules.variance_filter import RunningTop, ScoredRows, VarianceFilter
from labelwise.selection.settings import AcquisitionSettings

Report = Callable[[int, int], None]
_FLOAT_BYTES = 4
#: Bytes of rows that are read and scored at once.
PIECE_BYTES = DEFAULT_PIECE_BYTES


@dataclass(frozen=True, eq=False)
class StoredChoice:
    """Picks, and what is nearest to them.

    Attributes:
        selection: Positions among the structures offered, and scores.
        nearest: Of each pick the position of the nearest labelled structure, (k,), and its
            kernel distance, (k,); None with nothing labelled.
        measures: What the picks changed; None unless that is asked for.
    """

    selection: Selection
    nearest: tuple[np.ndarray, np.ndarray] | None
    measures: Measures | None = None


def choose_stored(
    features: FeatureStore,
    pool_keys: UInt8[np.ndarray, "n 16"],
    train_keys: UInt8[np.ndarray, "m 16"],
    settings: AcquisitionSettings,
    *,
    memory_bytes: int | None,
    device: torch.device,
    engine: Engine | None,
    measured: bool,
    report: Report,
) -> StoredChoice:
    """Apply a rule to rows in a store.

    Args:
        features: Holds the rows of all keys.
        pool_keys: Of the structures to choose from, (n, 16).
        train_keys: Of the labelled ones, (m, 16), m >= 0.
        settings: Rule, batch, normalisation and the rest.
        memory_bytes: What the process may occupy; None for half of what it may use.
        device: Where to multiply; on a GPU it is its own free memory that is divided.
        engine: Where a shortlist is scored; None for here.
        measured: Measure what the picks change, too.
        report: Called with units of work done and their total.

    Raises:
        DamagedChunkError: A chunk of the store is not as it was written.
        ReadError: Rows have gone from the store, or it cannot be read.
        SelectionError: The memory does not suffice, or the selection cannot be made.
    """
    if device.type == "mps":  # has no float64, in which the rules decide
        device = torch.device("cpu")
    pool_rows, train_rows = _open_views(features, pool_keys, train_keys, settings)
    labelled = torch.from_numpy(train_rows.read(slice(0, len(train_rows)))).to(device)
    train = LinearKernel.from_rows(labelled, settings.resolved_normalise)
    longest = max(piece.stop - piece.start for piece in pool_rows.pieces())
    budget, resident = _find_budget(memory_bytes, device)
    memory = plan_selection(
        budget,
        resident=resident,
        n=len(pool_rows),
        d=pool_rows.width,
        n_train=len(train),
        n_select=settings.n_select,
        rule=settings.rule,
        shortlist=settings.shortlist,
        piece_bytes=_FLOAT_BYTES * pool_rows.width * longest,
    )
    pool = open_kernel(pool_rows, memory, normalise=settings.resolved_normalise, device=device)
    choose = partial(
        select_batch,
        settings.rule,
        n_select=settings.n_select,
        regularisation=settings.resolved_regularisation,
        seed=settings.seed,
        chunk_size=memory.chunk_size,
        progress=report,
    )
    kept = None
    if engine is not None and settings.shortlist is not None and len(train) > 0:
        kept = _shortlist_on(engine, pool_rows, pool, train, settings, memory.chunk_size, report)
    if kept is None:
        selection = choose(pool, train, shortlist=settings.shortlist)
    else:
        within = choose(pool.take(torch.from_numpy(kept).to(device)), train)
        selection = Selection(kept[within.pool_idx], within.score)
    nearest = find_nearest(pool, train, selection.pool_idx) if len(train) else None
    measures = None
    if measured:
        measures = measure(BatchKernels(train, pool), selection.pool_idx, settings)
    return StoredChoice(selection, nearest, measures)


def _find_budget(memory_bytes: int | None, device: torch.device) -> tuple[int, int | None]:
    """Return what a selection may hold where it multiplies, and what is held there already.

    On a GPU the rows, the state of the rule and all products are in its memory, of which a
    fifth is left free; this process then holds little more than the pieces that pass by.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.8 * free), 0
    return (usable_memory_bytes() // 2 if memory_bytes is None else memory_bytes), None


def _open_views(
    features: FeatureStore,
    pool_keys: UInt8[np.ndarray, "n 16"],
    train_keys: UInt8[np.ndarray, "m 16"],
    settings: AcquisitionSettings,
) -> tuple[StoreView, StoreView]:
    """Return the rows of the pool and of the labelled structures, on a common scale."""
    places = [_find_all(features, keys) for keys in (pool_keys, train_keys)]
    common = None
    if settings.resolved_normalise == "none":
        norms = np.concatenate([features.read_norms(each) for each in places])
        common = find_common_norms(norms)
    views = [
        features.view(
            each,
            normalise=settings.resolved_normalise,
            common_norms=common,
            piece_bytes=PIECE_BYTES,
        )
        for each in places
    ]
    return views[0], views[1]


def _find_all(features: FeatureStore, keys: UInt8[np.ndarray, "n 16"]) -> Int64[np.ndarray, " n"]:
    places = features.find(keys)
    n_gone = int((places < 0).sum())
    if n_gone:
        raise ReadError(
            f"{n_gone} rows have gone from the feature store {features.path} while it was in use; "
            "run again: they are computed anew"
        )
    return places


def _shortlist_on(
    engine: Engine,
    pool_rows: StoreView,
    pool: FeatureKernel,
    train: LinearKernel,
    settings: AcquisitionSettings,
    chunk_size: int,
    report: Report,
) -> Int64[np.ndarray, " k"] | None:
    """Score the pieces of the pool in workers, and reduce here; None if bounds did not hold."""
    if settings.shortlist is None:
        raise AssertionError("called with a shortlist only")
    on_cpu = LinearKernel.from_rows(train.features.cpu(), train.normalise)
    prior = LinearPrior(on_cpu, settings.resolved_regularisation)
    scorer = _PieceScorer(pool_rows, VarianceFilter(prior))
    top = RunningTop(settings.shortlist)
    pieces = pool_rows.pieces()
    for n_done, scored in enumerate(engine.map(scorer.copy, _PieceScorer.score, pieces), start=1):
        top.add(scored)
        report(n_done, len(pieces))

    def read_rows(idx: Int64[Tensor, " k"]) -> Float[Tensor, "k d"]:
        return pool.rows(idx.to(pool.device)).cpu()

    return decide_shortlist(top, prior, settings.shortlist, read_rows, chunk_size=chunk_size)


class _PieceScorer:
    """What a worker needs to score pieces of the pool."""

    def __init__(self, rows: StoreView, scores: VarianceFilter) -> None:
        self._rows, self._scores = rows, scores

    def copy(self) -> _PieceScorer:
        """Return itself: what a worker calls is a copy already."""
        return self

    def score(self, piece: slice) -> ScoredRows:
        """Bound the variances of one piece."""
        return self._scores.score(torch.from_numpy(self._rows.read(piece)), piece.start)
