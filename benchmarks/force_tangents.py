"""Cost of force-aware representations, in evaluations of energies and forces.

    python benchmarks/force_tangents.py --every 40             # embedded model and pool
    python benchmarks/force_tangents.py --model FILE --data FILE --label NAME --every 60

Every contestant runs once per round on the same batches, the rounds interleaved in one process;
the table gives medians, of CPU seconds unless on a GPU, over those of ``potential.predict``.
Peak memory is that of the batch with the most edges, in a process of its own for each contestant.

A force evaluation is one forward and one backward pass, and each row of the force Jacobian one
further pass through both. The goals: 1 + 2 passes for probes, 2.5 passes for exact rows.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from labelwise.features.representations import RepresentationOptions, make_representation
from labelwise.features.representations.joint_rows import JointRows
from labelwise.features.representations.reductions import N_FIELDS
from labelwise.potentials import Batch
from representations import (
    BASELINE,
    RESULTS,
    Setting,
    load,
    mace_batches,
    memory_growth,
)

UNIT = "labelwise energy + forces"
ENERGY = "ntk-e"
ROWS = "joint rows"


@dataclass(frozen=True)
class Contestant:
    """A representation with its options, and what it may cost.

    Attributes:
        representation: A registered name, or ``ROWS``.
        reduction: Of ``ntk-f`` and ``ntk-ef``.
        n_probes: None for exact rows.
    """

    representation: str
    reduction: str = "rms"
    n_probes: int | None = None

    @property
    def is_exact(self) -> bool:
        """Tell whether all 3N rows are taken."""
        return self.n_probes is None and self.reduction not in ("fields", "force-norm")

    @property
    def name(self) -> str:
        """Name it for the table."""
        words = [self.representation]
        words += [] if self.representation == ROWS else [self.reduction]
        words += [f"k = {self.n_probes}"] if self.n_probes is not None else []
        return ", ".join([*words, "exact"] if self.is_exact else words)

    def passes(self, batches: Sequence[Batch]) -> float:
        """Return the rows of force Jacobians that it takes for a batch, on average."""
        if self.n_probes is not None:
            by_element = self.reduction == "element-rms"
            elements = [len(torch.unique(batch.species)) if by_element else 1 for batch in batches]
            return self.n_probes * statistics.mean(elements)
        if not self.is_exact:
            return N_FIELDS if self.reduction == "fields" else 1
        return 3 * statistics.mean(max(batch.atom_counts) for batch in batches)

    def goal(self, batches: Sequence[Batch]) -> float:
        """Return the force evaluations that it may cost."""
        passes = self.passes(batches)
        return 2.5 * passes if self.is_exact else 1 + 2 * passes

    def function(self, setting: Setting) -> Callable[[Batch], object]:
        """Return what turns a batch into rows."""
        options = RepresentationOptions(reduction=self.reduction, n_probes=self.n_probes)
        if self.representation == ROWS:
            representation: Any = JointRows(options)
        else:
            representation = make_representation(self.representation, options)
        return lambda batch: representation.compute(setting.potential, batch)


CONTESTANTS = (
    *(Contestant(ROWS, n_probes=k) for k in (1, 2, 4, 8, 16)),
    Contestant(ROWS),
    Contestant("ntk-f", n_probes=4),
    Contestant("ntk-f"),
    Contestant("ntk-f", "element-rms", 4),
    Contestant("ntk-f", "element-rms"),
    Contestant("ntk-f", "force-norm"),
    Contestant("ntk-f", "fields"),
    Contestant("ntk-f", "moments", 8),
    Contestant("ntk-f", "moments"),
    Contestant("ntk-ef", n_probes=4),
)
NAMES = (UNIT, BASELINE, ENERGY, *(each.name for each in CONTESTANTS))


def functions(
    setting: Setting, names: Sequence[str], batches: Sequence[Batch]
) -> dict[str, Callable[[], None]]:
    """Make the functions to be timed; each treats all batches once."""
    potential = setting.potential

    def over_batches(function: Callable[[Batch], object]) -> Callable[[], None]:
        def run() -> None:
            for batch in batches:
                function(batch)

        return run

    every: dict[str, Callable[[Batch], object]] = {
        UNIT: potential.predict,
        ENERGY: potential.energy_tangent,
        **{each.name: each.function(setting) for each in CONTESTANTS},
    }
    return {
        name: mace_torch(setting) if name == BASELINE else over_batches(every[name])
        for name in names
    }


def mace_torch(setting: Setting) -> Callable[[], None]:
    """Return mace-torch's energies and forces of the same batches."""
    grouped = mace_batches(setting, [batch.n_structures for batch in setting.batches()])

    def run() -> None:
        for batch in grouped:
            inputs = batch.to_dict()
            inputs["positions"] = inputs["positions"].detach()
            setting.potential.model(inputs, compute_force=True)

    return run


