"""What the constants of kernels and rules are worth: processor time at a quarter and four times.

    python benchmarks/constants.py > benchmarks/results/constants.md

Each case runs the function that the constant is for, on paths (rows that lie as those of reactions
do) or on noise, with one thread. Only the constant differs; picks must be the same.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import torch

from labelwise.kernels import linear, tanimoto
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.tanimoto import TanimotoKernel
from labelwise.selection.rules import (
    anticipation,
    linear_posterior,
    nearest_centre,
    nearest_labelled,
    select_batch,
)
from labelwise.selection.rules.nearest_labelled import find_nearest

N, D, M, K = 40_000, 256, 1000, 150
REPEATS = 3


@dataclass(frozen=True)
class Case:
    """A constant, and what it is for."""

    module: ModuleType
    name: str
    values: tuple[float, ...]
    run: Callable[[], object]
    what: str


def make_paths(n: int, seed: int = 0) -> torch.Tensor:
    """Return rows along 60 smooth paths, (n, D) float32."""
    rng = np.random.default_rng(seed)
    start, slope = rng.normal(size=(2, 60, D))
    family, s = rng.integers(60, size=n), rng.random(size=(n, 1))
    rows = 3.0 + start[family] + s * slope[family] + 0.1 * rng.normal(size=(n, D))
    return torch.from_numpy(rows.astype(np.float32))


def make_noise(n: int, seed: int = 0) -> torch.Tensor:
    """Return independent rows, (n, D) float32."""
    return torch.from_numpy(np.random.default_rng(seed).normal(size=(n, D)).astype(np.float32))


def list_cases() -> list[Case]:
    """Return all cases."""
    paths, noise = make_paths(N + M), make_noise(N + M)
    pools = {
        "paths": (LinearKernel(paths[:N]), LinearKernel(paths[N:])),
        "noise": (LinearKernel(noise[:N]), LinearKernel(noise[N:])),
    }
    bits = TanimotoKernel(np.random.default_rng(0).random((3000, 2048)) < 0.05)

    def rule(name: str, rows: str) -> Callable[[], object]:
        return lambda: select_batch(name, *pools[rows], K).pool_idx.tolist()

    pool, train = pools["paths"]
    every = np.arange(N)
    cases = [
        Case(anticipation, "_COLUMNS_AT_ONCE", (4, 16, 64), rule("lcmd", rows), f"lcmd, {rows}")
        for rows in pools
    ]
    cases += [
        Case(anticipation, "_MOST_BLOCKS", (2, 8, 32), rule("lcmd", "paths"), "lcmd, paths"),
        Case(
            nearest_centre,
            "_FULL_COLUMN_FRACTION",
            (0.05, 0.2, 0.8),
            rule("lcmd", "paths"),
            "lcmd, paths",
        ),
        Case(
            nearest_centre, "_MOST_SKIPS", (4, 16, 64), rule("k-center", "noise"), "k-center, noise"
        ),
        Case(
            linear_posterior,
            "_ACTIVE_BYTES",
            (2**20, 2**22, 2**24),
            rule("pv", "paths"),
            "pv, paths",
        ),
        Case(linear_posterior, "_MOST_ACTIVE", (512, 2048, 8192), rule("pv", "noise"), "pv, noise"),
        Case(linear_posterior, "_ROWS_AT_ONCE", (128, 512, 2048), rule("pv", "paths"), "pv, paths"),
        Case(
            nearest_labelled,
            "CENTRES_PER_BLOCK",
            (256, 1024, 4096),
            lambda: find_nearest(pool, train, every)[0].tolist(),
            "nearest labelled, paths",
        ),
        Case(
            nearest_labelled,
            "_ROWS_PER_THREAD",
            (64, 256, 1024),
            lambda: find_nearest(pool, train, every)[0].tolist(),
            "nearest labelled, paths",
        ),
        Case(
            linear,
            "_PART_BYTES",
            (2**23, 2**25, 2**27),
            lambda: pool.block(slice(None), pool, torch.arange(16)).shape,
            "16 columns, paths",
        ),
        Case(
            tanimoto,
            "_PAIRS_AT_ONCE",
            (2**15, 2**17, 2**19),
            lambda: bits.block(slice(None), bits, slice(0, 1000)).shape,
            "Tanimoto block",
        ),
    ]
    return cases


def measure(case: Case, value: float) -> tuple[float, object]:
    """Return the least processor time of some runs, s, and what the function returned."""
    before = getattr(case.module, case.name)
    setattr(case.module, case.name, value)
    times = []
    try:
        for _ in range(REPEATS):
            began = time.process_time()
            found = case.run()
            times.append(time.process_time() - began)
    finally:
        setattr(case.module, case.name, before)
    return min(times), found


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print("# Constants of kernels and rules\n")
    print("`python benchmarks/constants.py`: processor time, relative to the value in use, of")
    print(f"{N:,} × {D} float32 rows, {M:,} labelled, {K} picks, one thread, best of {REPEATS}.\n")
    print("| constant | case | a quarter | as it is | four times | s |\n|---|---|---|---|---|---|")
    for case in list_cases():
        found = [measure(case, value) for value in case.values]
        assert all(result == found[1][1] for _, result in found), case.name
        usual = found[1][0]
        cells = " | ".join(f"{seconds / usual:.2f}" for seconds, _ in found)
        name = f"`{case.module.__name__.rsplit('.', 1)[1]}.{case.name}` = {case.values[1]:g}"
        print(f"| {name} | {case.what} | {cells} | {usual:.2f} |", flush=True)


if __name__ == "__main__":
    main()
