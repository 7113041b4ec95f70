"""A calibration as a table, a page and plain data."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.runtime.files import write_text
from labelwise.runtime.part_store import without_nan
from labelwise.studies.diagnostics.calibration_metrics import DEFAULT_LEVELS, mean_and_deviation
from labelwise.studies.diagnostics.calibration_results import Calibration, KernelCalibration, Replay
from labelwise.studies.tables import to_csv, to_markdown

TABLE, PAGE = "calibration.csv", "calibration.md"
_MEV = 1000.0
_WIDE = 100.0


@dataclass(frozen=True)
class Quantity:
    """A column.

    Attributes:
        name: In the CSV file, with its unit.
        heading: On the page and the terminal.
        value: From a replay.
        digits: After the point; None for a column of meV: one below 100, else none.
        is_short: Whether it is on the terminal when deviations are shown, too.
    """

    name: str
    heading: str
    value: Callable[[Replay], float]
    digits: int | None
    is_short: bool = True


QUANTITIES = (
    Quantity("n_labels", "n", lambda replay: float(replay.best.n_labels), 0),
    Quantity("nll", "NLL", lambda replay: replay.best.test.nll, 3),
    Quantity("ece", "ECE", lambda replay: replay.best.test.ece, 3),
    Quantity("ence", "ENCE", lambda replay: replay.best.test.ence, 3),
    Quantity("coverage_90", "90 %", lambda replay: replay.best.test.coverage, 3),
    Quantity("rmse_mev", "RMSE", lambda replay: replay.best.test.rmse * _MEV, None),
    Quantity("mae_mev", "MAE", lambda replay: replay.best.test.mae * _MEV, None, False),
    Quantity(
        "sharpness_mev", "sharp", lambda replay: replay.best.test.sharpness * _MEV, None, False
    ),
    Quantity("rank_correlation", "ρ", lambda replay: replay.best.test.rank_correlation, 2, False),
    Quantity("model_rmse_mev", "model", lambda replay: replay.best.bias_rmse * _MEV, None, False),
)


def summarise(kernel: KernelCalibration) -> list[tuple[float, float]]:
    """Return mean and standard deviation over the replays of each of ``QUANTITIES``."""
    return [
        mean_and_deviation([quantity.value(replay) for replay in kernel.replays])
        for quantity in QUANTITIES
    ]


def write_table(path: Path, calibration: Calibration) -> None:
    """Write the table as CSV with all digits; what is not known is left empty.

    Raises:
        WriteError: The file cannot be written.
    """
    names = [name for item in QUANTITIES for name in (item.name, f"{item.name}_std")]
    rows = [
        [each.kernel, len(each.replays), *(number for pair in summarise(each) for number in pair)]
        for each in calibration.kernels
    ]
    write_text(path, to_csv(["kernel", "repeats", *names], rows))


def write_page(path: Path, calibration: Calibration) -> None:
    """Write the table as Markdown, with what was asked for.

    Raises:
        WriteError: The file cannot be written.
    """
    rows = [[cell or "-" for cell in format_line(kernel)] for kernel in calibration.kernels]
    table = to_markdown(name_columns(), rows)
    notes = [f"- {line}" for line in describe(calibration)]
    warnings = [f"- {line}" for line in list_warnings(calibration)]
    text = ["# Residual-GP calibration", "", table, "", *notes, *warnings]
    write_text(path, "\n".join(text) + "\n")


def name_columns(*, short: bool = False) -> list[str]:
    """Return the names of the columns that ``format_line`` fills."""
    return ["kernel", *(item.heading for item in QUANTITIES if item.is_short or not short)]


def format_line(kernel: KernelCalibration, *, short: bool = False) -> list[str]:
    """Return a kernel's cells.

    Args:
        kernel: Its result.
        short: Leave out what the terminal has no room for, and the spaces around ±.
    """
    cells = [
        _format(item, *pair)
        for item, pair in zip(QUANTITIES, summarise(kernel), strict=True)
        if item.is_short or not short
    ]
    return [kernel.kernel, *(cell.replace(" ± ", "±") if short else cell for cell in cells)]


def describe(calibration: Calibration, *, short: bool = False) -> list[str]:
    """Say in a few lines what was measured and how the table is to be read.

    Args:
        calibration: What was found.
        short: Leave out the columns that ``format_line`` leaves out, too.
    """
    settings, sizes = calibration.settings, calibration.n_structures
    n_repeats = len(calibration.kernels[0].replays)
    repeats = f"mean ± s.d. of {n_repeats} initial sets" if n_repeats > 1 else "one initial set"
    prefixes = [item.n_labels for item in calibration.kernels[0].replays[0].prefixes]
    unit = "energies per atom in eV" if settings.per_atom else "total energies in eV"
    milli = "meV/atom" if settings.per_atom else "meV"
    variance = "γ(s² + λ)" if settings.with_noise else "γ s²"
    references = {
        "prefix": "fitted to the labels of each prefix",
        "initial": "fitted to the labels of the initial set",
        "checkpoint": "those of the checkpoint",
    }[settings.references]
    what = (
        f"Pool {sizes['pool']}, train {sizes['train']}, validation {sizes['valid']}, test "
        f"{sizes['test']} structures; {repeats}, seed {settings.seed}; prefixes of {prefixes[0]} "
        f"to {prefixes[-1]} labels, {settings.step} apart, in the order of posterior variance."
    )
    how = (
        f"Residuals of {unit}, reference energies {references}; λ = {settings.regularisation:g}, "
        f"predictive variance {variance}."
    )
    legend = (
        f"n: labels of the prefix with the least validation NLL. NLL: in nats, for {unit}. ECE: "
        "mean |nominal − empirical coverage| of the central intervals of "
        f"{100 * DEFAULT_LEVELS[0]:.0f} % to {100 * DEFAULT_LEVELS[-1]:.0f} % in steps of 5 %. "
        f"ENCE: {settings.n_bins} bins of equal count. 90 %: coverage of that interval. RMSE: "
        f"{milli}."
    )
    rest = (
        f"MAE, sharp (root mean predicted variance), model (RMSE without the kernel): {milli}. "
        "ρ: Spearman correlation of predicted deviation and absolute error."
    )
    return [what, how, legend] if short else [what, how, legend, rest]


def list_warnings(calibration: Calibration) -> list[str]:
    """Say what a reader of the table must know to trust it; empty if nothing."""
    lines = []
    at_end = [
        item.kernel
        for item in calibration.kernels
        if any(replay.chosen == len(replay.prefixes) - 1 > 0 for replay in item.replays)
    ]
    if at_end:
        lines.append(
            f"The longest prefix was the best for {', '.join(at_end)}: more labels (max_labels) "
            "may give a better one."
        )
    unreached = {
        item.kernel: max(replay.n_unreached for replay in item.replays)
        for item in calibration.kernels
    }
    if any(unreached.values()) and calibration.settings.references != "checkpoint":
        words = ", ".join(f"{count} for {kernel}" for kernel, count in unreached.items() if count)
        lines.append(
            "Test structures whose composition is no combination of those that the reference "
            "energies were fitted to, so that they rest on the checkpoint's and may be off by "
            f"several eV: {words}."
        )
    return lines


def as_plain_data(calibration: Calibration) -> dict[str, Any]:
    """Return settings, the table, and each replay's curves and chosen prefix, ready for JSON."""
    kernels = [
        {
            "kernel": item.kernel,
            "seconds": {"features": item.seconds[0], "replays": item.seconds[1]},
            "mean": _by_name(item, 0),
            "std": _by_name(item, 1),
            "replays": [_replay_data(replay) for replay in item.replays],
        }
        for item in calibration.kernels
    ]
    content: dict[str, Any] = without_nan(
        {
            "settings": asdict(calibration.settings),
            "n_structures": dict(calibration.n_structures),
            "levels": list(DEFAULT_LEVELS),
            "kernels": kernels,
            "warnings": list_warnings(calibration),
            "resumed": list(calibration.resumed),
        }
    )
    return content


