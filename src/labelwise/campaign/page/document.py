"""From a campaign's folder to the page about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from labelwise.campaign.datasets import GivenSets, open_given_sets
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.outcomes import Candidate, PointOutcomes, find_outcomes
from labelwise.campaign.page.breakdown import find_groupings, make_error_bars, make_path_errors
from labelwise.campaign.page.calibration import (
    judge_rounds,
    make_score_chart,
    make_trust_charts,
)
from labelwise.campaign.page.choices import make_choice_tables, make_failure_table
from labelwise.campaign.page.costs import (
    make_label_chart,
    make_round_table,
    make_time_chart,
    make_training_history,
)
from labelwise.campaign.page.curves import make_learning_curves
from labelwise.campaign.page.facts import describe_campaign, make_facts, make_notes
from labelwise.campaign.page.parity import make_parity
from labelwise.campaign.page.pool_map import MapPoints, make_pool_map, read_points
from labelwise.campaign.page.scored import (
    ScoredBatch,
    ScoredSet,
    name_of,
    score_batches,
    score_held_out,
)
from labelwise.campaign.pool_map import FOLDER, POOL_MAP, digest_candidates, read_pool_map
from labelwise.campaign.predictions import PREDICTIONS
from labelwise.campaign.saved import SavedCampaign, read_saved
from labelwise.campaign.state import read_state
from labelwise.errors import LabelwiseError, LabelwiseWarning
from labelwise.pages.document import Document, Kind, Panel, PoolMap, Section
from labelwise.pages.options import ReportOptions
from labelwise.selection.page.pool_columns import clean_text, make_columns
from labelwise.selection.page.structure_packing import StructurePacker
from labelwise.structures import Frame
from labelwise.structures.split_names import get_split

_MEGABYTE = 1_000_000
#: Part of the page that structures may take; what is left is for charts, libraries and the map.
_STRUCTURE_SHARE = 0.3


@dataclass
class _Desk:
    """What the sections are made of; a part that is missing is None, and a remark says why."""

    saved: SavedCampaign
    options: ReportOptions
    packer: StructurePacker
    remarks: list[str] = field(default_factory=list)
    test: ScoredSet | None = None
    calibration: ScoredSet | None = None
    points: MapPoints | None = None
    outcomes: PointOutcomes | None = None
    batches: tuple[ScoredBatch, ...] = ()
    pool_map: PoolMap | None = None

    def find(self, found: Sequence[Frame | Candidate]) -> Int32[np.ndarray, " k"]:
        """Return the places of structures among those of the page, -1 for those left out, (k,)."""
        places = [self.packer.find(name_of(each.source)) for each in found]
        return np.array(places, dtype=np.int32)

    @contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Let a part be left out of the page, with the reason; a damaged file is warned of."""
        try:
            yield
        except (LabelwiseError, OSError) as error:
            self.remarks.append(clean_text(f"Without {what}: {error}", 400))
            if isinstance(error, DamagedStateError):
                warnings.warn(f"without {what}: {error}", LabelwiseWarning, stacklevel=3)


def gather_campaign(
    directory: Path,
    options: ReportOptions | None = None,
    *,
    stopped: str = "",
    check: bool = True,
) -> Document:
    """Make the page of a campaign, in whatever state it is; nothing is computed or written.

    What the models predicted lies in the rounds' folders, what was measured of the pool in
    ``report/``; ``labelwise campaign run`` writes both. A part that is missing is left out, and
    the small print says how to have it.

    Args:
        directory: The campaign; it may be running.
        options: What the reader asks for.
        stopped: Why the campaign has just stopped, where that is known.
        check: Whether to look for files that are not what the campaign wrote; a run has done so.

    Returns:
        The page.

    Raises:
        ConfigError: ``campaign.yaml`` is missing or wrong.
        DamagedStateError: A file is not what the campaign wrote.
    """
    options = ReportOptions() if options is None else options
    saved = read_saved(read_state(directory, keys_alone=True), stopped=stopped, check=check)
    desk = _Desk(
        saved,
        options,
        StructurePacker(max_bytes=int(_STRUCTURE_SHARE * options.max_megabytes * _MEGABYTE)),
    )
    for line in saved.damage:
        desk.remarks.append(clean_text(f"{line}; put back what was there.", 400))
        warnings.warn(desk.remarks[-1], LabelwiseWarning, stacklevel=2)
    _collect(desk)
    _take_structures(desk)
    sections = tuple(section for section in _make_sections(desk) if section.panels)
    return Document(
        Kind.CAMPAIGN,
        clean_text(f"Campaign {directory.absolute().name}"),
        describe_campaign(saved),
        make_facts(saved),
        sections,
        desk.packer.pack(),
        (*desk.remarks, *make_notes(saved)),
    )


def _collect(desk: _Desk) -> None:
    """Read structures, predictions and the map, as far as they are there."""
    saved, seed = desk.saved, desk.options.seed
    given: GivenSets | None = None
    with desk.optional("given structures"):
        given = open_given_sets(saved.state)
    if given is None:
        return
    scored: dict[str, ScoredSet | None] = {}
    for role in ("test", "valid"):
        with desk.optional(f"predictions of the {role} set"):
            scored[role] = score_held_out(saved, given, role, seed=seed)
    test, valid = scored.get("test"), scored.get("valid")
    desk.test = valid if test is None else test
    desk.calibration = None if test is None else valid
    with desk.optional("errors of chosen structures"):
        desk.batches = tuple(score_batches(saved))
    with desk.optional("the map"):
        _collect_map(desk, given)
    desk.remarks += _name_missing(desk)


