from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.pages.document import Table
from labelwise.studies.comparison import shown
from labelwise.studies.comparison.record import read_record
from tests.studies.comparison.page.building import COSTS, as_number, column_of, read_csv

SHOWN = (
    ("auc_energy_rmse", "AUC E / meV"),
    ("auc_forces_rmse", "AUC F / meV/Å"),
    ("final_energy_rmse", "final E / meV"),
    ("final_forces_rmse", "final F / meV/Å"),
)


def panel(table: shown.Shown) -> Table:
    found = table.as_panel()
    assert found is not None
    return found


def test_errors_are_those_of_the_csv(study: Path) -> None:
    table = panel(shown.make_errors(read_record(study).comparison))
    rows = read_csv(study / "errors.csv")
    assert [row[0] for row in table.rows] == [row["method"] for row in rows]
    assert column_of(table, "campaigns") == {row["method"]: int(row["n_cells"]) for row in rows}
    for place, (key, heading) in enumerate(SHOWN):
        means = {row["method"]: as_number(row, f"{key}_mean") for row in rows}
        spreads = {row["method"]: as_number(row, f"{key}_se") for row in rows}
        assert column_of(table, heading) == pytest.approx(means)
        assert column_of(table, "±", nth=place) == pytest.approx(spreads)


def test_ratios_are_those_of_the_csv(study: Path) -> None:
    table = panel(shown.make_ratios(read_record(study).comparison))
    rows = [row for row in read_csv(study / "errors.csv") if row["method"] != "random"]
    assert column_of(table, "pairs") == {row["method"]: int(row["n_pairs"]) for row in rows}
    for place, (key, heading) in enumerate(SHOWN):
        for column, name, nth in (
            ("ratio", heading.split(" / ")[0], 0),
            ("ratio_low", "low", place),
            ("ratio_high", "high", place),
        ):
            wanted = {row["method"]: as_number(row, f"{key}_{column}") for row in rows}
            assert column_of(table, name, nth=nth) == pytest.approx(wanted)


@pytest.mark.parametrize("part", ["pool", "split"])
def test_parts_are_those_of_the_csv(study: Path, part: str) -> None:
    comparison = read_record(study).comparison
    make = shown.make_pools if part == "pool" else shown.make_splits
    table = panel(make(comparison))
    rows = read_csv(study / f"errors_by_{part}.csv")
    assert len(table.rows) == len(rows) > 0
    for cells, row in zip(table.rows, rows, strict=True):
        assert cells[:3] == (row[part], row["method"], int(row["n_cells"]))
        for place, (key, _) in enumerate(SHOWN):
            wanted = [as_number(row, f"{key}_{name}") for name in ("mean", "se", "ratio")]
            assert list(cells[3 + 3 * place : 6 + 3 * place]) == pytest.approx(wanted)


def test_saved_rounds_are_those_of_the_csv(study: Path) -> None:
    table = panel(shown.make_gains(read_record(study).comparison))
    rows = [
        row
        for row in read_csv(study / "round_gain.csv")
        if row["pool"] == "all" and row["error"] == "forces_rmse"
    ]
    wanted = {row["method"]: 100 * float(row["gain_mean"]) for row in rows}
    assert column_of(table, "F RMSE / %") == pytest.approx(wanted)


def test_cost_is_that_of_the_csv(study: Path) -> None:
    record = read_record(study)
    table = panel(shown.make_costs(record.comparison, record.costs))
    rows = read_csv(study / "cost.csv")
    for key, heading in (
        ("select_seconds", "select / s"),
        ("round_seconds", "round / s"),
        ("dim", "row length"),
        ("processor_ms_per_structure", "represent / ms per structure"),
    ):
        wanted = {row["method"]: as_number(row, key) for row in rows}
        assert column_of(table, heading) == pytest.approx(wanted)
    assert column_of(table, "forward passes")["ntk-lcmd"] == 1
    assert isinstance(column_of(table, "forward passes")["ntk-lcmd"], int)


def test_rank_correlations_are_means_over_rounds(study: Path) -> None:
    comparison = read_record(study).comparison
    table = panel(shown.make_committees(comparison))
    rows = [row for row in read_csv(study / "committees.csv") if row["quantity"] == "energy"]
    pools = {
        pool: [float(row["spearman"]) for row in rows if row["pool"] == pool]
        for pool in comparison.pools
    }
    wanted = sum(sum(values) / len(values) for values in pools.values()) / len(pools)
    assert column_of(table, "ρ, energy") == {"committee-f": pytest.approx(wanted)}


def test_one_seed_has_no_spread(single: Path) -> None:
    comparison = read_record(single).comparison
    errors = panel(shown.make_errors(comparison))
    assert all(column.name != "±" for column in errors.columns)
    assert "unknown, for there is one seed only" in errors.caption
    ratios = panel(shown.make_ratios(comparison))
    assert None not in column_of(ratios, "AUC E").values()
    assert "one pair only" in ratios.caption


def test_columns_of_which_nothing_is_known_are_left_out(single: Path) -> None:
    found = panel(shown.make_ratios(read_record(single).comparison))
    names = [column.name for column in found.columns]
    assert names == ["method", "pairs", "AUC E", "AUC F", "final E", "final F"]
    assert all(len(row) == 6 for row in found.rows)


def test_tables_without_rows_are_left_out(single: Path) -> None:
    comparison = read_record(single).comparison
    assert shown.make_committees(comparison).as_panel() is None
    assert shown.make_splits(comparison).as_panel() is None
    assert shown.make_costs(comparison, COSTS).as_panel() is not None
