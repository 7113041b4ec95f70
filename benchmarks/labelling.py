"""What labels from SLURM cost beside the calculations, and how often SLURM is asked.

Structures whose calculation takes milliseconds go through job arrays of the SLURM that
``SLURM_CONF`` names; a wrapper before each of SLURM's commands counts its calls.

Run: ``SLURM_CONF=… python benchmarks/labelling.py`` (5,000 structures in 100 shards)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from ase.build import molecule

from labelwise.campaign.labelling.slurm.ledger import Ledger
from labelwise.runtime.provenance import describe_machine
from labelwise.structures import write_structures

RESULTS = Path(__file__).parent / "results" / "labelling.md"
NOTE = """\
Core-seconds are a job's wall time by its cores, so that other work on the machine counts in them.
An element starts Python twice, for itself and for its worker, and imports ASE each time: that is
most of its overhead (7.5 core-s with ten structures an element) and the reason for shards. SLURM
is asked at most every {poll:g} s, whatever the number of jobs; labels are seen without it.
"""
COMMANDS = ("sbatch", "squeue", "scontrol", "scancel", "sacct")


def write_pool(path: Path, n_structures: int) -> None:
    """Write rattled molecules of H, C and O, which EMT labels in a millisecond."""
    rng = np.random.default_rng(0)
    structures = []
    for i in range(n_structures):
        atoms = molecule(("H2O", "CH4", "CO2", "CH3OH")[i % 4])
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
        structures.append(atoms)
    write_structures(path, structures)


def write_counters(folder: Path) -> None:
    """Write a command for each of SLURM's that notes its call and goes on to the true one."""
    folder.mkdir()
    for name in COMMANDS:
        true = shutil.which(name)
        if true is not None:
            path = folder / name
            path.write_text(f'#!/bin/sh\necho {name} >> {folder}/calls\nexec {true} "$@"\n')
            path.chmod(0o755)


def measure(home: Path, n_structures: int, n_shards: int, poll_s: float) -> dict[str, float | str]:
    """Label a pool through SLURM and return the figures."""
    write_pool(home / "pool.extxyz", n_structures)
    write_counters(home / "counters")
    settings = {
        "max_jobs": n_shards,
        "structures_per_job": -(-n_structures // n_shards),
        "poll_s": poll_s,
        "time": "1h",
    }
    words = [word for item in settings.items() for word in ("--set", f"{item[0]}={item[1]}")]
    out = home / "labelled.extxyz"
    began = time.perf_counter()
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "labelwise", "label", str(home / "pool.extxyz"), "--slurm",
         "--calculator", "emt", "--out", str(out), "--quiet", *words],
        env={**os.environ, "PATH": f"{home / 'counters'}:{os.environ['PATH']}"},
        check=True,
    )  # fmt: skip
    wall, after = time.perf_counter() - began, os.times()
    record = json.loads(out.with_suffix(".json").read_text())
    jobs = Ledger(home / "labelled.labelling" / "slurm").jobs.values()
    ends = [end for job in jobs for end in job.ends.values()]
    n_labelled = record["counts"]["labelled"]
    spent = sum(end["seconds"] * end["n_cpus"] for end in ends)
    over = spent - record["seconds"]
    calls = Counter((home / "counters" / "calls").read_text().split())
    return {
        "structures labelled": f"{n_labelled:,}",
        "elements of job arrays": f"{len(ends)}",
        "ends": ", ".join(f"{n} {state}" for state, n in Counter(e["state"] for e in ends).items()),
        "wall time, s": f"{wall:.0f}",
        "a calculation, ms": f"{1e3 * record['seconds'] / n_labelled:.2f}",
        "core-seconds of jobs, all": f"{spent:.0f}",
        "overhead a label on the nodes, core-ms": f"{1e3 * over / n_labelled:.1f}",
        "overhead an element, core-s": f"{over / len(ends):.1f}",
        "driver's processor time a label, ms": f"{1e3 * _children(before, after) / n_labelled:.2f}",
        "commands of SLURM": ", ".join(f"{n} {name}" for name, n in sorted(calls.items())),
        "commands a minute": f"{60.0 * calls.total() / wall:.1f}",
    }


def _children(before: os.times_result, after: os.times_result) -> float:
    user = after.children_user - before.children_user
    return user + after.children_system - before.children_system


def main() -> None:
    """Measure and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--structures", type=int, default=5000)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--poll", type=float, default=30.0)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with TemporaryDirectory() as name:
        found = measure(Path(name), args.structures, args.shards, args.poll)
    rows = "\n".join(f"| {key} | {value} |" for key, value in found.items())
    args.out.write_text(
        "# Labels from SLURM\n\n"
        f"`python benchmarks/labelling.py --structures {args.structures} --shards {args.shards} "
        f"--poll {args.poll:g}`, on {describe_machine()}, a SLURM of one node with two cores.\n\n"
        f"| | |\n|---|---|\n{rows}\n\n{NOTE.format(poll=args.poll)}"
    )
    print(args.out.read_text())


if __name__ == "__main__":
    main()