def mean_coverages(kernel: KernelCalibration) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and s.d. over replays of the chosen prefixes' coverages, (L,) each."""
    values = np.array([replay.best.test.coverages for replay in kernel.replays])
    return values.mean(axis=0), values.std(axis=0, ddof=1 if len(values) > 1 else 0)


def _by_name(kernel: KernelCalibration, part: int) -> dict[str, float]:
    pairs = summarise(kernel)
    return {item.name: pair[part] for item, pair in zip(QUANTITIES, pairs, strict=True)}


def _replay_data(replay: Replay) -> dict[str, Any]:
    return {
        "initial_idx": list(replay.initial_idx),
        "pool_idx": list(replay.pool_idx),
        "n_labels": [item.n_labels for item in replay.prefixes],
        "valid_nll": [item.valid_nll for item in replay.prefixes],
        "test_nll": [item.test.nll for item in replay.prefixes],
        "test_rmse_ev": [item.test.rmse for item in replay.prefixes],
        "chosen": asdict(replay.best),
        "n_unreached": replay.n_unreached,
    }


def _format(quantity: Quantity, mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return ""
    if quantity.digits is None:
        digits = 1 if abs(mean) < _WIDE else 0
    else:  # a deviation tells that the third digit means nothing
        digits = quantity.digits if math.isnan(deviation) else min(quantity.digits, 2)
    if quantity.name == "ece":
        digits = 3
    if math.isnan(deviation):
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ± {deviation:.{digits}f}"
