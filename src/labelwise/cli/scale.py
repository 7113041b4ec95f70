"""What commands on large pools share: the feature store and the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from labelwise.cli import console
from labelwise.cli.options import EngineOptions
from labelwise.errors import ArgumentError
from labelwise.features.fill import ExtractionCounts
from labelwise.features.options import StoreOptions
from labelwise.runtime.cores import resolve_workers
from labelwise.runtime.engines import Engine, ProcessEngine, RayEngine


def check_store(storing: StoreOptions, engine: EngineOptions) -> None:
    """Raise ``ArgumentError`` for an option that needs a store without one."""
    needing = {
        "--memory": storing.memory_bytes is not None,
        "--store-dtype": storing.store_dtype != StoreOptions.store_dtype,
        "--ray": engine.ray is not None,
    }
    for name, is_given in needing.items():
        if is_given and storing.store is None:
            raise ArgumentError(f"{name} needs a folder for features: give --store DIR")


@contextmanager
def open_engine(asked: EngineOptions, device: str, memory_bytes: int | None) -> Iterator[Engine]:
    """Give the engine of this machine's cores, or the one on Ray.

    Args:
        asked: Which one.
        device: Where the model computes.
        memory_bytes: What the processes may occupy.

    Raises:
        ArgumentError: ``--ray-workers`` without Ray, or no number of workers.
        ClusterError: Ray cannot be started or joined.
        MissingDependencyError: Ray is not installed.
    """
    n_workers = resolve_workers(asked.workers)
    if asked.ray is None:
        if asked.ray_workers is not None:
            raise ArgumentError("--ray-workers needs --ray")
        with ProcessEngine(n_workers, n_threads=asked.threads, memory_bytes=memory_bytes) as local:
            yield local
        return
    with RayEngine(
        None if asked.ray == "local" else asked.ray,
        n_workers=n_workers if asked.ray_workers is None else asked.ray_workers,
        cpus_per_worker=asked.threads,
        gpus_per_worker=1 if device.startswith("cuda") else 0,
        on_wait=console.say,
    ) as engine:
        yield engine


def device_here(device: str, ray: str | None) -> str:
    """Return where the process that gives out the work computes.

    A cluster's head often has no GPU, though its workers do.
    """
    if ray is not None and device.startswith("cuda") and not torch.cuda.is_available():
        return "cpu"
    return device


def describe_extraction(counts: ExtractionCounts, store: Path) -> str:
    """Say in a line what was computed and where it is."""
    lost = f", {counts.n_lost} lots sent out again" if counts.n_lost else ""
    return f"store:   {store} ({counts.n_computed} rows computed{lost})"
