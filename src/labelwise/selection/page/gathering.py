"""From the summary of a selection, and what was measured of it, to a page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from labelwise.pages.document import Column, Document, Kind, Panel, PoolMap, Section
from labelwise.pages.options import ReportOptions
from labelwise.pages.plane import map_components
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.measures import SUFFIX, Measures, read_measures
from labelwise.selection.page.coverage import chart_distances, compare_groups
from labelwise.selection.page.headlines import list_facts, write_small_print, write_subtitle
from labelwise.selection.page.packing import pack_structures
from labelwise.selection.page.picked import Picked, read_again
from labelwise.selection.page.pool_columns import category_column, name_apart
from labelwise.selection.page.pool_map import (
    SOURCE,
    list_columns,
    make_pool_map,
    move_to_front,
    take_rows,
)
from labelwise.selection.page.reasons import make_notes, make_pick_table
from labelwise.selection.page.record import SelectionRecord, read_record
from labelwise.selection.page.room import Room
from labelwise.selection.page.set_aside import chart_times, list_screened


def gather_selection(
    summary: Path, options: ReportOptions, *, progress: ProgressCallback = ignore_progress
) -> Document:
    """Make the page of a selection.

    Structures are read again; what the batch changed is taken from the file that ``labelwise
    select --report`` left beside the summary. Where that is missing, the page says how to get it.

    Args:
        summary: The JSON file that ``labelwise select`` wrote.
        options: What the reader asked for.
        progress: Called with stage, done, total.

    Raises:
        ReadError: A file is missing, damaged, or not what it was.
        ArgumentError: ``colour_by`` is no column of this pool, or a setting is out of range.
        MissingDependencyError: A map by UMAP is asked for, and it is not installed.
    """
    record = read_record(summary)
    room = Room(options.max_megabytes)
    places = [pick.pool_index for pick in record.picks]
    picked = read_again(
        record,
        read_measures(record.path.with_suffix(SUFFIX), places),
        seed=options.seed,
        max_bytes=room.for_all_structures,
        progress=progress,
    )
    return _write_document(picked, options, room)


def _write_document(picked: Picked, options: ReportOptions, room: Room) -> Document:
    record, measures = picked.record, picked.measures
    every: tuple[Column, ...] = ()
    columns: tuple[Column, ...] = ()
    n_points = 0
    if measures is not None:
        n_points = len(measures.shown.pool) + len(measures.shown.train)
        every = tuple(list_columns(picked, measures))
        columns = room.fit(move_to_front(every, options.colour_by), n_points)
    max_bytes = room.for_structures(n_points, columns)
    structures, places = pack_structures(picked, max_bytes=max_bytes, seed=options.seed)
    pool_map = None
    if measures is not None:
        pool_map = _draw_map(picked, measures, columns, options, places)
    return Document(
        kind=Kind.SELECTION,
        title=f"{len(record.picks):,} structures chosen of {record.n_pool:,}",
        subtitle=write_subtitle(record),
        facts=list_facts(record, measures),
        sections=tuple(_list_sections(picked, pool_map)),
        structures=structures,
        notes=(
            *write_small_print(record, is_measured=measures is not None),
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
    measures: Measures,
    columns: tuple[Column, ...],
    options: ReportOptions,
    places: Int32[np.ndarray, " p"],
) -> PoolMap:
    return make_pool_map(
        picked,
        measures,
        map_components(measures.components, method=options.map_method, seed=options.seed),
        columns=columns,
        notes=make_notes(picked),
        structure=places,
        colour_by=options.colour_by,
    )


def _explain_no_map(record: SelectionRecord) -> str:
    """Say why there is no map, and what makes one."""
    file = record.path.with_suffix(SUFFIX).name
    text = (
        f"There is no map, and no variances and distances are shown: {file} is not beside the "
        "summary, or belongs to another batch. To have it, run the command of this selection "
        f"again with --report: labelwise select -n {len(record.picks)} … --report"
    )
    if record.settings.rule.is_random:
        text += (
            ", and, because the rule random looks at no structure, with a --model or with a "
            "representation that needs none, such as soap"
        )
    return f"{text}."


def _list_sections(picked: Picked, pool_map: PoolMap | None) -> Iterator[Section]:
    """Go through the parts of the page that there is something to show in."""
    record, measures = picked.record, picked.measures
    panels = () if pool_map is None else (pool_map,)
    yield Section("map", "The pool", panels, () if panels else (_explain_no_map(record),))
    yield Section("why", "Why these", (make_pick_table(picked),))
    coverage: list[Panel] = []
    if measures is not None:
        coverage.append(chart_distances(measures, len(picked.train), len(picked.rows)))
    columns = _columns_of_pool(picked)
    coverage += compare_groups(columns, picked.rows, record.settings.group_by)
    if coverage:
        yield Section("coverage", "Coverage", tuple(coverage))
    aside = list_screened(record.screened, picked.names)
    if aside:
        n = len(record.screened)
        yield Section("set-aside", "Set aside", aside, (f"{n:,} structures were set aside.",))
    times = chart_times(record.stages)
    if times:
        yield Section("time", "Time", times)


def _columns_of_pool(picked: Picked) -> list[Column]:
    """Return what is known of the whole pool, the files first."""
    pool = picked.pool
    rows = len(picked.train) + np.arange(len(pool))
    known = [take_rows(column, rows) for column in picked.columns]
    files = [picked.names.of_file(pool.files[number]) for number in pool.file.tolist()]
    source = category_column(SOURCE, files)
    return [*name_apart([*([] if source is None else [source]), *known])]
