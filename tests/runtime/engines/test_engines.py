"""Laws of every engine, here and on Ray."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import LabelError, MissingDependencyError, ReadError
from labelwise.runtime.engines import Engine, LocalEngine, RayEngine
from tests.runtime.engines import jobs


def test_engines_keep_the_protocol(engine: Engine) -> None:
    assert isinstance(engine, Engine)


def test_results_come_in_the_order_of_the_items(engine: Engine) -> None:
    results = engine.map(lambda: 0.01, jobs.square_in_time, range(20))
    assert list(results) == [item**2 for item in range(20)]


def test_no_items_give_no_results(engine: Engine) -> None:
    assert list(engine.map(jobs.fail_to_set_up, jobs.square, [])) == []


def test_a_sum_over_rows_is_the_same_bit_for_bit(ray_engine: RayEngine) -> None:
    sums = [
        sum(engine.map(jobs.no_state, jobs.make_row, range(40)), start=np.zeros(1000))
        for engine in (LocalEngine(), ray_engine)
    ]
    np.testing.assert_array_equal(*sums)


def test_setup_runs_once_a_worker(engine: Engine, tmp_path: Path) -> None:
    list(engine.map(partial(jobs.enter_worker, tmp_path), jobs.write_ledger, range(30)))
    pids = (tmp_path / "setups").read_text().split()
    assert len(pids) == len(set(pids)) <= engine.n_workers


def test_a_map_of_equal_key_finds_the_state(engine: Engine, tmp_path: Path) -> None:
    setup = partial(jobs.enter_worker, tmp_path)
    list(engine.map(setup, jobs.write_ledger, range(12), setup_key="model"))
    list(engine.map(setup, jobs.make_row, range(12), setup_key="model"))
    pids = (tmp_path / "setups").read_text().split()
    assert len(pids) == len(set(pids))


def test_a_map_of_another_key_makes_its_own_state(engine: Engine) -> None:
    for name in ("one", "two"):
        found = list(engine.map(lambda name=name: name, jobs.get_pid, range(8), setup_key=name))
        assert {state for state, _ in found} == {name}


def test_a_map_without_key_never_finds_an_old_state(engine: Engine) -> None:
    for name in ("one", "two"):
        found = list(engine.map(lambda name=name: name, jobs.get_pid, range(8)))
        assert {state for state, _ in found} == {name}


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("read", ReadError, "chunk 5 is damaged"),
        ("label", LabelError, "chunk 5 has no label 'REF_energy'"),
        ("dependency", MissingDependencyError, r"chunk 5 needs the package 'mace-torch'"),
        ("file", FileNotFoundError, "chunk5"),
        ("other", ZeroDivisionError, "chunk 5"),
    ],
)
def test_an_error_keeps_its_type_and_its_place(
    engine: Engine, kind: str, error: type[Exception], message: str
) -> None:
    results = engine.map(lambda: kind, jobs.fail_at_five, itertools.count())
    assert list(itertools.islice(results, 5)) == [0, 1, 2, 3, 4]
    with pytest.raises(error, match=message) as caught:
        next(results)
    assert type(caught.value) is error
    assert next(results, None) is None


def test_a_setup_that_fails_is_the_first_result(engine: Engine) -> None:
    with pytest.raises(MissingDependencyError, match="loading a MACE model"):
        next(engine.map(jobs.fail_to_set_up, jobs.square, range(5)))


def test_an_error_of_the_stream_comes_after_the_results_before_it(engine: Engine) -> None:
    def read() -> Iterator[int]:
        yield from range(6)
        raise ReadError("the pool ends in the middle of a frame")

    results = engine.map(jobs.no_state, jobs.square, read())
    assert list(itertools.islice(results, 6)) == [item**2 for item in range(6)]
    with pytest.raises(ReadError, match="middle of a frame"):
        next(results)


def test_an_endless_stream_is_read_as_far_as_needed(engine: Engine) -> None:
    n_read = 0

    def read() -> Iterator[int]:
        nonlocal n_read
        while True:
            n_read += 1
            yield n_read

    results = engine.map(jobs.no_state, jobs.square, read())
    assert n_read == 0, "nothing starts before the first result is asked for"
    for n_handed_out in range(1, 30):
        next(results)
        assert n_read <= n_handed_out + 4 * engine.n_workers
    results.close()  # type: ignore[attr-defined]
    assert list(engine.map(jobs.no_state, jobs.square, range(5))) == [0, 1, 4, 9, 16]
