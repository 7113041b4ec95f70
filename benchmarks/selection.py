"""Selection rules against bmdal_reg 3.0.2: seconds, ratios, peak memory, equal picks.

    python benchmarks/selection.py                  # all sizes, tens of minutes
    python benchmarks/selection.py --quick          # n = 5k, under a minute
    python benchmarks/selection.py --sizes 200k --rules lcmd pv --threads 1
    python benchmarks/selection.py --features F.npz # F: pool (n, d), train (m, d)

Both sides run in this process, in turn, on the same float32 features and with the same
number of threads. Each figure is the median of ``--repeats`` runs; where one run of
bmdal_reg takes over ``--patience`` seconds it is the only one. Memory is the largest
resident set during a run less that before it.

The picks of bmdal_reg are float32 decisions, those of Labelwise float64 ones, so on
float32 features a few may differ: how many agree until the first difference is stated.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path

import numpy as np
import torch

from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import select_batch

REGULARISATION = 1e-3
RESULTS = Path(__file__).parent / "results"
METHODS = {"lcmd": "LCMD", "pv": "MaxDet, kernel space", "k-center": "MaxDist"}


@dataclass(frozen=True)
class Size:
    """n pool and m labelled structures, d features, k picks."""

    n: int
    m: int
    d: int
    k: int


SIZES = {
    "5k": Size(5_000, 500, 128, 50),
    "20k": Size(20_000, 1_000, 256, 200),
    "200k": Size(200_000, 1_000, 256, 200),
    "50k": Size(50_000, 1_000, 1_920, 1_250),
}


@dataclass
class Result:
    """One rule on one data set, by both sides; times in seconds, memory in MiB."""

    data: str
    rule: str
    size: Size
    ours_s: list[float] = field(default_factory=list)
    theirs_s: list[float] = field(default_factory=list)
    ours_cpu_s: list[float] = field(default_factory=list)
    theirs_cpu_s: list[float] = field(default_factory=list)
    ours_mib: float = 0.0
    theirs_mib: float = 0.0
    equal_picks: int = 0
    equal_from_start: int = 0

    @property
    def ratio(self) -> float:
        """How many times the other side takes longer."""
        return statistics.median(self.theirs_s) / statistics.median(self.ours_s)

    @property
    def cpu_ratio(self) -> float:
        """The same in processor time, which other jobs on the machine disturb less."""
        return statistics.median(self.theirs_cpu_s) / statistics.median(self.ours_cpu_s)


def make_noise(n: int, d: int, seed: int) -> torch.Tensor:
    """Gaussian noise, where no bound spares any distance."""
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def make_paths(n: int, d: int, seed: int, frames: int = 500) -> torch.Tensor:
    """Frames along smooth paths of many reactions, of very unequal numbers of frames.

    On average ``frames`` of each: 300 to 600 in a reaction-path pool as it comes from NEB
    runs, about 100 where only a part is kept of many reactions.

    A common mean, one family per reaction with a spectrum that falls like that of real
    features, a path of three modes, and noise far below the path's length.
    """
    rng = np.random.default_rng(seed)
    n_families = max(20, n // frames)
    fall = (1.0 + np.arange(d)) ** -0.7
    mean = 3.0 * rng.normal(size=d) * fall
    start = rng.normal(size=(n_families, d)) * fall
    modes = 0.4 * rng.normal(size=(3, n_families, d)) * fall
    family = rng.choice(n_families, size=n, p=rng.dirichlet(np.full(n_families, 1.5)))
    s = rng.random(n)
    features = np.empty((n, d), dtype=np.float32)
    for rows in np.array_split(np.arange(n), max(1, n // 10_000)):
        f, x = family[rows], s[rows, None]
        path = sum(np.sin((j + 0.5) * np.pi * x) * modes[j, f] for j in range(3))
        noise = 0.01 * rng.normal(size=(len(rows), d)) * fall
        features[rows] = mean + start[f] + path + noise
    return torch.from_numpy(features)


DATA: dict[str, Callable[[int, int, int], torch.Tensor]] = {
    "short paths": partial(make_paths, frames=100),
    "noise": make_noise,
    "paths": make_paths,
}


def load_features(path: Path) -> tuple[LinearKernel, LinearKernel]:
    """Read pool and labelled features from an .npz with the arrays ``pool`` and ``train``."""
    with np.load(path) as arrays:
        return tuple(LinearKernel(arrays[name].astype(np.float32)) for name in ("pool", "train"))


def bmdal_select(rule: str, pool: LinearKernel, train: LinearKernel, k: int) -> np.ndarray:
    """Select with bmdal_reg, its preparations included, as a user would."""
    vars(np).setdefault("Inf", np.inf)  # bmdal_reg 3.0.2 was written for NumPy 1
    from bmdal_reg.bmdal import selection
    from bmdal_reg.bmdal.feature_data import TensorFeatureData
    from bmdal_reg.bmdal.feature_maps import IdentityFeatureMap
    from bmdal_reg.bmdal.features import Features, PrecomputeTransform

    precompute = PrecomputeTransform(32768)
    p, t = (
        precompute(
            Features(
                IdentityFeatureMap(n_features=x.features.shape[1]), TensorFeatureData(x.features)
            )
        )
        for x in (pool, train)
    )
    if rule == "pv":
        sigma = REGULARISATION**0.5
        posterior = t.posterior_tfm(sigma=sigma)
        p, t = (precompute(posterior(f)) for f in (p, t))
        method = selection.MaxDetSelectionMethod(p, t, noise_sigma=sigma, verbosity=0)
    elif rule == "lcmd":
        method = selection.LargestClusterMaxDistSelectionMethod(p, t, verbosity=0)
    else:
        method = selection.MaxDistSelectionMethod(p, t, verbosity=0)
    return method.select(k).numpy()


class PeakMemory:
    """Largest resident set size while inside, less that on entry, in MiB."""

    def __enter__(self) -> PeakMemory:
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)  # so that freed memory does not hide new
        self._start = self._peak = self._resident_mib()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.mib = self._peak - self._start

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._peak = max(self._peak, self._resident_mib())

    @staticmethod
    def _resident_mib() -> float:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def timed(function: Callable[[], np.ndarray]) -> tuple[np.ndarray, float, float, float]:
    """Return the result, seconds, processor seconds and MiB of one run."""
    with PeakMemory() as memory:
        start_s, start_cpu_s = time.perf_counter(), time.process_time()
        picks = function()
        elapsed_s, cpu_s = time.perf_counter() - start_s, time.process_time() - start_cpu_s
    return picks, elapsed_s, cpu_s, memory.mib


def compare(
    data: str, rule: str, pool: LinearKernel, train: LinearKernel, k: int, args: argparse.Namespace
) -> Result:
    """Run both sides in turn."""
    size = Size(len(pool), len(train), pool.features.shape[1], k)
    result = Result(data, rule, size)
    for _ in range(args.repeats):
        ours, seconds, cpu_s, mib = timed(
            lambda: select_batch(rule, pool, train, k, regularisation=REGULARISATION).pool_idx
        )
        result.ours_s.append(seconds)
        result.ours_cpu_s.append(cpu_s)
        result.ours_mib = max(result.ours_mib, mib)
        if result.theirs_s and result.theirs_s[0] > args.patience:
            continue
        theirs, seconds, cpu_s, mib = timed(lambda: bmdal_select(rule, pool, train, k))
        result.theirs_s.append(seconds)
        result.theirs_cpu_s.append(cpu_s)
        result.theirs_mib = max(result.theirs_mib, mib)
        same = ours == theirs
        result.equal_picks = len(np.intersect1d(ours, theirs))
        result.equal_from_start = k if same.all() else int(np.argmin(same))
    return result


def describe_machine(threads: int) -> str:
    """Describe processor, threads and versions, without the machine's name."""
    model = platform.processor() or platform.machine()
    cpu_info = Path("/proc/cpuinfo")
    if cpu_info.exists():
        lines = [x for x in cpu_info.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    versions = ", ".join(
        f"{p} {importlib.metadata.version(p)}" for p in ("torch", "numpy", "bmdal_reg")
    )
    load = os.getloadavg()[0]
    return (
        f"{model}, {os.cpu_count()} cores, {threads} threads used on both sides; "
        f"Python {platform.python_version()}, {versions}; load average at the end {load:.1f}"
    )


def write_tables(results: list[Result], args: argparse.Namespace, note: str) -> None:
    """Write the results as JSON and Markdown."""
    machine = describe_machine(args.threads)
    command = "python benchmarks/selection.py " + " ".join(sys.argv[1:])
    columns = ["data", "rule", "n, m, d, k", "Labelwise s", "bmdal_reg s", "ratio", "CPU ratio"]
    columns += ["Labelwise MiB", "bmdal_reg MiB", "same picks", "same until"]
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for r in sorted(results, key=lambda r: (r.size.n * r.size.d, r.data, r.rule)):
        s = r.size
        rows.append(
            f"| {r.data} | {r.rule} | {s.n:,}, {s.m:,}, {s.d:,}, {s.k:,} "
            f"| {statistics.median(r.ours_s):.2f} ({len(r.ours_s)}) "
            f"| {statistics.median(r.theirs_s):.2f} ({len(r.theirs_s)}) "
            f"| **{r.ratio:.1f}** | {r.cpu_ratio:.1f} "
            f"| {r.ours_mib:.0f} | {r.theirs_mib:.0f} | {r.equal_picks} | {r.equal_from_start} |"
        )
    text = "\n".join(
        [
            "# Selection rules against bmdal_reg 3.0.2",
            "",
            f"`{command.strip()}`",
            "",
            machine + ".",
            *([note] if note else []),
            "",
            "Medians (number of runs), both sides in turn in one process on the same float32",
            "features; memory beyond the features, the largest of the runs; CPU ratio: of",
            "processor time, which other jobs disturb less. Same picks: as sets; until: in order.",
            "bmdal_reg decides in float32 and Labelwise in float64; in float64 the tests require",
            "equality, pick by pick.",
            "",
            *rows,
            "",
        ]
    )
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.with_suffix(".md").write_text(text)
    payload = {
        "command": command.strip(),
        "machine": machine,
        "note": note,
        "results": [asdict(r) | {"ratio": r.ratio, "cpu_ratio": r.cpu_ratio} for r in results],
    }
    args.out.with_suffix(".json").write_text(json.dumps(payload, indent=1) + "\n")


def load_results(out: Path) -> list[Result]:
    """Read what an earlier run wrote."""
    if not out.with_suffix(".json").exists():
        return []
    kept = json.loads(out.with_suffix(".json").read_text())["results"]
    names = {f.name for f in fields(Result)}
    return [
        Result(**({k: v for k, v in r.items() if k in names} | {"size": Size(**r["size"])}))
        for r in kept
    ]


def main() -> None:
    """Parse, run, write after every comparison."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=["20k", "200k", "50k"])
    parser.add_argument("--data", nargs="+", choices=DATA, default=list(DATA))
    parser.add_argument("--rules", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--features", type=Path, help=".npz with arrays pool (n, d), train (m, d)")
    parser.add_argument("--n-select", type=int, default=500, help="picks from --features")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--patience", type=float, default=60.0, help="s; see above")
    parser.add_argument("--quick", action="store_true", help="n = 5k only")
    parser.add_argument("--keep", action="store_true", help="keep the other rows of the table")
    parser.add_argument("--note", default="", help="a sentence for the table, as on contention")
    parser.add_argument("--out", type=Path, default=RESULTS / "selection")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    results = load_results(args.out) if args.keep else []

    def record(data: str, rule: str, pool: LinearKernel, train: LinearKernel, k: int) -> None:
        result = compare(data, rule, pool, train, k, args)
        key = (data, rule, result.size)
        results[:] = [r for r in results if (r.data, r.rule, r.size) != key] + [result]
        print(
            f"{data} {rule} n={len(pool)}: {result.ratio:.1f} x, CPU {result.cpu_ratio:.1f} x",
            flush=True,
        )
        write_tables(results, args, args.note)

    if args.features is not None:
        pool, train = load_features(args.features)
        for rule in args.rules:
            record("file", rule, pool, train, args.n_select)
        return
    for name in ["5k"] if args.quick else args.sizes:
        size = SIZES[name]
        for data in args.data:
            features = DATA[data](size.n + size.m, size.d, 0)
            order = torch.randperm(len(features), generator=torch.Generator().manual_seed(1))
            train = LinearKernel(features[order[: size.m]])
            pool = LinearKernel(features[order[size.m :]])
            del features
            for rule in args.rules:
                record(data, rule, pool, train, size.k)


if __name__ == "__main__":
    main()
