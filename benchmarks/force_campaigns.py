"""Short replayed campaigns of force-aware rules against ntk-e and random choice.

The features are those of the pretrained model (``selection.model: pretrained`` in a campaign), so
that they are computed once for all rules and seeds and a campaign costs its fine-tuning alone.
One JSON file for each rule and seed, which a second run reads; ``--tables`` prints them.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from labelwise import load_potential, read_structures
from labelwise.features.representations import (
    FeatureBlock,
    RepresentationOptions,
    normalise_rows,
    represent,
)
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.finetuning.evaluation import evaluate
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from labelwise.selection.rules import select_batch, select_joint_posterior, select_random

BATCH = 4
Pick = Callable[[np.ndarray, np.ndarray, int, int], np.ndarray]


def by_kernel(parts: list[np.ndarray], rule: str) -> Pick:
    """Return a rule on the cosine kernel of rows, (n, d) each part, parts of equal weight."""
    rows = np.concatenate(parts, axis=1)
    blocks = [FeatureBlock(part.shape[1], 1.0 / len(parts)) for part in parts]

    def pick(labelled: np.ndarray, left: np.ndarray, n_select: int, seed: int) -> np.ndarray:
        train, pool = rows[labelled].copy(), rows[left].copy()
        normalise_rows(train, pool, blocks)
        kernels = (LinearKernel(each, normalise="none") for each in (pool, train))
        return select_batch(rule, *kernels, n_select, seed=seed).pool_idx

    return pick


def by_joint_posterior(sets: RowSets, normalise: str, weight: float) -> Pick:
    """Return the joint posterior rule on row sets."""

    def pick(labelled: np.ndarray, left: np.ndarray, n_select: int, _seed: int) -> np.ndarray:
        train, pool = (sets.take(torch.from_numpy(idx)) for idx in (labelled, left))
        scales = RowScales.measured(train, normalise=normalise, energy_weight=weight)
        return select_joint_posterior(
            scales.weigh(pool), scales.weigh(train), n_select, per_atom=normalise == "none"
        ).pool_idx

    return pick


def at_random(_labelled: np.ndarray, left: np.ndarray, n_select: int, seed: int) -> np.ndarray:
    """Choose at random."""
    return select_random(len(left), n_select, seed=seed).pool_idx


def make_rules(
    pool: list[Atoms], potential: Potential, args: argparse.Namespace
) -> dict[str, Pick]:
    """Return the rules by name; features are kept in a file for the next run."""
    cache = args.out / f"{args.name}_features.pt"
    content: dict[str, Any] = torch.load(cache, weights_only=False) if cache.exists() else {}

    def force_rows(reduction: str) -> np.ndarray:
        options = RepresentationOptions(reduction=reduction, n_probes=args.probes)
        return represent(pool, potential, "ntk-f", options=options)

    makers: dict[str, Callable[[], Any]] = {
        "energy": lambda: represent(pool, potential, "ntk-e"),
        "moments": lambda: force_rows("moments"),
        "fields": lambda: force_rows("fields"),
        "sets": lambda: row_sets(pool, potential, args.probes),
    }
    for name in makers.keys() - content.keys():
        content[name] = makers[name]()
        torch.save(content, cache)
    rules: dict[str, Pick] = {"random": at_random}
    for rule in ("lcmd", "pv"):
        rules[f"ntk-e, {rule}"] = by_kernel([content["energy"]], rule)
        for reduction in ("moments", "fields"):
            force = content[reduction]
            rules[f"ntk-f {reduction}, {rule}"] = by_kernel([force], rule)
            rules[f"ntk-ef {reduction}, {rule}"] = by_kernel([content["energy"], force], rule)
    for normalise in ("none", "cosine"):
        rules[f"joint-pv, {normalise}"] = by_joint_posterior(content["sets"], normalise, 0.5)
    return rules


def row_sets(pool: list[Atoms], potential: Potential, n_probes: int | None) -> RowSets:
    """Return the rows of energies and forces."""
    parts = list(iter_row_sets(pool, potential, RepresentationOptions(n_probes=n_probes)))
    return join_row_sets(parts, parts[0].dim)


def run(
    pick: Pick,
    pool: list[Atoms],
    held_out: tuple[list[Atoms], list[Atoms]],
    potential: Potential,
    seed: int,
    args: argparse.Namespace,
) -> dict[str, Any]:
    """Run one campaign and return its errors by round, meV and meV/Å."""
    begin = time.process_time()
    valid, test = held_out
    labelled = np.random.default_rng([seed, 1]).choice(len(pool), args.initial, replace=False)
    curve: list[tuple[float, float]] = []
    for number in range(args.rounds + 1):
        if number > 0:
            left = np.setdiff1d(np.arange(len(pool)), labelled)
            chosen = pick(labelled, left, args.batch_size, 1000 * seed + number)
            labelled = np.concatenate([labelled, left[chosen]])
        recipe = Recipe(
            batch_size=BATCH,
            learning_rate=5e-3,
            max_updates=args.updates,
            epochs=1 + -(-args.updates * BATCH // len(labelled)),
            max_validations=5,
        )
        keys = {"energy_key": args.energy_key, "forces_key": args.forces_key}
        fitted = finetune(potential, [pool[i] for i in labelled], valid, recipe, seed=seed, **keys)
        errors = evaluate(fitted.potential, test, **keys).errors
        curve.append((errors.energy_rmse, errors.forces_rmse))
    return {
        "energy": [energy for energy, _ in curve],
        "forces": [force for _, force in curve],
        "labelled": labelled.tolist(),
        "cpu_seconds": time.process_time() - begin,
    }


def table(folder: Path, name: str) -> str:
    """Return the sums over the rounds after the first and the final errors of each rule."""
    found: dict[str, dict[int, dict[str, Any]]] = {}
    for path in sorted(folder.glob(f"{name}__*.json")):
        _, rule, seed = path.stem.split("__")
        found.setdefault(rule, {})[int(seed)] = json.loads(path.read_text())
    reference = found["random"]
    lines = [
        "| rule | seeds | AUC E | AUC F | final E | final F | AUC E / random | AUC F / random |",
        "|---" * 8 + "|",
    ]
    for rule, runs in found.items():
        values = np.array([_figures(each) for each in runs.values()])
        ratios = np.array(
            [_figures(runs[s])[:2] / _figures(reference[s])[:2] for s in runs if s in reference]
        )
        cells = [f"{v.mean():.0f} ({', '.join(f'{x:.0f}' for x in v)})" for v in values.T]
        cells += [f"{r.mean():.2f} ({', '.join(f'{x:.2f}' for x in r)})" for r in ratios.T]
        seeds = ", ".join(str(seed) for seed in runs)
        lines.append(f"| {rule} | {seeds} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _figures(result: dict[str, Any]) -> np.ndarray:
    energy, forces = result["energy"], result["forces"]
    return np.array([sum(energy[1:]), sum(forces[1:]), energy[-1], forces[-1]])


def main() -> None:
    """Run what is not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", required=True, help="of the data set")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pool", required=True, help="FILE@SLICE")
    parser.add_argument("--valid", required=True)
    parser.add_argument("--test", required=True)
    parser.add_argument("--energy-key", default="REF_energy")
    parser.add_argument("--forces-key", default="REF_forces")
    parser.add_argument("--rules", nargs="*", help="all by default, about 20 minutes a seed")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--probes", type=int, help="exact by default")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--initial", type=int, default=10)
    parser.add_argument("--updates", type=int, default=300, help="of each fine-tuning")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    potential = load_potential(args.model, device="cpu", trust=True)
    pool, valid, test = (
        [atoms for atoms in read_structures(spec) if len(atoms) > 1]
        for spec in (args.pool, args.valid, args.test)
    )
    rules = make_rules(pool, potential, args)
    for seed in args.seeds:
        for rule in args.rules if args.rules else rules:
            path = args.out / f"{args.name}__{rule}__{seed}.json"
            if not path.exists():
                result = run(rules[rule], pool, (valid, test), potential, seed, args)
                path.write_text(json.dumps(result))
    print(table(args.out, args.name))


if __name__ == "__main__":
    main()
