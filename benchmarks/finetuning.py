"""Milliseconds per fine-tuning update against mace-torch's own training loop.

    python benchmarks/finetuning.py            # about five minutes on one core
    python benchmarks/finetuning.py --quick    # batch 4 only

Both sides train the same weights in turn, in this process, on one core, on the same frames of
``../shared/data/t1x_xtb/natural_0``: mace-torch with its ``AtomicData``, its data loader, its
``take_step`` and ``torch_ema``, Labelwise with the loop behind ``finetune``. Adam with AMSGrad,
clipping at 10 and a moving average on both; the loss is the Huber loss of energies per atom and
forces (mace-torch's own needs stresses, which would cost it time here). An update counts from
fetching the batch to the moving average. Figures are medians over the repeats of the median
update of a repeat.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
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
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.training.compiled import CACHE_VARIABLE
from labelwise.potentials.training import PlainNetwork

HERE = Path(__file__).parent
#: What ``--rounds`` says of the first table.
KEPT = [
    "The table against mace-torch was kept from an earlier run (3 repeats), before frequent",
    "elements took several rows; the repeats below are those of the other tables.",
    "",
]
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
    name: str, potential: Potential, frames: list[Atoms], batch_size: int, repeats: int
) -> Result:
    """Measure both sides in turn."""
    result = Result(name, batch_size)
    ours = our_step(potential, frames, batch_size)
    theirs = their_step(potential, frames, batch_size)
    updates = max(8, 40 // batch_size)
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


def medium_model() -> Potential:
    """Make a model with vectors among its hidden features, which goes through the module."""
    sys.path.insert(0, str(HERE.parent))
    from tests.models import build_mace

    model = build_mace(channels=32, hidden="32x0e+32x1o")
    return make_potential(model, name="32x0e+32x1o, random")


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


def write(results: list[Result], stages: dict[str, Any], args: argparse.Namespace) -> None:
    """Write the table and the raw figures."""
    processor = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        platform.processor(),
    )
    versions = {name: importlib.metadata.version(name) for name in ("torch", "mace-torch", "e3nn")}
    machine = (
        f"{processor}, 1 thread of {os.cpu_count()} cores; Python {platform.python_version()}, "
        f"{', '.join(f'{k} {v}' for k, v in versions.items())}; "
        f"load average {os.getloadavg()[0]:.1f}"
    )
    rows = [
        f"| {r.model} | {r.batch_size} | {statistics.median(r.ours_ms):.1f} "
        f"| {statistics.median(r.theirs_ms):.1f} | {statistics.median(r.ours_cpu_ms):.1f} "
        f"| {statistics.median(r.theirs_cpu_ms):.1f} | {r.ratio(r.ours_ms, r.theirs_ms):.1f} "
        f"| **{r.ratio(r.ours_cpu_ms, r.theirs_cpu_ms):.1f}** | {r.gradient_difference:.0e} |"
        for r in results
    ]
    header = (
        "| model | batch | ms | mace-torch ms | CPU ms | mace-torch CPU ms | ratio | CPU ratio "
        "| gradients |"
    )
    lines = [
        "# Fine-tuning updates against mace-torch's training loop",
        "",
        f"`{args.command}`",
        "",
        machine + ".",
        args.note,
        "",
        *(KEPT if args.rounds else []),
        f"Medians of {args.repeats} repeats, both sides in turn in one process, on the same frames",
        "of `t1x_xtb/natural_0` (13.6 atoms, 154 directed edges on average). CPU: processor time,",
        "which other jobs on the machine disturb less. Gradients: largest difference of our",
        "gradient to the module's, relative to the largest entry of each parameter, float32.",
        "",
        header,
        "|---|---|---|---|---|---|---|---|---|",
        *rows,
        "",
        "## Compiled updates and the seconds of a round",
        "",
        "`Recipe(compiled=True)` against the updates above, mace_spice; both in turn.",
        "",
        *stages["updates"],
        "",
        "A round of a study: 50 labels, 300 updates, validations, saving, 175 test structures;",
        "processor seconds. Compiling, once for an architecture and machine, takes",
        f"{stages['compile_cpu_s']:.0f} s of processor time, {stages['compile_s']:.0f} s of time.",
        "",
        *round_table(stages),
        *NEGATIVE,
        "",
    ]
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "finetuning.md").write_text("\n".join(lines))
    content = {
        "command": args.command,
        "machine": machine,
        "note": args.note,
        "results": [asdict(r) for r in results],
        "round": stages,
    }
    (RESULTS / "finetuning.json").write_text(json.dumps(content, indent=1) + "\n")


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="batch 4 only")
    parser.add_argument(
        "--rounds", action="store_true", help="compiled updates and rounds only; keep the others"
    )
    parser.add_argument("--note", default="", help="what else ran on the machine")
    args = parser.parse_args()
    args.command = " ".join(["python benchmarks/finetuning.py", *sys.argv[1:]])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    spice = load_potential(SHARED / "models" / "mace_spice.model", trust=True)
    models = {"mace_spice": spice, "demo": load_potential("demo")}
    frames = ase.io.read(SHARED / "data" / "t1x_xtb" / "natural_0" / "pool.extxyz", "::20")[:64]
    results = []
    for name, potential in () if args.rounds else models.items():
        for batch_size in (4,) if args.quick else (1, 4, 16):
            results.append(compare(name, potential, frames, batch_size, args.repeats))
            print(asdict(results[-1]), flush=True)
    if args.rounds:
        saved = json.loads((RESULTS / "finetuning.json").read_text())
        results = [Result(**each) for each in saved["results"]]
    elif not args.quick:
        medium = medium_model()
        results.append(compare(medium.name, medium, frames, 4, args.repeats))
    with tempfile.TemporaryDirectory() as cache:
        os.environ[CACHE_VARIABLE] = cache
        stages = compare_rounds(spice, args.repeats)
        stages["updates"] = compare_updates(spice, frames, args.repeats)
    write(results, stages, args)


if __name__ == "__main__":
    main()
