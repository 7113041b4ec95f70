"""What it costs, and what it forgets, to train some blocks, low-rank changes or anchored weights.

    python benchmarks/trained_weights.py cost MODEL      # "MPA-0, OMAT-0", 7net-0 or a file
    python benchmarks/trained_weights.py forgetting MODEL TRAIN VALID TEST RETAIN KNOWN SEED [WAY]

``cost``: for each way, in a process of its own, processor seconds of an update of four structures
(median of five, one thread) with what the loop does around it, MiB of the tensors that are kept
between updates (weights, gradients, optimiser, moving average, best and last good weights).
``forgetting``: 300 updates on 50 frames of TRAIN, test errors on TEST,
and force errors on RETAIN, labelled structures of the kind that the model was pretrained on;
``KNOWN`` are others of that kind, which the pretrained model labels itself; ``LABELLED`` are the
same with their own labels, energies shifted by one number to the model's. Errors on RETAIN are of
the head of what is replayed, where it has one.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from typing import Any

import ase.io
import numpy as np
import torch
from ase.build import molecule

from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.heads import on_replay_head
from labelwise.finetuning.labelled import prepare_labelled
from labelwise.finetuning.loop import Loop
from labelwise.finetuning.pretraining_set import prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential, load_potential

READOUT = ("readout",)
COST: dict[str, dict[str, Any]] = {
    "all": {},
    "readout": {"train_blocks": READOUT},
    "lora 4": {"lora_rank": 4},
    "lora 16": {"lora_rank": 16},
    "ewc": {"anchor": "ewc"},
}
FORGETTING: dict[str, dict[str, Any]] = {
    "all": {},
    "readout": {"train_blocks": READOUT},
    "products": {"train_blocks": ("products",)},
    "products, readout": {"train_blocks": ("products", "readout")},
    "interaction": {"train_blocks": ("interaction",)},
    "all, interaction at 0.1": {"block_rates": {"interaction": 0.1}},
    "lora 1": {"lora_rank": 1},
    "lora 4": {"lora_rank": 4},
    "lora 16": {"lora_rank": 16},
    "l2 0.0001": {"anchor": "l2", "anchor_weight": 0.0001},
    "l2 0.001": {"anchor": "l2", "anchor_weight": 0.001},
    "l2 0.01": {"anchor": "l2", "anchor_weight": 0.01},
    "l2 0.1": {"anchor": "l2", "anchor_weight": 0.1},
    "ewc 0.1": {"anchor": "ewc", "anchor_weight": 0.1},
    "ewc 1": {"anchor": "ewc", "anchor_weight": 1.0},
    "ewc 0.1 of KNOWN": {"anchor": "ewc", "anchor_weight": 0.1, "replay_weight": 0.0},
    "ewc 1 of KNOWN": {"anchor": "ewc", "anchor_weight": 1.0, "replay_weight": 0.0},
    "replay of KNOWN": {"replay_weight": 1.0},
    "replay of KNOWN, two heads": {"replay_head": "pt_head"},
    "replay of LABELLED": {"replay_weight": 1.0},
    "replay of LABELLED, two heads": {"replay_head": "pt_head"},
}


def open_model(name: str) -> Potential:
    """Return one of ``mace_architectures``, or what ``load_potential`` takes."""
    from mace_architectures import ARCHITECTURES, build_architecture

    return build_architecture(name) if name in ARCHITECTURES else load_potential(name, trust=True)


def measure_cost(model: str, way: str) -> None:
    """Print a line of ``cost``."""
    work = require_trainable(open_model(model)).copy()
    structures = []
    for i, kind in enumerate(("CH3CHO", "C2H6CHOH", "CH3CH2OCH3", "C3H7") * 2):
        atoms = molecule(kind)
        atoms.rattle(0.05, seed=i)
        atoms.info["REF_energy"] = -10.0 * len(atoms)
        atoms.arrays["REF_forces"] = np.ones((len(atoms), 3))
        structures.append(atoms)
    labelled = prepare_labelled(work.graph_builder, structures, role="training")
    nothing = prepare_labelled(work.graph_builder, [], role="validation")
    recipe = Recipe(batch_size=4, learning_rate=1e-4, max_updates=100, **COST[way])
    schedule = resolve_schedule(recipe, len(structures))
    zeros = np.zeros(len(work.elements))
    loop = Loop(work, labelled, nothing, zeros, recipe, schedule, 0, None)
    for weight in loop._weights:
        weight.requires_grad_(True)
    begin = time.process_time()
    with torch.enable_grad():
        loop._anchor = loop._make_anchor()
        anchored, seconds = time.process_time() - begin, []
        for i in range(6):
            begin = time.process_time()
            assert loop._update([(4 * i + j) % 8 for j in range(4)])
            seconds.append(time.process_time() - begin)
    print(
        json.dumps(
            {
                "model": model,
                "way": way,
                "weights": loop.trained.n_weights,
                "numbers": loop.trained.n_coordinates,
                "update_s": round(statistics.median(seconds[1:]), 3),
                "before_s": round(anchored, 2),
                "kept_mib": round(count_kept(loop) / 2**20, 1),
            }
        ),
        flush=True,
    )


def count_kept(loop: Any) -> int:
    """Return bytes of the tensors that live from update to update, each storage once."""
    held = list(loop._potential.model.parameters())
    held += [w.grad for w in (*loop._weights, *loop._moved.coordinates) if w.grad is not None]
    held += loop._moved.coordinates + loop._average + loop._good + loop._best
    held += getattr(loop._moved, "_starts", [])
    for state in loop._optimiser.state.values():
        held += [each for each in state.values() if isinstance(each, torch.Tensor)]
    if loop._anchor is not None:
        held += [*loop._anchor._start, *(loop._anchor._stiffness or [])]
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in held}
    return sum(storages.values())


def read(path: str, n: int) -> list[Any]:
    """Return n frames spread over a file, labels under our keys, isolated atoms left out."""
    frames = [each for each in ase.io.read(path, ":") if len(each) > 1]
    frames = frames[:: max(1, len(frames) // n)][:n]
    for atoms in frames:
        if "REF_energy" not in atoms.info:
            atoms.info["REF_energy"] = atoms.get_potential_energy()
            atoms.arrays["REF_forces"] = atoms.get_forces()
    return frames


def measure_forgetting(model: str, files: list[str], seed: int, ways: list[str]) -> None:
    """Print the lines of ``forgetting``."""
    start = open_model(model)
    train, valid, test, retain, others = (
        read(path, n) for path, n in zip(files, (50, 20, 60, 30, 30), strict=True)
    )
    known = {"KNOWN": prepare_pretraining_set(start, others, labels="model")}
    own = np.mean([atoms.info["REF_energy"] for atoms in others])
    for atoms in others:
        atoms.info["REF_energy"] += known["KNOWN"].labelled.energies.mean() - own
    known["LABELLED"] = prepare_pretraining_set(start, others)
    print(json.dumps({"way": "start", "retain": forces(start, retain)}), flush=True)
    for way in ways or FORGETTING:
        begin = time.process_time()
        recipe = Recipe(**FORGETTING[way], max_updates=300, max_validations=6)
        replay = next((known[each] for each in known if each in way), None)
        fitted = finetune(start, train, valid, recipe, seed=seed, replay=replay)
        errors = evaluate(fitted.potential, test).errors
        print(
            json.dumps(
                {
                    "way": way,
                    "seed": seed,
                    "weights": fitted.trained.n_weights,
                    "numbers": fitted.trained.n_coordinates,
                    "energy": round(errors.energy_rmse, 1),
                    "forces": round(errors.forces_rmse, 1),
                    "retain": forces(on_replay_head(fitted.potential, recipe), retain),
                    "best_epoch": fitted.best_epoch,
                    "cpu_s": round(time.process_time() - begin, 1),
                }
            ),
            flush=True,
        )


def forces(potential: Potential, frames: list[Any]) -> float:
    """Return the force RMSE, meV/Å: energies of another level of theory have no common zero."""
    return round(evaluate(potential, frames).errors.forces_rmse, 1)


def main() -> None:
    """Run what the words say."""
    torch.set_num_threads(1)
    kind, model, *rest = sys.argv[1:]
    if kind == "forgetting":
        measure_forgetting(model, rest[:5], int(rest[5]), rest[6:])
    elif rest:
        measure_cost(model, rest[0])
    else:
        for way in COST:
            subprocess.run([sys.executable, __file__, kind, model, way], check=True)


if __name__ == "__main__":
    main()
