"""What commands on large pools share: the feature store and the engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from labelwise.cli import console
from labelwise.errors import ArgumentError
from labelwise.features.fill import ExtractionCounts
from labelwise.runtime.engines import Engine, RayEngine
from labelwise.runtime.memory import parse_bytes
from labelwise.selection.storage import StoreSettings


def read_store_settings(
    store: Path | None,
    memory: str | None,
    store_dtype: str,
    workers: int,
    ray: str | None,
) -> StoreSettings | None:
    """Return where features are kept; None to keep them in memory.

    Raises:
        ArgumentError: An option that needs a store without one, or no amount of memory.
    """
    if store is not None:
        limit = None if memory is None else parse_bytes(memory)
        return StoreSettings(store, store_dtype, limit, workers)
    needing = {
        "--memory": memory is not None,
        "--store-dtype": store_dtype != "float32",
        "--workers": workers > 0,
        "--ray": ray is not None,
    }
    for name, is_given in needing.items():
        if is_given:
            raise ArgumentError(f"{name} needs a folder for features: give --store DIR")
    return None


@contextmanager
def open_engine(address: str | None, n_workers: int | None, device: str) -> Iterator[Engine | None]:
    """Give the engine on Ray, or None for this process.

    Args:
        address: As of ``--ray``; ``local`` starts one here.
        n_workers: Workers; None for as many as there is room for.
        device: As of ``--device``; ``cuda`` reserves a GPU for each worker.

    Raises:
        ArgumentError: Workers without Ray.
        ClusterError: Ray cannot be started or joined.
        MissingDependencyError: Ray is not installed.
    """
    if address is None:
        if n_workers is not None:
            raise ArgumentError("--ray-workers needs --ray")
        yield None
        return
    with RayEngine(
        None if address == "local" else address,
        n_workers=n_workers,
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
