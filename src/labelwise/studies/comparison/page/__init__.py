"""A comparison of methods as a page."""

from __future__ import annotations

from labelwise.studies.comparison.page.gathering import gather_comparison

__all__ = ["gather_comparison"]
