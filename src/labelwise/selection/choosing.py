"""From rows to a selection: kernels of the pool and of the labelled structures, and a rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.features.store import FeatureStore, StoreView, find_common_norms
from labelwise.features.store.memory import MemoryRows
from labelwise.features.store.view import DEFAULT_PIECE_BYTES
from labelwise.kernels.base import DEFAULT_CHUNK_SIZE, Kernel
from labelwise.kernels.building import open_kernels
from labelwise.kernels.linear import LinearKernel
from labelwise.runtime.engines import Engine, Ready
from labelwise.runtime.memory import usable_memory_bytes
from labelwise.selection.measurement import BatchKernels
from labelwise.selection.rules import Selection, find_nearest, get_rule, select_batch
from labelwise.selection.rules.base import Ticker
from labelwise.selection.rules.linear_posterior import LinearPrior, linear_variances
from labelwise.selection.rules.planning import open_kernel, plan_selection
from labelwise.selection.rules.top import fall_in_order
from labelwise.selection.settings import AcquisitionSettings

Report = Callable[[int, int], None]
#: Of each pick the position of the nearest labelled structure, and its kernel distance.
Nearest = tuple[np.ndarray, np.ndarray]
_FLOAT_BYTES = 4
#: Bytes of rows that are read and scored at once.
PIECE_BYTES = DEFAULT_PIECE_BYTES


@dataclass(frozen=True, eq=False)
class Choice:
    """What a rule chose.

    Attributes:
        selection: Positions among the structures offered, with scores.
        nearest: Of each pick the position of the nearest labelled structure, (k,), and its
            kernel distance, (k,); None with nothing labelled.
        kernels: Makes what the picks were chosen by, for measuring what they change; None if it
            was let go.
    """

    selection: Selection
    nearest: Nearest | None = None
    kernels: Callable[[], BatchKernels] | None = None


@dataclass(frozen=True, eq=False)
class _Kernels:
    """What a rule chooses from: the pool, labelled structures, and structures a block."""

    pool: Kernel
    train: Kernel
    target: Kernel | None
    chunk_size: int = DEFAULT_CHUNK_SIZE


def choose(
    rows: MemoryRows | FeatureStore,
    pool: Int64[np.ndarray, " n"],
    train: Int64[np.ndarray, " m"],
    target: Int64[np.ndarray, " t"] | None = None,
    *,
    settings: AcquisitionSettings,
    memory_bytes: int | None = None,
    device: torch.device | str = "cpu",
    engine: Engine | None = None,
    report: Report,
) -> Choice:
    """Apply a rule to rows.

    Args:
        rows: Holds the rows of all structures.
        pool: Places of the structures to choose from, (n,).
        train: Places of the labelled ones, (m,), m >= 0.
        target: Places of those that matter, (t,); None for the pool.
        settings: Rule, batch, normalisation and the rest.
        memory_bytes: What the process may occupy with rows on disk; None for half of what it
            may use.
        device: Where to multiply rows from disk; on a GPU it is its own free memory that is
            divided.
        engine: Where a shortlist of rows on disk is scored; None for here.
        report: Called with units of work done and their total.

    Raises:
        DamagedChunkError: A chunk of the store is not as it was written.
        ReadError: The store cannot be read.
        SelectionError: The memory does not suffice, or the selection cannot be made.
    """
    kept = None
    if isinstance(rows, MemoryRows):
        sets = [train, pool, *([] if target is None else [target])]
        kernels = open_kernels(rows, sets, normalise=settings.resolved_normalise)
        found = _Kernels(kernels[1], kernels[0], kernels[2] if target is not None else None)
    else:
        view, found = _open_stored(
            rows, pool, train, target, settings, memory_bytes, torch.device(device)
        )
        by_variance = not get_rule(settings.rule).takes_target
        if engine is not None and settings.shortlist is not None and len(train) and by_variance:
            kept = _shortlist_on(engine, view, found, settings, report)
    select = partial(
        select_batch,
        settings.rule,
        n_select=settings.n_select,
        regularisation=settings.resolved_regularisation,
        seed=settings.seed,
        target=found.target,
        chunk_size=found.chunk_size,
        progress=report,
    )
    if kept is None:
        selection = select(found.pool, found.train, shortlist=settings.shortlist)
    else:
        within = select(found.pool.take(torch.from_numpy(kept).to(device)), found.train)
        selection = Selection(kept[within.pool_idx], within.score)
    nearest = find_nearest(found.pool, found.train, selection.pool_idx) if len(train) else None
    kernels_of = partial(BatchKernels, found.train, found.pool, target=found.target)
    return Choice(selection, nearest, kernels_of)


def _open_stored(
    rows: FeatureStore,
    pool: Int64[np.ndarray, " n"],
    train: Int64[np.ndarray, " m"],
    target: Int64[np.ndarray, " t"] | None,
    settings: AcquisitionSettings,
    memory_bytes: int | None,
    device: torch.device,
) -> tuple[StoreView, _Kernels]:
    """Return the pool's rows on disk, and kernels within a bound on memory."""
    if device.type == "mps":  # has no float64, in which the rules decide
        device = torch.device("cpu")
    normalise = settings.resolved_normalise
    held = [train, *([] if target is None else [target])]
    pool_rows, *held_rows = open_views(rows, [pool, *held], normalise)
    in_memory = [
        LinearKernel.from_rows(
            torch.from_numpy(view.read(slice(0, len(view)))).to(device), normalise
        )
        for view in held_rows
    ]
    budget, resident = _find_budget(memory_bytes, device)
    longest = max(piece.stop - piece.start for piece in pool_rows.pieces())
    memory = plan_selection(
        budget,
        resident=resident,
        n=len(pool_rows),
        d=pool_rows.width,
        n_train=sum(map(len, held)),
        n_select=settings.n_select,
        rule=settings.rule,
        shortlist=settings.shortlist,
        piece_bytes=_FLOAT_BYTES * pool_rows.width * longest,
    )
    kernel = open_kernel(pool_rows, memory, normalise=normalise, device=device)
    labelled, wanted = in_memory if len(in_memory) == 2 else (in_memory[0], None)
    return pool_rows, _Kernels(kernel, labelled, wanted, memory.chunk_size)


