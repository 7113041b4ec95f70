"""Kernel matrices as heat maps: all families, and the path within each.

Each function takes the folder that pictures go to and the kernels, and returns the names of the
files. It raises MissingDependencyError without Matplotlib, WriteError if a file cannot be written.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.studies.diagnostics.geometry import kernel_distances, mean_by_family
from labelwise.studies.diagnostics.geometry_study import GeometryStudy, KernelEntry
from labelwise.studies.pictures import new_figure, save_figure

MATRICES, DISTANCES, FRAMES = "kernels", "distances", "frames"
#: What each picture shows, and how its colours are to be read.
CAPTIONS = {
    MATRICES: "similarity; colours from the 1st to the 99th percentile of each kernel",
    DISTANCES: "kernel distance / its mean between families; the same colours for all kernels",
    FRAMES: "similarity within families, in order; colours from the 1st to the 99th percentile "
    "within the families of each kernel",
}
_PURPOSE = "drawing kernels"
#: Families that the picture of frames has room for.
MAX_PANELS = 8
#: Part of the values that the colours leave out at each end, percent.
CLIPPED = 1.0
#: Of lightness that only grows, so that it may be printed in grey.
_COLOURS = "viridis"

Range = tuple[float, float]


def draw_matrices(folder: Path, study: GeometryStudy) -> list[str]:
    """Draw each kernel's whole matrix, families in blocks, as ``kernels.png`` and ``.svg``.

    Colours run from the 1st to the 99th percentile of the similarity of two structures, one
    range for all models of a kernel.
    """
    ranges = _find_ranges(study, within=False)
    figure, panels = _lay_out_panels(study)
    for entry, axes in panels:
        image = _draw_matrix(axes, entry.K, ranges[entry.kernel])
        _add_scale(figure, image, axes)
    figure.supxlabel(CAPTIONS[MATRICES], fontsize=8)
    return save_figure(figure, folder, MATRICES)


def draw_distances(folder: Path, study: GeometryStudy) -> list[str]:
    """Draw kernel distances, families in blocks, as ``distances.png`` and ``.svg``.

    Distances are divided by their mean between families, kernel by kernel, and all kernels have
    the same colours. A block of one colour is a family in which the kernel resolves little.
    Nothing is drawn if there is one family only, or no kernel tells families apart.
    """
    scaled = [_relative_distances(entry.K, study.sample.family) for entry in study.entries]
    if not all(np.isfinite(distance).all() for distance in scaled):
        return []
    high = float(np.percentile(np.stack(scaled), 100.0 - CLIPPED))
    figure, panels = _lay_out_panels(study)
    for distance, (_, axes) in zip(scaled, panels, strict=True):
        image = _draw_matrix(axes, distance, (0.0, high), colours=f"{_COLOURS}_r")
    every = [axes for _, axes in panels]
    bar = figure.colorbar(image, ax=every, extend="max", extendfrac=0.02, aspect=40, pad=0.02)
    bar.ax.tick_params(labelsize=7)
    figure.supxlabel(CAPTIONS[DISTANCES], fontsize=8)
    return save_figure(figure, folder, DISTANCES)


def draw_frames(folder: Path, study: GeometryStudy) -> list[str]:
    """Draw each family's block, in order along the path, as ``frames.png`` and ``.svg``.

    One row a kernel, one column a family, the first eight of them. Colours run from the 1st to
    the 99th percentile of the similarity of two structures of one family, one range for all
    families and all models of a kernel: panels of a row are comparable, and the numbers at its
    end tell how much of the similarity's range a path takes up.
    """
    ranges = _find_ranges(study, within=True)
    names = study.sample.names[:MAX_PANELS]
    n_rows = len(study.entries)
    figure = new_figure(1.6 + 1.55 * len(names), 0.5 + 1.5 * n_rows, _PURPOSE)
    grid = figure.subplots(n_rows, len(names), squeeze=False)
    for place, (entry, row) in enumerate(zip(study.entries, grid, strict=True)):
        for i, (name, axes) in enumerate(zip(names, row, strict=True)):
            own = np.flatnonzero(study.sample.family == i)
            image = _draw_matrix(axes, entry.K[np.ix_(own, own)], ranges[entry.kernel])
            axes.set_xticks([])
            axes.set_yticks([])
            if place == 0:
                axes.set_title(_shorten(name), fontsize=8)
        row[0].set_ylabel(_title(entry, study), fontsize=8)
        _add_scale(figure, image, list(row))
    figure.supxlabel(CAPTIONS[FRAMES], fontsize=8)
    return save_figure(figure, folder, FRAMES)


def _lay_out_panels(study: GeometryStudy) -> tuple[Any, list[tuple[KernelEntry, Any]]]:
    """Return a figure and axes for each kernel, with titles and families marked."""
    n_panels, n_models = len(study.entries), len(study.models)
    by_models = {2: 4, 3: 3, 4: 4, 5: 5}  # models of a kernel side by side
    n_columns = min(n_panels, by_models.get(n_models, 2 if n_panels == 4 else 3))
    n_rows = -(-n_panels // n_columns)
    figure = new_figure(0.6 + 3.0 * n_columns, 0.4 + 2.75 * n_rows, _PURPOSE)
    every = list(figure.subplots(n_rows, n_columns, squeeze=False).flat)
    for axes in every[n_panels:]:
        axes.set_axis_off()
    panels = list(zip(study.entries, every, strict=False))
    for place, (entry, axes) in enumerate(panels):
        axes.set_title(_title(entry, study), fontsize=9)
        _mark_families(axes, study, labelled=place % n_columns == 0)
    return figure, panels


def _relative_distances(
    K: Float64[np.ndarray, "n n"], family: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, "n n"]:
    """Return distances over their mean between families; NaN if that is unknown or zero."""
    distance = kernel_distances(K)
    means = mean_by_family(distance, family)
    apart = means[~np.eye(len(means), dtype=bool)]
    scale = float(apart.mean()) if apart.size else 0.0
    return distance / scale if scale > 0 else np.full_like(distance, np.nan)


def _find_ranges(study: GeometryStudy, *, within: bool) -> dict[str, Range]:
    """Return the similarities at both ends of the colours for each kernel."""
    family = study.sample.family
    same = family[:, None] == family[None, :]
    wanted = np.triu(same if within else np.ones_like(same), k=1)
    values: dict[str, list[Float64[np.ndarray, " k"]]] = {}
    for entry in study.entries:
        values.setdefault(entry.kernel, []).append(entry.K[wanted])
    return {kernel: _range_of(parts) for kernel, parts in values.items()}


def _range_of(parts: Iterable[Float64[np.ndarray, " k"]]) -> Range:
    values = np.concatenate(list(parts))
    if values.size == 0:
        return 0.0, 1.0
    low, high = (float(x) for x in np.percentile(values, [CLIPPED, 100.0 - CLIPPED]))
    if high - low < 1e-9 * max(abs(high), 1.0):  # one value: it gets the colour of the top
        return low - 0.5 * max(abs(low), 1e-3), high
    return low, high


def _draw_matrix(
    axes: Any, values: Float64[np.ndarray, "n n"], limits: Range, *, colours: str = _COLOURS
) -> Any:
    low, high = limits
    return axes.imshow(values, cmap=colours, vmin=low, vmax=high, interpolation="nearest")


def _mark_families(axes: Any, study: GeometryStudy, *, labelled: bool) -> None:
    """Draw a line between families, and name them at the left."""
    sizes = np.bincount(study.sample.family)
    ends = np.cumsum(sizes)
    for end in ends[:-1]:
        axes.axhline(end - 0.5, color="white", linewidth=0.6)
        axes.axvline(end - 0.5, color="white", linewidth=0.6)
    axes.set_xticks([])
    axes.set_yticks([])
    if labelled and len(sizes) <= 2 * MAX_PANELS:
        names = [_shorten(name) for name in study.sample.names]
        axes.set_yticks(ends - sizes / 2 - 0.5, names, fontsize=7)
        axes.tick_params(length=0)


def _add_scale(figure: Any, image: Any, axes: Any) -> None:
    bar = figure.colorbar(image, ax=axes, extend="both", fraction=0.046, pad=0.02)
    low, high = image.get_clim()
    ticks = np.linspace(low, high, 3)
    decimals = int(np.clip(2 - np.floor(np.log10(high - low)), 2, 7))
    bar.set_ticks(ticks, labels=[f"{tick:.{decimals}f}" for tick in ticks], fontsize=7)


def _title(entry: KernelEntry, study: GeometryStudy) -> str:
    if len(study.models) > 1 and entry.model is not None:
        return f"{entry.kernel}\n{_shorten(entry.model)}"
    return entry.kernel


def _shorten(name: str, length: int = 16) -> str:
    return name if len(name) <= length else f"{name[: length - 1]}…"
