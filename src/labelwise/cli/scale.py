"""What commands on large pools share: the feature store and the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from labelwise.cli import console
from labelwise.cli.commands.represent import RepresentCommand
from labelwise.cli.commands.select import SelectCommand
from labelwise.errors import ArgumentError
from labelwise.features.fill import ExtractionCounts
from labelwise.runtime.cores import resolve_workers
from labelwise.runtime.engines import Engine, ProcessEngine, RayEngine
from labelwise.runtime.memory import parse_bytes
from labelwise.selection.storage import StoreSettings


def read_store_settings(
    store: Path | None,
    memory: str | None,
    store_dtype: str,
    ray: str | None,
) -> StoreSettings | None:
    """Return where features are kept; None to keep them in memory.

    Raises:
        ArgumentError: An option that needs a store without one, or no amount of memory.
    """
    if store is not None:
        limit = None if memory is None else parse_bytes(memory)
        return StoreSettings(store, store_dtype, limit)
    needing = {
        "--memory": memory is not None,
        "--store-dtype": store_dtype != "float32",
        "--ray": ray is not None,
    }
    for name, is_given in needing.items():
        if is_given:
            raise ArgumentError(f"{name} needs a folder for features: give --store DIR")
    return None


@contextmanager
def open_engine(
    args: RepresentCommand | SelectCommand, keeping: StoreSettings | None
) -> Iterator[Engine]:
    """Give the engine of this machine's cores, or the one on Ray.

    Args:
        args: What was asked.
        keeping: Tells what the processes may occupy.

    Raises:
        ArgumentError: ``--ray-workers`` without Ray, or no number of workers.
        ClusterError: Ray cannot be started or joined.
        MissingDependencyError: Ray is not installed.
    """
    n_workers = resolve_workers(args.workers)
    if args.ray is None:
        if args.ray_workers is not None:
            raise ArgumentError("--ray-workers needs --ray")
        memory = None if keeping is None else keeping.memory_bytes
        with ProcessEngine(n_workers, n_threads=args.threads, memory_bytes=memory) as local:
            yield local
        return
    with RayEngine(
        None if args.ray == "local" else args.ray,
        n_workers=n_workers if args.ray_workers is None else args.ray_workers,
        cpus_per_worker=args.threads,
        gpus_per_worker=1 if args.model.device.startswith("cuda") else 0,
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
