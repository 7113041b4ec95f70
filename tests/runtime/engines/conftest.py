"""Engines with three workers for all tests of this folder."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from labelwise.runtime.engines import Engine, LocalEngine, ProcessEngine, RayEngine
from tests.runtime.engines import jobs

N_WORKERS = 3


def fill(engine: Engine) -> None:
    """Run short items until every worker has had one."""
    seen: set[int] = set()

    def read() -> Iterator[int]:
        deadline = time.monotonic() + 60
        while len(seen) < N_WORKERS and time.monotonic() < deadline:
            yield 0

    for _, pid in engine.map(lambda: None, jobs.get_pid, read()):
        seen.add(pid)
    assert len(seen) == N_WORKERS


@pytest.fixture(scope="package")
def ray_engine() -> Iterator[RayEngine]:
    with RayEngine(n_workers=N_WORKERS, object_store_bytes=100_000_000) as engine:
        yield engine


@pytest.fixture
def full_engine(ray_engine: RayEngine) -> RayEngine:
    """The engine when all its workers have started; the test before may have ended some."""
    fill(ray_engine)
    return ray_engine


@pytest.fixture(scope="package")
def process_engine() -> Iterator[ProcessEngine]:
    with ProcessEngine(N_WORKERS) as engine:
        yield engine


@pytest.fixture
def full_processes(process_engine: ProcessEngine) -> ProcessEngine:
    """The engine when all its workers have started; the test before may have ended some."""
    fill(process_engine)
    return process_engine


@pytest.fixture(params=["local", "processes", "ray"])
def engine(request: pytest.FixtureRequest) -> Engine:
    if request.param == "local":
        return LocalEngine()
    name = "ray_engine" if request.param == "ray" else "full_processes"
    engine: Engine = request.getfixturevalue(name)
    return engine
