"""Recipes of fine-tuning, and mace-torch's own, at equal processor time: errors and forgetting.

    python benchmarks/recipes.py                      # hours; goes on where it was stopped
    python benchmarks/recipes.py --sets natural_0 --sizes 50 --recipes full,replay --seeds 0
    python benchmarks/recipes.py --tables-only

``../shared/models/mace_spice.model`` is fitted to 50, 200 and 1,000 labels, drawn at random, of
``../shared/data``: three natural pools and ``mixed`` (GFN2-xTB), 3BPA and acetylacetone (DFT). What
is forgotten is the root mean square change of the forces on molecules like those of the
pretraining: 3BPA at 300 to 1,200 K and, for 3BPA itself, acetylacetone, as the pretrained model
predicts them; replayed are others of the same source, labelled by the pretrained model.

Each run gets the same processor time on one core, its preparation included; how many updates that
makes is told beside the errors. ``mace-torch`` is ``mace_run_train`` in a process of its own with
the options that its documentation gives for fine-tuning; how many epochs fit in is measured first.
One line of JSON is kept for each run in ``results/recipes.jsonl``.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import torch
from ase import Atoms
from mace.modules import ScaleShiftMACE
from mace.tools.scripts_utils import extract_config_mace_model

from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.pretraining_set import prepare_pretraining_set
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential, load_potential

HERE = Path(__file__).parent
SHARED = HERE.parents[1] / "shared"
MODEL = SHARED / "models" / "mace_spice.model"
RESULTS = HERE / "results" / "recipes.jsonl"
TABLE = HERE / "results" / "recipes.md"
SETS = ("natural_0", "natural_1", "natural_2", "mixed", "3BPA", "acac")
#: Labels, and the processor time that fitting to them gets, s.
SIZES = {50: 60.0, 200: 120.0, 1000: 300.0}
N_VALID, N_TEST, N_KNOWN = 50, 175, 100
#: Updates, or three epochs, that are timed first.
N_TRIAL = 60
_MD = {
    "3BPA": ("3BPA_train_300K.extxyz", "3BPA_train_mixedT.extxyz"),
    "acac": ("acac_train_300K.extxyz", "acac_test_MD_600K.extxyz"),
}

#: Settings of ``Recipe`` by name.
RECIPES: dict[str, dict[str, Any]] = {
    "full": {},
    "replay": {"replay_weight": 1.0},
    "readout": {"train_blocks": ("readout",)},
    "lora-4": {"lora_rank": 4},
    "anchor-l2": {"anchor": "l2"},
    "anchor-ewc": {"anchor": "ewc"},
    "slow": {"learning_rate": 5e-4},
}
MACE_RECIPES = ("mace naive", "mace multihead")


@dataclass(frozen=True)
class Data:
    """Labelled structures of one set, and others like those of the pretraining."""

    train: list[Atoms]
    valid: list[Atoms]
    test: list[Atoms]
    replayed: list[Atoms]
    retained: list[Atoms]


def read_data(name: str, size: int, seed: int) -> Data:
    """Draw labelled structures of a set; test and validation structures are always the same."""
    rng = np.random.default_rng(seed)
    if name in _MD:
        inside, outside = (_read_md(SHARED / "data" / "dft" / file) for file in _MD[name])
        valid, pool, test = inside[:N_VALID], inside[N_VALID:], outside
    else:
        folder = SHARED / "data" / "t1x_xtb" / name
        pool, valid, test = (
            ase.io.read(folder / f"{part}.extxyz", ":") for part in ("pool", "valid", "test")
        )
    places = np.random.default_rng(0).permutation(len(test))[:N_TEST]
    drawn = rng.permutation(len(pool))[:size]
    other = "acac" if name == "3BPA" else "3BPA"
    known, more = (_read_md(SHARED / "data" / "dft" / file) for file in _MD[other])
    spread = np.linspace(0, len(more) - 1, N_KNOWN).astype(int)
    return Data(
        [pool[i] for i in drawn],
        valid[:N_VALID],
        [test[i] for i in places],
        known[:: max(1, len(known) // (2 * N_KNOWN))],
        [more[i] for i in spread],
    )


def _read_md(path: Path) -> list[Atoms]:
    frames = []
    for atoms in ase.io.read(path, ":"):
        if len(atoms) == 1:
            continue
        energy, forces = atoms.get_potential_energy(), atoms.get_forces()
        atoms.calc = None
        atoms.info, atoms.arrays["REF_forces"] = {"REF_energy": float(energy)}, forces
        frames.append(atoms)
    return frames


def run_labelwise(
    settings: dict[str, Any], data: Data, seconds: float, seed: int
) -> dict[str, Any]:
    """Fit for a while, and measure."""
    begin = time.process_time()
    potential = load_potential(MODEL, trust=True)
    recipe = Recipe(**settings)
    replay = None
    if settings.get("replay_weight"):
        replay = prepare_pretraining_set(potential, data.replayed, labels="model")
    size = resolve_schedule(recipe, len(data.train)).batch_size
    prepared = time.process_time() - begin

    def fit(n_epochs: int) -> tuple[Any, list[float]]:
        """Return the fit, and the processor time at the end of each epoch, from its beginning."""
        begin, ends = time.process_time(), []
        fitted = finetune(
            potential,
            data.train,
            data.valid,
            replace(recipe, epochs=n_epochs),
            seed=seed,
            replay=replay,
            progress=lambda _: ends.append(time.process_time() - begin),
        )
        return fitted, ends

    _, ends = fit(max(3, -(-N_TRIAL // -(-len(data.train) // size))))
    each = (ends[-1] - ends[0]) / (len(ends) - 1)
    n_epochs = max(1, int((seconds - prepared - (ends[0] - each)) / each))
    begin = time.process_time()
    fitted, _ = fit(n_epochs)
    taken = prepared + time.process_time() - begin
    n_updates = n_epochs * -(-len(data.train) // size)
    return {**measure(fitted.potential, potential, data), "updates": n_updates, "seconds": taken}


def measure(fitted: Potential, pretrained: Potential, data: Data) -> dict[str, Any]:
    """Return errors on the test set and the change of forces on what the model knew."""
    errors = evaluate(fitted, data.test).errors
    known = prepare_pretraining_set(pretrained, data.retained, labels="model")
    return {
        "energy_rmse_per_atom": errors.energy_rmse_per_atom,
        "energy_rmse": errors.energy_rmse,
        "forces_rmse": errors.forces_rmse,
        "forgotten": evaluate(fitted, known.labelled.structures).errors.forces_rmse,
    }


def run_mace(name: str, data: Data, seconds: float, seed: int) -> dict[str, Any]:
    """Let mace-torch fit for a while, and measure."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_reduced(folder / "start.model")
        for role in ("train", "valid"):
            ase.io.write(folder / f"{role}.extxyz", _plain(getattr(data, role)))
        words = _mace_words(name, folder, data, seed)
        one, three = (_time_mace(words, folder, n) for n in (1, 3))
        each = max(1e-3, (three - one) / 2)
        n_epochs = max(1, int((seconds - (one - each)) / each))
        taken = _time_mace(words, folder, n_epochs)
        model = folder / "fit.model"
        potential = load_potential(MODEL, trust=True)
        head = {"head": "Default"} if name == "mace multihead" else {}
        fitted = load_potential(model, trust=True, **head)
        size = 2 if len(data.train) < 500 else 5
        updates = n_epochs * -(-len(data.train) // size)
        return {**measure(fitted, potential, data), "updates": updates, "seconds": taken}


def write_reduced(path: Path) -> None:
    """Write the same function as a model of the reduced basis, which mace-torch builds today.

    A product is a symmetric polynomial, so that the coefficients of its older basis of 23 couplings
    are those of 8 that span what is left after symmetrising.
    """
    old = torch.load(MODEL, weights_only=False, map_location="cpu")
    new = ScaleShiftMACE(**extract_config_mace_model(old))
    was, state = old.state_dict(), new.state_dict()
    for name, tensor in was.items():
        *above, leaf = name.split(".")
        if "contractions" not in above:
            state[name] = tensor
        elif "weights" in name and tensor.dim() == 3:
            degree = 3 if leaf == "weights_max" else 2 - int(leaf)
            place = ".".join(above if degree == 3 else above[:-1])
            couplings = [
                _symmetrise(each[f"{place}.U_matrix_{degree}"].double(), degree)
                for each in (state, was)
            ]
            change = torch.linalg.lstsq(*couplings, driver="gelsd").solution
            state[name] = torch.einsum("ab,zbc->zac", change.to(tensor), tensor)
    new.load_state_dict(state)
    torch.save(new, path)


def _symmetrise(couplings: torch.Tensor, degree: int) -> torch.Tensor:
    """Return the mean over orders of the factors, flat: (components of all factors, couplings)."""
    lead = couplings.dim() - 1 - degree
    orders = list(itertools.permutations(range(lead, lead + degree)))
    turned = [couplings.permute(*range(lead), *order, -1) for order in orders]
    return (sum(turned) / len(orders)).reshape(-1, couplings.shape[-1])


def _plain(structures: Sequence[Atoms]) -> list[Atoms]:
    plain = []
    for atoms in structures:
        copy = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=atoms.pbc)
        copy.info["REF_energy"] = atoms.info["REF_energy"]
        copy.arrays["REF_forces"] = atoms.arrays["REF_forces"]
        plain.append(copy)
    return plain


