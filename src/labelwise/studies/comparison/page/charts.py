"""The charts of a comparison: learning curves, ratios, cost and gain."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from labelwise.pages.document import Axis, Chart, Choice, Mark, Series
from labelwise.studies.comparison.curves import Curve, list_correlations, list_curves
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.comparison.results import MethodCost, unit_of
from labelwise.studies.comparison.series import Comparison
from labelwise.studies.comparison.statistics import Estimate
from labelwise.studies.comparison.tables import (
    list_others,
    list_stages,
    make_cost_table,
    ratio_of,
)
from labelwise.studies.comparison.wording import describe_interval

_WIDEST = 100.0
_LEAST_SPAN = 1.5
_WORDS = {"energy": "Energy", "forces": "Force", "stress": "Stress"}
_UNITS = {
    "meV": "meV",
    "meV/atom": "meV atom⁻¹",
    "meV/Å": "meV Å⁻¹",
    "meV/Å³": "meV Å⁻³",
}
_ALL_POOLS = "mean of all pools"


class ComparisonCharts:
    """Draws the charts of one comparison; a method has the same style in all of them.

    Args:
        comparison: The campaigns.
        namer: Gives panels their names.
    """

    def __init__(self, comparison: Comparison, namer: Namer) -> None:
        self._comparison, self._namer = comparison, namer
        self._styles = {each.label: i for i, each in enumerate(comparison.series)}

    def draw_curves(self) -> list[Chart | Choice]:
        """Return learning curves of energies, forces and stress, pool by pool."""
        pools = self._comparison.pools
        places: list[tuple[str, str | None]] = [(pool, pool) for pool in pools]
        if len(pools) > 1:
            places.insert(0, (_ALL_POOLS, None))
        return self._draw_all(
            "learning-curves",
            "pool",
            [(label, self._comparison, pool) for label, pool in places],
        )

    def draw_split_curves(self) -> list[Chart | Choice]:
        """Return learning curves on each split of the test sets, averaged over pools."""
        comparison = self._comparison
        parts: list[tuple[str, Comparison, str | None]] = [
            (split, comparison.in_split(split), None) for split in comparison.splits
        ]
        return self._draw_all("split-curves", "split", parts)

    def _draw_all(
        self, stem: str, label: str, parts: Sequence[tuple[str, Comparison, str | None]]
    ) -> list[Chart | Choice]:
        """Return a panel of each quantity that was measured, with RMSE and MAE."""
        panels: list[Chart | Choice] = []
        for quantity in _WORDS:
            errors = [e for e in self._comparison.errors if e.startswith(quantity)]
            options = [
                (self._name_option(name, error, errors), chart)
                for error in errors
                for name, comparison, pool in parts
                if (chart := self._draw_curve(stem, name, comparison, error, pool)) is not None
            ]
            panels += self._choose(f"{stem}-{quantity}", f"{label} and error", options)
        return panels

    @staticmethod
    def _name_option(name: str, error: str, errors: Sequence[str]) -> str:
        return f"{name}, {_short(error)}" if len(errors) > 1 else name

    def _choose(
        self, name: str, label: str, options: Sequence[tuple[str, Chart]]
    ) -> list[Chart | Choice]:
        if len(options) < 2:
            return [chart for _, chart in options]
        return [Choice(self._namer.name(name), label, tuple(options))]

    def _draw_curve(
        self, stem: str, part: str, comparison: Comparison, error: str, pool: str | None
    ) -> Chart | None:
        curves = list_curves(comparison, error, pool=pool)
        curves = [curve for curve in curves if np.isfinite(curve.mean).any()]
        if not curves:
            return None
        series = tuple(self._as_series(curve) for curve in curves)
        has_bands = any(each.low is not None for each in series)
        over = "pools" if pool is None and len(comparison.pools) > 1 else "seeds"
        absent = [s.label for s in comparison.series if s.label not in {c.label for c in curves}]
        words = [f"Means over {over} of the error on the test set."]
        if has_bands:
            words.append("Bands: one standard error either way; the ratios are paired, bands not.")
        if absent:
            words.append(f"Not shown, for want of campaigns: {', '.join(absent)}.")
        return Chart(
            name=self._namer.name(stem, error.replace("_", "-"), part),
            title=f"{_title(error)}, {part}",
            mark=Mark.LINES,
            x=Axis("labelled structures"),
            y=Axis(_label(error), is_log=_wants_log(curve.mean for curve in curves)),
            series=series,
            caption=" ".join(words),
            band_name=f"standard error over {over}" if has_bands else "",
        )

    def _as_series(self, curve: Curve) -> Series:
        mean = curve.mean.astype(np.float32)
        low, high = curve.mean - curve.error, curve.mean + curve.error
        has_band = bool(np.isfinite(curve.error).any())
        return Series(
            name=curve.label,
            x=curve.x,
            y=mean,
            low=low.astype(np.float32) if has_band else None,
            high=high.astype(np.float32) if has_band else None,
            style=self._styles[curve.label],
        )

    def draw_ratios(self) -> list[Chart | Choice]:
        """Return the ratio of each method to the reference, with its interval."""
        options = [
            (f"{name}, {_word(error)}", chart)
            for quantity, error, name in self._comparison.shown
            if (chart := self._draw_ratio(quantity, error, name)) is not None
        ]
        return self._choose("ratios-shown", "quantity", options)

    def _draw_ratio(self, quantity: str, error: str, name: str) -> Chart | None:
        comparison = self._comparison
        others = list_others(comparison)
        series, wide = [], []
        for each in comparison.series:
            ratio = ratio_of(comparison, each, quantity, error)
            if not math.isfinite(ratio.value):
                continue
            series.append(self._as_point(each.label, each.label, ratio))
            if ratio.spread.high > _WIDEST * ratio.spread.low:
                wide.append(each.label)
        if not any(each.name in {other.label for other in others} for each in series):
            return None
        words = [describe_interval(comparison).replace("low and high", "bars")]
        words.append(f"Below 1 a method is better than {comparison.reference}, which is at 1.")
        if wide:
            words.append(
                f"Intervals that span more than a factor of {_WIDEST:.0f} are not drawn "
                f"({', '.join(wide)}); the table has them."
            )
        return Chart(
            name=self._namer.name("ratios", name, "to reference"),
            title=f"{name} ({_word(error)}): ratio to {comparison.reference}",
            mark=Mark.POINTS,
            x=Axis("method"),
            y=Axis(
                f"{name} / {name} of {comparison.reference}",
                is_log=_wants_log(_list_ordinates(series)),
            ),
            series=tuple(series),
            caption=" ".join(words),
        )

    def _as_point(self, label: str, x: str | float, ratio: Estimate) -> Series:
        """Return one point with its interval, which is left out where it is hopelessly wide."""
        low, high = (ratio.spread.low, ratio.spread.high) if _is_shown(ratio) else (None, None)
        return Series(
            name=label,
            x=(x,) if isinstance(x, str) else np.array([x], dtype=np.float32),
            y=np.array([ratio.value], dtype=np.float32),
            low=None if low is None else np.array([low], dtype=np.float32),
            high=None if high is None else np.array([high], dtype=np.float32),
            style=self._styles[label],
        )

    def draw_cost_against_gain(self, costs: Sequence[MethodCost]) -> list[Chart | Choice]:
        """Return seconds of selection in a round against the ratio of errors summed over rounds.

        Args:
            costs: What scoring with each method takes.
        """
        records = make_cost_table(self._comparison, costs).as_records()
        seconds = {
            (str(record["method"]), str(record["start"])): value
            for record in records
            if isinstance(value := record.get("select_seconds"), float) and value > 0
        }
        options = []
        for quantity, error, name in self._comparison.areas:
            chart = self._draw_gain(seconds, quantity, error, name)
            options += [] if chart is None else [(f"{name}, {_word(error)}", chart)]
        return self._choose("cost-against-gain", "quantity", options)

    def _draw_gain(
        self, seconds: dict[tuple[str, str], float], quantity: str, error: str, name: str
    ) -> Chart | None:
        comparison = self._comparison
        series = []
        for each in comparison.series:
            ratio = ratio_of(comparison, each, quantity, error)
            taken = seconds.get((each.method, each.start))
            if taken is not None and math.isfinite(ratio.value):
                series.append(self._as_point(each.label, taken, ratio))
        if len(series) < 2:
            return None
        return Chart(
            name=self._namer.name("cost-against", name),
            title=f"What a selection takes, and what it gains: {name}",
            mark=Mark.POINTS,
            x=Axis("selection / s a round", is_log=True),
            y=Axis(
                f"{name} / {name} of {comparison.reference}",
                is_log=_wants_log(_list_ordinates(series)),
            ),
            series=tuple(series),
            caption=(
                f"Left is cheaper, low is better; {comparison.reference} is at 1. Wall time of the "
                "selection, averaged over rounds; it depends on the machine and on how many "
                "campaigns shared it."
            ),
        )

    def draw_stages(self) -> list[Chart | Choice]:
        """Return the wall time of a round by stage, method by method."""
        comparison = self._comparison
        records = make_cost_table(comparison, ()).as_records()
        labels = tuple(each.label for each in comparison.series if each.cells)
        by_label = {
            each.label: record
            for each, record in zip(comparison.series, records, strict=False)
            if each.cells
        }
        series = [
            Series(
                name=stage,
                x=labels,
                y=np.array(
                    [_as_float(by_label[label].get(f"{stage}_seconds")) for label in labels],
                    dtype=np.float32,
                ),
                style=place,
            )
            for place, stage in enumerate(list_stages(comparison))
        ]
        if not series or not labels:
            return []
        chart = Chart(
            name=self._namer.name("stages"),
            title="Time of a round by stage",
            mark=Mark.STACKED,
            x=Axis("method"),
            y=Axis("wall time / s a round"),
            series=tuple(series),
            caption="Averaged over the rounds that have the stage, of finished campaigns.",
        )
        return [chart]

    def draw_correlations(self) -> list[Chart | Choice]:
        """Return how committees rank the pool, round by round."""
        comparison = self._comparison
        options = []
        for quantity in ("energy", "forces"):
            for pool in comparison.pools:
                curves = list_correlations(comparison, quantity, pool)
                curves = [curve for curve in curves if np.isfinite(curve.mean).any()]
                if curves:
                    chart = self._draw_correlation(quantity, pool, curves)
                    options.append((f"{pool}, {quantity}", chart))
        return self._choose("committee-curves", "pool and quantity", options)

    def _draw_correlation(self, quantity: str, pool: str, curves: Sequence[Curve]) -> Chart:
        series = tuple(self._as_series(curve) for curve in curves)
        has_bands = any(each.low is not None for each in series)
        return Chart(
            name=self._namer.name("committees", quantity, pool),
            title=f"Rank correlation of deviation and true error, {quantity}, {pool}",
            mark=Mark.LINES,
            x=Axis("round"),
            y=Axis(f"Spearman ρ, {quantity}"),
            series=series,
            caption="Over the pool, before the round's selection; 1 is a perfect order, 0 chance.",
            band_name="standard error over seeds" if has_bands else "",
        )


def _is_shown(ratio: Estimate) -> bool:
    low, high = ratio.spread.low, ratio.spread.high
    if low == high:  # the reference against itself
        return False
    return math.isfinite(low) and math.isfinite(high) and low > 0 and high <= _WIDEST * low


def _wants_log(values: Iterable[np.ndarray]) -> bool:
    """Tell whether numbers are positive and far enough apart for a logarithmic axis."""
    every = np.concatenate([np.asarray(part, dtype=np.float64) for part in values])
    known = every[np.isfinite(every)]
    return len(known) > 0 and known.min() > 0 and bool(known.max() >= _LEAST_SPAN * known.min())


def _list_ordinates(series: Sequence[Series]) -> list[np.ndarray]:
    """Return all ordinates of points, ends of their bars among them."""
    parts = [part for each in series for part in (each.y, each.low, each.high)]
    return [part for part in parts if part is not None]


def _short(error: str) -> str:
    return "MAE" if "_mae" in error else "RMSE"


def _word(error: str) -> str:
    return error.partition("_")[0]


def _title(error: str) -> str:
    return f"{_WORDS[_word(error)]} {_short(error)}"


def _label(error: str) -> str:
    return f"{_WORDS[_word(error)].lower()} {_short(error)} / {_UNITS[unit_of(error)]}"


def _as_float(value: object) -> float:
    return float(value) if isinstance(value, int | float) else math.nan
