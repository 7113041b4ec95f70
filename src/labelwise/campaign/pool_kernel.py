"""All structures of a campaign under one kernel, that of the model it began with.

The pretrained model's kernel stays as it is while the campaign goes on, so that maps and variances
of different rounds can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float64, Int64

from labelwise.campaign.config import COMMITTEE_RULES, CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.inputs import name_source
from labelwise.campaign.kept import KeptArrays, digest
from labelwise.campaign.labelling.encoding import decode_structure
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.state import CampaignState
from labelwise.errors import LabelwiseError
from labelwise.features.fill import find_rows, make_screen
from labelwise.features.representations import (
    Chunk,
    is_finite,
    iter_features,
    join_rows,
)
from labelwise.features.store.memory import MemoryRows, RowCache
from labelwise.kernels.base import Kernel
from labelwise.kernels.building import open_kernels
from labelwise.potentials import Potential
from labelwise.selection.rules import JOINT_RULE
from labelwise.selection.rules.posterior_variance import posterior_variance
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures import Frame, Source, hash_structure

#: Points of a map; of a larger pool as many are drawn, and all that a round chose.
MOST_POINTS = 50_000
#: The representation of rules that look at none.
DEFAULT_REPRESENTATION = "ntk-e"


@dataclass(frozen=True)
class Landscape:
    """Structures and their kernel.

    Attributes:
        points: What a map shows: given training structures, then the pool and whatever else was
            chosen from it, (n,).
        n_given: Given training structures, the first of the points.
        place: Point of each source, for those that come from the pool.
        others: Place in the kernel of the held-out sets' structures, by role.
        kernel: Of the points and then of the held-out sets.
        settings: Representation and regularisation.
        n_screened: Structures of the pool that are no points because no model can take them or
            because they repeat others.
        n_pool: Structures of the pool as read.
        remarks: What could not be had, one line each.
    """

    points: tuple[Frame, ...]
    n_given: int
    place: dict[Source, int]
    others: dict[str, Int64[np.ndarray, " _"]]
    kernel: Kernel
    settings: AcquisitionSettings
    n_screened: int
    n_pool: int
    remarks: tuple[str, ...] = ()

    @property
    def n_points(self) -> int:
        """Number of points."""
        return len(self.points)

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


@dataclass
class _Gathered:
    """Structures as they are read, before they have features."""

    frames: list[Frame] = field(default_factory=list)
    n_given: int = 0
    n_pool: int = 0
    n_screened: int = 0
    remarks: list[str] = field(default_factory=list)


def choose_settings(config: CampaignConfig) -> AcquisitionSettings:
    """Return the kernel that a campaign is shown under: that of its rule, if it has one.

    Args:
        config: The configuration.
    """
    selection = config.selection
    if selection.representation == "random":
        selection = selection.model_copy(update={"representation": DEFAULT_REPRESENTATION})
    rule = selection.rule
    if rule in ("random", JOINT_RULE, *COMMITTEE_RULES):
        selection = selection.model_copy(update={"regularisation": None, "normalise": None})
    seed = derive_seed(config.seed, 0, "representation")
    return selection.settings(1, seed=seed, rule="pv")


def survey_landscape(
    state: CampaignState,
    context: CampaignContext,
    kept: KeptArrays,
    chosen: Sequence[Source],
    *,
    seed: int,
) -> Landscape:
    """Read the pool and represent it by the model that the campaign began with.

    Args:
        state: The campaign.
        context: Model and structures.
        kept: Where rows of features are kept.
        chosen: Structures of the pool that must be among the points.
        seed: Of the sample of a large pool.

    Returns:
        Structures and kernel.

    Raises:
        LabelwiseError: The model cannot be loaded, or fails.
    """
    settings = choose_settings(state.config)
    potential = context.pretrained(state)
    gathered = _gather(state, context, potential, chosen, seed)
    held = {role: context.held_out_frames(state, role) for role in ("valid", "test")}
    everything = [*gathered.frames, *held["valid"], *held["test"]]
    kernel, finite = _represent(everything, settings, potential, context, state, kept)
    rank = np.cumsum(finite) - 1  # place in the kernel of what has features
    n = len(gathered.frames)
    points = tuple(
        frame for frame, is_there in zip(gathered.frames, finite, strict=False) if is_there
    )
    n_given = int(finite[: gathered.n_given].sum())
    others, start = {}, n
    for role, frames in held.items():
        stop = start + len(frames)
        others[role] = np.where(finite[start:stop], rank[start:stop], -1).astype(np.int64)
        start = stop
    return Landscape(
        points,
        n_given,
        {frame.source: i for i, frame in enumerate(points) if i >= n_given},
        others,
        kernel,
        settings,
        gathered.n_screened + n - len(points),
        gathered.n_pool,
        tuple(gathered.remarks),
    )


def _gather(
    state: CampaignState,
    context: CampaignContext,
    potential: Potential,
    chosen: Sequence[Source],
    seed: int,
) -> _Gathered:
    """Read and screen the given training structures, the pool, and what is labelled."""
    screen = make_screen(potential)
    found = _Gathered()
    for frame in context.given.train:
        if screen.check_train(frame) is None:
            found.frames.append(_rename(state, frame))
    found.n_given = len(found.frames)
    pool: list[Frame] = []
    try:
        for frame in context.iter_pool(state):
            found.n_pool += 1
            if screen.check_pool(frame) is None:
                pool.append(_rename(state, frame))
            else:
                found.n_screened += 1
    except (LabelwiseError, OSError) as error:
        found.remarks.append(f"The pool cannot be read any more: {error}")
    found.frames += _sample(pool, set(chosen), MOST_POINTS - found.n_given, seed)
    there = {frame.source for frame in found.frames[found.n_given :]}
    found.frames += [frame for frame in _labelled_frames(state) if frame.source not in there]
    return found


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


def _labelled_frames(state: CampaignState) -> Iterator[Frame]:
    """Yield what the campaign's own records hold, should the pool have lost it."""
    for number, record in enumerate((*state.labels.values(), *state.failures.values())):
        yield Frame(decode_structure(record["structure"]), Source(*record["source"]), number)


