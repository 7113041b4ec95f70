"""Milliseconds per fine-tuning update against mace-torch's own training loop.

    python benchmarks/finetuning.py                       # some fifteen minutes on one core
    python benchmarks/finetuning.py --only full-size      # one section, the others are kept

Both sides train the same weights in turn, in this process, on one core, on the same frames of
``../shared/data/t1x_xtb/natural_0``: mace-torch with its ``AtomicData``, its data loader, its
``take_step`` and ``torch_ema``, Labelwise with the loop behind ``finetune``. Adam with AMSGrad,
clipping at 10 and a moving average on both; the loss is the Huber loss of energies per atom and
forces (mace-torch's own needs stresses, which would cost it time here). An update counts from
fetching the batch to the moving average. Figures are medians over the repeats of the median
update of a repeat. Peak memory is taken in a process of its own for each side.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from torch.nn.functional import huber_loss

from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loop import Loop
from labelwise.finetuning.networks import PreparedSet
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.mace.training.compiled import CACHE_VARIABLE
from labelwise.potentials.training import PlainNetwork
from mace_architectures import ARCHITECTURES, build_architecture

HERE = Path(__file__).parent

#: What was tried and did not pay, with its measure; medians of processor time on mace_spice.
NEGATIVE = [
    "",
    "What was tried and is not there, or pays little (processor time, mace_spice):",
    "",
    "* The traced update run as it is, without compiling: 14.6 → 13.3 ms at batch 4, 8.2 → 7.5 ms",
    "  at batch 1. Autograd's overhead alone is a tenth.",
    "* Fixed sizes in place of open ones: 6.6 ms compiled for one size, 5.7 to 6.4 ms with sizes",
    "  open, on the same batch. Nothing is filled up to buckets, and one code serves all batches.",
    "* Optimiser, clipping, moving average, clearing gradients: 1.3 of 24 ms at batch 4, already",
    "  fused.",
    "* Neighbour lists of 175 structures: 0.01 s; saving 0.01 s; copying the weights 0.08 s. There",
    "  is nothing to gain by keeping graphs between rounds.",
    "* Several rows for frequent elements, so that rows are less empty (124 → 81 places at",
    "  batch 4): 1.06 at batch 4, 1.12 at batch 16, 1.01 at batch 1; it is in.",
    "* Several models stacked in one batch: not made. One update of 4 structures costs half of 4",
    "  updates of one, and 2.2 compiled updates of one cost one of 4, so it could give at most 2",
    "  at batch 1, and 1.2 at batch 4 (an update of 16 against 4 of 4).",
]
#: What limits full-size models: torch.profiler, two updates of four structures, 60 atoms.
LIMITS = [
    "What is left of an update (torch.profiler, one thread; MPA-0, L = 2, OMOL-0): matrix products",
    "of contractions 18, 29 and 16 %, of convolutions and selections 11, 11 and 8 %, of linear",
    "layers and radial networks 13, 10 and 22 %; products, sums and copies number by number, most",
    "of them of radial weights with senders and their derivatives, 25, 35 and 33 %; optimiser and",
    "zeros for weights of absent elements 15, 4 and 4 %. In mace-torch's loop half of the time of",
    "MPA-0 goes into matrix products; with 10 elements in place of 89 its ratio was 6.1.",
    "",
]
SHARED = HERE.parents[1] / "shared"
RESULTS = HERE / "results"
RECIPE = Recipe(learning_rate=1e-4)

Step = Callable[[], None]


@dataclass
class Result:
    """One model and batch size; milliseconds per update, by wall clock and processor time."""

    model: str
    batch_size: int
    ours_ms: list[float] = field(default_factory=list)
    theirs_ms: list[float] = field(default_factory=list)
    ours_cpu_ms: list[float] = field(default_factory=list)
    theirs_cpu_ms: list[float] = field(default_factory=list)
    gradient_difference: float = 0.0
    ours_mib: float = 0.0
    theirs_mib: float = 0.0

    def ratio(self, ours: list[float], theirs: list[float]) -> float:
        """How many times longer mace-torch takes."""
        return statistics.median(theirs) / statistics.median(ours)


def our_step(
    potential: Potential, frames: list[Atoms], batch_size: int, *, compiled: bool = False
) -> Step:
    """Return a function that makes one update of the loop behind ``finetune``."""
    work = require_trainable(potential).copy()
    work.set_reference_energies(np.zeros(len(work.elements)))
    labelled = prepare_labelled(work.graph_builder, frames, role="training")
    nothing = prepare_labelled(work.graph_builder, [], role="validation")
    zeros = np.zeros(len(work.elements))
    recipe = replace(RECIPE, compiled=compiled)
    schedule = resolve_schedule(recipe, len(frames))
    loop = Loop(work, labelled, nothing, zeros, recipe, schedule, 0, None)
    work.model.requires_grad_(True)
    batches = endless(lambda epoch: shuffled(len(frames), batch_size, epoch))
    return lambda: assert_true(loop._update(next(batches)))


def their_step(potential: Potential, frames: list[Atoms], batch_size: int) -> Step:
    """Return a function that makes one update with mace-torch."""
    from mace import data, tools
    from mace.tools import torch_geometric
    from mace.tools.train import take_step
    from torch_ema import ExponentialMovingAverage

    model = require_trainable(potential).copy().model.requires_grad_(True)
    if hasattr(model, "joint_embedding"):
        # Else mace-torch fails at the second update: it adds to a view of a leaf in place.
        model.node_embedding.register_forward_hook(lambda *call: call[2].clone())
    keys = data.KeySpecification(
        info_keys={"energy": "REF_energy"}, arrays_keys={"forces": "REF_forces"}
    )
    table = tools.AtomicNumberTable([int(z) for z in potential.elements])
    loader = torch_geometric.dataloader.DataLoader(
        dataset=[
            data.AtomicData.from_config(
                data.config_from_atoms(atoms, key_specification=keys),
                z_table=table,
                cutoff=potential.cutoff,
            )
            for atoms in frames
        ],
        batch_size=batch_size,
        shuffle=True,
        drop_last=True,
    )
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, amsgrad=True)
    average = ExponentialMovingAverage(model.parameters(), decay=0.99)
    batches = endless(lambda _: iter(loader))
    outputs = {"forces": True, "virials": False, "stress": False}
    return lambda: assert_true(
        take_step(
            model=model,
            loss_fn=their_loss,
            batch=next(batches),
            optimizer=optimiser,
            ema=average,
            output_args=outputs,
            max_grad_norm=10.0,
            device=torch.device("cpu"),
        )
    )


def their_loss(pred: dict[str, torch.Tensor], ref: Any) -> torch.Tensor:
    """Return the same loss from mace-torch's outputs and batch."""
    counts = ref.ptr[1:] - ref.ptr[:-1]
    energy = huber_loss(pred["energy"] / counts, ref.energy / counts, delta=0.01)
    return 10 * energy + 10 * huber_loss(pred["forces"], ref.forces, delta=0.01)


