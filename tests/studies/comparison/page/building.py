"""Parts of synthetic studies."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from labelwise.pages.document import Cell, Table
from labelwise.studies.comparison.results import CellResult, MethodCost

COSTS = (
    MethodCost("random", 0.0, 0.0, 1, 0, 0.0, 0.0),
    MethodCost("ntk-lcmd", 1.0, 1.0, 1, 264, 0.002, 20.0),
    MethodCost("activation-lcmd", 1.0, 0.0, 1, 48, 0.001, 4.0),
)


def with_splits(cell: CellResult) -> CellResult:
    """Add two splits, the second twice as hard."""
    splits = {
        name: {
            error: tuple(factor * value for value in values)
            for error, values in cell.curves.items()
        }
        for name, factor in (("val_id", 1.0), ("val_ood", 2.0))
    }
    return replace(cell, splits=splits)


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def column_of(table: Table, heading: str, *, nth: int = 0) -> dict[Cell, Cell]:
    """Return a column's cells by those of the first, the nth of columns of that heading."""
    places = [i for i, column in enumerate(table.columns) if column.name == heading]
    return {row[0]: row[places[nth]] for row in table.rows}


def as_number(row: Mapping[str, str], key: str) -> float | None:
    return float(row[key]) if row[key] else None
