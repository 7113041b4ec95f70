"""How long the command line takes to say something: processor seconds, medians of five.

Each run is a process of its own, Python's own start included; the processor's seconds are those of
the process, so that a busy machine changes them little.

Run: ``python benchmarks/startup.py``
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from labelwise.runtime.provenance import describe_machine

RESULTS = Path(__file__).parent / "results" / "startup.md"
N_RUNS = 5
MADE = "select --model demo --train train.extxyz --pool pool.extxyz -n 5 --quiet"
#: Lines, what they show, and the seconds aimed at.
LINES = {
    "--help": ("all commands", 0.35),
    "select --help": ("the longest help", 0.35),
    "select --poool pool.extxyz": ("a wrong flag", 0.5),
    "select --pool missing.extxyz -n 5": ("a missing file", 0.5),
    "campaign run missing": ("a missing campaign", 0.5),
    "campaign run damaged": ("a campaign.yaml that is no YAML", 0.5),
    "report batch.json --quiet": ("the page of a finished batch", 1.5),
}


def measure(line: str, folder: Path) -> float:
    """Return the processor's seconds of one run of a command line."""
    before = os.times()
    subprocess.run(
        [sys.executable, "-m", "labelwise", *line.split()],
        cwd=folder,
        capture_output=True,
        check=False,
    )
    after = os.times()
    return (
        after.children_user + after.children_system - before.children_user - before.children_system
    )


def main() -> None:
    """Measure every line and write the table."""
    with TemporaryDirectory() as name:
        folder = Path(name)
        for line in ("demo .", MADE):
            subprocess.run(
                [sys.executable, "-m", "labelwise", *line.split()],
                cwd=folder,
                capture_output=True,
                check=True,
            )
        (folder / "damaged").mkdir()
        (folder / "damaged" / "campaign.yaml").write_text("seed: [1\n", encoding="utf-8")
        rows = []
        for line, (what, aim) in LINES.items():
            seconds = [measure(line, folder) for _ in range(N_RUNS)]
            median = statistics.median(seconds)
            wanted = "" if aim is None else f"{aim:.2f}"
            rows.append(f"| `labelwise {line}` | {what} | {median:.2f} | {wanted} |")
            print(rows[-1])
    table = "\n".join(["| command | shows | CPU s | aim |", "|---|---|---:|---:|", *rows])
    RESULTS.write_text(
        "# How long the command line takes to say something\n\n"
        f"Processor seconds of a whole process, medians of {N_RUNS} runs.\n\n{table}\n\n"
        f"`python benchmarks/startup.py` on {describe_machine()}\n",
        encoding="utf-8",
    )


if __name__ == "__main__":
    main()
