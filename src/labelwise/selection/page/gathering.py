"""From the summary of a selection to a page: read, represent, measure, explain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Int64

from labelwise.features.memo import FeatureMemo
from labelwise.pages.document import Column, Document, Kind, Panel, PoolMap, Section
from labelwise.potentials import Potential
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.page.coverage import chart_distances, compare_groups
from labelwise.selection.page.headlines import list_facts, write_small_print, write_subtitle
from labelwise.selection.page.kernel_map import map_kernels
from labelwise.selection.page.measures import Measures, measure
from labelwise.selection.page.options import ReportOptions
from labelwise.selection.page.packing import pack_structures
from labelwise.selection.page.picked import Picked, Shown
from labelwise.selection.page.pool_columns import category_column, name_apart
from labelwise.selection.page.pool_map import (
    MOST_POINTS,
    SOURCE,
    choose_points,
    list_columns,
    make_pool_map,
    move_to_front,
    take_rows,
)
from labelwise.selection.page.reading import ReadAgain, read_again
from labelwise.selection.page.reasons import make_notes, make_pick_table
from labelwise.selection.page.record import SelectionRecord, read_record
from labelwise.selection.page.replay import ClusterAtPick, replay_clusters
from labelwise.selection.page.representing import KernelView, subset
from labelwise.selection.page.room import Room
from labelwise.selection.page.set_aside import chart_times, list_screened
from labelwise.selection.page.shelves import Names
from labelwise.selection.rules import get_rule


def gather_selection(
    summary: Path,
    options: ReportOptions,
    *,
    memo: FeatureMemo | None = None,
    potential: Potential | None = None,
    most_points: int = MOST_POINTS,
    progress: ProgressCallback = ignore_progress,
) -> Document:
    """Make the page of a selection.

    Structures are read again and represented again, unless their rows are in the memo or in the
    feature store that the selection used. Nothing is written, but rows that are missing from
    that store.

    Args:
        summary: The JSON file that ``labelwise select`` wrote.
        options: What the reader asked for.
        memo: Rows that are known already.
        potential: The model, if it is loaded already.
        most_points: Structures of the pool that the map shows, if those chosen and shortlisted are
            not more; of a larger pool they are drawn at random.
        progress: Called with stage, done, total.

    Raises:
        ReadError: A file is missing, damaged, or not what it was.
        PotentialError: The model cannot be loaded, or is another one.
        ArgumentError: ``colour_by`` is no column of this pool, or a setting is out of range.
        MissingDependencyError: A map by UMAP is asked for, and it is not installed.
    """
    record = read_record(summary)
    room = Room(options.max_megabytes)
    read = read_again(
        record,
        options,
        potential=potential,
        memo=memo,
        max_bytes=room.for_all_structures,
        progress=progress,
    )
    names = Names(read.pool, read.train)
    measures: Measures | None = None
    clusters: tuple[ClusterAtPick | None, ...] = ()
    shown: Shown | None = None
    if read.view is not None:
        measures = measure(read.view, read.rows, record.settings, seed=options.seed)
        clusters = _replay(record, read.view, measures, read.rows)
        n_pool, n_train = len(read.pool), len(read.train)
        shown = choose_points(
            n_pool, n_train, read.rows, measures, seed=options.seed, most=most_points
        )
    picked = Picked(
        record, read.pool, read.train, names, read.rows, read.chosen, measures, shown, clusters
    )
    return _write_document(picked, read, options, room)


def _write_document(
    picked: Picked, read: ReadAgain, options: ReportOptions, room: Room
) -> Document:
    record = picked.record
    every: tuple[Column, ...] = ()
    columns: tuple[Column, ...] = ()
    n_points = 0
    if picked.shown is not None and picked.measures is not None:
        n_points = len(picked.shown.pool) + len(picked.shown.train)
        every = tuple(list_columns(picked, picked.shown, picked.measures, read.columns))
        columns = room.fit(move_to_front(every, options.colour_by), n_points)
    max_bytes = room.for_structures(n_points, columns)
    structures, places = pack_structures(picked, max_bytes=max_bytes, seed=options.seed)
    pool_map = None
    if read.view is not None:
        pool_map = _draw_map(picked, columns, read.view, options, places)
    return Document(
        kind=Kind.SELECTION,
        title=f"{len(record.picks):,} structures chosen of {record.n_pool:,}",
        subtitle=write_subtitle(record),
        facts=list_facts(record, picked.measures),
        sections=tuple(_list_sections(picked, read, pool_map)),
        structures=structures,
        notes=(
            *write_small_print(record, picked.clusters, read.why_no_view),
            *_name_left_out(every, columns),
        ),
    )


def _name_left_out(every: Sequence[Column], kept: Sequence[Column]) -> tuple[str, ...]:
    """Say which columns the map has no room for."""
    known = {column.name for column in kept}
    names = [column.name for column in every if column.name not in known]
    if not names:
        return ()
    listed = ", ".join(names)
    return (f"The page has no room for these of all structures: {listed} (--max-megabytes).",)


def _draw_map(
    picked: Picked,
    columns: tuple[Column, ...],
    view: KernelView,
    options: ReportOptions,
    places: Int32[np.ndarray, " p"],
) -> PoolMap:
    shown, measures = picked.shown, picked.measures
    if shown is None or measures is None:
        raise AssertionError("where there is a kernel, it was measured")
    plane = map_kernels(
        [subset(view.pool, shown.pool), subset(view.train, shown.train)],
        method=options.map_method,
        seed=options.seed,
    )
    return make_pool_map(
        picked,
        shown,
        measures,
        plane,
        columns=columns,
        notes=make_notes(picked),
        structure=places,
        colour_by=options.colour_by,
    )


def _list_sections(picked: Picked, read: ReadAgain, pool_map: PoolMap | None) -> Iterator[Section]:
    """Go through the parts of the page that there is something to show in."""
    record, measures = picked.record, picked.measures
    panels = () if pool_map is None else (pool_map,)
    text = () if read.why_no_view is None else (read.why_no_view,)
    yield Section("map", "The pool", panels, text)
    yield Section("why", "Why these", (make_pick_table(picked),))
    coverage: list[Panel] = []
    if measures is not None:
        coverage.append(chart_distances(measures, len(read.train), len(read.rows)))
    columns = _columns_of_pool(read, picked.names)
    coverage += compare_groups(columns, read.rows, record.settings.group_by)
    if coverage:
        yield Section("coverage", "Coverage", tuple(coverage))
    aside = list_screened(record.screened, picked.names)
    if aside:
        n = len(record.screened)
        yield Section("set-aside", "Set aside", aside, (f"{n:,} structures were set aside.",))
    times = chart_times(record.stages)
    if times:
        yield Section("time", "Time", times)


def _columns_of_pool(read: ReadAgain, names: Names) -> list[Column]:
    """Return what is known of the whole pool, the files first."""
    rows = len(read.train) + np.arange(len(read.pool))
    known = [take_rows(column, rows) for column in read.columns]
    files = [names.of_file(read.pool.files[number]) for number in read.pool.file.tolist()]
    source = category_column(SOURCE, files)
    return [*name_apart([*([] if source is None else [source]), *known])]


def _replay(
    record: SelectionRecord,
    view: KernelView,
    measures: Measures,
    rows: Int64[np.ndarray, " k"],
) -> tuple[ClusterAtPick | None, ...]:
    """Return the clusters that the picks were taken from; nothing where that is not known."""
    if not get_rule(record.settings.rule).has_clusters:
        return ()
    if measures.shortlist is None:
        return replay_clusters(view.pool, view.train, rows)
    if not np.isin(rows, measures.shortlist).all():
        return ()
    within = np.searchsorted(measures.shortlist, rows).astype(np.int64)
    return replay_clusters(subset(view.pool, measures.shortlist), view.train, within)