def _rename(state: CampaignState, frame: Frame) -> Frame:
    return Frame(frame.atoms, name_source(state.directory, frame.source), frame.index)


def _represent(
    frames: Sequence[Frame],
    settings: AcquisitionSettings,
    potential: Potential,
    context: CampaignContext,
    state: CampaignState,
    kept: KeptArrays,
) -> tuple[Kernel, Bool[np.ndarray, " n"]]:
    """Return the kernel of all structures with finite features, and which these are."""
    representation = settings.make_representation()
    model = potential if representation.needs_model else None
    rows = MemoryRows(representation, model)
    structures = [frame.atoms for frame in frames]
    if model is None:
        parts: Iterable[Chunk] = iter_features(structures, None, representation)
    else:
        parts = [_find_rows(structures, settings, model, context, state, kept)]
    finite = [np.zeros(0, dtype=bool)]
    for part in parts:
        finite.append(is_finite(part))
        rows.extend(part[finite[-1]])
    places = np.arange(len(rows))
    (kernel,) = open_kernels(rows, [places], normalise=settings.resolved_normalise)
    return kernel, np.concatenate(finite)


def _find_rows(
    structures: Sequence[Atoms],
    settings: AcquisitionSettings,
    potential: Potential,
    context: CampaignContext,
    state: CampaignState,
    kept: KeptArrays,
) -> np.ndarray:
    """Return the rows of a model's representation, computing those that are not kept, (n, d)."""
    representation = settings.make_representation()
    options = asdict(settings.options) | representation.relevant_options(settings.options)
    made_of = digest("rows", settings.representation, options, potential.content_hash)
    names = [hash_structure(atoms) for atoms in structures]
    found = kept.load("rows", made_of)
    known: dict[str, int] = {}
    stored = np.zeros((0, 0), dtype=np.float32)
    if found is not None:
        stored = found["rows"]
        known = {str(name): place for place, name in enumerate(found["names"].tolist())}
    missing = {name: i for i, name in enumerate(names) if name not in known}
    if missing:
        added = _compute_rows(
            [structures[i] for i in missing.values()], settings, potential, context, state
        )
        stored = added if len(known) == 0 else np.concatenate([stored, added])
        known |= {name: len(known) + place for place, name in enumerate(missing)}
        kept.save("rows", made_of, {"names": np.array([*known]), "rows": stored})
    return stored[[known[name] for name in names]]


def _compute_rows(
    structures: Sequence[Atoms],
    settings: AcquisitionSettings,
    potential: Potential,
    context: CampaignContext,
    state: CampaignState,
) -> np.ndarray:
    """Compute rows; the campaign has those of the pretrained model if it chooses by them."""
    representation = settings.make_representation()
    is_kept = state.config.selection.model == "pretrained"
    cache = context.shared.features if is_kept else RowCache(0)
    rows = cache.open(representation, settings.options, potential)
    places = find_rows(
        structures,
        rows,
        potential,
        batch_atoms=settings.batch_atoms,
        tell=lambda n_done: context.progress("represent for the page", n_done, len(structures)),
    )
    found = np.full((len(structures), rows.width), np.nan, dtype=np.float32)
    found[places >= 0] = join_rows([rows.take(places[places >= 0])])
    return found