def _mace_words(name: str, folder: Path, data: Data, seed: int) -> list[str]:
    """Return the options of ``mace_run_train``, those of its documentation on fine-tuning."""
    size = 2 if len(data.train) < 500 else 5
    options = {
        "name": "fit",
        "foundation_model": "start.model",
        "foundation_model_elements": True,  # else it forgets the elements that are not fitted
        "train_file": "train.extxyz",
        "valid_file": "valid.extxyz",
        "E0s": "estimated",
        "energy_weight": 1.0,
        "forces_weight": 10.0,
        "lr": 0.001,
        "scaling": "rms_forces_scaling",
        "batch_size": size,
        "ema_decay": 0.99,
        "default_dtype": "float32",
        "device": "cpu",
        "seed": seed,
        "energy_key": "REF_energy",
        "forces_key": "REF_forces",
        "multiheads_finetuning": name == "mace multihead",
        "model_dir": ".",
        "eval_interval": 5,
    }
    if name == "mace multihead":
        potential = load_potential(MODEL, trust=True)
        known = prepare_pretraining_set(potential, data.replayed, labels="model")
        ase.io.write(folder / "known.extxyz", _plain(known.labelled.structures))
        options |= {"pt_train_file": "known.extxyz", "force_mh_ft_lr": True}
    words = [f"--{key}={value}" for key, value in options.items()]
    return [*words, "--ema", "--amsgrad"]


