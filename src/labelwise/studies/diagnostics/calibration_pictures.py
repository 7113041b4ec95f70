"""A calibration as pictures: reliability, and likelihood along the prefixes.

Both functions return the names of the files. They raise MissingDependencyError without
Matplotlib, WriteError if a file cannot be written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.studies.diagnostics.calibration_metrics import DEFAULT_LEVELS
from labelwise.studies.diagnostics.calibration_report import mean_coverages
from labelwise.studies.diagnostics.calibration_results import (
    Calibration,
    KernelCalibration,
    PrefixRecord,
)
from labelwise.studies.pictures import new_figure, save_figure

RELIABILITY, PREFIXES = "reliability", "prefixes"
_PURPOSE = "drawing a calibration"
_MARKERS = "osD^vP"
_GREY = "#888888"
_LINEAR_NATS = 2.0


def draw_reliability(folder: Path, calibration: Calibration) -> list[str]:
    """Draw nominal against empirical coverage as ``reliability.png`` and ``.svg``.

    One line a kernel, the mean over initial sets with its standard deviation as a band; above
    the diagonal intervals are too wide, below it too narrow.
    """
    figure = new_figure(4.4, 4.9, _PURPOSE)
    axes = figure.subplots()
    axes.plot((0, 1), (0, 1), color=_GREY, linewidth=1, linestyle="--", label="perfect")
    for place, kernel in enumerate(calibration.kernels):
        mean, deviation = mean_coverages(kernel)
        axes.plot(DEFAULT_LEVELS, mean, markersize=3, label=kernel.kernel, **_style(place))
        if len(kernel.replays) > 1:
            axes.fill_between(
                DEFAULT_LEVELS, mean - deviation, mean + deviation, alpha=0.15, linewidth=0,
                color=_style(place)["color"],
            )  # fmt: skip
    axes.set(xlabel="nominal coverage", ylabel="empirical coverage", xlim=(0, 1), ylim=(0, 1))
    axes.set_aspect("equal")
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return save_figure(figure, folder, RELIABILITY)


def draw_prefixes(folder: Path, calibration: Calibration) -> list[str]:
    """Draw NLL and RMSE against the number of labels as ``prefixes.png`` and ``.svg``.

    One line a kernel, the mean over initial sets; a large mark is the prefix chosen from each.
    The axis of the likelihood is logarithmic where it is bad, and cut where it is hopeless.
    """
    per_atom = "/atom" if calibration.settings.per_atom else ""
    panels: tuple[tuple[str, Callable[[PrefixRecord], float]], ...] = (
        ("validation NLL", lambda item: item.valid_nll),
        ("test NLL", lambda item: item.test.nll),
        (f"test RMSE, meV{per_atom}", lambda item: item.test.rmse * 1000.0),
    )
    figure = new_figure(9.6, 3.7, _PURPOSE)
    row = figure.subplots(1, len(panels))
    for axes, (label, value) in zip(row, panels, strict=True):
        curves = [_draw_curve(axes, k, place, value) for place, k in enumerate(calibration.kernels)]
        axes.set(xlabel="labelled structures", ylabel=label)
        axes.grid(visible=True, alpha=0.3)
        if "NLL" in label:
            _scale(axes, curves)
        else:
            _scale_logarithmically(axes)
    handles, labels = row[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return save_figure(figure, folder, PREFIXES)


def _draw_curve(
    axes: Any, kernel: KernelCalibration, place: int, value: Callable[[PrefixRecord], float]
) -> np.ndarray:
    """Draw the mean over replays and mark each replay's choice; return all values."""
    sizes = [item.n_labels for item in kernel.replays[0].prefixes]
    values = np.array([[value(item) for item in replay.prefixes] for replay in kernel.replays])
    style = _style(place)
    axes.plot(sizes, values.mean(axis=0), linewidth=1.2, color=style["color"],
              linestyle=style["linestyle"], label=kernel.kernel)  # fmt: skip
    for replay, curve in zip(kernel.replays, values, strict=True):
        axes.plot(sizes[replay.chosen], curve[replay.chosen], marker=style["marker"],
                  color=style["color"], markersize=5, linestyle="none")  # fmt: skip
    return values


def _scale(axes: Any, curves: list[np.ndarray]) -> None:
    """Make the axis of the likelihood linear where it is good, and logarithmic above.

    It holds the better nine tenths of every curve.
    """
    low = min(float(curve.min()) for curve in curves)
    high = max(float(np.quantile(curve, 0.9)) for curve in curves)
    margin = 0.06 * max(high - low, 1e-3)
    if high > _LINEAR_NATS + low:
        axes.set_yscale("symlog", linthresh=max(_LINEAR_NATS, abs(low)), linscale=2.0)
        axes.yaxis.set_major_formatter("{x:g}")
        margin = 0.3
    axes.set_ylim(low - margin, high + margin)


def _scale_logarithmically(axes: Any) -> None:
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter("{x:g}")


def _style(place: int) -> dict[str, Any]:
    """Return the look of a kernel's line, the same in all pictures."""
    return {
        "color": f"C{place % 10}",
        "linestyle": ("-", "--", ":")[place // 10 % 3],
        "marker": _MARKERS[place % len(_MARKERS)],
    }