def measure(setting: Setting, runs: int) -> dict[str, list[float]]:
    """Return seconds per round of every contestant, after a warm-up with one batch."""
    on_gpu = setting.potential.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    batches = setting.batches()
    for function in functions(setting, NAMES, batches[:1]).values():
        function()
    timed = functions(setting, NAMES, batches)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(runs):
        for name, function in timed.items():
            start = clock()
            function()
            if on_gpu:
                torch.cuda.synchronize()
            seconds[name].append(clock() - start)
    return seconds


def peak_memory(arguments: argparse.Namespace, name: str) -> float:
    """Return the growth of a fresh process's peak memory while a contestant runs, MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory_here, (arguments, name))


def _peak_memory_here(arguments: argparse.Namespace, name: str) -> float:
    largest = _most_edges(load(arguments))
    return memory_growth(largest, functions(largest, [name], largest.batches())[name])


def _most_edges(setting: Setting) -> Setting:
    """Keep the structures of the batch with the most edges."""
    batches = setting.batches()
    place = max(range(len(batches)), key=lambda i: batches[i].n_edges)
    start = sum(batch.n_structures for batch in batches[:place])
    stop = start + batches[place].n_structures
    return Setting(setting.potential, setting.structures[start:stop], setting.batch_atoms)


def report(
    arguments: argparse.Namespace, setting: Setting, seconds: dict[str, list[float]]
) -> dict[str, Any]:
    """Collect the results with what is needed to read them."""
    n = len(setting.structures)
    batches = setting.batches()
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows: dict[str, dict[str, float]] = {
        name: {
            "structures_per_s": n / median,
            "spread": (max(seconds[name]) - min(seconds[name])) / median,
            "force_evaluations": median / medians[UNIT],
            "mace_force_evaluations": median / medians[BASELINE],
        }
        for name, median in medians.items()
    }
    for each in CONTESTANTS:
        rows[each.name] |= {"passes": each.passes(batches), "goal": each.goal(batches)}
    for name in () if arguments.no_memory else NAMES:
        rows[name]["peak_mib"] = peak_memory(arguments, name)
    return {
        "label": arguments.label,
        "command": _command(arguments),
        "n_structures": n,
        "atoms_per_structure": sum(len(structure) for structure in setting.structures) / n,
        "largest_per_batch": statistics.mean(max(batch.atom_counts) for batch in batches),
        "batch_atoms": setting.batch_atoms,
        "device": str(setting.potential.device),
        "threads": arguments.threads,
        "clock": "wall" if setting.potential.device.type == "cuda" else "CPU",
        "dtype": str(setting.potential.dtype).removeprefix("torch."),
        "runs": arguments.runs,
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "load_at_start": arguments.load,
        "rows": rows,
    }


def _command(arguments: argparse.Namespace) -> str:
    """Write the command without folders, which are the machine's own."""
    words = ["python benchmarks/force_tangents.py"]
    for option in ("model", "data"):
        value = getattr(arguments, option)
        words += [f"--{option} {Path(value).name}"] if value else []
    for option in ("label", "every", "limit", "runs", "threads", "device", "batch_atoms"):
        value = getattr(arguments, option)
        words += [f"--{option.replace('_', '-')} {value!r}"] if value is not None else []
    return " ".join([*words, "--save"])


