"""The measurements of ``scale.py``, each of which runs in a process of its own."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from labelwise.features.store import FeatureStore, StoreView
from labelwise.features.store.view import DEFAULT_PIECE_BYTES
from labelwise.kernels.linear import FeatureKernel, LinearKernel
from labelwise.runtime.memory import peak_resident_bytes, resident_bytes
from labelwise.selection.rules import select_batch, select_lcmd, shortlist_by_variance
from labelwise.selection.rules.base import Ticker
from labelwise.selection.rules.lcmd import LargestCluster
from labelwise.selection.rules.nearest_centre import NearestCentre, pick_by_distance
from labelwise.selection.rules.planning import SelectionMemory, open_kernel, plan_selection

PIECE_BYTES = DEFAULT_PIECE_BYTES


@dataclass(frozen=True)
class Setting:
    """n structures of d features, of a feature store that ends with the labelled ones."""

    path: str
    n: int
    d: int
    n_train: int
    n_select: int
    shortlist: int
    memory: float
    threads: int

    def key(self) -> str:
        """Name the setting, without the place of the store."""
        return (
            f"{self.n:,}, {self.d:,}, {self.n_train:,}, {self.n_select:,}, {self.shortlist:,}, "
            f"{self.memory / 1e9:g} GB"
        )


class Stopwatch:
    """Seconds of each stage, in order."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time what is inside."""
        start_s = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - start_s


def open_pool(setting: Setting) -> tuple[StoreView, LinearKernel]:
    """Return the rows of the pool, and the labelled kernel."""
    store = FeatureStore.open(Path(setting.path))
    labelled = store.view(np.arange(len(store) - setting.n_train, len(store)))
    train = LinearKernel.from_rows(torch.from_numpy(labelled.read(slice(None))), "cosine")
    return store.view(np.arange(setting.n), piece_bytes=PIECE_BYTES), train


