from __future__ import annotations

import numpy as np

from labelwise.pages.document import Chart, Table
from labelwise.runtime.timing import Stage
from labelwise.selection.page.set_aside import MOST_LISTED, chart_times, list_screened
from labelwise.selection.page.shelves import Names
from labelwise.structures import Source
from labelwise.structures.screening import Screened


def test_nothing_set_aside_needs_no_table() -> None:
    assert list_screened((), Names()) == ()
    assert chart_times(()) == ()
    assert chart_times((Stage("read", 0.0, 3),)) == ()


def test_long_lists_are_cut_and_counted() -> None:
    n = MOST_LISTED + 20
    screened = [
        Screened("pool", i, Source("dir/a.xyz", i), "no-atoms", "x" * 1000) for i in range(n)
    ]
    screened.append(Screened("train", 0, Source("dir/t.xyz", 0), "bad-cell", "flat"))
    by_reason, one_by_one = list_screened(screened, Names())
    assert isinstance(by_reason, Table)
    assert by_reason.rows == (("pool", "no-atoms", n), ("labelled", "bad-cell", 1))
    assert isinstance(one_by_one, Table)
    assert len(one_by_one.rows) == MOST_LISTED
    assert one_by_one.rows[3][0] == "a.xyz@3"
    assert len(str(one_by_one.rows[3][3])) == 160
    assert f"The first {MOST_LISTED} of {n + 1}." in one_by_one.caption


def test_times_leave_out_stages_that_took_none() -> None:
    stages = (Stage("read", 2.0, 3), Stage("screen", 0.0, 3), Stage("select", 1.0, 1))
    (chart,) = chart_times(stages)
    assert isinstance(chart, Chart)
    assert chart.series[0].x == ("read", "select")
    np.testing.assert_array_equal(chart.series[0].y, np.float32([2, 1]))
    assert chart.caption == "3 s in all."
