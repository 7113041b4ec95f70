"""Kill a campaign at random moments, let it go on each time, and compare it with one left alone.

    python benchmarks/kills.py FOLDER OUT [--kills 12] [--seed 0]

FOLDER has a ``campaign.yaml`` and whatever it names by relative paths; it is copied twice into
OUT. One copy runs undisturbed. The other one's process group gets SIGKILL at moments drawn evenly
from a part of the undisturbed time (``--part``), and is run again, until it has been killed so
often; then it runs to its end. Labels, picks, histories, errors and the weights of every round and
member must be equal byte for byte. Each life is a fork of a process that has everything imported
and has computed nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sys
import time
import zipfile
from collections import Counter
from pathlib import Path
from typing import Any

from labelwise.campaign.loop import run_campaign
from labelwise.campaign.state import read_state
from labelwise.errors import LabelwiseError

_WHOLE = ("labels.jsonl", "batch.extxyz", "curves.png")


def main() -> int:
    """Print a line for each kill, then what the two campaigns have in common."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--kills", type=int, default=12)
    parser.add_argument("--part", type=float, default=0.25)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for package in ("mace.calculators", "sevenn.calculator"):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    for name in ("whole", "killed"):
        shutil.copytree(asked.folder, asked.out / name)
    began = time.perf_counter()
    live(asked.out / "whole", None)
    seconds = time.perf_counter() - began
    print(f"undisturbed: {seconds:.0f} s", flush=True)
    longest = asked.part * seconds
    stages = kill(asked.out / "killed", asked.kills, longest, random.Random(asked.seed))
    live(asked.out / "killed", None)
    listed = ", ".join(f"{n} in {stage}" for stage, n in sorted(Counter(stages).items()))
    return report(asked.out / "whole", asked.out / "killed", f"{len(stages)} kills ({listed})")


def kill(directory: Path, n_kills: int, longest: float, rng: random.Random) -> list[str]:
    """Kill a campaign so often; return the stages that it was in."""
    stages: list[str] = []
    while len(stages) < n_kills:
        moment = rng.uniform(0.0, longest)
        if not live(directory, moment):
            raise SystemExit(f"it ended after {len(stages)} kills: give a smaller --part")
        state = read_state(directory)
        stages.append(state.stage if state.has_begun else "start")
        print(f"killed after {moment:.1f} s, round {state.n_round}: {stages[-1]}", flush=True)
    return stages


def live(directory: Path, moment: float | None) -> bool:
    """Run a campaign for some seconds, or to its end; return whether it was killed.

    It runs in a fork that has everything imported, in a process group of its own.
    """
    pid = os.fork()
    if pid == 0:
        os.setsid()
        code = 1
        try:
            run_campaign(directory)
            code = 0
        except LabelwiseError as error:
            print(error, flush=True)
        finally:
            os._exit(code)
    began = time.perf_counter()
    while moment is not None and time.perf_counter() - began < moment:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return check_end(directory, status)
        time.sleep(0.01)
    if moment is None:
        return check_end(directory, os.waitpid(pid, 0)[1])
    os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return True


def check_end(directory: Path, status: int) -> bool:
    """Return that a campaign was not killed; leave unless it came to its end."""
    if os.waitstatus_to_exitcode(status):
        raise SystemExit(f"{directory} failed")
    return False


def report(whole: Path, killed: Path, kills: str) -> int:
    """Say what differs; return an exit code."""
    one, other = read_result(whole), read_result(killed)
    different = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    n_weights = sum(len(parts) for parts in one.values() if isinstance(parts, dict))
    record = read_state(whole).rounds[-1]
    errors = {
        name: value
        for role, table in {**record.errors, **record.split_errors}.items()
        for error, value in table.items()
        for name in (f"{role} {error}",)
        if error.endswith("_rmse")
    }
    print(", ".join(f"{name} {value:.4g}" for name, value in errors.items()))
    print(
        f"{kills}: {len(one) - len(different)} of {len(one)} files equal, {n_weights} arrays of "
        f"weights among them{''.join(f'; different: {name}' for name in different)}"
    )
    return int(bool(different))


def read_result(directory: Path) -> dict[str, Any]:
    """Return what must be equal: file to content, that of weights by the name of the array."""
    result: dict[str, Any] = {}
    for path in sorted(directory.rglob("*")):
        name = str(path.relative_to(directory))
        if path.suffix == ".pt":
            result[name] = read_archive(path)
        elif path.name in _WHOLE or path.match("round_*/*.json"):
            result[name] = path.read_bytes()
        elif path.name == "rounds.jsonl":
            rounds = [json.loads(line) for line in path.read_text().splitlines()]
            for line in rounds:  # times; a zip holds its own name
                del line["stages"]
                line["files"] = {k: v for k, v in line["files"].items() if not k.endswith(".pt")}
            result[name] = rounds
    return result


def read_archive(path: Path) -> dict[str, bytes]:
    """Return the arrays of a file that torch wrote, without its name, which they are filed by."""
    with zipfile.ZipFile(path) as archive:
        return {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}


if __name__ == "__main__":
    sys.exit(main())
