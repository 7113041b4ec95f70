"""Which cells count, and what they are held against."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.results import CellKey
from labelwise.studies.comparison.series import Series, compare_cells, measure
from tests.studies.comparison.building import make_cell, make_study


def test_all_finished_cells_are_used() -> None:
    comparison = compare_cells(make_study())
    assert comparison.n_used == comparison.n_planned == 66
    assert not (comparison.unfinished or comparison.missing or comparison.odd)
    assert comparison.pools == ("natural-1", "natural-2", "natural-3")


def test_reference_comes_first_and_the_others_as_they_came() -> None:
    cells = make_study(("ntk-pv", "random", "activation-pv"), seeds=(0,))
    labels = [series.label for series in compare_cells(cells).series]
    assert labels == ["random", "ntk-pv", "activation-pv"]


def test_unfinished_cells_are_listed_and_not_used() -> None:
    cells = make_study(("random", "ntk-pv"), pools=("p",))
    cells[3] = replace(cells[3], is_finished=False)
    comparison = compare_cells(cells)
    assert comparison.unfinished == ("ntk-pv, pool p, seed 1",)
    assert comparison.n_used == 3
    assert ("p", 1) not in comparison.series[1].cells


def test_cells_that_never_began_are_missing() -> None:
    cells = make_study(("random", "ntk-pv"), pools=("p",))
    comparison = compare_cells(cells[:-1])
    assert comparison.missing == ("ntk-pv, pool p, seed 1",)
    assert (comparison.n_used, comparison.n_planned) == (3, 4)


def test_a_plan_knows_methods_that_never_began() -> None:
    cells = make_study(("random",), pools=("p",))
    planned = [CellKey("p", method, seed) for method in ("random", "ntk-pv") for seed in (0, 1)]
    comparison = compare_cells(cells, planned=planned)
    assert comparison.missing == ("ntk-pv, pool p, seed 0", "ntk-pv, pool p, seed 1")
    assert comparison.n_planned == 4


def test_a_campaign_of_other_rounds_is_odd() -> None:
    """Its sum over rounds is smaller and would look better."""
    cells = make_study(("random", "ntk-pv", "soap-pv"), pools=("p",), seeds=(0,))
    cells[1] = make_cell("p", "ntk-pv", 0, n_rounds=7)
    comparison = compare_cells(cells)
    assert comparison.odd == ("ntk-pv, pool p, seed 0 (7 rounds)",)
    assert comparison.series[1].cells == {}


def test_pools_may_have_other_rounds_than_each_other() -> None:
    cells = [make_cell("p", "random", 0), make_cell("q", "random", 0, n_rounds=5)]
    assert compare_cells(cells).n_used == 2


def test_no_cells() -> None:
    comparison = compare_cells([])
    assert (comparison.n_used, comparison.n_planned, comparison.series) == (0, 0, ())


def test_a_cell_given_twice_raises() -> None:
    cell = make_cell("p", "random", 0)
    with pytest.raises(ArgumentError, match="pool p, seed 0, method 'random' twice"):
        compare_cells([cell, cell])


def test_scratch_is_held_against_scratch() -> None:
    cells = [
        make_cell("p", method + end, 0, start=start)
        for method in ("random", "ntk-lcmd")
        for start, end in (("pretrained", ""), ("scratch", "-scratch"))
    ]
    comparison = compare_cells(cells)
    found = {s.label: comparison.find_reference(s) for s in comparison.series}
    assert {label: each.label for label, each in found.items() if each} == {
        "random": "random",
        "random-scratch": "random-scratch",
        "ntk-lcmd": "random",
        "ntk-lcmd-scratch": "random-scratch",
    }


def test_an_only_reference_serves_other_starts() -> None:
    cells = [make_cell("p", "random", 0), make_cell("p", "ntk-pv", 0, start="last")]
    comparison = compare_cells(cells)
    reference = comparison.find_reference(comparison.series[1])
    assert reference is comparison.series[0]


def test_without_a_reference_there_is_none() -> None:
    comparison = compare_cells([make_cell("p", "ntk-pv", 0)])
    assert comparison.find_reference(comparison.series[0]) is None


@pytest.mark.parametrize(
    ("method", "start", "label", "kernel"),
    [
        ("ntk-lcmd", "pretrained", "ntk-lcmd", "ntk-lcmd"),
        ("ntk-lcmd-scratch", "scratch", "ntk-lcmd-scratch", "ntk-lcmd"),
        ("ntk-lcmd", "scratch", "ntk-lcmd (scratch)", "ntk-lcmd"),
        ("ntk-lcmd", "last", "ntk-lcmd (last)", "ntk-lcmd"),
        ("elastic-pv", "last", "elastic-pv (last)", "elastic-pv"),
        ("scratch", "scratch", "scratch", "scratch"),
    ],
)
def test_labels_say_the_start_once(method: str, start: str, label: str, kernel: str) -> None:
    series = Series(method, start, {})
    assert (series.label, series.kernel) == (label, kernel)


def test_quantities_of_a_cell() -> None:
    cell = replace(make_cell("p", "random", 0), curves={"energy_rmse": (9.0, 3.0, 1.0)})
    assert measure(cell, "auc", "energy_rmse") == 4.0
    assert measure(cell, "auc_with_round_0", "energy_rmse") == 13.0
    assert measure(cell, "final", "energy_rmse") == 1.0
    assert math.isnan(measure(cell, "final", "forces_rmse"))
