from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from labelwise.pages.document import Axis, Chart, Mark, Series
from labelwise.pages.figures.charts import draw_chart, list_words
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import MM, drawing

COLUMN = FigureSettings()


@pytest.fixture(autouse=True)
def look() -> Iterator[None]:
    with drawing():
        yield


def make_chart(mark: Mark, series: tuple[Series, ...], **settings: Any) -> Chart:
    axes = {"x": Axis("labels"), "y": Axis("force RMSE / meV Å⁻¹")}
    return Chart("chart", "A title", mark, series=series, **{**axes, **settings})


def make_series(name: str, y: list[float], x: Any = None, **settings: Any) -> Series:
    places = np.arange(1, len(y) + 1) if x is None else x
    return Series(name, places, np.array(y, dtype=np.float32), **settings)


def as_floats(values: list[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)


def test_lines_are_where_the_numbers_are() -> None:
    band = {"low": as_floats([1, 2]), "high": as_floats([3, 4])}
    chart = make_chart(Mark.LINES, (make_series("a", [2, 3], **band), make_series("b", [5, 4])))
    figure = draw_chart(chart, COLUMN)
    (axes,) = figure.axes
    assert [list(line.get_ydata()) for line in axes.lines] == [[2, 3], [5, 4]]
    assert len(axes.collections) == 1
    assert axes.get_xlabel() == "labels"
    assert axes.get_title() == ""
    assert figure.get_size_inches()[0] * MM == pytest.approx(85.0)
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["a", "b"]


@pytest.mark.parametrize("is_grey", [False, True])
def test_lines_differ_in_dash_and_marker(is_grey: bool) -> None:
    series = tuple(make_series(str(i), [i, i + 1.0]) for i in range(6))
    figure = draw_chart(make_chart(Mark.LINES, series), FigureSettings(is_grey=is_grey))
    lines = figure.axes[0].lines
    assert len({line.get_marker() for line in lines}) == 6
    assert len({str(line._unscaled_dash_pattern) for line in lines}) == 6
    colours = [line.get_color() for line in lines]
    assert all((c[1:3] == c[3:5] == c[5:7]) == is_grey for c in colours)


def test_a_style_number_is_kept_whatever_the_place() -> None:
    alone = draw_chart(make_chart(Mark.LINES, (make_series("b", [1, 2], style=3),)), COLUMN)
    both = (make_series("a", [1, 2], style=0), make_series("b", [1, 2], style=3))
    together = draw_chart(make_chart(Mark.LINES, both), COLUMN)
    assert alone.axes[0].lines[0].get_color() == together.axes[0].lines[1].get_color()
    assert alone.axes[0].lines[0].get_marker() == together.axes[0].lines[1].get_marker()
    assert not alone.legends


def test_error_bars_end_where_they_should() -> None:
    band = {"low": as_floats([0.5, np.nan]), "high": as_floats([4, np.nan])}
    figure = draw_chart(make_chart(Mark.POINTS, (make_series("a", [1, 2], **band),)), COLUMN)
    first, second = figure.axes[0].collections[0].get_segments()
    assert list(first[:, 1]) == [0.5, 4]
    assert list(second[:, 1]) == [2, 2]


def test_stacked_bars_stand_on_one_another() -> None:
    words = ("read", "select")
    series = (make_series("a", [1, 2], words), make_series("b", [3, np.nan], words))
    axes = draw_chart(make_chart(Mark.STACKED, series), COLUMN).axes[0]
    assert [bar.get_y() for bar in axes.patches] == [0, 0, 1, 2]
    assert [bar.get_height() for bar in axes.patches] == [1, 2, 3, 0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["read", "select"]
    beside = draw_chart(make_chart(Mark.BARS, series), COLUMN).axes[0]
    lefts = sorted(bar.get_x() for bar in beside.patches)
    assert len(set(lefts)) == 4
    assert {bar.get_y() for bar in beside.patches} == {0}


def test_steps_hold_until_the_next() -> None:
    axes = draw_chart(make_chart(Mark.STEPS, (make_series("a", [2, 3]),)), COLUMN).axes[0]
    assert axes.lines[0].get_drawstyle() == "steps-post"


def test_a_diagonal_has_the_same_range_on_both_axes() -> None:
    chart = make_chart(Mark.POINTS, (make_series("a", [-2, 9]),), diagonal=True)
    axes = draw_chart(chart, COLUMN).axes[0]
    assert axes.get_xlim() == axes.get_ylim()
    assert axes.get_ylim()[0] < -2 < 9 < axes.get_ylim()[1]
    assert axes.get_aspect() == 1.0


def test_logarithmic_axes_have_plain_numbers() -> None:
    chart = make_chart(Mark.LINES, (make_series("a", [3, 900]),), y=Axis("error", is_log=True))
    figure = draw_chart(chart, COLUMN)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    shown = {label.get_text() for label in axes.get_yticklabels()}
    assert {"10", "100"} <= shown


def test_a_logarithmic_axis_of_zeros_is_linear() -> None:
    chart = make_chart(Mark.LINES, (make_series("a", [0, 3]),), y=Axis("error", is_log=True))
    assert draw_chart(chart, COLUMN).axes[0].get_yscale() == "linear"


def test_words_in_order_of_appearance() -> None:
    series = (make_series("a", [1, 2], ("x", "y")), make_series("b", [1], ("w",)))
    chart = make_chart(Mark.POINTS, series)
    assert list_words(chart) == ["x", "y", "w"]
    assert list_words(make_chart(Mark.POINTS, (make_series("a", [1]),))) is None


def test_points_named_below_need_no_legend() -> None:
    series = (make_series("a", [1], ("a",)), make_series("b", [2], ("b",)))
    assert not draw_chart(make_chart(Mark.POINTS, series), COLUMN).legends


@pytest.mark.parametrize("mark", list(Mark))
def test_nothing_known_still_draws(mark: Mark) -> None:
    unknown = make_series("a", [np.nan, np.nan])
    empty = make_series("b", [])
    chart = make_chart(mark, (unknown, empty), y=Axis("error", is_log=True), diagonal=True)
    figure = draw_chart(chart, COLUMN)
    figure.draw_without_rendering()
    assert figure.axes[0].get_ylabel() == "error"
