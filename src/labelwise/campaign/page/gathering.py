"""From a campaign's folder to the page about it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from labelwise.campaign.bench import Bench, open_bench
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.page.breakdown import find_groupings, make_error_bars, make_path_errors
from labelwise.campaign.page.choices import make_choice_tables, make_failure_table
from labelwise.campaign.page.costs import (
    make_label_chart,
    make_round_table,
    make_time_chart,
    make_training_history,
)
from labelwise.campaign.page.curves import make_learning_curves
from labelwise.campaign.page.facts import describe_campaign, make_facts, make_notes
from labelwise.campaign.page.growing_map import PointFates, find_fates, make_pool_map
from labelwise.campaign.page.kept import FOLDER, KeptArrays
from labelwise.campaign.page.labelled_sets import batch_set, measure_errors, name_of
from labelwise.campaign.page.landscape import Landscape, survey_landscape
from labelwise.campaign.page.parity import make_parity
from labelwise.campaign.page.predicting import Predictor
from labelwise.campaign.page.saved import SavedCampaign, read_saved
from labelwise.campaign.page.scored import ScoredSet, score_held_out
from labelwise.campaign.page.trust import (
    ScoredBatch,
    judge_rounds,
    make_score_chart,
    make_trust_charts,
)
from labelwise.campaign.state import CampaignState, read_state, verify_model
from labelwise.errors import LabelwiseError, LabelwiseWarning, PotentialError
from labelwise.pages.document import Document, Kind, Panel, PoolMap, Section
from labelwise.pages.options import ReportOptions
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.page.pool_columns import clean_text, make_columns
from labelwise.selection.page.structure_packing import StructurePacker
from labelwise.structures.split_names import get_split

_MEGABYTE = 1_000_000
#: Part of the page that structures may take; what is left is for charts, libraries and the map.
_STRUCTURE_SHARE = 0.3
_Found = TypeVar("_Found")


@dataclass
class _Desk:
    """What the sections are made of; a part that cannot be had is None, and a remark says why."""

    saved: SavedCampaign
    options: ReportOptions
    packer: StructurePacker
    kept: KeptArrays
    remarks: list[str] = field(default_factory=list)
    bench: Bench | None = None
    test: ScoredSet | None = None
    calibration: ScoredSet | None = None
    landscape: Landscape | None = None
    fates: PointFates | None = None
    batches: tuple[ScoredBatch, ...] = ()
    pool_map: PoolMap | None = None

    @contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Let a part be left out of the page, with the reason; a refused model is warned of."""
        try:
            yield
        except (LabelwiseError, OSError) as error:
            self.remarks.append(clean_text(f"Without {what}: {error}", 400))
            if isinstance(error, PotentialError | DamagedStateError):
                warnings.warn(f"without {what}: {error}", LabelwiseWarning, stacklevel=3)


def gather_campaign(
    directory: Path,
    options: ReportOptions | None = None,
    *,
    bench: Bench | None = None,
    stopped: str = "",
    progress: ProgressCallback = ignore_progress,
) -> Document:
    """Make the page of a campaign, in whatever state it is; the campaign is not changed.

    What follows from its files is always shown. What needs a model (predictions of the test set and
    of chosen structures by each round's model, the pool's features by the first one) is computed
    once and kept in ``report/`` inside the folder. A part that cannot be had is left out, and
    the small print says why.

    Args:
        directory: The campaign; it may be running.
        options: What the reader asks for.
        bench: Model and structures that a run of the campaign has in memory.
        stopped: Why the campaign has just stopped, where that is known.
        progress: Called with stage, done, total.

    Returns:
        The page.

    Raises:
        ConfigError: ``campaign.yaml`` is missing or wrong.
        DamagedStateError: A file is not what the campaign wrote.
    """
    options = ReportOptions() if options is None else options
    state = _apply(options, read_state(directory))
    saved = read_saved(state, stopped=stopped, check=bench is None)
    desk = _Desk(
        saved,
        options,
        StructurePacker(max_bytes=int(_STRUCTURE_SHARE * options.max_megabytes * _MEGABYTE)),
        KeptArrays(directory / FOLDER),
    )
    for line in saved.status.damage:
        desk.remarks.append(clean_text(f"{line}; put back what was there.", 400))
        warnings.warn(desk.remarks[-1], LabelwiseWarning, stacklevel=2)
    _compute(desk, bench, progress)
    _take_structures(desk)
    sections = tuple(section for section in _make_sections(desk) if section.panels)
    if desk.kept.refusal:
        desk.remarks.append(f"Nothing could be kept for the next page: {desk.kept.refusal}")
    return Document(
        Kind.CAMPAIGN,
        clean_text(f"Campaign {directory.absolute().name}"),
        describe_campaign(saved),
        make_facts(saved),
        sections,
        desk.packer.pack(),
        (*desk.remarks, *make_notes(saved)),
    )


def _apply(options: ReportOptions, state: CampaignState) -> CampaignState:
    """Return the campaign with the model, trust and device that the reader asks for."""
    wanted: dict[str, str | bool] = {"trust": options.trust_model}
    if options.model is not None:
        wanted["path"] = options.model
    if options.device != "auto":
        wanted["device"] = options.device
    model = state.config.model.model_copy(update=wanted)
    return replace(state, config=state.config.model_copy(update={"model": model}))


