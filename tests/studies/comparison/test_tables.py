"""The numbers of the tables, worked out again by hand."""

from __future__ import annotations

import csv
import io
import math
from dataclasses import replace

import numpy as np
import pytest

from labelwise.finetuning.metrics import round_gain
from labelwise.studies.comparison import tables
from labelwise.studies.comparison.results import CellResult, MethodCost
from labelwise.studies.comparison.series import compare_cells
from tests.studies.comparison.building import make_cell, make_study

STUDY = make_study(("random", "ntk-pv", "committee-f"))


def curves_of(cells: list[CellResult], method: str, error: str) -> np.ndarray:
    """Return (3 pools, 2 seeds, rounds)."""
    found = [cell.curves[error] for cell in cells if cell.key.method == method]
    return np.array(found).reshape(3, 2, -1)


def row_of(table: tables.Table, **wanted: str) -> dict[str, tables.Value]:
    (row,) = [r for r in table.as_records() if all(r[k] == v for k, v in wanted.items())]
    return row


@pytest.mark.parametrize("error", ["energy_rmse", "forces_mae"])
def test_errors_table(error: str) -> None:
    row = row_of(tables.make_errors_table(compare_cells(STUDY)), method="ntk-pv")
    method, reference = (curves_of(STUDY, m, error) for m in ("ntk-pv", "random"))
    area, other = method[..., 1:].sum(-1), reference[..., 1:].sum(-1)
    assert row[f"auc_{error}_mean"] == pytest.approx(area.mean())
    assert row[f"auc_{error}_se"] == pytest.approx(area.mean(1).std(ddof=1) / 3**0.5)
    assert row[f"auc_{error}_se_over_cells"] == pytest.approx(area.std(ddof=1) / 6**0.5)
    assert row[f"auc_{error}_ratio"] == pytest.approx(np.exp(np.log(area / other).mean()))
    assert row[f"auc_with_round_0_{error}_mean"] == pytest.approx(method.sum(-1).mean())
    assert row[f"final_{error}_mean"] == pytest.approx(method[..., -1].mean())
    assert (row["n_pools"], row["n_cells"], row["n_pairs"]) == (3, 6, 6)


def test_ratio_of_the_reference_to_itself_is_one() -> None:
    row = row_of(tables.make_errors_table(compare_cells(STUDY)), method="random")
    assert row["auc_energy_rmse_ratio"] == row["auc_energy_rmse_ratio_low"] == 1.0


def test_errors_by_pool_are_those_of_the_pool_alone() -> None:
    alone = [cell for cell in STUDY if cell.key.pool == "natural-2"]
    table = tables.make_pools_table(compare_cells(STUDY))
    row = row_of(table, method="ntk-pv", pool="natural-2")
    own = row_of(tables.make_errors_table(compare_cells(alone)), method="ntk-pv")
    assert row == {"pool": "natural-2", **own}
    assert row["spread_over"] == "seeds"


def test_missing_reference_cells_cost_pairs_and_not_means() -> None:
    cells = [c for c in STUDY if c.key.method != "random" or c.key.pool != "natural-3"]
    row = row_of(tables.make_errors_table(compare_cells(cells)), method="ntk-pv")
    logs = np.log(
        curves_of(STUDY, "ntk-pv", "forces_rmse")[:2, :, -1]
        / curves_of(STUDY, "random", "forces_rmse")[:2, :, -1]
    )
    assert (row["n_cells"], row["n_pairs"]) == (6, 4)
    assert row["final_forces_rmse_ratio"] == pytest.approx(np.exp(logs.mean()))


def test_without_any_reference_ratios_are_blank() -> None:
    comparison = compare_cells([c for c in STUDY if c.key.method != "random"])
    row = row_of(tables.make_errors_table(comparison), method="ntk-pv")
    assert row["auc_energy_rmse_ratio"] is None
    assert row["auc_energy_rmse_mean"] is not None
    assert all(row["gain_mean"] is None for row in tables.make_gain_table(comparison).as_records())


def test_gain_table() -> None:
    """Against mean and standard error of ``round_gain`` over the repeats of one pool."""
    table = tables.make_gain_table(compare_cells(STUDY))
    method, reference = (curves_of(STUDY, m, "forces_rmse")[..., 1:] for m in ("ntk-pv", "random"))
    means = []
    for i, pool in enumerate(("natural-1", "natural-2", "natural-3")):
        row = row_of(table, method="ntk-pv", error="forces_rmse", pool=pool)
        gains = [round_gain(m, r) for m, r in zip(method[i], reference[i], strict=True)]
        mean, error = np.mean(gains), np.std(gains, ddof=1) / len(gains) ** 0.5
        assert (row["gain_mean"], row["gain_se"]) == pytest.approx((mean, error))
        means.append(mean)
    row = row_of(table, method="ntk-pv", error="forces_rmse", pool="all")
    assert row["gain_mean"] == pytest.approx(np.mean(means))
    assert row["gain_se"] == pytest.approx(np.std(means, ddof=1) / 3**0.5)


def test_equal_curves_gain_nothing() -> None:
    random = make_cell("p", "random", 0)
    same = replace(random, key=replace(random.key, method="same"))
    table = tables.make_gain_table(compare_cells([random, same]))
    assert {row["gain_mean"] for row in table.as_records()} == {0.0}


