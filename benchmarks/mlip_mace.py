"""A small MACE of mlip's: trained on embedded reactions, errors, what it picks, its speed.

    labelwise demo demo
    python benchmarks/mlip_mace.py train --data demo --out mace.zip
    labelwise select --model mace.zip --train demo/train.extxyz --pool demo/pool.extxyz -n 25 \
        --representation ntk-e --rule lcmd --out ntk.extxyz
    python benchmarks/mlip_mace.py compare --data demo --model mace.zip ntk.extxyz ...
    python benchmarks/mlip_mace.py speed --data demo --model mace.zip

Training is mlip's own, on the 455 structures of ``test.extxyz``, none of which is in the pool.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from labelwise.potentials import load_potential
from labelwise.potentials.batching import fill_batches, map_batches, predict_structures

CUTOFF = 4.5
CONFIG: dict[str, Any] = {
    "num_layers": 2,
    "num_channels": 16,
    "l_max": 2,
    "node_symmetry": 1,
    "correlation": 2,
    "readout_irreps": ("16x0e", "0e"),
    "radial_mlp_hidden": [32, 32],
}


def with_labels(frames: Sequence[Atoms]) -> list[Atoms]:
    """Give structures the labels that mlip reads, from those of the embedded files."""
    labelled = []
    for frame in frames:
        atoms = frame.copy()
        labels = {"energy": atoms.info["REF_energy"], "forces": atoms.arrays["REF_forces"]}
        atoms.calc = SinglePointCalculator(atoms, **labels)
        labelled.append(atoms)
    return labelled


def train(
    frames: Sequence[Atoms],
    valid: Sequence[Atoms],
    out: Path,
    *,
    n_epochs: int,
    config: dict[str, Any],
    peak: float = 0.01,
) -> None:
    """Train a MACE with mlip's own loop and save it.

    Args:
        frames: Labelled structures to learn from.
        valid: Labelled structures that the best weights are chosen by.
        out: The archive.
        n_epochs: How often each structure is seen.
        config: Of mlip's MACE.
        peak: The learning rate, which falls to a twentieth.
    """
    from mlip.data import GraphDatasetBuilderConfig
    from mlip.data.chemical_systems_readers.ase_atoms_reader import ASEAtomsReader
    from mlip.data.single_graph_dataset_builder import SingleGraphDatasetBuilder
    from mlip.models import ForceField, Mace
    from mlip.models.loss import HuberLoss
    from mlip.models.model_io import save_model_to_zip
    from mlip.training import OptimizerConfig, TrainingLoop, get_default_mlip_optimizer

    settings = GraphDatasetBuilderConfig(graph_cutoff_angstrom=CUTOFF, batch_size=8)

    def make(structures: Sequence[Atoms], info: Any) -> Any:
        reader = ASEAtomsReader(with_labels(structures))
        return SingleGraphDatasetBuilder(reader, settings, info, shuffle=info is True)

    builder = make(frames, True)
    data = builder.get_dataset()
    held_out = make(valid, builder.dataset_info).get_dataset()
    field = ForceField.from_mlip_network(Mace(Mace.Config(**config), builder.dataset_info))
    n_steps = n_epochs * len(data)
    rates = {"init_learning_rate": peak / 10, "peak_learning_rate": peak}
    rates |= {"final_learning_rate": peak / 20, "warmup_steps": n_steps // 20}
    optimizer = get_default_mlip_optimizer(OptimizerConfig(**rates, transition_steps=n_steps))
    loop = TrainingLoop(
        data,
        held_out,
        field,
        HuberLoss(),
        optimizer,
        TrainingLoop.Config(num_epochs=n_epochs),
    )
    loop.run()
    save_model_to_zip(out, loop.best_model)


def compare(data: Path, model: Path, picks: Sequence[Path], *, seed: int = 0) -> None:
    """Print the model's errors, and for each batch what it covers and how wrong the model is."""
    pool, potential = read(data / "pool.extxyz", ":"), load_potential(model)
    errors = force_errors(potential, pool)
    energies, _ = predict_structures(potential, pool)
    labels = np.array([atoms.info["REF_energy"] for atoms in pool])
    per_atom = (energies - labels) / [len(atoms) for atoms in pool]
    print(
        f"pool: {1000 * per_atom.std():.1f} meV/atom (spread of energy errors), "
        f"{1000 * np.sqrt((errors**2).mean()):.0f} meV/Å (root mean square of structures' errors)"
    )
    rows = torch.cat(list(map_batches(potential, pool, potential.activations))).numpy()
    rows -= rows.mean(axis=0)
    rows /= rows.std(axis=0)
    rng = np.random.default_rng(seed)
    places = {
        path.stem: [int(a.info["labelwise_pool_index"]) for a in read(path, ":")] for path in picks
    }
    sets = {"(random, mean of 20)": [rng.choice(len(pool), 25, replace=False) for _ in range(20)]}
    sets |= {name: [np.array(chosen)] for name, chosen in places.items()}
    print("| batch | reactions | mean distance to it | largest | force error meV/Å | in common |")
    print("|---|---|---|---|---|---|")
    for name, draws in sets.items():
        figures = np.array([cover(pool, rows, errors, draw) for draw in draws]).mean(axis=0)
        shared = [
            f"{other} {len(set(places[name]) & set(places[other]))}"
            for other in places
            if name in places and other != name
        ]
        reactions, near, far, wrong = figures
        print(
            f"| {name} | {reactions:.1f} | {near:.2f} | {far:.2f} | {1000 * wrong:.0f} | "
            f"{', '.join(shared)} |"
        )