def _collect_map(desk: _Desk, given: GivenSets) -> None:
    saved = desk.saved
    data = read_pool_map(saved.state.directory / FOLDER / POOL_MAP)
    if data is None:
        return
    desk.points = read_points(saved.state, given, data)
    desk.remarks += [clean_text(line, 400) for line in desk.points.remarks]
    n_points, n_given = len(desk.points), desk.points.data.n_given
    desk.outcomes = find_outcomes(saved.candidates, desk.points.place, n_points, n_given)
    scored = [pair for batch in desk.batches for pair in batch.pairs()]
    places = [(desk.points.place.get(each.source), pair) for each, pair in scored]
    errors = {point: pair for point, pair in places if point is not None}
    desk.pool_map = make_pool_map(saved, desk.points, desk.outcomes, errors, desk.options)


def _name_missing(desk: _Desk) -> Iterator[str]:
    """Say what a run of the campaign would add."""
    saved, points = desk.saved, desk.points
    command = f"labelwise campaign run {saved.state.directory}"
    if any(
        not (saved.state.round_folder(n_round) / PREDICTIONS).exists()
        for n_round in range(saved.n_finished)
    ):
        yield f"Without what some rounds predicted, which is not kept; to have it: {command}."
    if points is None:
        yield f"Without the map, which is not kept; to have it: {command}."
    elif points.data.made_of != digest_candidates(saved.n_finished, saved.candidates):
        yield f"The map is older than the campaign; to bring it up to date: {command}."


def _take_structures(desk: _Desk) -> None:
    """Pack structures, those that matter most first, and tell everyone where theirs are."""
    packer = desk.packer
    if desk.points is not None and desk.pool_map is not None and desk.outcomes is not None:
        neighbour = desk.pool_map.neighbour
        points = desk.points.frames
        first = [*desk.outcomes.candidates, *range(desk.points.data.n_given)]
        for point in first:
            for place in (point, int(neighbour[point])):
                if place >= 0:
                    packer.add(name_of(points[place].source), points[place].atoms)
    if desk.test is not None:
        for frame in desk.test.labelled.frames:
            packer.add(name_of(frame.source), frame.atoms)
        desk.test = replace(desk.test, structure=desk.find(desk.test.labelled.frames))
    desk.batches = tuple(
        replace(batch, structure=desk.find(batch.candidates)) for batch in desk.batches
    )
    if desk.points is not None and desk.pool_map is not None:
        order = np.random.default_rng(desk.options.seed).permutation(len(desk.points))
        for point in order.tolist():
            frame = desk.points.frames[point]
            packer.add(name_of(frame.source), frame.atoms)
        desk.pool_map = replace(desk.pool_map, structure=desk.find(desk.points.frames))


def _make_sections(desk: _Desk) -> Iterator[Section]:
    saved = desk.saved
    yield Section(
        "progress",
        "Progress",
        _panels(make_round_table(saved), *make_learning_curves(saved)),
    )
    yield Section("map", "Map", _panels(desk.pool_map))
    yield Section(
        "choices",
        "Choices",
        _panels(
            make_choice_tables(saved, desk.batches, desk.points),
            make_failure_table(saved, desk.points),
        ),
    )
    yield from _model_sections(desk)
    yield Section(
        "cost",
        "Labels and time",
        _panels(make_label_chart(saved), make_time_chart(saved), make_training_history(saved)),
    )


def _model_sections(desk: _Desk) -> Iterator[Section]:
    """Yield what rests on predictions: parity, where errors are, whether they were foreseen."""
    saved, scored = desk.saved, desk.test
    score_chart = make_score_chart(saved, desk.batches)
    if scored is None:
        yield Section("trust", "Calibration", _panels(score_chart))
        return
    frames = scored.labelled.frames
    split_key = saved.config.data.test.split_key if scored.labelled.role == "test" else None
    groups = [
        scored.labelled.role
        if split_key is None
        else get_split(frame.atoms, str(frame.source), split_key)
        for frame in frames
    ]
    words = {"test": "test set", "valid": "validation set"}
    shown = [clean_text(words.get(group, group), 40) for group in groups]
    yield Section(
        "parity",
        "Parity",
        make_parity(scored, shown, seed=desk.options.seed),
    )
    energy_key = saved.config.data.energy_key
    columns = make_columns((frame.atoms for frame in frames), energy_key=energy_key)
    yield Section(
        "errors",
        "Errors",
        _panels(
            *make_error_bars(scored, find_groupings(columns, split_key)),
            make_path_errors(scored, columns),
        ),
    )
    trust = _judge(desk, scored)
    yield Section("trust", "Calibration", _panels(score_chart, *trust))


def _judge(desk: _Desk, scored: ScoredSet) -> Sequence[Panel]:
    if desk.points is None:
        return ()
    judged = judge_rounds(desk.points, scored, desk.calibration, desk.batches)
    return make_trust_charts(judged, scored.title)


def _panels(*found: Panel | None) -> tuple[Panel, ...]:
    return tuple(panel for panel in found if panel is not None)
