"""Numbers and tables of the page as Markdown."""

from __future__ import annotations

import math
from collections.abc import Sequence

from labelwise.studies.comparison.statistics import Estimate


def format_mean(estimate: Estimate) -> str:
    """Return a mean and its standard error with digits by size; nothing if it is not known."""
    value = abs(estimate.value)
    return format_pair(estimate, ".0f" if value >= 1000 else ".1f" if value >= 10 else ".2f")


def format_pair(estimate: Estimate, spec: str) -> str:
    """Return a mean and its standard error, both in one format such as ``.2f``."""
    if math.isnan(estimate.value):
        return ""
    error = estimate.spread.standard_error
    shown = format(estimate.value, spec)
    return shown if math.isnan(error) else f"{shown} ± {error:{spec}}"


def format_ratio(estimate: Estimate) -> str:
    """Return a ratio and its interval; nothing if it is not known."""
    if math.isnan(estimate.value):
        return ""
    spread = estimate.spread
    shown = f"{estimate.value:.2f}"
    return shown if math.isnan(spread.low) else f"{shown} [{spread.low:.2f}, {spread.high:.2f}]"


def format_gain(estimate: Estimate) -> str:
    """Return a fraction and its standard error in per cent."""
    if math.isnan(estimate.value):
        return ""
    error = estimate.spread.standard_error
    shown = f"{estimate.value:+.1%}".replace("%", " %")
    return shown if math.isnan(error) else f"{shown[:-2]} ± {error * 100:.1f} %"


def format_cost(value: object) -> str:
    """Return a number with three digits, or whole if it is large; nothing for what is none."""
    if not isinstance(value, (int, float)):
        return ""
    is_small = isinstance(value, float) and value < 1e3
    return f"{value:.3g}" if is_small else f"{value:,.0f}"


def make_table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table, the first column to the left and the others to the right."""
    rule = ["---", *["---:"] * (len(names) - 1)]
    lines = [names, rule, *([cell.replace("|", "\\|") for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
