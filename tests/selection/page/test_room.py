from __future__ import annotations

import numpy as np

from labelwise.pages.document import CategoryColumn, NumberColumn
from labelwise.selection.page.room import Room

NUMBER = NumberColumn("number", np.zeros(1, dtype=np.float32))
WORDS = CategoryColumn("words", np.zeros(1, dtype=np.int32), ("a",))


def test_columns_fit_until_there_is_no_room() -> None:
    room = Room(9.0)
    assert room.fit([NUMBER] * 30, 1000) == (NUMBER,) * 30
    kept = room.fit([NUMBER] * 30 + [WORDS], 50_000)
    assert 5 <= len(kept) < 30
    assert Room(1.0).fit([NUMBER], 1000) == ()
    assert room.fit([NUMBER] * 3, 0) == (NUMBER,) * 3


def test_structures_have_what_points_leave() -> None:
    room = Room(9.0)
    few, many = (room.for_structures(n, [NUMBER] * 5 + [WORDS]) for n in (100, 50_000))
    assert room.for_all_structures > few > many > 1_000_000
    assert room.for_structures(10**7, []) == 0
    assert Room(0.1).for_all_structures == 0
