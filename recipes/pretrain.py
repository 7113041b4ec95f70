"""Pretrain the demo potential with mace-torch on one CPU core within a wall-time budget.

The learning rate falls to zero as the budget runs out, so the number of updates depends on the
machine. A checkpoint every two minutes lets a stopped run go on; the exported potential
(``src/labelwise/potentials/mace/models/demo_potential.pt``) is refreshed at every validation.

Run: ``OMP_NUM_THREADS=1 python recipes/pretrain.py --minutes 70``
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mace  # noqa: F401  (before e3nn: it lets e3nn load its own constants)
import numpy as np
import torch
from ase import Atoms
from e3nn import o3
from mace.data import get_neighborhood
from mace.modules import ScaleShiftMACE, interaction_classes
from torch.nn.functional import huber_loss, silu

from fast_convolution import use_dense_layers
from labelling import ELEMENTS, LEVEL, read_frames

HERE = Path(__file__).parent
ASSET = HERE.parent / "src" / "labelwise" / "potentials" / "mace" / "models" / "demo_potential.pt"
ATOMIC_NUMBERS = [1, 6, 7, 8]
SEED = 7
CHECKPOINT_EVERY_S = 120.0
VALIDATE_EVERY_S = 300.0
WARMUP_UPDATES = 300
EMA_DECAY = 0.999
FORCE_HUBER = 0.2  # eV/Å
ENERGY_HUBER = 0.02  # eV/atom
ENERGY_WEIGHTS = (10.0, 40.0)  # at the start and at the end
FORCE_WEIGHT = 10.0
CLIP_NORM = 10.0

Batch = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Sample:
    """One frame as tensors: positions (n, 3) Å, energy above the free atoms in eV, forces eV/Å."""

    positions: torch.Tensor
    node_attrs: torch.Tensor
    edge_index: torch.Tensor
    energy: float
    forces: torch.Tensor
    kind: str


def atomic_energies(folder: Path) -> np.ndarray:
    """Return the energies (4,) in eV of the free H, C, N, O atoms."""
    found = {
        a.get_chemical_symbols()[0]: a.info["REF_energy"]
        for a in read_frames(folder / "isolated_atoms.extxyz")
    }
    return np.array([found[symbol] for symbol in ELEMENTS])


def make_sample(atoms: Atoms, e0: np.ndarray, r_max: float) -> Sample:
    """Build the neighbour list (within ``r_max`` Å) and the targets of one labelled frame."""
    edge_index, *_ = get_neighborhood(atoms.positions, r_max, (False,) * 3, np.eye(3) * 100.0)
    edge_index = edge_index[:, np.argsort(edge_index[1], kind="stable")]
    species = np.searchsorted(ATOMIC_NUMBERS, atoms.numbers)
    return Sample(
        positions=torch.tensor(atoms.positions, dtype=torch.float32),
        node_attrs=torch.eye(len(ATOMIC_NUMBERS))[torch.tensor(species)],
        edge_index=torch.tensor(edge_index, dtype=torch.int64),
        energy=float(atoms.info["REF_energy"] - e0[species].sum()),
        forces=torch.tensor(atoms.arrays["REF_forces"], dtype=torch.float32),
        kind=atoms.info.get("config_type", atoms.info.get("reaction", "")),
    )


def load_samples(path: Path, e0: np.ndarray, r_max: float) -> list[Sample]:
    """Return the frames of a file as samples, isolated atoms left out."""
    return [make_sample(a, e0, r_max) for a in read_frames(path) if len(a) > 1]


def collate(samples: list[Sample]) -> Batch:
    """Join samples into the dictionary that MACE's forward pass reads."""
    counts = torch.tensor([len(s.positions) for s in samples])
    ptr = torch.cat([torch.zeros(1, dtype=torch.int64), counts.cumsum(0)])
    edges = torch.cat([s.edge_index + ptr[k] for k, s in enumerate(samples)], dim=1)
    return {
        "positions": torch.cat([s.positions for s in samples]),
        "node_attrs": torch.cat([s.node_attrs for s in samples]),
        "edge_index": edges,
        "shifts": torch.zeros(edges.shape[1], 3),
        "unit_shifts": torch.zeros(edges.shape[1], 3),
        "cell": torch.zeros(3 * len(samples), 3),
        "batch": torch.repeat_interleave(torch.arange(len(samples)), counts),
        "ptr": ptr,
        "n_atoms": counts,
        "energy": torch.tensor([s.energy for s in samples], dtype=torch.float32),
        "forces": torch.cat([s.forces for s in samples]),
    }


