"""Laws of engines whose workers can die: further processes of this machine, and Ray."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from labelwise.runtime.engines import ClusterError, Engine
from tests.runtime.engines import jobs
from tests.runtime.engines.conftest import N_WORKERS


@pytest.fixture(params=["full_processes", "full_engine"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


class WorkerKiller(threading.Thread):
    """Ends random workers at random moments, a given number of times."""

    def __init__(self, folder: Path, n_kills: int) -> None:
        super().__init__(daemon=True)
        self.folder = folder
        self.n_left = n_kills
        self.killed: set[int] = set()
        self.random = random.Random(0)

    def run(self) -> None:
        while self.n_left:
            time.sleep(self.random.uniform(0.05, 0.5))
            pids = (self.folder / "setups").read_text().split()
            alive = sorted({int(pid) for pid in pids} - self.killed - {os.getpid()})
            if alive:
                pid = self.random.choice(alive)
                os.kill(pid, signal.SIGKILL)
                self.killed.add(pid)
                self.n_left -= 1


def read_ledger(path: Path) -> dict[str, Counter[int]]:
    counts: dict[str, Counter[int]] = {"start": Counter(), "end": Counter()}
    for line in path.read_text().splitlines():
        event, item, _ = line.split()
        counts[event][int(item)] += 1
    return counts


@pytest.mark.parametrize("n_kills", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_a_lost_worker_costs_the_item_it_was_on(
    engine: Engine, tmp_path: Path, n_kills: int
) -> None:
    (tmp_path / "setups").touch()
    killer = WorkerKiller(tmp_path, n_kills)
    retried: Counter[int] = Counter()

    def read() -> Iterator[int]:
        killer.start()
        for item in range(100_000):
            if item >= 60 and not killer.n_left:
                return
            yield item

    setup = partial(jobs.enter_worker, tmp_path)
    results = list(
        engine.map(
            setup, jobs.write_ledger, read(), on_retry=lambda item, _: retried.update([item])
        )
    )

    n_items = len(results)
    assert results == [item**2 for item in range(n_items)]
    assert len(killer.killed) == n_kills
    ledger = read_ledger(tmp_path / "ledger")
    assert set(ledger["end"]) == set(range(n_items))
    assert 0 < retried.total() <= n_kills
    for item in range(n_items):
        assert ledger["start"][item] <= 1 + retried[item], f"item {item} was run again for nothing"
        assert ledger["end"][item] <= 1 + retried[item]
    setups = Counter((tmp_path / "setups").read_text().split())
    assert set(setups.values()) == {1}
    assert len(setups) <= N_WORKERS + n_kills


def test_an_item_that_ends_its_workers_is_named(engine: Engine) -> None:
    retried: list[int] = []
    results = engine.map(
        partial(int, os.getpid()),
        jobs.die_at_seven,
        range(20),
        on_retry=lambda item, _: retried.append(item),
    )
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ClusterError, match=r"item 7 of the map, 7, ended its worker process 3 tim"):
        next(results)
    assert retried == [7, 7]
    assert list(engine.map(jobs.no_state, jobs.square, range(9))) == [i**2 for i in range(9)]


def test_two_maps_may_take_turns(engine: Engine) -> None:
    one = engine.map(jobs.no_state, jobs.square, range(30), setup_key="shared")
    two = engine.map(jobs.no_state, jobs.square, range(30, 60), setup_key="shared")
    pairs = list(zip(one, two, strict=True))
    assert pairs == [(i**2, (i + 30) ** 2) for i in range(30)]


class CountsItsPickles:
    """A large constant that knows how often it was sent."""

    n_pickles = 0

    def __reduce__(self) -> tuple[type, tuple[int]]:
        CountsItsPickles.n_pickles += 1
        return (int, (1,))

    def __rmul__(self, other: int) -> int:
        return other


def test_constants_travel_once_and_not_with_each_item(engine: Engine) -> None:
    CountsItsPickles.n_pickles = 0
    constant = CountsItsPickles()
    table = np.arange(1000)

    def work(state: np.ndarray, item: int) -> int:
        time.sleep(0.01)  # long enough for all workers to take part
        return int(state[item]) * constant

    assert list(engine.map(lambda: table, work, range(50))) == list(range(50))
    assert CountsItsPickles.n_pickles == 1
