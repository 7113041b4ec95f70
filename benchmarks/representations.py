"""Seconds and memory of feature extraction, against mace-torch on the same batches.

    python benchmarks/representations.py                       # embedded model and pool
    python benchmarks/representations.py --model FILE --data FILE --label NAME

Every contestant runs once per round on all structures, the rounds interleaved in one process;
the table gives medians, of CPU seconds unless on a GPU. Peak memory is taken in a process of
its own for each contestant.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.io import iread

from labelwise.potentials import Batch, load_potential
from labelwise.potentials.batching import fill_batches
from labelwise.potentials.mace.checkpoint import mace_warnings_silenced

RESULTS = Path(__file__).parent / "results"
BASELINE = "mace energy + forces, batched"
SINGLE = "mace autograd, one at a time"
REPRESENTATIONS = ("labelwise ntk-e", "labelwise activation", "labelwise energy + forces")
PREPARE = ("labelwise prepare + collate", "mace AtomicData + Batch")


@dataclass
class Setting:
    """What is measured: a model, its structures and how they are batched."""

    potential: Any
    structures: list[Atoms]
    batch_atoms: int

    def batches(self) -> list[Batch]:
        """Make Labelwise's batches."""
        graphs = [self.potential.prepare(atoms) for atoms in self.structures]
        groups = fill_batches(graphs, self.batch_atoms, 40 * self.batch_atoms)
        return [self.potential.collate(group) for group in groups]


def mace_graphs(setting: Setting) -> list[Any]:
    """Make mace-torch's graphs, as its calculator does."""
    from mace import data
    from mace.tools import AtomicNumberTable

    potential = setting.potential
    keys = data.KeySpecification()
    table = AtomicNumberTable(list(potential.elements))
    with torch.device("cpu"):
        return [
            data.AtomicData.from_config(
                data.config_from_atoms(atoms, key_specification=keys),
                z_table=table,
                cutoff=potential.cutoff,
                heads=list(potential.heads),
            )
            for atoms in setting.structures
        ]


def mace_batches(setting: Setting, sizes: Sequence[int]) -> list[Any]:
    """Group mace-torch's graphs like Labelwise's batches."""
    from mace.tools.torch_geometric import Batch as MaceBatch

    graphs = iter(mace_graphs(setting))
    return [
        MaceBatch.from_data_list(list(itertools.islice(graphs, size))).to(setting.potential.device)
        for size in sizes
    ]


def contestants(setting: Setting, names: Sequence[str]) -> dict[str, Callable[[], None]]:
    """Make the functions to be timed; each treats all structures once."""
    potential = setting.potential
    model = potential.model
    batches = setting.batches()
    sizes = [batch.n_structures for batch in batches]
    grouped = mace_batches(setting, sizes) if BASELINE in names else []
    singles = mace_batches(setting, [1] * len(setting.structures)) if SINGLE in names else []

    def energy_and_forces() -> None:
        for batch in grouped:
            inputs = batch.to_dict()
            inputs["positions"] = inputs["positions"].detach()
            model(inputs, compute_force=True)

    def one_at_a_time() -> None:
        weight = model.node_embedding.linear.weight.requires_grad_(True)
        for single in singles:
            inputs = single.to_dict()
            inputs["positions"] = inputs["positions"].detach()
            energy = model(inputs, compute_force=False)["energy"]
            torch.autograd.grad(energy.sum(), weight)
        weight.requires_grad_(False)

    every: dict[str, Callable[[], None]] = {
        BASELINE: energy_and_forces,
        SINGLE: one_at_a_time,
        REPRESENTATIONS[0]: lambda: [potential.energy_tangent(b) for b in batches] and None,
        REPRESENTATIONS[1]: lambda: [potential.activations(b) for b in batches] and None,
        REPRESENTATIONS[2]: lambda: [potential.predict(b) for b in batches] and None,
        PREPARE[0]: lambda: setting.batches() and None,
        PREPARE[1]: lambda: mace_batches(setting, sizes) and None,
    }
    return {name: every[name] for name in names}


