"""The kernels of a study on a sample of its first pool: heat maps, and what they tell apart."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float64

from labelwise.pages.document import Cell, Choice, HeatMap, Panel, Table, TableColumn
from labelwise.studies.comparison.page.naming import Namer

_LEAST_FAMILIES = 2
_CLIPPED = 1.0
#: Numbers of a kernel's geometry that tables show, and their headings.
GEOMETRY_NUMBERS = (
    ("within", "within families"),
    ("between", "between families"),
    ("neighbour_accuracy", "nearest is of the family"),
    ("silhouette", "silhouette"),
    ("path_correlation", "ρ along the path"),
    ("effective_rank", "effective rank"),
)


def draw_kernels(results: Mapping[str, Mapping[str, Any]], pool: str, namer: Namer) -> list[Panel]:
    """Return heat maps of what ``measure_kernels`` returned, and a table of its numbers."""
    if not results:
        return []
    options = [*_draw_families(results, pool, namer), *_draw_structures(results, pool, namer)]
    choice = Choice(namer.name("kernels"), "kernel", tuple(options))
    return [choice if len(options) > 1 else options[0][1], _make_table(results, pool)]


def _draw_families(
    results: Mapping[str, Mapping[str, Any]], pool: str, namer: Namer
) -> Iterator[tuple[str, HeatMap]]:
    for kernel, result in results.items():
        families = tuple(str(name) for name in result["families"])
        if len(families) < _LEAST_FAMILIES:
            continue
        values = np.array(result["by_family"], dtype=np.float64)
        yield (
            f"{kernel}, families",
            HeatMap(
                name=namer.name("kernel", kernel, "families"),
                title=f"Similarity under {kernel}: families of {pool}",
                values=values.astype(np.float32),
                rows=families,
                columns=families,
                label="mean similarity",
                caption=(
                    f"Mean kernel value of the pairs of two families ({result['grouped_by']}), a "
                    "structure with itself left out; features of the pretrained model. A bright "
                    "diagonal on a dark ground: the kernel tells families apart."
                ),
            ),
        )


def _draw_structures(
    results: Mapping[str, Mapping[str, Any]], pool: str, namer: Namer
) -> Iterator[tuple[str, HeatMap]]:
    for kernel, result in results.items():
        values = _matrix_of(result)
        names = tuple(str(name) for name in result["names"])
        yield (
            f"{kernel}, structures",
            HeatMap(
                name=namer.name("kernel", kernel, "structures"),
                title=f"Similarity under {kernel}: structures of {pool}",
                values=values.astype(np.float32),
                rows=names,
                columns=names,
                label="similarity",
                limits=_find_limits(values),
                caption=(
                    f"{len(names)} structures, families ({result['grouped_by']}) together and in "
                    "order of their frames; colours from the 1st to the 99th percentile."
                ),
            ),
        )


def _make_table(results: Mapping[str, Mapping[str, Any]], pool: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kernel, result in results.items():
        numbers: Mapping[str, Any] = result["numbers"]
        rows.append(
            (kernel, len(result["names"]), *(known(numbers[name]) for name, _ in GEOMETRY_NUMBERS))
        )
    return Table(
        name="kernel-numbers",
        title=f"What kernels tell apart in {pool}",
        columns=(
            TableColumn("kernel"),
            TableColumn("structures"),
            *(TableColumn(heading, 3) for _, heading in GEOMETRY_NUMBERS),
        ),
        rows=tuple(rows),
        caption=(
            "Mean similarity of two structures of one family, of two; the part of the structures "
            "whose nearest other one is of their family; mean silhouette; Spearman correlation of "
            "kernel distance with distance along the path; effective rank of the centred matrix."
        ),
    )


def _matrix_of(result: Mapping[str, Any]) -> Float64[np.ndarray, "n n"]:
    return np.array(result["matrix"], dtype=np.float64)


def _find_limits(values: Float64[np.ndarray, "n n"]) -> tuple[float, float] | None:
    pairs = values[np.triu_indices(len(values), k=1)]
    if not len(pairs):
        return None
    low, high = (float(x) for x in np.percentile(pairs, [_CLIPPED, 100.0 - _CLIPPED]))
    return (low, high) if high > low else None


def known(value: Any, factor: float = 1.0) -> float | None:
    """Return a number for a table's cell; None for what is not known."""
    return None if value is None or not math.isfinite(value) else factor * float(value)
