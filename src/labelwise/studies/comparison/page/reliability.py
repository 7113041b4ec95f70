"""How well kernels know where the pretrained model errs: a diagram and its numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from labelwise.pages.document import Axis, Cell, Chart, Mark, Panel, Series, Table, TableColumn
from labelwise.studies.comparison.page.kernels import known
from labelwise.studies.comparison.page.naming import Namer


def draw_reliability(
    results: Mapping[str, Mapping[str, Any]], styles: Mapping[str, int], pool: str, namer: Namer
) -> list[Panel]:
    """Return the reliability diagram of what ``measure_reliability`` returned, and its numbers."""
    if not results:
        return []
    series = tuple(
        Series(
            name=kernel,
            x=np.array(result["levels"], dtype=np.float64),
            y=np.array(result["coverages"], dtype=np.float32),
            style=styles.get(kernel),
        )
        for kernel, result in results.items()
    )
    first = next(iter(results.values()))
    chart = Chart(
        name=namer.name("reliability"),
        title=f"Reliability of kernels on {pool}",
        mark=Mark.LINES,
        x=Axis("nominal coverage"),
        y=Axis("empirical coverage"),
        series=series,
        diagonal=True,
        caption=(
            "A Gaussian process with each kernel on the pretrained model's errors in energy; part "
            f"of {first['n_test']} test structures inside its central intervals. Above the "
            "diagonal the uncertainty is too large, below it too small."
        ),
    )
    return [chart, _make_table(results, pool)]


def _make_table(results: Mapping[str, Mapping[str, Any]], pool: str) -> Table:
    unit = "meV/atom" if any(result["per_atom"] for result in results.values()) else "meV"
    rows: list[tuple[Cell, ...]] = [
        (
            kernel,
            int(result["n_labels"]),
            known(result["nll"]),
            known(result["ece"]),
            known(result["coverage"], 100.0),
            known(result["rank_correlation"]),
            known(result["rmse"], 1e3),
            known(result["bias_rmse"], 1e3),
        )
        for kernel, result in results.items()
    ]
    return Table(
        name="reliability-numbers",
        title=f"Calibration of kernels on {pool}",
        columns=(
            TableColumn("kernel"),
            TableColumn("labels"),
            TableColumn("NLL", 3),
            TableColumn("calibration error", 2),
            TableColumn("inside 90 % interval / %", 3),
            TableColumn("ρ with the error", 2),
            TableColumn(f"RMSE / {unit}", 3),
            TableColumn(f"RMSE without kernel / {unit}", 3),
        ),
        rows=tuple(rows),
        caption=(
            "Labels: bought by posterior variance, as many as the validation set's likelihood "
            "asks for. NLL: negative log likelihood of the test set, in nats for energies in eV. "
            "ρ: Spearman correlation of predicted deviation and absolute error."
        ),
    )


def show_ranking(results: Mapping[str, Mapping[str, Any]], pool: str) -> list[Panel]:
    """Return a table of what ``measure_ranking`` returned."""
    if not results:
        return []
    quantities = {"forces": "ρ, force error", "energy": "ρ, energy error", "area": "area"}
    columns = [TableColumn("kernel")]
    for heading in quantities.values():
        columns += [TableColumn(heading, 2), TableColumn("±", 1)]
    rows: list[tuple[Cell, ...]] = []
    for kernel, result in results.items():
        row: list[Cell] = [kernel]
        for name in quantities:
            values = np.array(result.get(name, [math.nan]), dtype=np.float64)
            spread = values.std(ddof=1) if len(values) > 1 else math.nan
            row += [known(values.mean()), known(spread)]
        rows.append(tuple(row))
    caption = (
        "Posterior variance of structures of the pool, given a few labelled ones, against the "
        "pretrained model's true errors. ρ: Spearman correlation. Area: that under the "
        "sparsification curve of the force error; 1 tells nothing, the oracle's is the least. "
        "Means and standard deviations over labelled sets."
    )
    title = f"Which kernel ranks the model's errors on {pool}"
    return [Table("ranking", title, tuple(columns), tuple(rows), caption=caption)]