def model_config(args: argparse.Namespace, train: list[Sample], e0: np.ndarray) -> dict[str, Any]:
    """Return the arguments of ScaleShiftMACE as plain numbers, strings and lists."""
    edges = sum(s.edge_index.shape[1] for s in train)
    atoms = sum(len(s.positions) for s in train)
    forces = torch.cat([s.forces for s in train])
    return {
        "r_max": args.r_max,
        "num_bessel": 8,
        "num_polynomial_cutoff": 5,
        "max_ell": args.max_ell,
        "interaction_cls": "RealAgnosticResidualInteractionBlock",
        "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
        "num_interactions": 2,
        "num_elements": len(ATOMIC_NUMBERS),
        "hidden_irreps": args.hidden_irreps,
        "MLP_irreps": "16x0e",
        "atomic_energies": [float(e) for e in e0],
        "avg_num_neighbors": round(edges / atoms, 4),
        "atomic_numbers": ATOMIC_NUMBERS,
        "correlation": args.correlation,
        "gate": "silu",
        "radial_MLP": [64, 64, 64],
        "atomic_inter_scale": round(float(forces.square().mean().sqrt()), 6),
        "atomic_inter_shift": round(sum(s.energy for s in train) / atoms, 6),
    }


def build(config: dict[str, Any]) -> torch.nn.Module:
    """Build ScaleShiftMACE (float32) from the plain configuration."""
    torch.set_default_dtype(torch.float32)
    arguments = dict(config)
    for key in ("interaction_cls", "interaction_cls_first"):
        arguments[key] = interaction_classes[config[key]]
    for key in ("hidden_irreps", "MLP_irreps"):
        arguments[key] = o3.Irreps(config[key])
    arguments["gate"] = {"silu": silu}[config["gate"]]
    arguments["atomic_energies"] = np.array(config["atomic_energies"])
    return ScaleShiftMACE(**arguments)


def loss_of(model: torch.nn.Module, batch: Batch, energy_weight: float) -> torch.Tensor:
    """Return the Huber loss of energies per atom (eV) and force components (eV/Å)."""
    out = model(batch, training=True, compute_force=True)
    per_atom = batch["n_atoms"]
    energy = huber_loss(
        out["interaction_energy"] / per_atom, batch["energy"] / per_atom, delta=ENERGY_HUBER
    )
    force = huber_loss(out["forces"], batch["forces"], delta=FORCE_HUBER)
    return energy_weight * energy / ENERGY_HUBER + FORCE_WEIGHT * force / FORCE_HUBER


def errors(model: torch.nn.Module, samples: list[Sample]) -> dict[str, float]:
    """Return energy (meV/atom) and force (meV/Å) MAE and RMSE over the samples."""
    energy, force = [], []
    for start in range(0, len(samples), 32):
        batch = collate(samples[start : start + 32])
        out = model(batch, training=False, compute_force=True)
        difference = out["interaction_energy"].detach() - batch["energy"]
        energy.append((difference / batch["n_atoms"]).double())
        force.append((out["forces"].detach() - batch["forces"]).double().flatten())
    de, df = torch.cat(energy) * 1000, torch.cat(force) * 1000
    return {
        "frames": len(samples),
        "energy_mae": float(de.abs().mean()),
        "energy_rmse": float(de.square().mean().sqrt()),
        "force_mae": float(df.abs().mean()),
        "force_rmse": float(df.square().mean().sqrt()),
    }


def epoch_batches(samples: list[Sample], size: int, epoch: int) -> Iterator[Batch]:
    """Yield the batches of one epoch in an order that depends on the epoch alone."""
    order = np.random.default_rng([SEED, epoch]).permutation(len(samples))
    for start in range(0, len(order) - size + 1, size):
        yield collate([samples[i] for i in order[start : start + size]])