def table(result: dict[str, Any]) -> str:
    """Write a result as Markdown."""
    circumstances = (
        f"{result['n_structures']} structures of {result['atoms_per_structure']:.1f} atoms",
        f"the largest of a batch {result['largest_per_batch']:.1f} on average",
        f"{result['batch_atoms']} atoms a batch",
        f"{result['device']}, {result['threads']} thread(s), {result['dtype']}",
        f"torch {result['torch']}, {result['machine']}",
        f"load {result['load_at_start']:.1f} at the start",
        f"medians of {result['runs']} rounds, {result['clock']} seconds",
    )
    columns = (
        "passes",
        "structures/s",
        "spread",
        "cost, labelwise E + F",
        "goal",
        "met",
        "cost, mace E + F",
        "peak memory, MiB",
    )
    lines = [
        f"### {result['label']}",
        "",
        f"{'; '.join(circumstances)}.",
        "",
        f"`{result['command']}`",
        "",
        f"| | {' | '.join(columns)} |",
        "|---" * (len(columns) + 1) + "|",
    ]
    return "\n".join([*lines, *(_line(name, row) for name, row in result["rows"].items())])


def _line(name: str, row: dict[str, float]) -> str:
    cost = row["force_evaluations"]
    goal = ("", "", "")
    if "goal" in row:
        met = "yes" if cost <= row["goal"] else "no"
        goal = (f"{row['passes']:.3g}", f"≤ {row['goal']:.3g}", met)
    cells = (
        name,
        goal[0],
        f"{row['structures_per_s']:.3g}",
        f"{row['spread']:.0%}",
        f"{cost:.2f}",
        *goal[1:],
        f"{row['mace_force_evaluations']:.2f}",
        f"{row['peak_mib']:.0f}" if "peak_mib" in row else "",
    )
    return f"| {' | '.join(cells)} |"


EXPLANATION = """\
Cost is time over that of `potential.predict`, one forward and one backward pass, and over that of
mace-torch's own model on the same batches. A pass is one row vᵀJ_F for every structure of a batch.
The goals are 1 + 2 passes with probes, fields or forces as directions, and 2.5 passes with all 3N
unit directions, where N is the largest structure of a batch, averaged over the batches;
`element-rms` takes its probes for each element of a batch. Peak memory is that of the batch with
the most edges."""


def main() -> None:
    """Parse, measure, print; with ``--save`` also add to the committed results."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="demo", help="name or path of a potential")
    parser.add_argument("--data", help="structures; by default the embedded pool")
    parser.add_argument("--label", default="embedded model and pool", help="title of the table")
    parser.add_argument("--every", type=int, default=1, help="take every n-th structure")
    parser.add_argument("--limit", type=int, help="take at most so many")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-atoms", type=int, default=256)
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    arguments = parser.parse_args()
    arguments.load = os.getloadavg()[0]
    setting = load(arguments)
    result = report(arguments, setting, measure(setting, arguments.runs))
    print(table(result))
    if arguments.save:
        save(result)


def save(result: dict[str, Any]) -> None:
    """Replace the result of the same label and device, and write all as JSON and Markdown."""
    path = RESULTS / "force_tangents.json"
    results = json.loads(path.read_text()) if path.exists() else []
    key = ("label", "device", "threads")
    results = [old for old in results if any(old[k] != result[k] for k in key)] + [result]
    path.write_text(json.dumps(results, indent=1) + "\n")
    tables = [table(each) for each in results]
    (RESULTS / "force_tangents.md").write_text(
        "\n\n".join(["# Force-aware representations", EXPLANATION, *tables]) + "\n"
    )


if __name__ == "__main__":
    main()
