"""Learning curves: errors against the number of labelled structures."""

from __future__ import annotations

import math

import numpy as np

from labelwise.campaign.page.wording import as_float32, is_wide, write_error
from labelwise.campaign.rounds import (
    RETAINED,
    Forecast,
    forecast,
    has_stress_errors,
    known_or_nan,
)
from labelwise.campaign.saved import SavedCampaign
from labelwise.pages.document import Axis, Chart, Choice, Mark, Series
from labelwise.selection.page.pool_columns import clean_text

#: Splits of a test set that have a curve of their own.
MOST_SPLITS = 8
_NAMES = {"test": "test", "valid": "validation"}
_STYLES = {"test": 0, "valid": 1}
_FORECAST_STYLE = 9


def make_learning_curves(saved: SavedCampaign) -> tuple[Choice, ...]:
    """Return the errors against labels, RMSE and MAE to choose from, if measured."""
    if not saved.scored_role:
        return ()
    measure = saved.config.measure
    energy = measure.energy_error
    stress = ("learning-stress", "Stress error", "stress_rmse", "stress_mae", "meV Å⁻³")
    panels = (
        ("learning-forces", "Force error", "forces_rmse", "forces_mae", "meV Å⁻¹"),
        (
            "learning-energy",
            "Energy error",
            energy,
            energy.replace("rmse", "mae"),
            "meV" if measure.energy_errors == "total" else "meV atom⁻¹",
        ),
        *((stress,) if has_stress_errors(saved.rounds) else ()),
    )
    return tuple(
        Choice(
            name,
            "error",
            (
                ("RMSE", _make_chart(saved, f"{name}-rmse", title, "RMSE", rmse, unit)),
                ("MAE", _make_chart(saved, f"{name}-mae", title, "MAE", mae, unit)),
            ),
        )
        for name, title, rmse, mae, unit in panels
    )


def _make_chart(
    saved: SavedCampaign, name: str, title: str, kind: str, error: str, unit: str
) -> Chart:
    series = [*_set_curves(saved, error), *_split_curves(saved, error)]
    expected = forecast(saved.rounds, saved.config.selection.batch_size, error=error)
    if expected is not None:
        series.append(_expect(saved, expected))
    values = [float(y) for each in series for y in each.y]
    return Chart(
        name,
        f"{title} against labels",
        Mark.LINES,
        Axis("labelled structures"),
        Axis(f"{title.lower()}, {kind} / {unit}", is_log=is_wide(values)),
        tuple(series),
        caption=_write_caption(saved, expected),
        band_name="scatter of the forecast" if expected is not None else "",
    )


def _set_curves(saved: SavedCampaign, error: str) -> list[Series]:
    """Return the curve of each set that was measured, the test set first."""
    curves = []
    for role in ("test", "valid"):
        points = [
            (record.n_train, record.error(error, role))
            for record in saved.rounds
            if role in record.errors
        ]
        if points:
            curves.append(_line(_NAMES[role], points, _STYLES[role]))
    return curves


def _split_curves(saved: SavedCampaign, error: str) -> list[Series]:
    """Return the curve of each split of the test set, and of what is retained."""
    found: dict[str, list[tuple[int, float]]] = {}
    for record in saved.rounds:
        for name, table in record.split_errors.items():
            found.setdefault(name, []).append((record.n_train, known_or_nan(table.get(error))))
    if len(found) < 2 and RETAINED not in found:
        return []
    return [
        _line(name if name == RETAINED else f"test, {clean_text(name, 40)}", points, 2 + place)
        for place, (name, points) in enumerate(sorted(found.items())[:MOST_SPLITS])
    ]


def _line(name: str, points: list[tuple[int, float]], style: int) -> Series:
    x, y = zip(*points, strict=True)
    return Series(name, np.array(x, dtype=np.int32), as_float32(y), style=style)


def _expect(saved: SavedCampaign, found: Forecast) -> Series:
    """Return the line from the last error to what one more batch would bring."""
    n_now = saved.rounds[-1].n_train
    n_next = n_now + saved.config.selection.batch_size
    spread = found.spread if math.isfinite(found.spread) else 1.0
    return Series(
        "one more batch, forecast",
        np.array([n_now, n_next], dtype=np.int32),
        as_float32([found.now, found.expected]),
        low=as_float32([found.now, found.expected / spread]),
        high=as_float32([found.now, found.expected * spread]),
        style=_FORECAST_STYLE,
    )


def _write_caption(saved: SavedCampaign, expected: Forecast | None) -> str:
    words = ["Each point is the model of a round."]
    if saved.scored_role != "test":
        words.append(
            "There is no test set: errors on the validation set, which chose the epoch, are "
            "a little too small."
        )
    if expected is not None:
        words.append(
            f"A power law through the last rounds expects {write_error(expected.now)} → about "
            f"{write_error(expected.expected)} of one more batch; the rounds scatter by a factor "
            f"of {expected.spread:.2f} about it."
        )
    return " ".join(words)
