"""A study of weights as a table, a page and a picture."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelwise.errors import MissingDependencyError
from labelwise.finetuning.metrics import root_mean_square
from labelwise.runtime.files import write_bytes, write_text
from labelwise.studies.weights.results import (
    BlockStudy,
    WeightScore,
    WeightStudy,
    mean_and_deviation,
)

TABLE, PAGE, PICTURE = "weights.csv", "weights.md", "weights.png"
_COLUMNS = (
    "parameters",
    "kernel",
    "energy_weight",
    "spearman_forces",
    "spearman_forces_std",
    "spearman_energy",
    "spearman_energy_std",
    "sparsification",
    "sparsification_std",
    "test_energy_rmse_mev",
    "test_forces_rmse_mev_per_angstrom",
)


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Attributes:
        parameters: The block; empty for a reference.
        kernel: Its name, or ``oracle`` or ``random``.
        weight: The energy's part; NaN for a reference.
        spearman_forces: Mean and standard deviation over repeats; NaN what is not known.
        spearman_energy: Likewise.
        sparsification: Likewise.
        energy_rmse: Of the batch on the test set, meV; NaN without batches.
        forces_rmse: Of the batch on the test set, meV/Å; NaN without batches.
    """

    parameters: str
    kernel: str
    weight: float = math.nan
    spearman_forces: tuple[float, float] = (math.nan, math.nan)
    spearman_energy: tuple[float, float] = (math.nan, math.nan)
    sparsification: tuple[float, float] = (math.nan, math.nan)
    energy_rmse: float = math.nan
    forces_rmse: float = math.nan


def list_lines(study: WeightStudy) -> list[Line]:
    """Return the table by block, kernel and weight, with the references at its end."""
    lines = [
        Line(
            block.parameters,
            item.kernel,
            item.weight,
            mean_and_deviation(item.spearman_forces),
            mean_and_deviation(item.spearman_energy),
            mean_and_deviation(item.sparsification),
            math.nan if item.batch is None else item.batch.energy_rmse,
            math.nan if item.batch is None else item.batch.forces_rmse,
        )
        for block in study.blocks
        for item in block.scores
    ]
    lines.append(Line("", "oracle", sparsification=mean_and_deviation(study.reference.oracle)))
    random = study.reference.random
    if random is not None:
        lines.append(
            Line("", "random", energy_rmse=random.energy_rmse, forces_rmse=random.forces_rmse)
        )
    return lines


def write_table(path: Path, study: WeightStudy) -> None:
    """Write the table as CSV with all digits; what is not known is left empty.

    Raises:
        WriteError: The file cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for line in list_lines(study):
        pairs = (line.spearman_forces, line.spearman_energy, line.sparsification)
        numbers = [line.weight, *(value for pair in pairs for value in pair)]
        numbers += [line.energy_rmse, line.forces_rmse]
        shown = ["" if math.isnan(number) else repr(number) for number in numbers]
        writer.writerow([line.parameters, line.kernel, *shown])
    write_text(path, text.getvalue())


def write_page(path: Path, study: WeightStudy) -> None:
    """Write the table as Markdown, with what was asked for.

    Raises:
        WriteError: The file cannot be written.
    """
    names = name_columns(study)
    rows = [[cell or "-" for cell in format_line(line, study)] for line in list_lines(study)]
    rule = ["---", "---", *["---:"] * (len(names) - 2)]
    table = [f"| {' | '.join(cells)} |" for cells in (names, rule, *rows)]
    text = ["# Energy/force weights", "", *describe(study), "", *table]
    write_text(path, "\n".join(text) + "\n")


def describe(study: WeightStudy) -> list[str]:
    """Say in a few lines what was measured and how the table is to be read."""
    settings, reference = study.settings, study.reference
    probes = "exact force rows" if settings.n_probes is None else f"{settings.n_probes} probes"
    n_repeats = len(reference.oracle)
    repeats = f"mean ± s.d. of {n_repeats} labelled sets" if n_repeats > 1 else "one labelled set"
    errors = (
        f"{root_mean_square(list(reference.force_errors)):.1f} meV/Å and "
        f"{root_mean_square(list(reference.energy_errors)):.1f} meV/atom"
    )
    asked = (
        f"{len(reference.force_errors)} labelled structures, {repeats}, {probes}, λ = "
        f"{settings.regularisation:g}, seed {settings.seed}."
    )
    legend = (
        "w is the energy's weight: 0 forces only, 1 energy only. ρ: Spearman correlation of the "
        "score with the true error. Area: that under the sparsification curve of the force "
        "error; 1 tells nothing, the oracle's is the least."
    )
    lines = [
        asked,
        f"Errors of the model: {errors} (root mean square over structures).",
        legend,
        *(_describe_block(block) for block in study.blocks),
    ]
    if settings.batch_size:
        lines.append(
            f"RMSE: on the test set after one fine-tuning on the labelled structures and a batch "
            f"of {settings.batch_size}, meV and meV/Å."
        )
    return lines


def _describe_block(block: BlockStudy) -> str:
    size = f"{block.n_parameters:,} parameters, rows of {block.row_length:,}"
    return f"{block.parameters}: {size}, {block.seconds:.0f} s."


def name_columns(study: WeightStudy) -> list[str]:
    """Return the names of the columns that ``format_line`` fills."""
    names = ["block", "kernel", "w", "ρ forces", "ρ energy", "area"]
    return [*names, "E RMSE", "F RMSE"] if study.settings.batch_size else names


def format_line(line: Line, study: WeightStudy) -> list[str]:
    """Return a line's cells, short enough to read; empty what is not known."""
    pairs = (line.spearman_forces, line.spearman_energy, line.sparsification)
    cells = [line.parameters, line.kernel, _format(line.weight, "g")]
    cells += [_format_pair(*pair) for pair in pairs]
    if study.settings.batch_size:
        cells += [_format(line.energy_rmse, ".1f"), _format(line.forces_rmse, ".1f")]
    return cells


