"""Matplotlib figures of a study: made without a screen, written so that they can be compared."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from labelwise.errors import MissingDependencyError
from labelwise.runtime.files import write_bytes

SUFFIXES = ("png", "svg")


def new_figure(width: float, height: float, purpose: str) -> Any:
    """Return a Matplotlib figure of so many inches.

    Raises:
        MissingDependencyError: Matplotlib is not installed; names the purpose.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingDependencyError("matplotlib", "report", purpose) from error
    return Figure(figsize=(width, height), layout="constrained")


def save_figure(figure: Any, folder: Path, stem: str) -> list[str]:
    """Write a figure as PNG and SVG, the same figure as the same bytes; return the names.

    Raises:
        WriteError: A file cannot be written.
    """
    import matplotlib as mpl

    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # laid out once, not for each file
    with mpl.rc_context({"svg.hashsalt": "labelwise"}):
        for suffix in SUFFIXES:
            content = io.BytesIO()
            metadata = {"Date": None} if suffix == "svg" else None
            figure.savefig(content, format=suffix, dpi=160, metadata=metadata)
            write_bytes(folder / f"{stem}.{suffix}", content.getvalue())
    return [f"{stem}.{suffix}" for suffix in SUFFIXES]
