"""One Ray with three workers for all tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from labelwise.runtime.engines import Engine, LocalEngine, RayEngine
from tests.runtime.engines import jobs

N_WORKERS = 3


@pytest.fixture(scope="package")
def ray_engine() -> Iterator[RayEngine]:
    with RayEngine(n_workers=N_WORKERS, object_store_bytes=100_000_000) as engine:
        yield engine


@pytest.fixture
def full_engine(ray_engine: RayEngine) -> RayEngine:
    """The engine when all its workers have started; the test before may have ended some."""
    seen: set[int] = set()

    def read() -> Iterator[int]:
        deadline = time.monotonic() + 60
        while len(seen) < N_WORKERS and time.monotonic() < deadline:
            yield 0

    for _, pid in ray_engine.map(lambda: None, jobs.get_pid, read()):
        seen.add(pid)
    assert len(seen) == N_WORKERS
    return ray_engine


@pytest.fixture(params=["local", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    return LocalEngine() if request.param == "local" else request.getfixturevalue("ray_engine")
