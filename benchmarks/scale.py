"""Selection from features on disk under a bound on memory: seconds, peak memory, growth with n.

    python benchmarks/scale.py selection --n 200000 --d 1920 --train 2000 \
        --shortlist 50000 --select 1250
    python benchmarks/scale.py selection --n 1000000 --d 512
    python benchmarks/scale.py scaling              # n = 1k ... 1M, with a picture

Features are synthetic frames along paths (``selection.make_paths``) in a feature store, made
once. Every measurement runs in a process of its own that may hold ``--memory`` in all; its peak
is what the system counted (VmHWM). The yardstick is a plain pass: read the files of the same
chunks one by one, without checks, and multiply each (r, d) with a (d, d) matrix in float32, in
a process of its own with the same settings. bmdal_reg selects from as many of the structures as
are given by ``--theirs``, all in memory, with no bound on it.

Results are written after every measurement; what is there already is not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from labelwise.features.store import FeatureStore, Identity
from scale_measurements import MEASUREMENTS, Setting
from selection import describe_machine, make_paths

RESULTS = Path(__file__).parent / "results"
SIZES = (1_000, 3_000, 10_000, 30_000, 100_000, 300_000, 1_000_000)
ROWS_AT_ONCE = 20_000


def make_features(folder: Path, n: int, d: int, n_train: int) -> Path:
    """Make a feature store of labelled structures and a pool, unless it is there."""
    path = folder / f"paths-{n}-{d}-{n_train}"
    if path.exists():
        return path
    partial = path.with_suffix(".partial")
    shutil.rmtree(partial, ignore_errors=True)
    folder.mkdir(parents=True, exist_ok=True)
    store = FeatureStore.open(partial, Identity("synthetic", ((d, 1.0),)), create=True)
    cuts = np.linspace(0, n, 1 + math.ceil(n / ROWS_AT_ONCE)).astype(int)
    train: list[torch.Tensor] = []
    for number, (first, last) in enumerate(pairwise(cuts.tolist())):
        share = n_train * last // n - n_train * first // n
        rows = make_paths(last - first + share, d, seed=number)
        train.append(rows[:share])
        pool = rows[share:]  # frames of a path lie together in a file
        append(store, pool[torch.argsort(pool[:, 0])].numpy(), first)
    append(store, torch.cat(train).numpy(), n)
    partial.rename(path)
    return path


def append(store: FeatureStore, rows: np.ndarray, first: int) -> None:
    """Append rows whose keys are numbers from ``first`` on, in chunks of 16 MiB."""
    size = max(1, 2**24 // (4 * rows.shape[1]))
    if len(rows) > size:
        for start in range(0, len(rows), size):
            append(store, rows[start : start + size], first + start)
        return
    k = len(rows)
    numbers = np.arange(first, first + k, dtype="<u8")
    keys = np.stack([numbers * np.uint64(0x9E3779B97F4A7C15), numbers], axis=1)
    store.append_rows(rows, keys.view(np.uint8).reshape(k, 16))


class Results:
    """Measurements by their settings, in a JSON file that is written after each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.found: dict[str, dict[str, Any]] = {}
        if path.exists():
            self.found = json.loads(path.read_text())

    def measure(self, name: str, setting: Setting, again: bool) -> dict[str, Any]:
        """Return a measurement, made in a fresh process if it is not known yet."""
        key = f"{name} {setting.key()}"
        if key not in self.found or again:
            self.found[key] = run_apart(name, setting)
            if name != "bmdal_reg" and self.found[key]["peak_bytes"] > setting.memory:
                sys.exit(f"{key}: {self.found[key]} took more memory than it may")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_text(json.dumps(self.found, indent=1) + "\n")
        print(f"{key}: {self.found[key]}", flush=True)
        return self.found[key]


