from __future__ import annotations

import sys
from itertools import pairwise

import pytest

from labelwise.errors import MissingDependencyError
from labelwise.pages.figures.styles import (
    clean,
    count_legend_columns,
    drawing,
    find_style,
    make_scale,
)


def luminance(colour: str) -> float:
    red, green, blue = (int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("is_grey", [False, True])
def test_styles_differ_without_their_colours(is_grey: bool) -> None:
    styles = [find_style(number, is_grey=is_grey) for number in range(16)]
    assert len({(str(each.line), each.marker, each.face == "white") for each in styles}) == 16
    assert len({each.hatch for each in styles[:8]}) == 8
    for first, second in pairwise(styles):
        assert first.colour != second.colour
        assert str(first.line) != str(second.line)
        assert first.marker != second.marker


def test_greys_are_grey_and_dark_enough() -> None:
    for number in range(8):
        colour = find_style(number, is_grey=True).colour
        assert colour[1:3] == colour[3:5] == colour[5:7]
        assert luminance(colour) < 0.65


@pytest.mark.parametrize("is_grey", [False, True])
def test_scales_grow_in_lightness(is_grey: bool) -> None:
    for on_white in (False, True):
        scale = make_scale(is_grey=is_grey, on_white=on_white)
        values = [0.2126 * r + 0.7152 * g + 0.0722 * b for r, g, b, _ in scale(range(256))]
        assert all(b >= a - 1e-3 for a, b in pairwise(values))
    assert values[-1] < 0.82


def test_texts_are_made_harmless() -> None:
    assert clean("a\x00b\n\tc") == "a b c"
    assert clean("x" * 60) == "x" * 47 + "…"
    assert clean("<b>$x_1$") == "<b>$x_1$"


def test_legends_fit_into_the_width() -> None:
    assert count_legend_columns(["random", "lcmd"], 85.0) == 2
    assert count_legend_columns(["a" * 48] * 3, 85.0) == 1
    assert count_legend_columns(["random"] * 12, 175.0) == 8


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingDependencyError, match=r"labelwise\[report\]"), drawing():
        pass


def test_the_readers_settings_come_back() -> None:
    import matplotlib as mpl

    before = mpl.rcParams["font.size"]
    with drawing():
        assert mpl.rcParams["font.size"] == 7.5
    assert mpl.rcParams["font.size"] == before
