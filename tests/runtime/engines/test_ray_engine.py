"""Lost workers, poisoned items and what travels; on three real workers."""

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
from typing import Any

import numpy as np
import pytest

from labelwise.errors import ArgumentError, LabelwiseWarning
from labelwise.runtime.engines import ClusterError, RayEngine
from tests.runtime.engines import jobs
from tests.runtime.engines.conftest import N_WORKERS


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
            alive = sorted({int(pid) for pid in pids} - self.killed)
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
    ray_engine: RayEngine, tmp_path: Path, n_kills: int
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
        ray_engine.map(
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


def test_an_item_that_ends_its_workers_is_named(ray_engine: RayEngine) -> None:
    retried: list[int] = []
    results = ray_engine.map(
        jobs.no_state, jobs.die_at_seven, range(20), on_retry=lambda item, _: retried.append(item)
    )
    assert [next(results) for _ in range(7)] == list(range(7))
    with pytest.raises(ClusterError, match=r"item 7 of the map, 7, ended its worker process 3 tim"):
        next(results)
    assert retried == [7, 7]
    assert list(ray_engine.map(jobs.no_state, jobs.square, range(9))) == [i**2 for i in range(9)]


def test_a_slow_item_does_not_pile_up_results(full_engine: RayEngine) -> None:
    read: list[int] = []

    def stream() -> Iterator[int]:
        for item in range(200):
            read.append(item)
            yield item

    results = full_engine.map(lambda: 0.001, jobs.square_in_time, stream())
    assert next(results) == 0
    assert len(read) == 4 * N_WORKERS, "the others went on, and stopped where the window ends"
    assert list(results) == [item**2 for item in range(1, 200)]


def test_two_maps_may_take_turns(ray_engine: RayEngine) -> None:
    one = ray_engine.map(jobs.no_state, jobs.square, range(30), setup_key="shared")
    two = ray_engine.map(jobs.no_state, jobs.square, range(30, 60), setup_key="shared")
    pairs = list(zip(one, two, strict=True))
    assert pairs == [(i**2, (i + 30) ** 2) for i in range(30)]


class CountsItsPickles:
    """A large constant that knows how often it was sent."""

    n_pickles = 0

    def __reduce__(self) -> tuple[type, tuple[int]]:
        CountsItsPickles.n_pickles += 1
        return (int, (1,))

    def __mul__(self, other: int) -> int:
        return other


def test_constants_travel_once_and_not_with_each_item(ray_engine: RayEngine) -> None:
    constant = CountsItsPickles()
    table = np.arange(1000)

    def work(state: np.ndarray, item: int) -> int:
        return int(state[item]) * constant

    assert list(ray_engine.map(lambda: table, work, range(50))) == list(range(50))
    assert CountsItsPickles.n_pickles == 1


def test_a_result_or_item_that_cannot_be_sent_is_an_error(ray_engine: RayEngine) -> None:
    with pytest.raises(TypeError, match="lock"):
        list(ray_engine.map(jobs.no_state, lambda _, item: threading.Lock(), range(3)))
    with pytest.raises(TypeError, match="lock"):
        list(ray_engine.map(jobs.no_state, jobs.square, [threading.Lock()]))
    assert list(ray_engine.map(jobs.no_state, jobs.square, range(9))) == [i**2 for i in range(9)]


def test_items_are_shared_out_among_all_workers(full_engine: RayEngine) -> None:
    found = list(full_engine.map(jobs.no_state, jobs.get_pid, range(60)))
    assert len({pid for _, pid in found}) == N_WORKERS
    assert os.getpid() not in {pid for _, pid in found}


def test_workers_use_as_many_threads_as_they_reserve(ray_engine: RayEngine) -> None:
    assert set(ray_engine.map(jobs.no_state, jobs.get_threads, range(6))) == {"1"}


class EnoughError(Exception):
    """Ends a wait."""


def test_a_full_cluster_is_told_and_not_waited_for_in_silence(ray_engine: RayEngine) -> None:
    def stop(message: str) -> None:
        raise EnoughError(message)

    with (
        RayEngine("auto", n_workers=1, patience_s=0.5, on_wait=stop) as late,
        pytest.raises(EnoughError, match=r"1 of 1 Ray workers .* needs 1 CPUs and 0 GPUs, free"),
    ):
        next(late.map(jobs.no_state, jobs.square, range(3)))


def test_waiting_is_a_warning_by_default(ray_engine: RayEngine) -> None:
    with (
        RayEngine("auto", n_workers=1, patience_s=0.5) as late,
        pytest.raises(LabelwiseWarning, match="have not started yet"),  # warnings are errors here
    ):
        next(late.map(jobs.no_state, jobs.square, range(3)))


def test_a_cluster_without_room_for_one_worker_is_refused(ray_engine: RayEngine) -> None:
    with pytest.raises(ClusterError, match="Ray has room for 0 workers, 1 are needed"):
        RayEngine("auto", gpus_per_worker=1)


def test_a_closed_engine_says_so(ray_engine: RayEngine) -> None:
    late = RayEngine("auto", n_workers=1, cpus_per_worker=0.0)
    late.close()
    late.close()
    with pytest.raises(ClusterError, match="was closed"):
        next(late.map(jobs.no_state, jobs.square, range(3)))
    assert list(ray_engine.map(jobs.no_state, jobs.square, range(3))) == [0, 1, 4]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_workers": 0}, "n_workers must be at least 1, got 0"),
        ({"cpus_per_worker": -1.0}, "must not be negative"),
        ({"cpus_per_worker": 0.0}, "give n_workers"),
        ({"object_store_bytes": 1000}, "at least 78643200"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        RayEngine(**arguments)
