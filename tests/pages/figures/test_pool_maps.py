from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from labelwise.pages.document import PoolMap
from labelwise.pages.figures.pool_maps import draw_pool_map
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import drawing
from tests.pages.documents import make_map


@pytest.fixture(autouse=True)
def look() -> Iterator[None]:
    with drawing():
        yield


@pytest.fixture
def pool_map() -> PoolMap:
    return make_map(np.random.default_rng(0), 400, "")


def count_points(pool_map: PoolMap) -> list[int]:
    axes = draw_pool_map(pool_map, FigureSettings()).axes[0]
    return [len(drawn.get_offsets()) for drawn in axes.collections]


def test_every_point_is_drawn_with_its_role(pool_map: PoolMap) -> None:
    figure = draw_pool_map(pool_map, FigureSettings())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == [
        *("set aside (5)", "pool (335)", "shortlisted (20)", "labelled (30)", "chosen (10)"),
    ]
    assert count_points(pool_map) == [5, 335, 20, 30, 10]


def test_a_column_of_numbers_has_a_scale(pool_map: PoolMap) -> None:
    figure = draw_pool_map(replace(pool_map, colour_by="energy"), FigureSettings())
    assert figure.axes[1].get_ylabel() == "energy / eV"
    assert count_points(replace(pool_map, colour_by="energy")) == [400, 10]
    unknown = int(np.isnan(pool_map.columns[2].values).sum())  # type: ignore[union-attr]
    partly = replace(pool_map, colour_by="partly known")
    assert count_points(partly) == [unknown, 400 - unknown, 10]


def test_a_column_of_words_has_a_legend(pool_map: PoolMap) -> None:
    coloured = replace(pool_map, colour_by="source")
    figure = draw_pool_map(coloured, FigureSettings())
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names[:2] == ["others", "family A"]
    assert sum(count_points(coloured)) == 410


def test_an_unknown_column_shows_roles(pool_map: PoolMap) -> None:
    assert count_points(replace(pool_map, colour_by="nothing")) == [5, 335, 20, 30, 10]


def test_words_that_look_alike_when_shortened_keep_their_entries(pool_map: PoolMap) -> None:
    long = replace(pool_map.columns[0], categories=tuple("x" * 60 + str(i) for i in range(10)))
    figure = draw_pool_map(replace(pool_map, columns=(long,), colour_by="source"), FigureSettings())
    assert len(figure.legends[0].get_texts()) == 9


def test_very_many_points_become_a_picture() -> None:
    many = make_map(np.random.default_rng(0), 3000, "")
    axes = draw_pool_map(many, FigureSettings()).axes[0]
    rasterised = [bool(drawn.get_rasterized()) for drawn in axes.collections]
    assert rasterised == [False, True, False, False, False]
