"""Cost of features and updates of a model family, in its own evaluations of energies and forces.

    python benchmarks/families.py --model chgnet-0.3.0 --data FILE --every 330 --save
    python benchmarks/families.py --model 7net-0 --data FILE --every 330 --save

The family's own package makes graphs and evaluates batches as its documentation says: chgnet by
``predict_graph``, sevenn by its model on collated ``AtomGraphData``, in single precision. Both
sides see the same structures in the same batches, in turn in one process. Figures are medians of
processor time over the rounds. An update is one of fine-tuning, from fetching four structures to
the step of the optimiser; the family's own is the same loss on its own energies and forces, with
Adam. Peak memory is the growth of a fresh process's.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import os
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from ase import Atoms
from torch import Tensor
from torch.nn.functional import huber_loss

from finetuning import our_step
from labelwise.features.representations import RepresentationOptions, make_representation
from labelwise.potentials import Batch
from representations import RESULTS, Setting, load, memory_growth

BASELINE = "own energy + forces"
OWN_GRAPHS = "own energy + forces, graphs made"
GRAPHS = "labelwise energy + forces, graphs made"
OWN_UPDATE = "own update, batch 4"
UPDATE = "labelwise update, batch 4"
UPDATE_SIZE = 4


@dataclass(frozen=True)
class Own:
    """What a family's own package does.

    Attributes:
        package: Its distribution.
        model: Its module.
        make_graphs: From structures to what a batch is made of.
        evaluate: From such graphs to energies (n,) eV and forces (N, 3) eV/Å.
        train: The same, to be differentiated by the weights.
    """

    package: str
    model: torch.nn.Module
    make_graphs: Callable[[Sequence[Atoms]], Any]
    evaluate: Callable[[Any], tuple[Tensor, Tensor]]
    train: Callable[[Any], tuple[Tensor, Tensor]]


def chgnet_itself(potential: Any) -> Own:
    """Return what chgnet does with the same weights."""
    from chgnet.model.model import CHGNet
    from pymatgen.io.ase import AseAtomsAdaptor

    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet(**potential.model.model_args)
    model.load_state_dict(potential.model.state_dict())

    def make_graphs(structures: Sequence[Atoms]) -> Any:
        return [model.graph_converter(AseAtomsAdaptor.get_structure(each)) for each in structures]

    def evaluate(graphs: Any) -> tuple[Tensor, Tensor]:
        found = model.predict_graph(graphs, task="ef", batch_size=len(graphs))
        found = [found] if isinstance(found, dict) else found
        energies = [float(each["e"]) * len(each["f"]) for each in found]
        return torch.tensor(energies), torch.cat([torch.from_numpy(each["f"]) for each in found])

    def train(graphs: Any) -> tuple[Tensor, Tensor]:
        found = model(graphs, task="ef")
        return found["e"] * found["atoms_per_graph"], torch.cat(found["f"])

    return Own("chgnet", model, make_graphs, evaluate, train)


def sevenn_itself(potential: Any) -> Own:
    """Return what sevenn does with the same weights."""
    from sevenn import _keys
    from sevenn.atom_graph_data import AtomGraphData
    from sevenn.train.dataload import unlabeled_atoms_to_graph
    from sevenn.util import load_checkpoint
    from torch_geometric.data import Batch as GraphBatch

    model = load_checkpoint(potential.name).build_model()
    model.eval_type_map = torch.tensor(True)
    model.set_is_batch_data(True)

    def make_graphs(structures: Sequence[Atoms]) -> Any:
        return [
            AtomGraphData.from_numpy_dict(unlabeled_atoms_to_graph(each, potential.cutoff))
            for each in structures
        ]

    def evaluate(graphs: Any, *, training: bool = False) -> tuple[Tensor, Tensor]:
        model.train(training)
        found = model(GraphBatch.from_data_list([graph.clone() for graph in graphs]))
        return found[_keys.PRED_TOTAL_ENERGY].reshape(-1), found[_keys.PRED_FORCE]

    return Own(
        "sevenn", model, make_graphs, evaluate, lambda graphs: evaluate(graphs, training=True)
    )


OWN = {"CHGNetPotential": chgnet_itself, "SevenNetPotential": sevenn_itself}


def functions(setting: Setting) -> dict[str, Callable[[], object]]:
    """Make the functions to be timed; each treats all structures once."""
    potential = setting.potential
    own = OWN[type(potential).__name__](potential)
    batches = setting.batches()
    parts = divide(setting.structures, [batch.n_structures for batch in batches])
    graphs = [own.make_graphs(part) for part in parts]
    force_norm = make_representation("ntk-f", RepresentationOptions(reduction="force-norm"))

    n_updates = len(setting.structures) // UPDATE_SIZE

    def over(evaluate: Callable[[Batch], object]) -> Callable[[], object]:
        return lambda: [evaluate(batch) for batch in batches]

    return {
        BASELINE: lambda: [own.evaluate(each) for each in graphs],
        OWN_GRAPHS: lambda: [own.evaluate(own.make_graphs(part)) for part in parts],
        "labelwise energy + forces": over(potential.predict),
        GRAPHS: lambda: [potential.predict(batch) for batch in setting.batches()],
        "activation": over(potential.activations),
        "ntk-e": over(potential.energy_tangent),
        "ntk-f, force-norm": over(lambda batch: force_norm.compute(potential, batch)),
        OWN_UPDATE: repeat(own_step(own, setting.structures), n_updates),
        UPDATE: repeat(our_step(potential, setting.structures, UPDATE_SIZE), n_updates),
    }


def repeat(function: Callable[[], object], times: int) -> Callable[[], object]:
    """Return a function that does the same several times."""
    return lambda: [function() for _ in range(times)]


def divide(structures: Sequence[Atoms], sizes: Sequence[int]) -> list[list[Atoms]]:
    """Group structures like the batches."""
    rest = iter(structures)
    return [list(itertools.islice(rest, size)) for size in sizes]


def own_step(own: Own, structures: Sequence[Atoms]) -> Callable[[], None]:
    """Return a function that makes one update of the family's module on its own graphs."""
    weights = [weight for weight in own.model.parameters() if weight.requires_grad]
    optimiser = torch.optim.Adam(weights, lr=1e-4, amsgrad=True)
    groups = divide(structures, [UPDATE_SIZE] * (len(structures) // UPDATE_SIZE))
    batches = itertools.cycle([(group, own.make_graphs(group)) for group in groups])

    def step() -> None:
        group, graphs = next(batches)
        counts = torch.tensor([len(atoms) for atoms in group])
        labels = [float(atoms.info["REF_energy"]) for atoms in group]
        goal = torch.cat([torch.from_numpy(atoms.arrays["REF_forces"]) for atoms in group])
        optimiser.zero_grad()
        energies, forces = own.train(graphs)
        wanted = torch.tensor(labels, dtype=energies.dtype)
        loss = 10 * huber_loss(energies / counts, wanted / counts, delta=0.01)
        loss = loss + 10 * huber_loss(forces, goal.to(forces.dtype), delta=0.01)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(weights, 10.0)
        optimiser.step()

    return step


def differences(setting: Setting) -> tuple[float, float]:
    """Return the largest differences to the family's own energies and forces, eV/atom and eV/Å."""
    potential = setting.potential
    own = OWN[type(potential).__name__](potential)
    energy = force = 0.0
    for atoms in setting.structures:
        energies, forces = own.evaluate(own.make_graphs([atoms]))
        found = potential.predict(potential.collate([potential.prepare(atoms)]))
        energy = max(energy, float((found.energies - energies).abs().max()) / len(atoms))
        force = max(force, float((found.forces - forces).abs().max()))
    return energy, force


def measure(setting: Setting, runs: int) -> dict[str, list[float]]:
    """Return processor seconds for a structure, one for each round after a warm-up."""
    timed = functions(setting)
    seconds: dict[str, list[float]] = {name: [] for name in timed}
    for run in range(runs + 1):
        for name, function in timed.items():
            start = time.process_time()
            function()
            if run > 0:
                seconds[name].append((time.process_time() - start) / len(setting.structures))
    return seconds


def peak_memory(arguments: argparse.Namespace, name: str) -> float:
    """Return the growth of a fresh process's peak memory while a contestant runs, MiB."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_peak_memory_here, (arguments, name))


def _peak_memory_here(arguments: argparse.Namespace, name: str) -> float:
    warnings.simplefilter("ignore")
    setting = load_whole(arguments)
    function = functions(setting)[name]
    return memory_growth(setting, lambda: function() and None)


def load_whole(arguments: argparse.Namespace) -> Setting:
    """Read the model, and as many structures as whole updates take."""
    setting = load(arguments)
    whole = len(setting.structures) // UPDATE_SIZE * UPDATE_SIZE
    return Setting(setting.potential, setting.structures[:whole], setting.batch_atoms)


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure, and collect the results with what is needed to read them."""
    setting = load_whole(arguments)
    seconds = measure(setting, arguments.runs)
    energy, force = differences(setting)
    n = len(setting.structures)
    package = OWN[type(setting.potential).__name__](setting.potential).package
    rows: dict[str, dict[str, float]] = {
        name: {
            "ms": 1000 * statistics.median(values),
            "spread": (max(values) - min(values)) / statistics.median(values),
            "ratio": statistics.median(seconds[BASELINE]) / statistics.median(values),
        }
        for name, values in seconds.items()
    }
    for name in () if arguments.no_memory else rows:
        rows[name]["peak_mib"] = peak_memory(arguments, name)
    options = f"--every {arguments.every} --batch-atoms {arguments.batch_atoms}"
    return {
        "model": arguments.model,
        "command": f"python benchmarks/families.py --model {arguments.model} --data "
        f"{Path(arguments.data).name} {options} --runs {arguments.runs} --save",
        "circumstances": "; ".join(
            (
                f"{n} structures of {sum(map(len, setting.structures)) / n:.1f} atoms",
                f"{arguments.batch_atoms} atoms a batch",
                f"{setting.potential.device}, {arguments.threads} thread, float32",
                f"torch {torch.__version__}, {package} {version(package)}",
                f"{platform.machine()}, {os.cpu_count()} cores",
                f"load {arguments.load:.1f} at the start",
                f"medians of {arguments.runs} rounds, CPU time",
            )
        ),
        "differences": f"Energies differ from the family's own by at most {energy:.0e} eV/atom, "
        f"forces by {force:.0e} eV/Å.",
        "update_ratio": rows[OWN_UPDATE]["ms"] / rows[UPDATE]["ms"],
        "rows": rows,
    }


def table(result: dict[str, Any]) -> str:
    """Write a result as Markdown."""
    lines = [
        *(f"## {result['model']}", ""),
        *(f"{result['circumstances']}.", "", f"`{result['command']}`", ""),
        "| | ms a structure | spread | speed, own E + F = 1 | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, row in result["rows"].items():
        memory = f"{row['peak_mib']:.0f}" if "peak_mib" in row else ""
        cells = (name, f"{row['ms']:.2f}", f"{row['spread']:.0%}", f"**{row['ratio']:.2f}**")
        lines.append(f"| {' | '.join(cells)} | {memory} |")
    update = f"An update takes {1 / result['update_ratio']:.2f} of the family's own."
    return "\n".join([*lines, "", result["differences"], update])


EXPLANATION = """\
Speed is the time of the family's own batched energies and forces over that of the row, for the
same number of structures: above 1 is faster. Graphs are made beforehand except where it says
otherwise; bonds and angles of CHGNet, which Labelwise finds in each evaluation, count in all of
its rows, and chgnet's do not. Both updates take the loss of four structures' energies and
forces, its gradient, and a step of Adam. Peak memory is that of all batches in turn; where there
is none, it was not measured."""


def save(result: dict[str, Any]) -> None:
    """Replace the result of the same model, and write all as JSON and Markdown."""
    path = RESULTS / "families.json"
    results = json.loads(path.read_text()) if path.exists() else []
    results = [old for old in results if old["model"] != result["model"]] + [result]
    path.write_text(json.dumps(results, indent=1) + "\n")
    text = ["# Families against their own packages", EXPLANATION, *map(table, results)]
    (RESULTS / "families.md").write_text("\n\n".join(text) + "\n")


def main() -> None:
    """Parse, measure, print; with ``--save`` also add to the committed results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", required=True, help="name of a potential")
    parser.add_argument("--data", required=True, help="crystals with REF_energy and REF_forces")
    parser.add_argument("--every", type=int, default=1, help="take every n-th structure")
    parser.add_argument("--limit", type=int, help="take at most so many")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--batch-atoms", type=int, default=256)
    parser.add_argument("--no-memory", action="store_true", help="do not measure peak memory")
    parser.add_argument("--save", action="store_true", help="write benchmarks/results")
    parser.set_defaults(threads=1, device="cpu", load=os.getloadavg()[0])
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    result = report(arguments)
    print(table(result))
    if arguments.save:
        save(result)


if __name__ == "__main__":
    main()
