"""All structures of a campaign under one kernel, that of the model it began with.

The pretrained model's kernel stays as it is while the campaign goes on, so that maps and variances
of different rounds can be compared.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from labelwise.campaign.config import COMMITTEE_RULES, CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.state import CampaignState
from labelwise.errors import ArgumentError, LabelwiseError, ReadError
from labelwise.features.fill import Filler, make_screen
from labelwise.features.representations import feature_size
from labelwise.features.store import DamagedChunkError, FeatureStore
from labelwise.features.store.memory import MemoryRows
from labelwise.kernels.base import Kernel
from labelwise.kernels.building import open_kernels
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from labelwise.selection.choosing import open_views
from labelwise.selection.rules import JOINT_RULE
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import Frame, Source

#: Points of a map; of a larger pool as many are drawn, and all that a round chose.
MOST_POINTS = 50_000
#: Rows that take more are not kept on disk, bytes.
MAX_BYTES = 2**28
#: The feature store of the rows, in the campaign's folder ``report``.
ROWS = "rows"
#: The representation of rules that look at none.
DEFAULT_REPRESENTATION = "ntk-e"


@dataclass(frozen=True)
class PoolKernel:
    """Structures and their kernel.

    Attributes:
        sources: What a map shows: given training structures, then the pool and whatever else was
            chosen from it, (n,); named as the campaign names them.
        n_given: Given training structures, the first of the points.
        others: Place in the kernel of the held-out sets' structures, by role; -1 of those
            without finite features.
        kernel: Of the points and then of the held-out sets.
        settings: Representation and regularisation.
        n_screened: Structures of the pool that are no points because no model can take them or
            because they repeat others.
        n_pool: Structures of the pool as read.
        remarks: What is not available, one line each.
    """

    sources: tuple[Source, ...]
    n_given: int
    others: dict[str, Int64[np.ndarray, " _"]]
    kernel: Kernel
    settings: AcquisitionSettings
    n_screened: int
    n_pool: int
    remarks: tuple[str, ...] = ()

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.sources)

    @property
    def place(self) -> dict[Source, int]:
        """Point of each source, for those that come from the pool."""
        return {source: i for i, source in enumerate(self.sources) if i >= self.n_given}

    def part(self, idx: Int64[np.ndarray, " k"]) -> Kernel:
        """Return the kernel of some structures, (k,)."""
        return self.kernel.take(torch.from_numpy(idx.astype(np.int64)))

    def variances(
        self, idx: Int64[np.ndarray, " k"], train: Int64[np.ndarray, " m"]
    ) -> Float64[np.ndarray, " k"]:
        """Return posterior variances of some structures given others, (k,), dimensionless."""
        found = posterior_variance(
            self.part(idx),
            self.part(train),
            regularisation=self.settings.resolved_regularisation,
        )
        variances: Float64[np.ndarray, " k"] = found.cpu().double().numpy()
        return variances


def choose_settings(config: CampaignConfig) -> AcquisitionSettings:
    """Return the kernel that a campaign is shown under: that of its rule, if it has one."""
    selection = config.selection
    if selection.representation == "random":
        selection = selection.model_copy(update={"representation": DEFAULT_REPRESENTATION})
    rule = selection.rule
    if rule in ("random", JOINT_RULE, *COMMITTEE_RULES):
        selection = selection.model_copy(update={"regularisation": None, "normalise": None})
    seed = derive_seed(config.seed, 0, "representation")
    return selection.settings(1, seed=seed, rule="pv")


def represent_pool(
    state: CampaignState,
    context: CampaignContext,
    folder: Path,
    chosen: Sequence[Source],
    *,
    seed: int,
) -> PoolKernel:
    """Read the pool and represent it by the model that the campaign began with.

    Args:
        state: The campaign.
        context: Model and structures.
        folder: Where rows of features are kept.
        chosen: Structures of the pool that must be among the points.
        seed: Of the sample of a large pool.
    """
    settings = choose_settings(state.config)
    potential = context.pretrained(state)
    screen = make_screen(potential)
    given = [frame for frame in context.given.train if screen.check_train(frame) is None]
    n_pool, pool, remarks = 0, [], []
    try:
        for frame in context.iter_pool(state):
            n_pool += 1
            if screen.check_pool(frame) is None:
                pool.append(state.name_frame(frame))
    except (LabelwiseError, OSError) as error:
        remarks.append(f"The pool cannot be read any more: {error}")
    n_screened = n_pool - len(pool)
    points = [state.name_frame(frame) for frame in given]
    points += _sample(pool, set(chosen), MOST_POINTS - len(given), seed)
    there = {frame.source for frame in points[len(given) :]}
    points += [frame for frame in state.recorded_frames() if frame.source not in there]
    held = {role: context.held_out_frames(state, role) for role in ("valid", "test")}
    kernel, is_finite = _make_kernel(
        [*points, *held["valid"], *held["test"]], settings, potential, context, folder
    )
    places = np.where(is_finite, np.cumsum(is_finite) - 1, -1).astype(np.int64)
    n, n_valid = len(points), len(held["valid"])
    sources = [each.source for each, known in zip(points, is_finite, strict=False) if known]
    return PoolKernel(
        tuple(sources),
        int(is_finite[: len(given)].sum()),
        {"valid": places[n : n + n_valid], "test": places[n + n_valid :]},
        kernel,
        settings,
        n_screened + n - len(sources),
        n_pool,
        tuple(remarks),
    )


def _sample(pool: list[Frame], needed: set[Source], most: int, seed: int) -> list[Frame]:
    """Return the pool, or of a large one what is needed and others drawn at random."""
    if len(pool) <= most:
        return pool
    is_needed = np.array([frame.source in needed for frame in pool])
    others = np.flatnonzero(~is_needed)
    n_others = max(0, most - int(is_needed.sum()))
    drawn = np.random.default_rng(seed).permutation(others)[:n_others]
    is_needed[drawn] = True
    return [pool[i] for i in np.flatnonzero(is_needed)]


def _make_kernel(
    frames: Sequence[Frame],
    settings: AcquisitionSettings,
    potential: Potential,
    context: CampaignContext,
    folder: Path,
) -> tuple[Kernel, Bool[np.ndarray, " n"]]:
    """Return the kernel of all structures with finite features, and which these are."""
    rows = _open_rows(settings, potential, folder, len(frames))
    normalise = settings.resolved_normalise
    filler = Filler(
        settings.make_recipe(),
        rows,
        potential if settings.needs_potential else None,
        engine=context.shared.engine,
        progress=lambda _, done, total: context.progress("represent for the page", done, total),
    )
    table = filler.fill(frames, "train")
    is_finite = table.usable()
    places = rows.find(table.keys[is_finite])
    if isinstance(rows, MemoryRows):
        return open_kernels(rows, [places], normalise=normalise)[0], is_finite
    (view,) = open_views(rows, [places], normalise)
    try:
        return LinearKernel(view.read(slice(0, len(view))), normalise="none"), is_finite
    except DamagedChunkError as error:  # its rows are computed again
        rows.set_aside(error.number)
        return _make_kernel(frames, settings, potential, context, folder)


def _open_rows(
    settings: AcquisitionSettings, potential: Potential, folder: Path, n: int
) -> MemoryRows | FeatureStore:
    """Return where rows go: to disk those of a model, unless they are too many.

    Rows of another model or other settings, which were accepted since, are removed.
    """
    representation = settings.make_representation()
    if not settings.needs_potential:
        return MemoryRows(representation)
    if 4 * n * feature_size(representation, potential) > MAX_BYTES:
        return MemoryRows(representation, potential)
    try:
        return open_store(folder / ROWS, settings, potential)
    except (ArgumentError, ReadError):
        shutil.rmtree(folder / ROWS, ignore_errors=True)
        return open_store(folder / ROWS, settings, potential)
