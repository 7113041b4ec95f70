"""The pool as points: in which role, and what is known of each."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32, Int64

from labelwise.errors import ArgumentError
from labelwise.pages.document import (
    CategoryColumn,
    Column,
    NumberColumn,
    PointNote,
    PoolMap,
    Role,
)
from labelwise.pages.plane import Plane
from labelwise.selection.measures import Measures, Shown
from labelwise.selection.page.picked import Picked
from labelwise.selection.page.pool_columns import category_column, name_apart, number_column

MAP_NAME = "pool"
SOURCE = "source"
VARIANCE_BEFORE, VARIANCE_AFTER = "posterior variance before", "posterior variance after"
DISTANCE_BEFORE = "kernel distance to the nearest labelled"
DISTANCE_AFTER = "kernel distance to the nearest labelled or chosen"
_ROLES = list(Role)


def make_pool_map(
    picked: Picked,
    measures: Measures,
    plane: Plane,
    *,
    columns: Sequence[Column],
    notes: Sequence[PointNote],
    structure: Int32[np.ndarray, " p"],
    colour_by: str | None = None,
) -> PoolMap:
    """Draw the pool.

    Args:
        picked: The selection and its structures.
        measures: What the batch changed, and which structures are points.
        plane: Coordinates of the points, the pool's first.
        columns: Of the points.
        notes: Of the points.
        structure: Place of each point's structure in the document, (p,).
        colour_by: Name of the column by which it is coloured at first.
    """
    pool, train, picks, shown = picked.pool, picked.train, picked.rows, measures.shown
    x, y = np.concatenate(plane.coordinates).T
    files = _list_files(picked)
    x_label, y_label = plane.label_axes()
    neighbour = np.full(len(x), -1, dtype=np.int32)
    neighbour[: len(shown.pool)] = shown.points_of_train(measures.nearest[shown.pool])
    return PoolMap(
        name=MAP_NAME,
        title="The pool as the kernel sees it",
        x=np.ascontiguousarray(x),
        y=np.ascontiguousarray(y),
        roles=_find_roles(shown, picks, measures),
        x_label=x_label,
        y_label=y_label,
        files=tuple(picked.names.of_file(file) for file in files),
        file=_places_of_files(picked, shown, files),
        frame=np.concatenate([pool.frame[shown.pool], train.frame[shown.train]]),
        structure=structure,
        neighbour=neighbour,
        columns=tuple(columns),
        notes=tuple(notes),
        colour_by=colour_by,
        caption=_caption(plane, measures, len(pool), len(train)),
    )


def list_columns(picked: Picked, measures: Measures) -> tuple[Column, ...]:
    """Return all columns of the points, with unique names.

    Args:
        picked: The selection and its structures.
        measures: What the batch changed, and which structures are points.

    Returns:
        Variances and distances, where structures are from, then what is known, the most common
        info keys first.
    """
    files, shown = _list_files(picked), measures.shown
    names = [picked.names.of_file(file) for file in files]
    places = _places_of_files(picked, shown, files).tolist()
    own = [
        *_measured_columns(measures, shown),
        category_column(SOURCE, [names[place] for place in places]),
    ]
    rows = np.concatenate([len(picked.train) + shown.pool, shown.train])
    return name_apart(
        [
            *(column for column in own if column is not None),
            *(take_rows(column, rows) for column in picked.columns),
        ]
    )


def move_to_front(columns: Sequence[Column], name: str | None) -> list[Column]:
    """Return the columns with one of them first, where a name is given.

    Raises:
        ArgumentError: There is no column of this name.
    """
    names = [column.name for column in columns]
    if name is not None and name not in names:
        raise ArgumentError(
            f"--colour-by is {name!r}; the columns of this pool are {', '.join(names)}"
        )
    return sorted(columns, key=lambda column: column.name != name)


def take_rows(column: Column, rows: Int64[np.ndarray, " k"]) -> Column:
    """Return a column of some rows."""
    if isinstance(column, NumberColumn):
        return NumberColumn(column.name, column.values[rows], column.unit)
    return CategoryColumn(column.name, column.codes[rows], column.categories)


def _measured_columns(measures: Measures, shown: Shown) -> list[NumberColumn | None]:
    named = {
        VARIANCE_BEFORE: measures.variance_before,
        VARIANCE_AFTER: measures.variance_after,
        DISTANCE_BEFORE: measures.distance_before,
        DISTANCE_AFTER: measures.distance_after,
    }
    of_train = np.full(len(shown.train), np.nan)
    return [
        number_column(name, np.concatenate([values[shown.pool], of_train]))
        for name, values in named.items()
    ]


def _find_roles(shown: Shown, picks: Int64[np.ndarray, " k"], measures: Measures) -> np.ndarray:
    roles = np.full(len(shown.pool) + len(shown.train), _ROLES.index(Role.POOL), dtype=np.uint8)
    roles[len(shown.pool) :] = _ROLES.index(Role.LABELLED)
    if measures.shortlist is not None:
        points = shown.points_of_pool(measures.shortlist)
        roles[points[points >= 0]] = _ROLES.index(Role.SHORTLISTED)
    roles[shown.points_of_pool(picks)] = _ROLES.index(Role.CHOSEN)
    return roles


def _list_files(picked: Picked) -> tuple[str, ...]:
    """Return the files of both roles, each once."""
    return tuple(dict.fromkeys([*picked.pool.files, *picked.train.files]))


def _places_of_files(picked: Picked, shown: Shown, files: Sequence[str]) -> Int32[np.ndarray, " p"]:
    """Return each point's file, as its place among ``files``."""
    place = {file: number for number, file in enumerate(files)}
    parts = []
    for shelved, rows in ((picked.pool, shown.pool), (picked.train, shown.train)):
        codes = np.array([place[file] for file in shelved.files] or [0], dtype=np.int32)
        parts.append(codes[shelved.file[rows]])
    return np.concatenate(parts)


def _caption(plane: Plane, measures: Measures, n_pool: int, n_train: int) -> str:
    kernel, shown = measures.kernel, measures.shown
    how = (
        "by the first two kernel principal components"
        if plane.explained is not None
        else "by UMAP of the first 50 kernel principal components, which keeps neighbourhoods "
        "and not distances"
    )
    text = f"A point is a structure; points lie close where {kernel} finds structures alike, {how}."
    left_out = []
    if len(shown.pool) < n_pool:
        left_out.append(f"{len(shown.pool):,} of {n_pool:,} structures of the pool")
    if len(shown.train) < n_train:
        left_out.append(f"{len(shown.train):,} of {n_train:,} labelled structures")
    if left_out:
        drawn = " and ".join(left_out)
        text += f" Shown are {drawn}, drawn at random, with all that were chosen."
    return text