def force_errors(potential: Any, structures: Sequence[Atoms]) -> np.ndarray:
    """Return the root mean square force error of each structure, eV/Å."""
    _, forces = predict_structures(potential, structures)
    return np.array(
        [
            np.sqrt(((found - atoms.arrays["REF_forces"]) ** 2).mean())
            for found, atoms in zip(forces, structures, strict=True)
        ]
    )


def cover(
    pool: Sequence[Atoms], rows: np.ndarray, errors: np.ndarray, chosen: np.ndarray
) -> tuple[float, float, float, float]:
    """Return reactions in a batch, mean and largest distance to it, and its force error."""
    squared = ((rows[:, None, :] - rows[chosen]) ** 2).mean(axis=2).min(axis=1)
    distance = np.sqrt(squared)
    n_reactions = len({pool[i].info["reaction"] for i in chosen})
    return n_reactions, distance.mean(), distance.max(), errors[chosen].mean()


def speed(data: Path, model: Path, *, n_structures: int = 300, n_rounds: int = 5) -> None:
    """Print seconds of rows, and of mlip's own energies and forces of the same padded batches."""
    import jax
    from mlip.data import DatasetInfo
    from mlip.models import ForceField, Mace
    from mlip.models.predictors import ConservativePredictor
    from mlip.typing.properties import Properties

    from labelwise.potentials.mlip.archive import read_archive
    from labelwise.potentials.mlip.evaluator import _to_graph, unflatten

    structures = read(data / "pool.extxyz", f":{n_structures}")
    potential: Any = load_potential(model)
    groups = fill_batches(map(potential.prepare, structures), 256, 40 * 256)
    batches = [potential.collate(group) for group in groups]
    archive = read_archive(model)  # what load_model_from_zip does, without drawing weights first
    info = DatasetInfo(**archive.settings["dataset_info"])
    network = Mace(Mace.Config(**archive.settings["config"]), info)
    weights = {
        "params": {"mlip_network": jax.tree.map(jax.numpy.asarray, unflatten(archive.weights))}
    }
    field = ForceField(ConservativePredictor(network, Properties()), weights)
    graphs = [_to_graph(p, p.positions, 0) for p in map(potential._pad, batches)]
    own = jax.jit(field.calculate)

    def own_predict(graph: Any) -> None:
        found = own(graph).to_prediction()
        np.array(found.energy), np.array(found.forces)

    contestants: dict[str, tuple[Callable[[Any], Any], list[Any]]] = {
        "mlip energy + forces, batched": (own_predict, graphs),
        "labelwise energy + forces": (potential.predict, batches),
        "labelwise ntk-e": (potential.energy_tangent, batches),
        "labelwise activation": (potential.activations, batches),
        "labelwise ntk-e, readout": (
            lambda batch: potential.energy_tangent(batch, parameters="readout"),
            batches,
        ),
        "labelwise ntk-f, 8 probes": (probe_forces(potential), batches),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for n_round in range(n_rounds + 1):
        for name, (function, items) in contestants.items():
            begun = time.process_time()
            for item in items:
                function(item)
            if n_round:  # the first compiles
                seconds[name].append(time.process_time() - begun)
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    baseline = medians["mlip energy + forces, batched"]
    print(f"{len(structures)} structures, {len(batches)} batches; CPU seconds, medians")
    print("| | s | structures/s | against mlip |\n|---|---|---|---|")
    for name, taken in medians.items():
        rate = len(structures) / taken
        print(f"| {name} | {taken:.3f} | {rate:,.0f} | {baseline / taken:.2f} × |")
    print(f"functions compiled, all sizes counted: {potential.evaluator.n_compiled}")


def probe_forces(potential: Any, n_probes: int = 8) -> Callable[[Any], Any]:
    """Return what contracts the forces' Jacobian with random signs."""

    def compute(batch: Any) -> None:
        linearisation = potential.linearise(batch)
        for _ in range(n_probes):
            linearisation.force_rows(torch.randn(batch.n_atoms, 3).sign())

    return compute


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("train", "compare", "speed"))
    parser.add_argument("picks", nargs="*", type=Path)
    parser.add_argument("--data", type=Path, default=Path("demo"))
    parser.add_argument("--model", "--out", type=Path, default=Path("mace.zip"))
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--config", type=json.loads, default=CONFIG)
    args = parser.parse_intermixed_args()
    logging.basicConfig(level=logging.WARNING)
    logging.getLogger("mlip").setLevel(logging.INFO)
    if args.part == "train":
        frames, valid = (read(args.data / f"{name}.extxyz", ":") for name in ("test", "valid"))
        train(frames, valid, args.model, n_epochs=args.epochs, config=args.config)
    elif args.part == "compare":
        compare(args.data, args.model, args.picks)
    else:
        speed(args.data, args.model)


if __name__ == "__main__":
    main()
