"""A study of acquisition methods on the slab example, and what it costs on this machine.

``write`` makes the example where it is missing, writes ``study.yaml`` for ``labelwise compare``
and prints the commands; ``measure`` times features, predictions and a fine-tuning with the
study's settings and adds up what the study will take. Neither runs it.

Run: ``python benchmarks/slabs.py write --out slab_study``, then the command that it prints.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from labelwise import load_potential
from labelwise.campaign.config import FinetuneSection
from labelwise.features.representations import represent
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.structures import iter_frames
from labelwise.studies.comparison.study import check_study, dump_study
from labelwise.studies.comparison.study_file import STUDY_FILE

sys.path.insert(0, str(Path(__file__).parents[1]))
from examples.slabs import write_slab_example

METHODS = ("random", "activation-lcmd", "ntk-lcmd", "ntk-ef-lcmd", "committee-f")
BATCH, ROUNDS, SEEDS = 100, 4, (0, 1)
N_POOL, N_INITIAL, MEMBERS = 20_000, 200, 3
#: Labels and pretrained model are both EMT: atomic energies need no fit, and elements that the
#: first labels lack keep theirs.
FINETUNE: dict[str, Any] = {
    "schedule": "fixed",
    "batch_size": 8,
    "learning_rate": 0.01,
    "epochs": 50,
    "max_updates": 1200,
    "max_validations": 6,
    "reference_energies": "checkpoint",
    "loss_fixed_forces": "exclude",
    "compiled": True,
}
_OF_METHOD = {"activation-lcmd": "activation", "ntk-lcmd": "ntk-e", "ntk-ef-lcmd": "ntk-ef"}


def compose(args: argparse.Namespace, base: Path) -> str:
    """Return ``study.yaml``, its paths as seen from the study's folder."""
    data = Path(os.path.relpath(args.data, base))
    content = {
        "title": "Adsorbates on metal slabs, EMT",
        "model": {"path": args.model, "device": "cpu", "trust": True},
        "pools": {
            "slabs": {
                "pool": [str(data / "pool.extxyz")],
                "train": [str(data / "train.extxyz")],
                "valid": {"files": [str(data / "valid.extxyz")]},
                "test": {"files": [str(data / "test.extxyz")]},
            }
        },
        "methods": list(args.methods),
        "seeds": list(SEEDS),
        "reference": "random",
        "split_key": "split",
        "fixed_forces": "exclude",
        "energy_errors": "per-atom",
        "selection": {"batch_size": BATCH, "initial_size": 0, "members": MEMBERS},
        "finetune": FINETUNE,
        "rounds": ROUNDS,
    }
    return dump_study(check_study(content))


def write(args: argparse.Namespace) -> None:
    """Write the example, if it is missing, and the study."""
    if not (args.data / "manifest.json").exists():
        begin = time.perf_counter()
        write_slab_example(args.data, n_pool=args.pool)
        print(f"{args.pool} structures made in {time.perf_counter() - begin:.0f} s: {args.data}")
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / STUDY_FILE
    path.write_text(compose(args, args.out), encoding="utf-8")
    print(f"OMP_NUM_THREADS=1 labelwise compare {path} --dry-run")
    print(f"OMP_NUM_THREADS=1 labelwise compare {path} --workers 2")


@dataclass(frozen=True)
class Costs:
    """Seconds on one core: of features and a prediction, a structure; of a fit, as a whole."""

    features: dict[str, float]
    prediction: float
    fit: dict[int, float]

    def of_campaign(self, method: str, n_pool: int) -> float:
        """Return the seconds of a campaign, reading and choosing aside."""
        rounds = [self.fit_of(N_INITIAL + BATCH * k) for k in range(ROUNDS + 1)]
        seconds = sum(rounds)
        if method in _OF_METHOD:
            seconds += ROUNDS * n_pool * self.features[_OF_METHOD[method]]
        if method.startswith("committee"):
            seconds += MEMBERS * (sum(rounds[:-1]) + ROUNDS * n_pool * self.prediction)
        return seconds

    def fit_of(self, n_train: int) -> float:
        """Return the seconds of a fine-tuning, on the line through those measured."""
        sizes = sorted(self.fit)
        return float(np.interp(n_train, sizes, [self.fit[n] for n in sizes]))


def measure(args: argparse.Namespace) -> None:
    """Time what the study is made of, and print seconds and their sum."""
    torch.set_num_threads(1)
    potential = load_potential(args.model, trust=True)
    pool = _read(args.data / "pool.extxyz", args.pool // args.sample)
    costs = Costs(
        features={
            name: _seconds(lambda name=name: represent(pool, potential, name)) / len(pool)
            for name in _OF_METHOD.values()
        },
        prediction=_seconds(lambda: evaluate(potential, pool)) / len(pool),
        fit=_time_fits(potential, pool, args.data),
    )
    report(costs, args)


def report(costs: Costs, args: argparse.Namespace) -> None:
    """Print the costs as Markdown and the time of the study on two processes."""
    print("| step | cost on one core |\n|---|---|")
    for name, seconds in {**costs.features, "energy and forces": costs.prediction}.items():
        print(f"| {name} | {1000 * seconds:.2f} ms a structure |")
    for n_train, seconds in costs.fit.items():
        n_updates = FINETUNE["max_updates"]
        print(f"| fine-tuning, {n_train} labels, {n_updates} updates | {seconds:.1f} s |")
    print("\n| method | minutes a campaign |\n|---|---|")
    minutes = {name: costs.of_campaign(name, args.pool) / 60 for name in args.methods}
    for name, value in minutes.items():
        print(f"| {name} | {value:.1f} |")
    total = sum(minutes.values()) * len(SEEDS)
    print(f"\n{total:.0f} minutes of one core, {total / 2:.0f} minutes on two processes")


def _time_fits(potential: Potential, pool: list[Atoms], data: Path) -> dict[int, float]:
    """Time a fine-tuning of the first and of the last round; the code is compiled before."""
    valid = _read(data / "valid.extxyz", 1)
    last = N_INITIAL + BATCH * ROUNDS
    recipe = FinetuneSection(**FINETUNE).recipe()
    short = FinetuneSection(**{**FINETUNE, "max_updates": 2}).recipe()
    finetune(potential, pool[:20], valid, short, seed=0)
    train = list(itertools.islice(itertools.cycle(pool), last))
    return {
        n: _seconds(lambda n=n: finetune(potential, train[:n], valid, recipe, seed=0))
        for n in (N_INITIAL, last)
    }


def _read(path: Path, stride: int) -> list[Atoms]:
    return [frame.atoms for frame in iter_frames([f"{path}@::{stride}"])]


def _seconds(run: Callable[[], object]) -> float:
    """Return the seconds of one core that a call takes, whatever else the machine does."""
    begin = time.process_time()
    run()
    return time.process_time() - begin


def main() -> None:
    """Write the study, or measure its parts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("action", choices=["write", "measure"])
    parser.add_argument("--data", type=Path, default=Path("slabs"), help="folder of the example")
    parser.add_argument("--model", default="demo-slabs", help="name, or an absolute path")
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--pool", type=int, default=N_POOL, help="structures, where it is made")
    parser.add_argument("--sample", type=int, default=500, help="structures that are timed")
    parser.add_argument("--out", type=Path, default=Path("slab_study"))
    args = parser.parse_args()
    {"write": write, "measure": measure}[args.action](args)


if __name__ == "__main__":
    main()
