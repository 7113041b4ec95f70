from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.runtime.engines import ClusterError
from labelwise.runtime.engines.ordered_run import Done, OrderedRun, Raised, Task


@given(
    n_items=st.integers(0, 30),
    n_workers=st.integers(1, 5),
    window=st.integers(1, 12),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_order_of_finishing_and_losing_gives_the_order_of_the_stream(
    n_items: int, n_workers: int, window: int, seed: int
) -> None:
    chance = random.Random(seed)
    retried: list[int] = []
    run: OrderedRun[int, int] = OrderedRun(
        range(n_items), window=window, on_retry=lambda item, _: retried.append(item)
    )
    lent: list[Task[int]] = []
    taken: list[int] = []
    results: list[int] = []
    while not run.is_over:
        while len(lent) < n_workers and (task := run.take()) is not None:
            lent.append(task)
            taken.append(task.item)
        assert len(lent) <= window
        if run.has_next:
            results.append(run.hand_out())
        elif lent:
            task = lent.pop(chance.randrange(len(lent)))
            if task.losses < 2 and chance.random() < 0.3:
                run.lose(task, "killed")
            else:
                run.finish(task, Done(-task.item))
    assert results == [-item for item in range(n_items)]
    assert sorted(taken) == sorted([*range(n_items), *retried])


def test_the_window_bounds_what_is_read() -> None:
    run: OrderedRun[int, int] = OrderedRun(itertools.count(), window=3)
    tasks = [run.take() for _ in range(5)]
    assert [None if task is None else task.item for task in tasks] == [0, 1, 2, None, None]
    for task in tasks[1:3]:
        assert task is not None
        run.finish(task, Done(task.item))
    assert run.take() is None, "item 0 is still out"
    assert not run.has_next
    assert tasks[0] is not None
    run.finish(tasks[0], Done(0))
    assert [run.hand_out() for _ in range(3)] == [0, 1, 2]
    following = run.take()
    assert following is not None
    assert following.item == 3


def test_an_item_is_given_up_at_its_third_loss() -> None:
    retried: list[str] = []
    run: OrderedRun[str, int] = OrderedRun(
        ["x" * 1000], window=3, on_retry=lambda _, reason: retried.append(reason)
    )
    for reason in ("one", "two", "three"):
        task = run.take()
        assert task is not None
        run.lose(task, reason)
    assert retried == ["one", "two"]
    with pytest.raises(ClusterError, match=r"item 0 of the map, 'x{199}\.\.\., ended .* three"):
        run.hand_out()
    assert run.is_over


def test_after_an_error_nothing_later_is_lent() -> None:
    retried: list[int] = []
    run: OrderedRun[int, int] = OrderedRun(
        range(10), window=10, on_retry=lambda item, _: retried.append(item)
    )
    first, failing, later = (run.take() for _ in range(3))
    assert first is not None and failing is not None and later is not None
    run.finish(failing, Raised(ValueError("damaged")))
    run.lose(later, "killed")
    assert run.take() is None
    run.lose(first, "killed")
    again = run.take()
    assert again is first, "what comes before the error is still wanted"
    assert retried == [0]
    run.finish(first, Done(0))
    assert run.hand_out() == 0
    with pytest.raises(ValueError, match="damaged"):
        run.hand_out()
    assert run.is_over