def _time_mace(words: list[str], folder: Path, n_epochs: int) -> float:
    """Run ``mace_run_train`` for so many epochs; return its processor time, s."""
    for old in ("checkpoints", "results", "logs"):
        subprocess.run(["rm", "-rf", str(folder / old)], check=True)
    begin = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-m", "mace.cli.run_train", *words, f"--max_num_epochs={n_epochs}"],
        cwd=folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    if run.returncode:
        raise RuntimeError(run.stdout[-1500:] + run.stderr[-1500:])
    end = resource.getrusage(resource.RUSAGE_CHILDREN)
    return end.ru_utime + end.ru_stime - begin.ru_utime - begin.ru_stime


def read_results() -> list[dict[str, Any]]:
    """Return what has been measured."""
    if not RESULTS.exists():
        return []
    return [json.loads(line) for line in RESULTS.read_text().splitlines()]


def list_runs(asked: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the runs that are wanted and not there yet, the same seed of all recipes together."""
    keys = ("set", "size", "seed", "recipe")
    done = {tuple(run[key] for key in keys) for run in read_results()}
    for seed in asked.seeds:
        for size in asked.sizes:
            for name in asked.sets:
                for recipe in asked.recipes:
                    if (name, size, seed, recipe) not in done:
                        yield {"set": name, "size": size, "seed": seed, "recipe": recipe}


def write_table() -> None:
    """Write the means over seeds as a table."""
    runs = read_results()
    lines = [
        "# Recipes of fine-tuning at equal processor time",
        "",
        "    python benchmarks/recipes.py",
        "",
        *(line for line in (__doc__ or "").split("\n\n", 2)[2].strip().splitlines()),
        "",
        *_compare_with_full(runs),
        "",
        "| set | labels | recipe | seeds | updates | s | E, meV/atom | F, meV/Å | forgotten |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for key in dict.fromkeys((run["set"], run["size"], run["recipe"]) for run in _ordered(runs)):
        of_key = [run for run in runs if (run["set"], run["size"], run["recipe"]) == key]

        def mean(name: str, of_key: list[dict[str, Any]] = of_key) -> float:
            return float(np.mean([run[name] for run in of_key]))

        lines.append(
            f"| {key[0]} | {key[1]:,} | {key[2]} | {len(of_key)} | {mean('updates'):,.0f} "
            f"| {mean('seconds'):.0f} | {mean('energy_rmse_per_atom'):.1f} "
            f"| {mean('forces_rmse'):.0f} | {mean('forgotten'):.0f} |"
        )
    TABLE.write_text("\n".join(lines) + "\n")


def _compare_with_full(runs: list[dict[str, Any]]) -> list[str]:
    """Return ratios to ``full`` of the same set, size and seed, geometric means, as a table."""
    keys = ("energy_rmse_per_atom", "forces_rmse", "forgotten")
    full = {(run["set"], run["size"], run["seed"]): run for run in runs if run["recipe"] == "full"}
    lines = [
        "Ratios to `full` of the same set, labels and seed: geometric mean (least to largest).",
        "",
        "| labels | recipe | pairs | E | F | forgotten |",
        "|---|---|---|---|---|---|",
    ]
    for size, recipe in itertools.product(SIZES, (*RECIPES, *MACE_RECIPES)):
        pairs = [
            (run, full[run["set"], size, run["seed"]])
            for run in runs
            if (run["size"], run["recipe"]) == (size, recipe)
            and (run["set"], size, run["seed"]) in full
        ]
        if recipe == "full" or not pairs:
            continue
        cells = []
        for key in keys:
            logs = np.log([run[key] / other[key] for run, other in pairs])
            mean, least, most = np.exp([logs.mean(), logs.min(), logs.max()])
            cells.append(f"{mean:.2f} ({least:.2f} to {most:.2f})")
        lines.append(f"| {size:,} | {recipe} | {len(pairs)} | {' | '.join(cells)} |")
    return lines


def _ordered(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    names = (*RECIPES, *MACE_RECIPES)
    return sorted(
        runs, key=lambda run: (SETS.index(run["set"]), run["size"], names.index(run["recipe"]))
    )


def main() -> None:
    """Run what is missing, and write the table after each run."""
    parser = argparse.ArgumentParser(description=__doc__)
    split = lambda kind: lambda text: [kind(word) for word in text.split(",")]  # noqa: E731
    parser.add_argument("--sets", type=split(str), default=list(SETS))
    parser.add_argument("--sizes", type=split(int), default=list(SIZES))
    parser.add_argument("--seeds", type=split(int), default=[0, 1])
    parser.add_argument("--recipes", type=split(str), default=[*RECIPES, *MACE_RECIPES])
    parser.add_argument("--seconds", type=float, help="in place of the time that a size gets")
    parser.add_argument("--tables-only", action="store_true")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for run in [] if asked.tables_only else list_runs(asked):
        data = read_data(run["set"], run["size"], run["seed"])
        if len(data.train) < run["size"]:
            print(f"{run['set']} has fewer than {run['size']} structures: left out", flush=True)
            continue
        seconds = SIZES[run["size"]] if asked.seconds is None else asked.seconds
        begin = time.perf_counter()
        if run["recipe"] in MACE_RECIPES:
            found = run_mace(run["recipe"], data, seconds, run["seed"])
        else:
            found = run_labelwise(RECIPES[run["recipe"]], data, seconds, run["seed"])
        with RESULTS.open("a") as stream:
            stream.write(json.dumps(run | found) + "\n")
        write_table()
        shown = ", ".join(f"{key} {value:.4g}" for key, value in found.items())
        print(*run.values(), shown, f"({time.perf_counter() - begin:.0f} s)", flush=True)
    write_table()


if __name__ == "__main__":
    main()