def run_apart(name: str, setting: Setting) -> dict[str, Any]:
    """Run one measurement in a process of its own; return what it printed."""
    script = str(Path(__file__).parent / "scale_measurements.py")
    command = [sys.executable, script, name, json.dumps(vars(setting))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def run_selection(args: argparse.Namespace) -> None:
    """Measure the plain pass, each selection and bmdal_reg; write a table."""
    results = Results(args.out.with_suffix(".json"))
    path = make_features(args.features, args.n, args.d, args.train)
    setting = Setting(
        str(path), args.n, args.d, args.train, args.select, args.shortlist, args.memory,
        args.threads,
    )  # fmt: skip
    for name in args.only or [name for name in MEASUREMENTS if name != "bmdal_reg"]:
        results.measure(name, setting, args.again)
    if args.theirs:
        part = Setting(**{**vars(setting), "n": args.theirs})
        results.measure("bmdal_reg", part, args.again)
        results.measure("exact lcmd", part, args.again)
    write_selection_table(results, args)


def write_selection_table(results: Results, args: argparse.Namespace) -> None:
    """Write all measurements so far as a table, ratios against the plain pass of like size."""
    columns = ["n, d, labelled, picks, shortlist, memory", "what", "seconds by stage", "total s"]
    columns += ["plain passes", "peak MB", "distances spared"]
    rows = [f"| {' | '.join(columns)} |", "|" + "---|" * len(columns)]
    for key, found in results.found.items():
        plain = results.found.get(f"plain pass {found['key']}")
        stages = ", ".join(f"{stage} {s:.2f}" for stage, s in found["seconds"].items())
        total = sum(found["seconds"].values())
        ratio = f"{total / sum(plain['seconds'].values()):.2f}" if plain else ""
        if "ratios" in found:
            ratios = sorted(found["ratios"])
            ratio = f"**{ratios[1]:.2f}** ({ratios[0]} to {ratios[-1]})"
        spared = f"{found['spared']:.1%}" if "spared" in found else ""
        rows.append(
            f"| {found['key']} | {key.removesuffix(found['key']).strip()} | {stages} "
            f"| {total:.2f} | {ratio} | {found['peak_bytes'] / 1e6:.0f} | {spared} |"
        )
    text = [
        "# Selection from features on disk",
        "",
        "`python benchmarks/scale.py selection --n N --d D`, with `--theirs 50000` for bmdal_reg.",
        "",
        describe_machine(args.threads) + ".",
        "",
        *__doc__.splitlines()[6:12],
        "",
        "Ratios to the plain pass are those of one run of each; where they matter, both were run",
        "in turn, three times in one process: the median, least and largest ratio.",
        "",
        *rows,
        "",
    ]
    args.out.with_suffix(".md").write_text("\n".join(text))


def run_scaling(args: argparse.Namespace) -> None:
    """Measure time and memory against n; fit the slopes; draw."""
    results = Results(args.out.with_suffix(".json"))
    sizes = [n for n in SIZES if n <= args.largest]
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ("shortlist", "exact lcmd")}
    for n in sizes:
        path = make_features(args.features, n, args.d, args.train)
        setting = Setting(
            str(path), n, args.d, args.train, args.select, max(args.select, n // 4), args.memory,
            args.threads,
        )  # fmt: skip
        for name, measured in found.items():
            measured.append(results.measure(name, setting, args.again))
        if len(measured) > 1:
            write_scaling(sizes[: len(measured)], found, args)


def fit_slope(n: list[int], values: list[float], least_n: int = 10_000) -> float:
    """Return the slope of log(values) over log(n), of n >= ``least_n`` where there are two."""
    pairs = [(a, b) for a, b in zip(n, values, strict=True) if a >= least_n and b > 0]
    if len(pairs) < 2:
        pairs = list(zip(n, values, strict=True))
    x, y = (np.log([pair[i] for pair in pairs]) for i in (0, 1))
    return float(np.polyfit(x, y, 1)[0])


def write_scaling(
    sizes: list[int], found: dict[str, list[dict[str, Any]]], args: argparse.Namespace
) -> None:
    """Write a table of time and memory against n, and the picture."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(9, 4), constrained_layout=True)
    lines = ["# Time and memory against the size of the pool", ""]
    lines += ["`python benchmarks/scale.py scaling`", ""]
    lines += [describe_machine(args.threads) + ".", ""]
    lines += [
        "| what | n | seconds | peak MB | above an empty process MB |",
        "|---|---|---|---|---|",
    ]
    for name, measured in found.items():
        seconds = [sum(m["seconds"].values()) for m in measured]
        above = [m["peak_bytes"] - m["base_bytes"] for m in measured]
        for n, s, m, extra in zip(sizes, seconds, measured, above, strict=True):
            lines.append(
                f"| {name} | {n:,} | {s:.3f} | {m['peak_bytes'] / 1e6:.0f} | {extra / 1e6:.0f} |"
            )
        slope = fit_slope(sizes, seconds)
        late = fit_slope(sizes, seconds, 100_000)
        lines.append(f"| {name} | slope of seconds, n >= 10,000 | **{slope:.2f}** | | |")
        lines.append(f"| {name} | slope of seconds, n >= 100,000 | {late:.2f} | | |")
        axes[0].loglog(sizes, seconds, "o-", label=f"{name}: slope {slope:.2f}")
        axes[1].loglog(sizes, np.array([m["peak_bytes"] for m in measured]) / 1e6, "o-", label=name)
    guide = np.array([sizes[0], sizes[-1]])
    last = max(sum(measured[-1]["seconds"].values()) for measured in found.values())
    axes[0].loglog(guide, last * guide / guide[-1], "k:", label="slope 1")
    if math.isfinite(args.memory):
        axes[1].axhline(args.memory / 1e6, color="k", ls=":", label="what was allowed")
    for ax, label in zip(axes, ("time / s", "peak resident memory / MB"), strict=True):
        ax.set(xlabel="structures in the pool", ylabel=label)
        ax.legend(frameon=False)
    figure.savefig(args.out.with_suffix(".png"), dpi=150)
    plt.close(figure)
    args.out.with_suffix(".md").write_text("\n".join([*lines, ""]))


def main() -> None:
    """Parse and run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    selection = commands.add_parser("selection", help="one size, every road")
    selection.add_argument("--n", type=int, default=200_000)
    selection.add_argument("--d", type=int, default=1920)
    selection.add_argument("--shortlist", type=int, default=50_000)
    selection.add_argument("--select", type=int, default=1250)
    selection.add_argument("--theirs", type=int, default=0, help="structures for bmdal_reg")
    selection.add_argument("--only", nargs="+", choices=list(MEASUREMENTS))
    selection.set_defaults(run=run_selection, out=RESULTS / "scale")
    scaling = commands.add_parser("scaling", help="time and memory against n")
    scaling.add_argument("--d", type=int, default=256)
    scaling.add_argument("--select", type=int, default=100)
    scaling.add_argument("--largest", type=int, default=SIZES[-1])
    scaling.set_defaults(run=run_scaling, out=RESULTS / "scale_scaling")
    for command in (selection, scaling):
        command.add_argument("--train", type=int, default=2000)
        command.add_argument("--memory", type=float, default=4e9, help="bytes")
        command.add_argument("--threads", type=int, default=2)
        command.add_argument("--features", type=Path, default=Path("scale_features"))
        command.add_argument("--again", action="store_true", help="measure what is known too")
        command.add_argument("--out", type=Path)
    args = parser.parse_args()
    if args.out is None:
        args.out = RESULTS / ("scale" if args.run is run_selection else "scale_scaling")
    args.run(args)


if __name__ == "__main__":
    main()