def measure(setting: Setting, runs: int) -> dict[str, list[float]]:
    """Return seconds per round of every contestant, one warm-up round left out.

    On a CPU these are CPU seconds, summed over threads: per core, and hardly disturbed by
    whatever else the machine does.
    """
    on_gpu = setting.potential.device.type == "cuda"
    clock = time.perf_counter if on_gpu else time.process_time
    functions = contestants(setting, (BASELINE, SINGLE, *REPRESENTATIONS, *PREPARE))
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(runs + 1):
        for name, function in functions.items():
            start = clock()
            function()
            if on_gpu:
                torch.cuda.synchronize()
            if run > 0:
                seconds[name].append(clock() - start)
    return seconds


def peak_memory(arguments: argparse.Namespace, name: str) -> float:
    """Return the growth of a fresh process's peak memory while a contestant runs, MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory_here, (arguments, name))


def _peak_memory_here(arguments: argparse.Namespace, name: str) -> float:
    setting = load(arguments)
    return memory_growth(setting, contestants(setting, [name])[name])


def memory_growth(setting: Setting, function: Callable[[], None]) -> float:
    """Return by how much a function raises the peak memory of a process that runs it first, MiB."""
    if setting.potential.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    Path("/proc/self/clear_refs").write_text("5")  # Linux: forget the peak of loading
    before = _peak_kib()
    function()
    return (_peak_kib() - before) / 2**10


def _peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0])


def load(arguments: argparse.Namespace) -> Setting:
    """Read the model and the structures."""
    torch.set_num_threads(arguments.threads)
    with mace_warnings_silenced():
        potential = load_potential(arguments.model, device=arguments.device, trust=True)
    stream = iread(arguments.data, ":") if arguments.data else iread(_embedded_pool(), ":")
    structures = list(itertools.islice(stream, 0, None, arguments.every))
    return Setting(potential, structures[: arguments.limit], arguments.batch_atoms)


def _embedded_pool() -> Path:
    from labelwise.structures.demo_data import demo_file_content

    path = Path(tempfile.mkdtemp()) / "pool.extxyz"
    path.write_bytes(demo_file_content("pool.extxyz"))
    return path


def report(
    arguments: argparse.Namespace, setting: Setting, seconds: dict[str, list[float]]
) -> dict[str, Any]:
    """Collect the results with what is needed to read them."""
    n = len(setting.structures)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    rows = {
        name: {
            "structures_per_s": n / median,
            "spread": (max(seconds[name]) - min(seconds[name])) / median,
            "against_mace_energy_forces": medians[BASELINE] / median,
            "against_one_at_a_time": medians[SINGLE] / median,
        }
        for name, median in medians.items()
    }
    if not arguments.no_memory:
        for name in (BASELINE, SINGLE, *REPRESENTATIONS):
            rows[name]["peak_mib"] = peak_memory(arguments, name)
    atoms = sum(len(structure) for structure in setting.structures)
    return {
        "label": arguments.label,
        "command": _command(arguments),
        "n_structures": n,
        "atoms_per_structure": atoms / n,
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
    words = ["python benchmarks/representations.py"]
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
        f"{result['batch_atoms']} atoms a batch",
        f"{result['device']}, {result['threads']} thread(s), {result['dtype']}",
        f"torch {result['torch']}, {result['machine']}",
        f"load {result['load_at_start']:.1f} at the start",
        f"medians of {result['runs']} rounds, {result['clock']} seconds",
    )
    lines = [
        f"### {result['label']}",
        "",
        f"{'; '.join(circumstances)}.",
        "",
        f"`{result['command']}`",
        "",
        "| | structures/s | spread | × mace E + F | × one at a time | peak memory, MiB |",
        "|---|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        memory = f"{row['peak_mib']:.0f}" if "peak_mib" in row else ""
        lines.append(
            f"| {name} | {row['structures_per_s']:.0f} | {row['spread']:.0%} "
            f"| {row['against_mace_energy_forces']:.2f} | {row['against_one_at_a_time']:.2f} "
            f"| {memory} |"
        )
    return "\n".join(lines)


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
    path = RESULTS / "representations.json"
    results = json.loads(path.read_text()) if path.exists() else []
    key = ("label", "device", "threads")
    results = [old for old in results if any(old[k] != result[k] for k in key)] + [result]
    path.write_text(json.dumps(results, indent=1) + "\n")
    tables = [table(each) for each in results]
    (RESULTS / "representations.md").write_text(
        "\n\n".join(["# Feature extraction", *tables]) + "\n"
    )


if __name__ == "__main__":
    main()