def _find_budget(memory_bytes: int | None, device: torch.device) -> tuple[int, int | None]:
    """Return what a selection may hold where it multiplies, and what is held there already.

    On a GPU the rows, the state of the rule and all products are in its memory, of which a
    fifth is left free; this process then holds little more than the pieces that pass by.
    """
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(0.8 * free), 0
    return (usable_memory_bytes() // 2 if memory_bytes is None else memory_bytes), None


def open_views(
    rows: FeatureStore, sets: list[Int64[np.ndarray, " _"]], normalise: str
) -> list[StoreView]:
    """Return the rows of several sets of places, on a common scale."""
    common = None
    if normalise == "none":
        common = find_common_norms(*(rows.read_norms(places) for places in sets))
    return [
        rows.view(places, normalise=normalise, common_norms=common, piece_bytes=PIECE_BYTES)
        for places in sets
    ]


def _shortlist_on(
    engine: Engine,
    pool_rows: StoreView,
    kernels: _Kernels,
    settings: AcquisitionSettings,
    report: Report,
) -> Int64[np.ndarray, " k"]:
    """Return what ``shortlist_by_variance`` does, the pieces of the pool scored in workers."""
    assert isinstance(kernels.train, LinearKernel)  # noqa: S101  (of rows on disk)
    train = LinearKernel.from_rows(kernels.train.features.cpu(), kernels.train.normalise)
    prior = LinearPrior(train, settings.resolved_regularisation)
    scorer = _PieceScorer(pool_rows, prior, kernels.chunk_size)
    pieces = pool_rows.pieces()
    variances, largest = [], 0.0
    found = engine.map(Ready(scorer), _PieceScorer.score, pieces)
    for n_done, (variance, largest_diagonal) in enumerate(found, start=1):
        variances.append(variance)
        largest = max(largest, largest_diagonal)
        report(n_done, len(pieces))
    order = fall_in_order(torch.cat(variances), largest)[: settings.shortlist]
    return np.sort(order.numpy())


@dataclass(frozen=True, eq=False)
class _PieceScorer:
    """What a worker needs to score pieces of the pool."""

    rows: StoreView
    prior: LinearPrior
    chunk_size: int

    def score(self, piece: slice) -> tuple[Float[Tensor, " r"], float]:
        """Return the posterior variances of a piece, (r,) float64, and its largest k(x, x)."""
        kernel = LinearKernel(self.rows.read(piece), normalise="none")
        variance = linear_variances(kernel, self.prior, self.chunk_size, Ticker(None, 0))
        return variance, float(kernel.diagonal().max())
