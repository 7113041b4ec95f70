"""What the pictures show, and that they can be told apart and made again."""

from __future__ import annotations

import io
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from labelwise.studies.comparison.curves import (
    choose_styles,
    draw_pictures,
    list_correlations,
    list_curves,
)
from labelwise.studies.comparison.methods import METHODS
from labelwise.studies.comparison.series import Series, compare_cells
from tests.studies.comparison.building import make_cell, make_study

pytest.importorskip("matplotlib")


def test_mean_curve_is_the_mean_of_pool_means() -> None:
    cells = make_study(("random", "ntk-pv"))
    curve = list_curves(compare_cells(cells), "forces_rmse")[1]
    values = np.array([c.curves["forces_rmse"] for c in cells if c.key.method == "ntk-pv"])
    means = values.reshape(3, 2, -1).mean(axis=1)
    np.testing.assert_allclose(curve.mean, means.mean(axis=0))
    np.testing.assert_allclose(curve.error, means.std(axis=0, ddof=1) / 3**0.5)
    assert curve.x.tolist() == list(range(10, 75, 5))


def test_pool_curve_is_the_mean_over_seeds() -> None:
    cells = make_study(("random",))
    (curve,) = list_curves(compare_cells(cells), "energy_rmse", pool="natural-2")
    values = np.array([c.curves["energy_rmse"] for c in cells if c.key.pool == "natural-2"])
    np.testing.assert_allclose(curve.mean, values.mean(axis=0))
    np.testing.assert_allclose(curve.error, values.std(axis=0, ddof=1) / 2**0.5)


def test_a_method_without_all_pools_is_not_in_the_mean_over_pools() -> None:
    """Its mean would be that of the easier or the harder pools."""
    cells = make_study(("random", "ntk-pv"))
    cells = [c for c in cells if (c.key.method, c.key.pool) != ("ntk-pv", "natural-3")]
    comparison = compare_cells(cells)
    assert [c.label for c in list_curves(comparison, "energy_rmse")] == ["random"]
    assert len(list_curves(comparison, "energy_rmse", pool="natural-1")) == 2


def test_pools_of_other_sizes_are_not_averaged() -> None:
    cells = [make_cell("p", "random", 0), make_cell("q", "random", 0, n_rounds=5)]
    comparison = compare_cells(cells)
    assert list_curves(comparison, "energy_rmse") == []
    assert set(draw_pictures(comparison)) == {"curves_pools.png", "curves_pools.svg"}


def test_correlations_start_after_round_0() -> None:
    cells = make_study(("random", "committee-e"), pools=("p",))
    (curve,) = list_correlations(compare_cells(cells), "forces", "p")
    assert curve.label == "committee-e"
    assert curve.x.tolist() == list(range(1, 13))
    values = [c.rank_correlations["forces"] for c in cells if c.rank_correlations]
    np.testing.assert_allclose(curve.mean, np.mean(values, axis=0))


def test_pictures_of_a_study() -> None:
    pictures = draw_pictures(
        compare_cells(make_study(("random", "committee-e"), pools=("p", "q"), n_rounds=4))
    )
    names = {"curves", "curves_pools", "committees"}
    assert set(pictures) == {f"{name}.{suffix}" for name in names for suffix in ("png", "svg")}
    for name, content in pictures.items():
        if name.endswith("png"):
            image = np.asarray(Image.open(io.BytesIO(content)).convert("L"))
            assert image.std() > 5
        else:
            assert b"<svg" in content


def test_one_pool_is_drawn_once() -> None:
    pictures = draw_pictures(compare_cells(make_study(("random",), pools=("p",))))
    assert set(pictures) == {"curves.png", "curves.svg"}


def test_many_pools_are_drawn_three_by_three() -> None:
    sizes = {"a": 3, "b": 4, "c": 5, "d": 6}
    cells = [make_cell(pool, "random", 0, n_rounds=n) for pool, n in sizes.items()]
    names = {name for name in draw_pictures(compare_cells(cells)) if name.endswith("png")}
    assert names == {"curves_pools.png", "curves_pools_2.png"}


def test_nothing_finished_gives_no_pictures() -> None:
    cell = make_cell("p", "random", 0, is_finished=False)
    assert draw_pictures(compare_cells([cell])) == {}
    assert draw_pictures(compare_cells([])) == {}


def test_values_that_have_no_logarithm_are_drawn_around() -> None:
    cells = []
    for seed, bad in enumerate([math.nan, math.inf, 0.0, -1.0]):
        cell = make_cell("p", f"method{seed}-pv", 0, n_rounds=4)
        values = (*cell.curves["energy_rmse"][:-1], bad)
        cells.append(replace(cell, curves={**cell.curves, "energy_rmse": values}))
    assert "curves.png" in draw_pictures(compare_cells(cells))


def test_curves_of_no_values_at_all_are_drawn_around() -> None:
    cell = make_cell("p", "random", 0, n_rounds=4)
    cell = replace(cell, curves=dict.fromkeys(cell.curves, (math.nan,) * 4))
    assert "curves.png" in draw_pictures(compare_cells([cell]))


def test_the_same_study_gives_the_same_bytes() -> None:
    cells = make_study(("random",), pools=("p",), n_rounds=3)
    assert draw_pictures(compare_cells(cells)) == draw_pictures(compare_cells(cells))


def test_drawing_leaves_settings_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    draw_pictures(compare_cells(make_study(("random",), pools=("p",), n_rounds=3)))
    assert dict(mpl.rcParams) == before


def test_styles_differ_even_in_grey() -> None:
    """For the papers' methods: line and marker tell them apart without the colour."""
    kernels = ("activation", "ntk", "ntk-f", "ntk-ef", "soap", "tanimoto")
    names = [f"{kernel}-{rule}" for kernel in kernels for rule in ("k-center", "lcmd", "pv")]
    names += ["random", "committee-e", "committee-f", "joint-pv"]
    assert set(names) < set(METHODS)
    series = [Series(name, "pretrained", {}) for name in names]
    styles = choose_styles(series, reference="random")
    assert len({(style.line, style.marker) for style in styles.values()}) == len(names)
    assert styles["ntk-pv"].colour == styles["ntk-lcmd"].colour != styles["ntk-ef-pv"].colour
    assert styles["ntk-pv"].line == styles["soap-pv"].line
    assert styles["activation-k-center"].colour == styles["activation-pv"].colour


def test_scratch_looks_like_its_pretrained_twin_but_hollow() -> None:
    series = [Series("ntk-pv", "pretrained", {}), Series("ntk-pv-scratch", "scratch", {})]
    styles = choose_styles(series, reference="random")
    assert replace(styles["ntk-pv-scratch"], is_filled=True) == styles["ntk-pv"]
    assert not styles["ntk-pv-scratch"].is_filled
