"""What was screened out, and where the time went."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from labelwise.pages.document import Axis, Chart, Mark, Panel, Series, Table, TableColumn
from labelwise.runtime.timing import Stage
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.shelves import Names
from labelwise.structures.screening import Screened

#: Structures that the table lists; the others are counted.
MOST_LISTED = 500
_ROLES = {"train": "labelled", "pool": "pool"}
_LONGEST_DETAIL = 160


def list_screened(screened: Sequence[Screened], names: Names) -> tuple[Panel, ...]:
    """Return what was set aside: counted by reason, and one by one; nothing if nothing was."""
    if not screened:
        return ()
    counts = Counter((item.role, item.reason) for item in screened)
    by_reason = Table(
        name="set-aside-reasons",
        title="Set aside, by reason",
        columns=(TableColumn("from"), TableColumn("reason"), TableColumn("structures")),
        rows=tuple(
            (_ROLES.get(role, role), clean_text(reason), n)
            for (role, reason), n in counts.most_common()
        ),
    )
    listed = screened[:MOST_LISTED]
    more = f" The first {len(listed)} of {len(screened):,}." if len(listed) < len(screened) else ""
    one_by_one = Table(
        name="set-aside",
        title="Set aside, one by one",
        columns=tuple(TableColumn(name) for name in ("structure", "from", "reason", "detail")),
        rows=tuple(
            (
                names.of_source(item.source),
                _ROLES.get(item.role, item.role),
                clean_text(item.reason),
                clean_text(item.detail, _LONGEST_DETAIL),
            )
            for item in listed
        ),
        caption=f"They are neither on the map nor could they be chosen.{more}",
    )
    return by_reason, one_by_one


def chart_times(stages: Sequence[Stage]) -> tuple[Panel, ...]:
    """Draw the seconds of each stage that took any; nothing if none did."""
    timed = [stage for stage in stages if stage.seconds > 0]
    if not timed:
        return ()
    seconds = np.array([stage.seconds for stage in timed], dtype=np.float32)
    total = float(seconds.sum())
    chart = Chart(
        name="times",
        title="Time by stage",
        mark=Mark.BARS,
        x=Axis("stage"),
        y=Axis("time / s"),
        series=(Series("time", tuple(clean_text(stage.name) for stage in timed), seconds),),
        caption=f"{total:.3g} s in all.",
    )
    return (chart,)
