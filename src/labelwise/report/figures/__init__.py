"""Pages of results as figures for print."""

from __future__ import annotations

from labelwise.report.figures.files import write_figures
from labelwise.report.figures.settings import FORMATS, FigureSettings

__all__ = ["FORMATS", "FigureSettings", "write_figures"]
