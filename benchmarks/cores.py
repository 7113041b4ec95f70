"""Structures a second with the defaults, by the number of cores.

    python benchmarks/cores.py                      # about three minutes on two cores
    python benchmarks/cores.py --structures 50000 --runs 3

Each run is a process of its own, bound to one core or to more, that loads the embedded model and
represents the embedded pool, repeated; numbers of cores are interleaved. The clock starts when
the model is loaded and warm, and includes the start of further processes.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
KINDS = ("activation", "ntk-e")


def measure(kind: str, n_structures: int, n_cores: int) -> dict[str, object]:
    """Represent so many structures with the defaults: the body of a run."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:n_cores])
    import labelwise as lw
    from labelwise.structures.demo_data import write_demo_files

    with tempfile.TemporaryDirectory() as folder:
        write_demo_files(Path(folder))
        some = lw.read_structures(f"{folder}/pool.extxyz")
    pool = list(itertools.islice(itertools.cycle(some), n_structures))
    potential = lw.load_potential("demo")
    lw.represent(pool[:256], potential, kind, workers=1)
    begun_s = time.perf_counter()
    rows = lw.represent(pool, potential, kind)
    seconds = time.perf_counter() - begun_s
    return {"seconds": seconds, "rows": hashlib.sha256(rows.tobytes()).hexdigest()}


def run(kind: str, n_structures: int, n_cores: int) -> dict[str, object]:
    """Measure in a process of its own."""
    command = [sys.executable, __file__, "--body", kind]
    command += ["--structures", str(n_structures), "--cores", str(n_cores)]
    free = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=free)
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=20_000)
    parser.add_argument("--runs", type=int, default=2)
    parser.add_argument("--cores", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "cores.md")
    parser.add_argument("--body", help="for the runs themselves")
    given = parser.parse_args()
    if given.body is not None:
        print(json.dumps(measure(given.body, given.structures, given.cores[0])))
        return
    seconds: dict[tuple[str, int], list[float]] = defaultdict(list)
    rows: dict[str, set[object]] = defaultdict(set)
    for _, kind, n_cores in itertools.product(range(given.runs), KINDS, given.cores):
        found = run(kind, given.structures, n_cores)
        seconds[kind, n_cores].append(float(str(found["seconds"])))
        rows[kind].add(found["rows"])
        print(kind, n_cores, f"{seconds[kind, n_cores][-1]:.1f} s", flush=True)
    write(given, seconds, rows)


def write(
    given: argparse.Namespace,
    seconds: dict[tuple[str, int], list[float]],
    rows: dict[str, set[object]],
) -> None:
    """Write what was found as Markdown."""
    from labelwise.runtime.provenance import describe_machine

    lines = [
        "# Structures a second with the defaults",
        "",
        "`" + " ".join(["python benchmarks/cores.py", *sys.argv[1:]]) + "`",
        "",
        f"{given.structures:,} small molecules, embedded model; medians of {given.runs} runs.",
        f"{describe_machine()}.",
        "",
        "| rows | cores | structures/s | against one core | same bits |",
        "|---|---|---|---|---|",
    ]
    for kind, n_cores in itertools.product(KINDS, given.cores):
        one = statistics.median(seconds[kind, given.cores[0]])
        median = statistics.median(seconds[kind, n_cores])
        is_same = "yes" if len(rows[kind]) == 1 else "no"
        lines.append(
            f"| {kind} | {n_cores} | {given.structures / median:.0f} | {one / median:.2f} | "
            f"{is_same} |"
        )
    given.out.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