def iter_plainly(setting: Setting) -> Iterator[np.ndarray]:
    """Read the files of the pool's chunks as they are, without checks."""
    n_left = setting.n
    for folder in sorted(Path(setting.path).glob("c[0-9]*")):
        values = np.fromfile(folder / "features" / "c" / "0" / "0", dtype="<f4")
        rows = values[: len(values) // setting.d * setting.d].reshape(-1, setting.d)[:n_left]
        n_left -= len(rows)
        if len(rows):
            yield rows


def plan(setting: Setting, rule: str, shortlist: int | None) -> SelectionMemory:
    """Divide the memory."""
    return plan_selection(
        int(setting.memory), n=setting.n, d=setting.d, n_train=setting.n_train,
        n_select=setting.n_select, rule=rule, shortlist=shortlist, piece_bytes=PIECE_BYTES,
    )  # fmt: skip


def plain_pass(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """Read once and multiply with a (d, d) matrix."""
    matrix = torch.randn(setting.d, setting.d)
    total = 0.0
    with watch.stage("read and multiply"):
        for rows in iter_plainly(setting):
            total += float((torch.from_numpy(rows) @ matrix)[0, 0])
    return {"sum": total}


def read_only(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """Read once."""
    with watch.stage("read"):
        n_read = sum(len(rows) for rows in iter_plainly(setting))
    return {"rows": n_read}


def shortlist(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """The shortlist alone."""
    rows, train = open_pool(setting)
    memory = plan(setting, "lcmd", setting.shortlist)
    with watch.stage("shortlist"):
        kernel = open_kernel(rows, memory)
        kept = shortlist_by_variance(kernel, train, setting.shortlist, chunk_size=memory.chunk_size)
    return {"first": kept[:3].tolist()}


def in_turn(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """The plain pass and the shortlist three times in turn, in one process: medians."""
    seconds: dict[str, list[float]] = {"plain pass": [], "shortlist": []}
    found: dict[str, Any] = {}
    for _ in range(3):
        for name, function in (("plain pass", plain_pass), ("shortlist", shortlist)):
            one = Stopwatch()
            found |= function(setting, one)
            seconds[name] += one.seconds.values()
    for name, values in seconds.items():
        watch.seconds[f"median {name}"] = float(np.median(values))
    ratios = np.divide(seconds["shortlist"], seconds["plain pass"])
    return found | {"ratios": np.round(ratios, 2).tolist()}


def shortlist_and_lcmd(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """The shortlist, and LCMD on it."""
    rows, train = open_pool(setting)
    memory = plan(setting, "lcmd", setting.shortlist)
    with watch.stage("shortlist"):
        kernel = open_kernel(rows, memory)
        kept = shortlist_by_variance(kernel, train, setting.shortlist, chunk_size=memory.chunk_size)
    with watch.stage("take"):
        part = kernel.take(torch.from_numpy(kept))
    with watch.stage("lcmd"):
        within = select_lcmd(part, train, setting.n_select, chunk_size=memory.chunk_size)
    return {"first": kept[within.pool_idx[:3]].tolist()}


def exact_lcmd(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """LCMD on the whole pool."""
    rows, train = open_pool(setting)
    memory = plan(setting, "lcmd", None)
    with watch.stage("open"):
        kernel = open_kernel(rows, memory)
    ticker = Ticker(None, 0)
    with watch.stage("assign"):
        state = NearestCentre(kernel, train, memory.chunk_size, ticker)
    with watch.stage("pick"):
        picks = pick_by_distance(state, setting.n_select, LargestCluster(), ticker)
    return {
        "first": picks.pool_idx[:3].tolist(),
        "spared": state.n_spared / state.n_asked,
        "in_memory": memory.in_memory,
    }


def exact_rule(rule: str) -> Callable[[Setting, Stopwatch], dict[str, Any]]:
    """Return the measurement of a rule on the whole pool."""

    def measure(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
        rows, train = open_pool(setting)
        memory = plan(setting, rule, None)
        with watch.stage("open"):
            kernel: FeatureKernel = open_kernel(rows, memory)
        with watch.stage(rule):
            picks = select_batch(
                rule, kernel, train, setting.n_select, chunk_size=memory.chunk_size
            )
        return {"first": picks.pool_idx[:3].tolist(), "in_memory": memory.in_memory}

    return measure


def bmdal_reg(setting: Setting, watch: Stopwatch) -> dict[str, Any]:
    """LCMD of bmdal_reg on all structures, in memory."""
    from selection import bmdal_select

    rows, train = open_pool(setting)
    with watch.stage("open"):
        pool = LinearKernel.from_rows(torch.from_numpy(rows.read(slice(0, len(rows)))), "cosine")
    with watch.stage("lcmd"):
        picks = bmdal_select("lcmd", pool, train, setting.n_select)
    return {"first": picks[:3].tolist()}


MEASUREMENTS: dict[str, Callable[[Setting, Stopwatch], dict[str, Any]]] = {
    "read only": read_only,
    "plain pass": plain_pass,
    "shortlist": shortlist,
    "in turn": in_turn,
    "shortlist and lcmd": shortlist_and_lcmd,
    "exact lcmd": exact_lcmd,
    "exact k-center": exact_rule("k-center"),
    "exact pv": exact_rule("pv"),
    "bmdal_reg": bmdal_reg,
}


def main() -> None:
    """Run the measurement that is named, and print it as JSON."""
    sys.path.insert(0, str(Path(__file__).parent))
    name, setting = sys.argv[1], Setting(**json.loads(sys.argv[2]))
    torch.set_num_threads(setting.threads)
    base_bytes = resident_bytes()
    watch = Stopwatch()
    found = MEASUREMENTS[name](setting, watch)
    found |= {
        "key": setting.key(),
        "seconds": watch.seconds,
        "base_bytes": base_bytes,
        "peak_bytes": peak_resident_bytes(),
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main()
