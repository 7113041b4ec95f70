from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from labelwise.pages.document import HeatMap
from labelwise.pages.figures.heat_maps import draw_heat_map, list_groups
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import drawing


@pytest.fixture(autouse=True)
def look() -> Iterator[None]:
    with drawing():
        yield


def make_heat_map(names: tuple[str, ...], limits: tuple[float, float] | None = None) -> HeatMap:
    values = np.random.default_rng(0).random((len(names), len(names))).astype(np.float32)
    return HeatMap("kernel", "Kernel", values, names, names, "similarity", limits)


def test_names_and_values() -> None:
    heat_map = make_heat_map(("a", "b", "c"), (0.2, 0.8))
    axes, bar = draw_heat_map(heat_map, FigureSettings()).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b", "c"]
    np.testing.assert_allclose(axes.images[0].get_array(), heat_map.values)
    assert axes.images[0].get_clim() == (0.2, 0.8)
    assert bar.get_ylabel() == "similarity"


def test_many_rows_are_named_by_their_groups() -> None:
    names = tuple(f"{'AB'[i // 20]} · {i}" for i in range(40))
    assert list_groups(names) == [("A", 0, 20), ("B", 20, 20)]
    axes, _ = draw_heat_map(make_heat_map(names), FigureSettings()).axes
    assert [label.get_text() for label in axes.get_xticklabels()] == ["A", "B"]
    assert list(axes.get_xticks()) == [9.5, 29.5]
    assert len(axes.lines) == 2


def test_very_many_rows_have_no_names() -> None:
    axes, _ = draw_heat_map(make_heat_map(tuple(map(str, range(60)))), FigureSettings()).axes
    assert list(axes.get_xticks()) == []