def test_gain_does_not_count_the_common_round() -> None:
    """The method is there after one round of four, random after four: (4 − 1)/4."""
    cell = make_cell("p", "random", 0, n_rounds=5)
    slow = replace(cell, curves={"energy_rmse": (9.0, 8.0, 7.0, 6.0, 5.0)})
    fast = replace(
        cell, key=replace(cell.key, method="x"), curves={"energy_rmse": (9.0, 5.0, 5.0, 5.0, 5.0)}
    )
    table = tables.make_gain_table(compare_cells([slow, fast]))
    assert row_of(table, error="energy_rmse", pool="p")["gain_mean"] == 0.75


def test_scratch_table() -> None:
    cells = [
        make_cell(pool, method + end, 0, start=start)
        for pool in ("p", "q")
        for method in ("random", "ntk-lcmd", "soap-lcmd")
        for start, end in (("pretrained", ""), ("scratch", "-scratch"))
        if (method, start) != ("soap-lcmd", "scratch")
    ]
    table = tables.make_scratch_table(compare_cells(cells))
    assert {row["kernel"] for row in table.as_records()} == {"random", "ntk-lcmd"}
    finals = {
        (c.key.method, c.key.pool): c.curves["energy_rmse"][-1]
        for c in cells
        if c.key.method.startswith(("ntk", "random"))
    }
    row = row_of(table, kernel="ntk-lcmd", start="scratch")
    to_random = [finals["ntk-lcmd-scratch", p] / finals["random-scratch", p] for p in "pq"]
    to_pretrained = [finals["ntk-lcmd-scratch", p] / finals["ntk-lcmd", p] for p in "pq"]
    assert row["final_energy_rmse_ratio"] == pytest.approx(math.prod(to_random) ** 0.5)
    assert row["final_energy_rmse_over_pretrained"] == pytest.approx(
        math.prod(to_pretrained) ** 0.5
    )


def test_no_scratch_rows_without_both_starts() -> None:
    assert tables.make_scratch_table(compare_cells(STUDY)).rows == ()


def test_cost_table() -> None:
    cost = MethodCost("ntk-pv", 1.0, 1.0, 1, 1920, 0.0125, 42.0)
    idle = MethodCost("not-run", 0.0, 0.0, 1, 0, 0.0, 0.0)
    table = tables.make_cost_table(compare_cells(STUDY), [cost, idle])
    row = row_of(table, method="ntk-pv")
    assert (row["n_forward"], row["n_backward"], row["dim"]) == (1.0, 1.0, 1920)
    assert row["processor_ms_per_structure"] == pytest.approx(12.5)
    assert row["finetune_seconds"] == pytest.approx(40.0)
    assert row["measure_seconds"] == pytest.approx(np.mean([4.0 + 0.1 * i for i in range(13)]))
    assert row["round_seconds"] == pytest.approx(50.8)
    assert row["peak_mib"] == 1212.0
    committee = row_of(table, method="committee-f")
    assert (committee["n_models"], committee["n_forward"]) == (3, None)
    assert row_of(table, method="not-run")["round_seconds"] is None


def test_stages_that_a_round_lacks_are_not_counted_as_zero() -> None:
    cell = make_cell("p", "random", 0, n_rounds=3)
    first = replace(cell.costs[0], seconds={"finetune": 40.0})
    cell = replace(cell, costs=(first, *cell.costs[1:]))
    row = row_of(tables.make_cost_table(compare_cells([cell]), []), method="random")
    assert row["select_seconds"] == pytest.approx(6.0)


def test_long_tables_hold_every_number_once() -> None:
    comparison = compare_cells([*STUDY[:-1], replace(STUDY[-1], is_finished=False)])
    curves = tables.make_curves_table(comparison)
    assert len(curves.rows) == 18 * 4 * 13
    found = [
        row["value"]
        for row in curves.as_records()
        if row["method"] == "committee-f" and row["is_finished"] == "false"
        if row["error"] == "energy_mae"
    ]
    assert tuple(found) == STUDY[-1].curves["energy_mae"]
    assert len(tables.make_seconds_table(comparison).rows) == 18 * 13 * 4
    committees = tables.make_committees_table(comparison)
    assert len(committees.rows) == 6 * 2 * 12
    assert {row["round"] for row in committees.as_records()} == set(range(1, 13))


def test_csv_leaves_out_what_is_not_known() -> None:
    table = tables.Table("t", ("a", "b"), ((1.5, math.nan), ("x,y", None), (math.inf, 0)))
    rows = list(csv.reader(io.StringIO(table.as_csv())))
    assert rows == [["a", "b"], ["1.5", ""], ["x,y", ""], ["", "0"]]


def test_csv_keeps_all_digits() -> None:
    value = 0.1 + 0.2
    assert float(tables.Table("t", ("a",), ((value,),)).as_csv().splitlines()[1]) == value


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_value_that_is_not_finite_blanks_what_needs_it(bad: float) -> None:
    cells = list(STUDY)
    place = next(i for i, cell in enumerate(cells) if cell.key.method == "ntk-pv")
    curve = cells[place].curves["energy_rmse"]
    broken = (*curve[:4], bad, *curve[5:])
    cells[place] = replace(cells[place], curves={**cells[place].curves, "energy_rmse": broken})
    comparison = compare_cells(cells)
    row = row_of(tables.make_errors_table(comparison), method="ntk-pv")
    assert row["auc_energy_rmse_mean"] is None
    assert row["auc_energy_rmse_ratio"] is None
    assert row["final_energy_rmse_mean"] is not None
    assert row["auc_forces_rmse_mean"] is not None
    gains = tables.make_gain_table(comparison)
    assert row_of(gains, method="ntk-pv", error="energy_rmse", pool="all")["gain_mean"] is None
    assert tables.list_unknown(comparison) == ["ntk-pv, pool natural-1, seed 0"]