def _compute(desk: _Desk, bench: Bench | None, progress: ProgressCallback) -> None:
    """Make what needs structures and models."""
    state, seed = desk.saved.state, desk.options.seed
    with desk.optional("given structures"):
        desk.bench = open_bench(state, progress) if bench is None else bench
    if desk.bench is None:
        return
    predictor = Predictor(state, desk.bench, desk.kept)
    scored: dict[str, ScoredSet | None] = {}
    for role in ("test", "valid"):
        with desk.optional(f"predictions of the {role} set"):
            scored[role] = score_held_out(desk.saved, desk.bench, predictor, role, seed=seed)
    test, valid = scored.get("test"), scored.get("valid")
    desk.test = valid if test is None else test
    desk.calibration = None if test is None else valid
    with desk.optional("errors of chosen structures"):
        desk.batches = tuple(_score_batches(desk.saved, predictor))
    desk.remarks += predictor.refusals
    if predictor.refusals:
        more = len(predictor.refusals) - 1
        words = predictor.refusals[0] + (f" (and {more} more models)" if more else "")
        warnings.warn(words, LabelwiseWarning, stacklevel=3)
    with desk.optional("the map"):
        sources = [each.source for each in desk.saved.candidates]
        if bench is None and desk.options.model is None:
            verify_model(state)
        desk.landscape = survey_landscape(state, desk.bench, desk.kept, sources, seed=seed)
        desk.remarks += desk.landscape.remarks
        desk.fates = find_fates(desk.saved, desk.landscape)
        errors = _errors_of_points(desk.landscape, desk.batches)
        desk.pool_map = make_pool_map(
            desk.saved, desk.landscape, desk.fates, errors, desk.kept, desk.options
        )


def _score_batches(saved: SavedCampaign, predictor: Predictor) -> Iterator[ScoredBatch]:
    """Let the model of each round predict what the next round chose."""
    chosen: dict[int, list[str]] = {}
    for each in saved.candidates:
        if each.role == "train" and each.fate == "labelled":
            chosen.setdefault(each.n_round, []).append(each.key)
    by_key = {each.key: each for each in saved.candidates}
    for n_round in range(1, saved.n_finished + 1):
        labelled = batch_set(saved.state, chosen.get(n_round, ()))
        if labelled is None:
            continue
        predicted = predictor.predict(n_round - 1, labelled)
        if predicted is not None:
            candidates = tuple(by_key[key] for key in chosen[n_round])
            nowhere = np.full(len(candidates), -1, dtype=np.int32)
            yield ScoredBatch(n_round, candidates, measure_errors(labelled, predicted), nowhere)


def _errors_of_points(
    landscape: Landscape, batches: Sequence[ScoredBatch]
) -> dict[int, tuple[float, float]]:
    found = {}
    for batch in batches:
        pairs = zip(
            batch.errors.energy_per_atom.tolist(), batch.errors.forces.tolist(), strict=True
        )
        for each, pair in zip(batch.candidates, pairs, strict=True):
            point = landscape.place.get(each.source)
            if point is not None:
                found[point] = pair
    return found


def _take_structures(desk: _Desk) -> None:
    """Pack structures, those that matter most first, and tell everyone where theirs are."""
    packer = desk.packer
    if desk.landscape is not None and desk.pool_map is not None and desk.fates is not None:
        neighbour = desk.pool_map.neighbour
        points = desk.landscape.points
        first = [*desk.fates.candidates, *range(desk.landscape.n_given)]
        for point in first:
            for place in (point, int(neighbour[point])):
                if place >= 0:
                    packer.add(name_of(points[place].source), points[place].atoms)
    if desk.test is not None:
        for frame in desk.test.labelled.frames:
            packer.add(name_of(frame.source), frame.atoms)
        found = [packer.find(name) for name in desk.test.labelled.names]
        desk.test = replace(desk.test, structure=np.array(found, dtype=np.int32))
    desk.batches = tuple(
        replace(
            batch,
            structure=np.array(
                [packer.find(name_of(each.source)) for each in batch.candidates], dtype=np.int32
            ),
        )
        for batch in desk.batches
    )
    if desk.landscape is not None and desk.pool_map is not None:
        order = np.random.default_rng(desk.options.seed).permutation(desk.landscape.n_points)
        for point in order.tolist():
            frame = desk.landscape.points[point]
            packer.add(name_of(frame.source), frame.atoms)
        places = [packer.find(name_of(frame.source)) for frame in desk.landscape.points]
        desk.pool_map = replace(desk.pool_map, structure=np.array(places, dtype=np.int32))


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
            make_choice_tables(saved, desk.batches, desk.landscape),
            make_failure_table(saved, desk.landscape),
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
    if desk.landscape is None or desk.fates is None:
        return ()
    judged = judge_rounds(desk.landscape, desk.fates, scored, desk.calibration, desk.batches)
    return make_trust_charts(judged, scored.title)


def _panels(*found: Panel | None) -> tuple[Panel, ...]:
    return tuple(panel for panel in found if panel is not None)