def assert_true(value: object) -> None:
    """Fail if an update did."""
    if not value:
        raise RuntimeError("an update failed")


def endless(make: Callable[[int], Iterator[Any]]) -> Iterator[Any]:
    """Run one epoch after another."""
    epoch = 0
    while True:
        yield from make(epoch)
        epoch += 1


def shuffled(n: int, size: int, epoch: int) -> Iterator[list[int]]:
    """Yield whole batches of one epoch."""
    order = np.random.default_rng(epoch).permutation(n)
    for begin in range(0, n - size + 1, size):
        yield order[begin : begin + size].tolist()


def measure(step: Step, updates: int) -> tuple[float, float]:
    """Return the median milliseconds of an update, wall clock and processor."""
    wall, cpu = [], []
    for _ in range(updates):
        start, start_cpu = time.perf_counter(), time.process_time()
        step()
        wall.append(time.perf_counter() - start)
        cpu.append(time.process_time() - start_cpu)
    return 1000 * statistics.median(wall), 1000 * statistics.median(cpu)


def compare(
    name: str,
    potential: Potential,
    frames: list[Atoms],
    batch_size: int,
    repeats: int,
    updates: int,
) -> Result:
    """Measure both sides in turn."""
    result = Result(name, batch_size)
    ours = our_step(potential, frames, batch_size)
    theirs = their_step(potential, frames, batch_size)
    for step in (ours, theirs):
        measure(step, max(4, len(frames) // batch_size))  # warm, and every structure seen once
    for _ in range(repeats):
        for step, wall, cpu in (
            (ours, result.ours_ms, result.ours_cpu_ms),
            (theirs, result.theirs_ms, result.theirs_cpu_ms),
        ):
            ms, cpu_ms = measure(step, updates)
            wall.append(ms)
            cpu.append(cpu_ms)
    result.gradient_difference = gradient_difference(potential, frames[:batch_size])
    return result


def gradient_difference(potential: Potential, frames: list[Atoms]) -> float:
    """Compare the gradients of force-dependent sums, relative to each parameter's largest."""
    work = require_trainable(potential).copy()
    work.set_reference_energies(np.zeros(len(work.elements)))
    weights = list(work.model.requires_grad_(True).parameters())
    graphs = [work.prepare(atoms) for atoms in frames]
    found = []
    for network in (work.training_network(), PlainNetwork(work.interaction_energies, work.collate)):
        batch = network.collate(network.prepare(graphs))
        energies, forces = network.energies_and_forces(batch, training=True)
        value = (forces * forces).sum() + energies.sum()
        found.append(torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True))
    return max(
        float((a - b).abs().max() / b.abs().max().clamp(min=1e-12))
        for a, b in zip(*found, strict=True)
    )


def load(name: str) -> Potential:
    """Load or build a model by its name in the tables."""
    if name == "mace_spice":
        return load_potential(SHARED / "models" / "mace_spice.model", trust=True)
    return build_architecture(name) if name in ARCHITECTURES else load_potential(name)


def read_frames() -> list[Atoms]:
    """Read the frames to train on, all neutral singlets."""
    frames = ase.io.read(SHARED / "data" / "t1x_xtb" / "natural_0" / "pool.extxyz", "::20")[:64]
    for atoms in frames:
        atoms.info.update(charge=0, spin=1)
    return list(frames)


def peak_memory(name: str, side: str) -> tuple[float, float]:
    """Return MiB that a process holds with the model alone, and at most in updates of 4."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    step = {"ours": our_step, "theirs": their_step}[side](load(name), read_frames(), 4)
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak of building the model
    for _ in range(3):
        step()
    status = Path("/proc/self/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, int(peak.split()[1]) / 2**10


def measure_memory(result: Result) -> None:
    """Measure each side in a process of its own."""
    for side in ("ours", "theirs"):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            before, peak = pool.submit(peak_memory, result.model, side).result()
        setattr(result, f"{side}_mib", peak - before)


@dataclass
class Round:
    """Where the processor seconds of a study's rounds go, one entry a repeat."""

    copy: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    validations: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    save: list[float] = field(default_factory=list)
    measure: list[float] = field(default_factory=list)
    total: list[float] = field(default_factory=list)


def run_round(potential: Potential, recipe: Recipe, result: Round) -> int:
    """Fine-tune, save and measure once as a round of a study does; return the validations."""
    folder = SHARED / "data" / "t1x_xtb" / "natural_0"
    train = ase.io.read(folder / "pool.extxyz", "::30")[:50]
    valid = ase.io.read(folder / "valid.extxyz", ":")
    test = ase.io.read(folder / "test.extxyz", ":")
    records: list[float] = []
    clock = time.process_time
    begin = clock()
    work = require_trainable(potential).copy()
    copied = clock()
    inputs = PreparedSet(
        work.training_network(compiled=recipe.compiled),
        prepare_labelled(work.graph_builder, valid, role="validation").graphs,
    )
    inputs.predict()
    before = clock()
    inputs.predict()
    validation = clock() - before
    start = clock()
    fitted = finetune(
        potential, train, valid, recipe, seed=0, progress=lambda _: records.append(clock())
    )
    trained = clock()
    with tempfile.TemporaryDirectory() as target:
        save_potential(fitted.potential, Path(target) / "model.pt")
    saved = clock()
    evaluate(fitted.potential, test)
    measured = clock()
    validations = validation * (len(records) - 1)
    result.copy.append(copied - begin)
    result.validations.append(validations)
    result.updates.append(records[-1] - records[0] - validations)
    result.rest.append(trained - start - (records[-1] - records[0]) - (copied - begin))
    result.save.append(saved - trained)
    result.measure.append(measured - saved)
    result.total.append(measured - start)
    return len(records)


def compare_rounds(potential: Potential, repeats: int) -> dict[str, Any]:
    """Run rounds of a study with and without compiled updates in turn."""
    eager = Recipe(batch_size=4, learning_rate=1e-4, max_updates=300)
    rounds = {"eager": Round(), "compiled": Round()}
    begin, begin_wall = os.times(), time.perf_counter()
    require_trainable(potential).copy().training_network(compiled=True)
    cost, wall = sum(os.times()[:4]) - sum(begin[:4]), time.perf_counter() - begin_wall
    for _ in range(repeats):
        n = run_round(potential, eager, rounds["eager"])
        run_round(potential, replace(eager, compiled=True), rounds["compiled"])
        print(rounds, flush=True)
    return {
        "validations": n,
        "compile_cpu_s": cost,
        "compile_s": wall,
        **{name: asdict(each) for name, each in rounds.items()},
    }


def round_table(stages: dict[str, Any]) -> list[str]:
    """Write the table of ``compare_rounds``."""
    titles = {
        "copy": "copying the weights",
        "updates": "300 updates of 4 structures",
        "validations": f"{stages['validations']} validations on 50 structures",
        "rest": "labels, graphs, frozen geometry, reference energies",
        "save": "saving",
        "measure": "measuring 175 test structures",
        "total": "**the round**",
    }
    lines = ["| stage | eager s | compiled s | ratio |", "|---|---|---|---|"]
    for key, title in titles.items():
        a, b = (statistics.median(stages[name][key]) for name in ("eager", "compiled"))
        lines.append(f"| {title} | {a:.2f} | {b:.2f} | {a / max(b, 1e-9):.1f} |")
    return lines


def compare_updates(potential: Potential, frames: list[Atoms], repeats: int) -> list[str]:
    """Measure eager and compiled updates in turn, processor milliseconds."""
    lines = ["| batch | eager CPU ms | compiled CPU ms | ratio |", "|---|---|---|---|"]
    for batch_size in (1, 2, 4, 16):
        steps = [our_step(potential, frames, batch_size, compiled=each) for each in (False, True)]
        found: list[list[float]] = [[], []]
        for _ in range(repeats + 1):
            for step, ms in zip(steps, found, strict=True):
                ms.append(measure(step, max(8, 40 // batch_size))[1])
        a, b = (statistics.median(ms[1:]) for ms in found)
        lines.append(f"| {batch_size} | {a:.1f} | {b:.1f} | {a / b:.1f} |")
    return lines


def speed_table(results: list[dict[str, Any]], *, memory: bool = False) -> list[str]:
    """Write a table of both sides."""
    header = (
        "| model | batch | ms | mace-torch ms | CPU ms | mace-torch CPU ms | ratio | CPU ratio "
        "| gradients |"
    )
    lines = [header + (" MiB | mace-torch MiB |" if memory else "")]
    lines.append("|" + "---|" * (lines[0].count("|") - 1))
    for r in (Result(**each) for each in results):
        row = (
            f"| {r.model} | {r.batch_size} | {statistics.median(r.ours_ms):.1f} "
            f"| {statistics.median(r.theirs_ms):.1f} | {statistics.median(r.ours_cpu_ms):.1f} "
            f"| {statistics.median(r.theirs_cpu_ms):.1f} | {r.ratio(r.ours_ms, r.theirs_ms):.1f} "
            f"| **{r.ratio(r.ours_cpu_ms, r.theirs_cpu_ms):.1f}** | {r.gradient_difference:.0e} |"
        )
        held = f" {r.ours_mib:.0f} | {r.theirs_mib:.0f} |" if r.ours_mib > 0 else " | |"
        lines.append(row + (held if memory else ""))
    return lines


def write(sections: dict[str, Any]) -> None:
    """Write the tables and the raw figures."""

    def stamp(name: str) -> list[str]:
        found = sections[name]
        return [f"`{found['command']}`; {found['machine']}.", ""]

    stages = sections["rounds"]["round"]
    lines = [
        "# Fine-tuning updates against mace-torch's training loop",
        "",
        *stamp("small"),
        "Medians, both sides in turn in one process, on the same frames",
        "of `t1x_xtb/natural_0` (13.6 atoms, 154 directed edges on average). CPU: processor time,",
        "which other jobs on the machine disturb less. Gradients: largest difference of our",
        "gradient to the module's, relative to the largest entry of each parameter, float32.",
        "",
        *speed_table(sections["small"]["results"]),
        "",
        "## Models as people have them, at full size",
        "",
        *stamp("full-size"),
        "Random weights, built by mace-torch (`benchmarks/mace_architectures.py`), 89 elements,",
        "l_max 3, correlation 3. MPA-0, OMAT-0: density blocks, ZBL, Agnesi, 128x0e + 128x1o, 2",
        "layers. L = 2: residual blocks, 128x0e + 128x1o + 128x2e, 2 layers. OMOL-0: gated blocks,",
        "charge and spin, 128x0e + 128x1o, 3 layers. MiB: what a process holds at most in updates,",
        "beyond what it held before the first.",
        "mace-torch's loop cannot train the models with charge and spin in this torch (it adds to",
        "a view of a leaf in place); for it, their node embedding is cloned.",
        "",
        *speed_table(sections["full-size"]["results"], memory=True),
        "",
        *LIMITS,
        "## Compiled updates and the seconds of a round",
        "",
        *stamp("rounds"),
        "`Recipe(compiled=True)` against the updates above, mace_spice; both in turn.",
        "",
        *stages["updates"],
        "",
        "A round of a study: 50 labels, 300 updates, validations, saving, 175 test structures;",
        "processor seconds. Compiling, once for an architecture and machine, takes",
        "{compile_cpu_s:.0f} s of processor time, {compile_s:.0f} s of time.".format(**stages),
        "",
        *round_table(stages),
        *NEGATIVE,
        "",
    ]
    (RESULTS / "finetuning.md").write_text("\n".join(lines))
    (RESULTS / "finetuning.json").write_text(json.dumps(sections, indent=1) + "\n")


def describe_machine() -> str:
    """Name processor, versions and load."""
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "mace-torch", "e3nn")}
    return (
        f"{processor}, 1 thread of {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"{', '.join(f'{k} {v}' for k, v in versions.items())}; "
        f"load average {os.getloadavg()[0]:.1f}"
    )


def compare_small(repeats: int) -> dict[str, Any]:
    """Compare both sides for models of scalars."""
    results = []
    for name in ("mace_spice", "demo"):
        potential, frames = load(name), read_frames()
        for size in (1, 4, 16):
            result = compare(name, potential, frames, size, repeats, max(8, 40 // size))
            results.append(asdict(result))
            print(results[-1], flush=True)
    return {"results": results}


def compare_full_size(repeats: int) -> dict[str, Any]:
    """Compare both sides for ``ARCHITECTURES``, with their memory."""
    results = []
    for name in ARCHITECTURES:
        result = compare(name, load(name), read_frames()[::4], 4, repeats, 3)
        if "heads" not in ARCHITECTURES[name]:
            measure_memory(result)
        results.append(asdict(result))
        print(results[-1], flush=True)
    return {"results": results}


def measure_rounds(repeats: int) -> Any:
    """Measure compiled updates and rounds."""
    spice = load("mace_spice")
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE_VARIABLE] = cache
        stages = compare_rounds(spice, repeats)
        stages["updates"] = compare_updates(spice, read_frames(), repeats)
    return {"round": stages}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", choices=("small", "full-size", "rounds"), nargs="+")
    args = parser.parse_args()
    command = " ".join(["python benchmarks/finetuning.py", *sys.argv[1:]])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    run = {"small": compare_small, "full-size": compare_full_size, "rounds": measure_rounds}
    saved = RESULTS / "finetuning.json"
    sections = json.loads(saved.read_text()) if args.only is not None else {}
    for name in args.only if args.only is not None else run:
        sections[name] = {
            "command": command,
            "machine": describe_machine(),
            **run[name](args.repeats),
        }
    write(sections)


if __name__ == "__main__":
    main()
