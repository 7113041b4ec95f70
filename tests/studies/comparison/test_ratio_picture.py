"""What the picture of ratios shows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from labelwise.studies.comparison.ratio_picture import draw_ratios
from labelwise.studies.comparison.series import compare_cells
from labelwise.studies.comparison.tables import ratio_of
from tests.studies.comparison.building import make_cell, make_study

pytest.importorskip("matplotlib")


def test_each_method_has_its_mean_interval_and_pairs() -> None:
    comparison = compare_cells(make_study(("random", "ntk-pv", "soap-lcmd")))
    figure = draw_ratios(comparison)
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["ntk-pv", "soap-lcmd"]
    panel = figure.axes[1]
    _, pairs, interval, mean, *others = panel.lines
    assert len(others) == 3
    found = ratio_of(comparison, comparison.series[1], "auc", "forces_rmse")
    assert mean.get_xdata() == pytest.approx([found.value])
    assert interval.get_xdata() == pytest.approx([found.spread.low, found.spread.high])
    assert len(pairs.get_xdata()) == 6
    assert np.exp(np.log(pairs.get_xdata()).mean()) == pytest.approx(found.value)


def test_one_pair_has_no_interval() -> None:
    cells = make_study(("random", "ntk-pv"), pools=("p",), seeds=(0,))
    assert len(draw_ratios(compare_cells(cells)).axes[0].lines) == 3  # 1, the pair, the mean


def test_what_is_not_known_is_left_out() -> None:
    cell = make_cell("p", "ntk-pv", 0)
    broken = replace(cell, curves={**cell.curves, "energy_rmse": (math.nan,) * 13})
    figure = draw_ratios(compare_cells([make_cell("p", "random", 0), broken]))
    assert [len(axes.lines) for axes in figure.axes] == [1, 3, 1, 3]


@pytest.mark.parametrize("methods", [(), ("random",), ("ntk-pv", "soap-pv")])
def test_without_pairs_there_is_no_picture(methods: tuple[str, ...]) -> None:
    assert draw_ratios(compare_cells(make_study(methods))) is None