def draw_study(path: Path, study: WeightStudy) -> None:
    """Draw scores, and errors of batches if there are any, against the weight, as PNG.

    Raises:
        MissingDependencyError: Matplotlib is not installed.
        WriteError: The file cannot be written.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report", "drawing a study") from error
    panels = list(_panels(study))
    n_rows, n_columns = len(panels), len(study.blocks)
    figure = Figure(figsize=(1.5 + 2.8 * n_columns, 0.8 + 2.1 * n_rows), layout="constrained")
    grid = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey="row")
    for panel, row in zip(panels, grid, strict=True):
        row[0].set_ylabel(panel.label)
        for axes, block in zip(row, study.blocks, strict=True):
            _draw_panel(axes, panel, block)
    for axes, block in zip(grid[0], study.blocks, strict=True):
        axes.set_title(block.parameters)
    for axes in grid[-1]:
        axes.set_xlabel("weight of the energy")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=150)
    write_bytes(path, content.getvalue())


@dataclass(frozen=True)
class _Panel:
    """A quantity: its label, its values for a score, and a level to compare with."""

    label: str
    values: Callable[[WeightScore], Sequence[float]]
    level: float


def _panels(study: WeightStudy) -> Iterator[_Panel]:
    yield _Panel("ρ with force error", lambda item: item.spearman_forces, 0.0)
    yield _Panel("ρ with energy error", lambda item: item.spearman_energy, 0.0)
    oracle, _ = mean_and_deviation(study.reference.oracle)
    yield _Panel("sparsification area", lambda item: item.sparsification, oracle)
    random = study.reference.random
    if random is not None:
        yield _Panel(
            "test energy RMSE, meV",
            lambda item: () if item.batch is None else (item.batch.energy_rmse,),
            random.energy_rmse,
        )
        yield _Panel(
            "test force RMSE, meV/Å",
            lambda item: () if item.batch is None else (item.batch.forces_rmse,),
            random.forces_rmse,
        )


def _draw_panel(axes: Any, panel: _Panel, block: BlockStudy) -> None:
    """Draw one line a kernel; the dashed level is no information, the oracle, or random."""
    axes.axhline(panel.level, color="#888888", linewidth=0.8, linestyle="--")
    for kernel in dict.fromkeys(item.kernel for item in block.scores):
        items = [item for item in block.scores if item.kernel == kernel]
        pairs = [mean_and_deviation(panel.values(item)) for item in items]
        means, deviations = zip(*pairs, strict=True)
        bars = None if math.isnan(deviations[0]) else deviations
        weights = [item.weight for item in items]
        axes.errorbar(weights, means, yerr=bars, fmt="o-", markersize=3, capsize=2, label=kernel)
    axes.grid(visible=True, alpha=0.3)


def _format(value: float, spec: str) -> str:
    return "" if math.isnan(value) else format(value, spec)


def _format_pair(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.2f}" if math.isnan(deviation) else f"{mean:.2f} ± {deviation:.2f}"
