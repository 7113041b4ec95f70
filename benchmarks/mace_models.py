"""Tangents, activations and forces of the MACE models that are fine-tuned today, at full size.

    python benchmarks/mace_models.py --write

Weights are random, which changes no time; mace-torch builds the models. Each contestant runs once
per round on one batch, the rounds interleaved in one process; the table gives medians of CPU
seconds as ratios to mace-torch's own energies and forces of the same batch. Peak memory is taken
in a process of its own for each contestant. ``--profile MODEL`` prints where the time goes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.spacegroup import crystal

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.representations import Setting, memory_growth
from labelwise.potentials.mace.loading import make_potential
from tests.potentials.models import architecture, build_mace

RESULTS = Path(__file__).parent / "results" / "mace_models.md"
BASELINE = "energy and forces by mace-torch"
MODELS = {
    "mpa-0": "MPA-0, OMAT-0, MATPES: Density blocks, ZBL, Agnesi, 128x0e + 128x1o, 2 layers",
    "papers": "Residual blocks, 128x0e + 128x1o + 128x2e, 2 layers",
    "mh": "MH: NonLinear blocks, four heads, edges up to 128x3o, 128x0e + 128x1o, 2 layers",
    "omol-0": "OMOL-0: NonLinear blocks, charge and spin, 128x0e + 128x1o, 3 layers",
    "off24": "OFF24: Residual blocks, 128x0e + 128x1o, 2 layers",
}
_MOLECULES = (
    *("trans-butane", "isobutane", "C6H6", "CH3CH2OCH3", "C5H8", "CH3COOH", "C4H4NH", "CH3CONH2"),
    *("C4H4S", "isobutene", "C2H6CHOH", "butadiene", "C5H5N", "bicyclobutane", "cyclobutane"),
)


def crystals() -> list[Atoms]:
    """Make four crystals and slabs of 16 to 40 atoms, moved from their places."""
    cubic = {"spacegroup": 221, "cellpar": [3.9, 3.9, 3.9, 90, 90, 90]}
    perovskite = crystal(("Sr", "Ti", "O"), [(0, 0, 0), (0.5, 0.5, 0.5), (0.5, 0.5, 0)], **cubic)
    slab = fcc111("Cu", (3, 3, 3), vacuum=8.0)
    add_adsorbate(slab, molecule("CH3OH"), 2.0, "ontop")
    structures = [
        bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat((2, 2, 1)),
        perovskite.repeat((2, 2, 2)),
        bulk("Si", "diamond", a=5.43, cubic=True).repeat((2, 1, 1)),
        slab,
    ]
    return [_moved(atoms, seed) for seed, atoms in enumerate(structures)]


def molecules() -> list[Atoms]:
    """Make fifteen molecules of 8 to 15 atoms, moved from their places."""
    return [_moved(molecule(name), seed) for seed, name in enumerate(_MOLECULES)]


def _moved(atoms: Atoms, seed: int) -> Atoms:
    atoms.rattle(0.05, seed=seed)
    return atoms


def load(name: str) -> tuple[Any, Any]:
    """Build a model and its batch."""
    torch.set_num_threads(1)
    model: Any = build_mace(**architecture(name, full=True))
    potential = make_potential(model, name=name, head=model.heads[0])
    structures = molecules() if name in ("omol-0", "off24") else crystals()
    return potential, potential.collate([potential.prepare(atoms) for atoms in structures])


def contestants(potential: Any, batch: Any) -> dict[str, Callable[[], Any]]:
    """Make the functions to be timed."""
    inputs = potential._inputs(batch, None)

    def energy_and_forces() -> None:
        potential.model({**inputs, "positions": batch.positions.detach()}, compute_force=True)

    def force_row() -> None:
        potential.linearise(batch).force_rows(batch.positions)

    return {
        BASELINE: energy_and_forces,
        "ntk-e": lambda: potential.energy_tangent(batch),
        "activation": lambda: potential.activations(batch),
        "energy and forces": lambda: potential.predict(batch),
        "one row of ntk-f": force_row,
    }


def measure(potential: Any, batch: Any, runs: int) -> dict[str, float]:
    """Return median CPU seconds, one warm-up round left out."""
    functions = contestants(potential, batch)
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for run in range(runs + 1):
        for name, function in functions.items():
            start = time.process_time()
            function()
            if run > 0:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def peak_memory(model: str, contestant: str) -> float:
    """Return the growth of a fresh process's peak memory in a contestant's first run, MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory_here, (model, contestant))


def _peak_memory_here(model: str, contestant: str) -> float:
    potential, batch = load(model)
    return memory_growth(Setting(potential, [], 0), contestants(potential, batch)[contestant])


def profile(name: str) -> None:
    """Print where the time of ntk-e goes."""
    potential, batch = load(name)
    potential.energy_tangent(batch)
    with torch.profiler.profile(record_shapes=True) as record:
        potential.energy_tangent(batch)
    averages = record.key_averages(group_by_input_shape=True)
    print(averages.table(sort_by="self_cpu_time_total", row_limit=30))


def main() -> None:
    """Measure and print, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--profile", choices=MODELS)
    parser.add_argument("--write", action="store_true", help=f"write {RESULTS.name}")
    arguments = parser.parse_args()
    if arguments.profile:
        profile(arguments.profile)
        return
    lines = []
    for name in arguments.models:
        potential, batch = load(name)
        seconds = measure(potential, batch, arguments.runs)
        ratios = [seconds[BASELINE] / seconds[each] for each in seconds if each != BASELINE]
        memory = [peak_memory(name, each) for each in (BASELINE, "ntk-e")]
        cells = [f"{ratio:.1f} x" for ratio in ratios] + [f"{each:,.0f}" for each in memory]
        per_atom = 1e3 * seconds[BASELINE] / batch.n_atoms
        size = f"{batch.n_atoms} / {batch.n_edges:,}"
        lines.append(f"| {MODELS[name]} | {size} | {per_atom:.1f} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    if arguments.write:
        RESULTS.write_text(_page(lines, arguments.runs))


def _page(lines: list[str], runs: int) -> str:
    machine = f"CPU, one thread, float32, {platform.machine()}, torch {torch.__version__}"
    return f"""# The MACE models that are fine-tuned today, at full size

    python benchmarks/mace_models.py --write

{machine}; medians of {runs} runs.
Random weights, cutoff 6 Å. Speed is relative to mace-torch's own energies and forces (E+F) of the
same batch, whose CPU time is in the third column. Memory is the growth of a fresh process's peak
in its first batch; Labelwise's includes the coefficients that it keeps.

| model | atoms / edges | mace-torch E+F, ms an atom | ntk-e | activation | energy and forces \
| one row of ntk-f | peak MiB, mace-torch E+F | peak MiB, ntk-e |
|---|--:|--:|--:|--:|--:|--:|--:|--:|
""" + "\n".join([*lines, ""])


if __name__ == "__main__":
    main()
