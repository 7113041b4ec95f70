"""Pages of results as figures for print."""

from __future__ import annotations

from labelwise.pages.figures.files import write_figures
from labelwise.pages.figures.settings import FORMATS, FigureSettings

__all__ = ["FORMATS", "FigureSettings", "write_figures"]
