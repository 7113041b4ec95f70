"""Lost workers, poisoned items and what travels; on three real workers."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from labelwise.errors import ArgumentError, LabelwiseWarning
from labelwise.runtime.engines import ClusterError, RayEngine
from tests.runtime.engines import jobs
from tests.runtime.engines.conftest import N_WORKERS


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
