"""Real structures through model, feature store, shortlist and rule, by the command line.

    python benchmarks/end_to_end.py --model mace_spice.model --pool 'natural_*/pool.extxyz' \
        --train natural_0/valid.extxyz --n-total 24000 --shortlist 5000 --select 500 --memory 2GB

The pool is made of the structures given, each followed by perturbed copies, as extended XYZ. The
command line is run in a process of its own: first with an empty store, then again with another
rule, then with half the memory that would hold the rows; and with stores in half precision, whose
picks are compared with those of float32. Seconds are those of the command's own summary; peak
memory is that of the process, as the system counted it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from labelwise.structures import read_structures, write_structures
from perturbed_features import perturbed
from selection import describe_machine

RESULTS = Path(__file__).parent / "results"
COMPARED = ("again", "on Ray, a worker a core", "float16", "bfloat16")
COLUMNS = (
    "run",
    "rows computed",
    "represent pool, s",
    "structures/s",
    "screen, s",
    "select, s",
    "wall, s",
    "peak, MB",
    "picks as in the first run",
)


def make_pool(path: Path, specs: list[str], n_total: int) -> None:
    """Write structures and perturbed copies, unless they are there."""
    if path.exists():
        return
    structures = read_structures(specs)
    write_structures(path, perturbed(structures, n_total, 0.03, np.random.default_rng(0)))


def run(args: argparse.Namespace, name: str, *words: str) -> dict[str, Any]:
    """Run ``labelwise select`` and return its summary with wall seconds and peak memory."""
    summary = args.folder / f"{name}.json"
    command = ["labelwise", "select", "--model", args.model, "--trust-model", "--device", "cpu"]
    command += ["--pool", str(args.folder / "pool.extxyz"), "--train", args.train, "--quiet"]
    command += ["-n", str(args.select), "--out", str(args.folder / f"{name}.extxyz")]
    command += ["--summary", str(summary), *words]
    start_s = time.perf_counter()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    if status:
        sys.exit(f"{' '.join(command)} failed")
    record: dict[str, Any] = json.loads(summary.read_text())
    record["wall_s"] = time.perf_counter() - start_s
    record["peak_mb"] = usage.ru_maxrss / 1000
    record["command"] = " ".join(words)
    return record


def describe(name: str, record: dict[str, Any], picks: list[int]) -> str:
    """Return one row of the table."""
    seconds = {stage["name"]: stage["seconds"] for stage in record["stages"]}
    rates = {stage["name"]: stage["structures_per_second"] for stage in record["stages"]}
    mine = [pick["pool_index"] for pick in record["picks"]]
    agreement = ""
    if picks:
        differ = [i for i, (a, b) in enumerate(zip(mine, picks, strict=True)) if a != b]
        common = len(set(mine) & set(picks)) / len(mine)
        agreement = f"{common:.1%}, the first {min(differ, default=len(mine))} in the same order"
    cells = [
        name,
        f"{record['extraction']['rows_computed']:,}",
        f"{seconds['represent pool']:.1f}",
        f"{rates['represent pool']:,.0f}" if record["extraction"]["rows_computed"] else "",
        f"{seconds['screen']:.2f}",
        f"{seconds['select']:.1f}",
        f"{record['wall_s']:.1f}",
        f"{record['peak_mb']:,.0f}",
        agreement,
    ]
    return f"| {' | '.join(cells)} |"


def describe_command(args: argparse.Namespace) -> str:
    """Return the command without places of this machine."""
    pool = " ".join(args.pool)
    return (
        f"python benchmarks/end_to_end.py --model {Path(args.model).name} --pool {pool} "
        f"--train {args.train} --n-total {args.n_total} --shortlist {args.shortlist} "
        f"--select {args.select} --memory {args.memory}"
    )


def main() -> None:
    """Run all and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--pool", nargs="+", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--n-total", type=int, default=24_000)
    parser.add_argument("--shortlist", type=int, default=5000)
    parser.add_argument("--select", type=int, default=500)
    parser.add_argument("--memory", default="2GB")
    parser.add_argument("--representation", default="ntk-e")
    parser.add_argument("--folder", type=Path, default=Path("end_to_end"))
    parser.add_argument("--out", type=Path, default=RESULTS / "end_to_end.md")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    make_pool(args.folder / "pool.extxyz", args.pool, args.n_total)
    shared = ["--representation", args.representation, "--memory", args.memory]
    chosen = [*shared, "--shortlist", str(args.shortlist)]
    plain = ["--store", str(args.folder / "float32")]
    runs = {
        "shortlist, lcmd": [*chosen, *plain],
        "again": [*chosen, *plain],
        "pv on the whole pool": [*shared, *plain, "--rule", "pv"],
        "lcmd on the whole pool": [*shared, *plain],
        "on Ray, a worker a core": [*chosen, "--store", str(args.folder / "ray"), "--ray"],
        **{
            dtype: [*chosen, "--store", str(args.folder / dtype), "--store-dtype", dtype]
            for dtype in ("float16", "bfloat16")
        },
    }
    rows = [
        f"| {' | '.join(COLUMNS)} |",
        "|---" * len(COLUMNS) + "|",
    ]
    picks: list[int] = []
    record: dict[str, Any] = {}
    for name, words in runs.items():
        record = run(args, name.replace(" ", "_").replace(",", ""), *words)
        compared = picks if name in COMPARED else []
        rows.append(describe(name, record, compared))
        print(rows[-1], flush=True)
        picks = picks or [pick["pool_index"] for pick in record["picks"]]
        counts = record["counts"]
        text = [
            "# From structures to picks by way of a feature store",
            "",
            f"`{describe_command(args)}`",
            "",
            describe_machine(int(os.environ.get("OMP_NUM_THREADS", "2"))) + ".",
            "",
            f"{counts['pool']:,} structures of the pool, {counts['train']:,} labelled,",
            f"{counts['features']} features, {counts['selected']} picks, a shortlist of",
            f"{args.shortlist:,}, at most {args.memory} while choosing.",
            "",
            *rows,
            "",
        ]
        args.out.write_text("\n".join(text))


if __name__ == "__main__":
    main()