class Training:
    """The state of a run: model, its moving average, optimiser, and where it stands."""

    def __init__(self, config: dict[str, Any], args: argparse.Namespace) -> None:
        torch.manual_seed(SEED)
        self.config, self.args = config, args
        self.model = use_dense_layers(build(config))
        self.parameters = list(self.model.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimiser = torch.optim.Adam(self.parameters, lr=args.lr, amsgrad=True, fused=True)
        self.step, self.epoch, self.elapsed_s = 0, 0, 0.0
        self.history: list[dict[str, float]] = []

    def fraction(self) -> float:
        """Return the part of the wall-time budget that is spent."""
        return min(1.0, self.elapsed_s / (60.0 * self.args.minutes))

    def learning_rate(self) -> float:
        """Return the rate: linear warm-up, then a cosine to zero over the wall-time budget."""
        warmup = min(1.0, (self.step + 1) / WARMUP_UPDATES)
        return (
            self.args.lr
            * warmup
            * (0.001 + 0.999 * 0.5 * (1 + math.cos(math.pi * self.fraction())))
        )

    def update(self, batch: Batch) -> float:
        """Take one step; return the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate()
        self.optimiser.zero_grad(set_to_none=True)
        first, last = ENERGY_WEIGHTS
        loss = loss_of(self.model, batch, first + (last - first) * self.fraction())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, CLIP_NORM)
        self.optimiser.step()
        self.step += 1
        decay = min(EMA_DECAY, self.step / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return float(loss.detach())

    def averaged(self) -> torch.nn.Module:
        """Return a plain mace-torch model with the averaged weights."""
        copy = build(self.config)
        names = [name for name, _ in self.model.named_parameters()]
        means = dict(zip(names, self.average, strict=True))
        with torch.no_grad():
            for name, parameter in copy.named_parameters():
                parameter.copy_(means.pop(name))
        if means:
            raise RuntimeError(f"the plain model lacks {sorted(means)}")
        return copy

    def save(self, path: Path) -> None:
        """Write the checkpoint of the run, whole or not at all."""
        keys = ("step", "epoch", "elapsed_s", "history", "average", "config")
        state = {key: getattr(self, key) for key in keys}
        state |= {"model": self.model.state_dict(), "optimiser": self.optimiser.state_dict()}
        torch.save(state, path.with_suffix(".partial"))
        path.with_suffix(".partial").replace(path)

    def load(self, path: Path) -> None:
        """Go on from a checkpoint; its epoch starts again."""
        state = torch.load(path, weights_only=False)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        for key in ("step", "epoch", "elapsed_s", "history", "average"):
            setattr(self, key, state[key])


def config_of_run(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a run that was begun, or the given one for a new run.

    Raises:
        SystemExit: The run that was begun has another architecture.
    """
    if not path.exists():
        return config
    begun: dict[str, Any] = torch.load(path, weights_only=False)["config"]
    for key in ("hidden_irreps", "correlation", "max_ell", "r_max"):
        if begun[key] != config[key]:
            raise SystemExit(f"{path} has {key} = {begun[key]}: move it away to start anew")
    return begun


def export(run: Training, path: Path) -> None:
    """Write the potential: plain configuration and averaged weights, no pickled code."""
    content = {
        "format_version": 1,
        "model_class": "ScaleShiftMACE",
        "config": run.config,
        "state_dict": run.averaged().state_dict(),
        "training": {
            "level_of_theory": LEVEL,
            "updates": run.step,
            "epochs": run.epoch,
            "seconds": round(run.elapsed_s),
            "batch_size": run.args.batch_size,
            "learning_rate": run.args.lr,
            "command": run.args.command,
            "history": run.history,
        },
    }
    torch.save(content, path.with_suffix(".partial"))
    path.with_suffix(".partial").replace(path)


def validate(run: Training, samples: list[Sample], args: argparse.Namespace) -> None:
    """Measure the averaged model, record and print it, and export it."""
    row = {
        "step": run.step,
        "epoch": run.epoch,
        "seconds": round(run.elapsed_s),
        **errors(use_dense_layers(run.averaged()), samples),
    }
    run.history.append(row)
    print(json.dumps({k: round(v, 3) for k, v in row.items()}), flush=True)
    export(run, args.export)


def train(run: Training, samples: list[Sample], valid: list[Sample], checkpoint: Path) -> None:
    """Run epochs until the budget is spent."""
    budget_s = 60.0 * run.args.minutes
    saved = run.elapsed_s
    validated = run.elapsed_s if run.history else run.elapsed_s - VALIDATE_EVERY_S / 2
    while run.elapsed_s < budget_s:
        for batch in epoch_batches(samples, run.args.batch_size, run.epoch):
            start = time.perf_counter()
            run.update(batch)
            run.elapsed_s += time.perf_counter() - start
            if run.elapsed_s - validated > VALIDATE_EVERY_S:
                validate(run, valid, run.args)
                validated = run.elapsed_s
            if run.elapsed_s - saved > CHECKPOINT_EVERY_S:
                run.save(checkpoint)
                saved = run.elapsed_s
            if run.elapsed_s >= budget_s:
                break
        run.epoch += 1
    validate(run, valid, run.args)
    run.save(checkpoint)


def parse_arguments() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=70.0, help="of updates, validation aside")
    parser.add_argument("--folder", type=Path, default=HERE / "made" / "training")
    parser.add_argument("--checkpoint", type=Path, default=HERE / "made" / "pretrain.pt")
    parser.add_argument("--export", type=Path, default=ASSET)
    parser.add_argument("--hidden-irreps", default="64x0e")
    parser.add_argument("--correlation", type=int, default=2)
    parser.add_argument("--max-ell", type=int, default=3)
    parser.add_argument("--r-max", type=float, default=4.5, help="Å")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--batch-size", type=int, default=5)
    args = parser.parse_args()
    args.command = " ".join(["python recipes/pretrain.py", *sys.argv[1:]])
    return args


def main() -> None:
    """Train, or go on training, the demo potential."""
    args = parse_arguments()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    e0 = atomic_energies(args.folder)
    samples = load_samples(args.folder / "train.extxyz", e0, args.r_max)
    valid = load_samples(args.folder / "valid.extxyz", e0, args.r_max)
    run = Training(config_of_run(args.checkpoint, model_config(args, samples, e0)), args)
    if args.checkpoint.exists():
        run.load(args.checkpoint)
    print(
        f"{len(samples)} training frames, {sum(p.numel() for p in run.parameters)} parameters, "
        f"{run.config['avg_num_neighbors']} neighbours an atom",
        flush=True,
    )
    train(run, samples, valid, args.checkpoint)


if __name__ == "__main__":
    main()
