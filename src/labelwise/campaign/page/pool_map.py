"""The pool under the kernel, and how what is labelled grows from round to round."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from labelwise.campaign.config import COMMITTEE_RULES
from labelwise.campaign.datasets import GivenSets, iter_pool
from labelwise.campaign.outcomes import PointOutcomes
from labelwise.campaign.page.wording import write_error
from labelwise.campaign.pool_map import PoolMapData
from labelwise.campaign.saved import SavedCampaign
from labelwise.campaign.state import CampaignState
from labelwise.errors import LabelwiseError
from labelwise.pages.document import (
    Column,
    PointNote,
    PoolMap,
)
from labelwise.pages.options import ReportOptions
from labelwise.pages.plane import map_components
from labelwise.selection.page.pool_columns import (
    category_column,
    clean_text,
    make_columns,
    name_apart,
    number_column,
)
from labelwise.structures import Frame, Source

MAP_NAME = "campaign-map"
#: What the scores of rules are, known here so that a page needs no torch.
_SCORES = {
    **dict.fromkeys(("lcmd", "k-center"), "squared kernel distance"),
    **dict.fromkeys(("pv", "top", "joint-pv", "random"), "posterior variance"),
}


@dataclass(frozen=True, eq=False)
class MapPoints:
    """Structures as points.

    Attributes:
        data: What was measured of them.
        frames: The structures, (n,), their sources as the campaign names them.
        place: Point of each source, for those that come from the pool.
        remarks: What is missing, one line each.
    """

    data: PoolMapData
    frames: tuple[Frame, ...]
    place: dict[Source, int]
    remarks: tuple[str, ...]

    def __len__(self) -> int:
        """Count the points."""
        return len(self.frames)


def read_points(state: CampaignState, given: GivenSets, data: PoolMapData) -> MapPoints:
    """Read the structures of a map again; those that are gone are no points any more."""
    remarks = list(data.remarks)
    own = {each.source: each for each in map(state.name_frame, given.train)}
    others = {frame.source: frame for frame in state.recorded_frames()}
    wanted = set(data.sources[data.n_given :])
    try:
        for frame in iter_pool(state):
            named = state.name_frame(frame)
            if named.source in wanted:
                others[named.source] = named
    except (LabelwiseError, OSError) as error:
        remarks.append(f"The pool cannot be read any more: {error}")
    found = [
        (own if point < data.n_given else others).get(source)
        for point, source in enumerate(data.sources)
    ]
    left = data.keep(np.array([frame is not None for frame in found], dtype=bool))
    frames = [frame for frame in found if frame is not None]
    return MapPoints(
        left,
        tuple(frames),
        {source: point for point, source in enumerate(left.sources) if point >= left.n_given},
        tuple(remarks),
    )


def make_pool_map(
    saved: SavedCampaign,
    points: MapPoints,
    outcomes: PointOutcomes,
    errors: dict[int, tuple[float, float]],
    options: ReportOptions,
) -> PoolMap:
    """Return the map; its points have no structures yet.

    Args:
        saved: What the campaign's files say.
        points: The points.
        outcomes: What became of them.
        errors: Of chosen points, energy error in meV/atom and force RMSE in meV/Å of the model
            of the round before.
        options: Method and first colour.
    """
    data = points.data
    mapped = map_components(data.components, method=options.map_method, seed=options.seed)
    columns = _make_columns(saved, points, outcomes, errors)
    files = sorted({frame.source.file for frame in points.frames})
    number = {file: place for place, file in enumerate(files)}
    coordinates = mapped.coordinates[0]
    names = {column.name for column in columns}
    return PoolMap(
        MAP_NAME,
        "What is labelled, round by round",
        np.ascontiguousarray(coordinates[:, 0]),
        np.ascontiguousarray(coordinates[:, 1]),
        outcomes.roles,
        *mapped.label_axes(),
        tuple(clean_text(file, 200) for file in files),
        np.array([number[f.source.file] for f in points.frames], dtype=np.int32),
        np.array([f.source.frame for f in points.frames], dtype=np.int32),
        np.full(len(points), -1, dtype=np.int32),
        data.neighbour.astype(np.int32),
        columns,
        rounds=outcomes.rounds,
        notes=_make_notes(saved, outcomes, errors),
        colour_by=options.colour_by if options.colour_by in names else None,
        caption=_write_caption(saved, points, outcomes),
    )


def _make_columns(
    saved: SavedCampaign,
    points: MapPoints,
    outcomes: PointOutcomes,
    errors: dict[int, tuple[float, float]],
) -> tuple[Column, ...]:
    n = len(points)
    known = np.full((2, n), np.nan)
    for point, pair in errors.items():
        known[:, point] = pair
    rounds = np.where(outcomes.rounds < 0, np.nan, outcomes.rounds.astype(np.float64))
    own = [
        category_column("fate", list(outcomes.words)),
        number_column("round", rounds),
        number_column("posterior variance", points.data.variance),
        number_column("energy error when chosen", known[0], unit="meV/atom"),
        number_column("force RMSE when chosen", known[1], unit="meV/Å"),
    ]
    energy_key = saved.config.data.energy_key
    told = make_columns((frame.atoms for frame in points.frames), energy_key=energy_key)
    return name_apart([column for column in (*own, *told) if column is not None])


def _make_notes(
    saved: SavedCampaign,
    outcomes: PointOutcomes,
    errors: dict[int, tuple[float, float]],
) -> tuple[PointNote, ...]:
    """Say of each chosen point when and why it was chosen, and what came of it."""
    notes = []
    for point, each in sorted(outcomes.candidates.items()):
        lines = [("chosen", f"round {each.n_round}, rank {each.rank}, for {_role(each.role)}")]
        if each.role == "train" and saved.config.selection.rule != "random" and each.n_round:
            lines.append((name_score(saved), f"{each.score:.4g}"))
        if each.fate == "failed":
            record = saved.state.failures.get(each.key, {})
            reason = f"{record.get('failed', '')}: {record.get('detail', '')}"
            lines.append(("failed", clean_text(reason, 300)))
        elif each.fate == "waiting":
            lines.append(("label", "not there yet"))
        if point in errors:
            energy, forces = (write_error(abs(value)) for value in errors[point])
            text = f"energy {energy} meV/atom, forces {forces} meV/Å"
            lines.append((f"errors of the model of round {each.n_round - 1}", text))
        notes.append(PointNote(point, tuple(lines)))
    return tuple(notes)


def _role(role: str) -> str:
    return {"train": "training", "valid": "validation", "test": "the test"}.get(role, role)


def name_score(saved: SavedCampaign) -> str:
    """Return what the score of the campaign's rule is, with its unit if it has one."""
    rule = saved.config.selection.rule
    if rule in COMMITTEE_RULES:
        return "deviation of the committee / " + ("eV" if rule == "committee-e" else "eV/Å")
    if rule in _SCORES:
        return f"{_SCORES[rule]} when chosen"
    from labelwise.selection.rules import get_rule  # of a plugin; loads torch

    known = get_rule(rule)
    if known.has_clusters:
        return "squared kernel distance when chosen"
    if known.score_name == "score":  # it does not say what it is
        return f"score of {rule} when chosen"
    return "posterior variance when chosen"


def _write_caption(saved: SavedCampaign, points: MapPoints, outcomes: PointOutcomes) -> str:
    config = saved.config.selection
    first = (
        f"{len(points):,} structures under the {points.data.representation} kernel "
        "of the model that the campaign began with, so that nothing moves from round to round."
    )
    parts = [first]
    if config.rule in ("random", *COMMITTEE_RULES) or config.representation == "random":
        parts.append(f"The rule ({config.rule}) itself looks at no such kernel.")
    elif config.model == "current":
        parts.append("The rule looked at the kernel of each round's own model.")
    n_waiting = int((outcomes.words == "waiting").sum())
    if n_waiting:
        parts.append(f"{n_waiting:,} of the last round wait for their labels.")
    if "held out" in outcomes.words:
        parts.append("Structures held out for validation and test count as set aside.")
    if points.data.n_screened:
        parts.append(
            f"{points.data.n_screened:,} structures of the pool were set aside by the screen."
        )
    n_left_out = points.data.n_pool - points.data.n_screened - len(points.place)
    if n_left_out > 0:
        parts.append(f"{n_left_out:,} of the pool, drawn at random, are left out.")
    return " ".join(parts)
