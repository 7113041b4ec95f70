"""How well do posterior variances rank the true force errors of a pretrained model?

For each representation, reduction and weight: the Spearman correlation of the posterior
variance with the force RMSE of the structures, and the area under the sparsification curve, given
a few labelled structures drawn at random. No label enters but the errors themselves. Then the
predicted standard deviations: their correlation with the errors, the coverage of 90 % intervals
after calibration on the labelled structures, and the correlation within structures, over atoms.

One JSON file for each data set, which a second run reads; then the tables.
"""

from __future__ import annotations

import argparse
import json
import time
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
from labelwise.finetuning.metrics import sparsification_area, spearman
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from labelwise.selection.force_uncertainty import predict_force_uncertainty
from labelwise.selection.rules.joint_posterior import JointPosterior
from labelwise.selection.rules.posterior_variance import posterior_variance

N_PROBES = (4, 8, 16)
WEIGHTS = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
# What the rows behind a score cost: its name in force_tangents.json.
COST_OF = {
    "force RMS of the model": "labelwise energy + forces",
    "ntk-e": "ntk-e",
    "ntk-f force-norm": "ntk-f, force-norm",
    "ntk-f fields": "ntk-f, fields",
    "ntk-f moments, 8 probes": "ntk-f, moments, k = 8",
    "ntk-f rms": "ntk-f, rms, exact",
    "ntk-f element-rms": "ntk-f, element-rms, exact",
    "ntk-f moments": "ntk-f, moments, exact",
    "joint, λ = 0.3, 4 probes": "joint rows, k = 4",
    "joint, λ = 0.3, 8 probes": "joint rows, k = 8",
    "joint, λ = 0.3, 16 probes": "joint rows, k = 16",
    "joint, λ = 0.3": "joint rows, exact",
}
REGULARISATIONS = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
Features = dict[str, tuple[np.ndarray, tuple[FeatureBlock, ...]]]


def compute_features(structures: list[Atoms], potential: Potential) -> Features:
    """Return the rows of every representation, with the blocks they are normalised by."""
    features: Features = {}

    def add(label: str, name: str, n_probes: int | None = None, **others: Any) -> None:
        options = RepresentationOptions(n_probes=n_probes, **others)
        rows = represent(structures, potential, name, options=options)
        features[label] = (rows, (FeatureBlock(rows.shape[1]),))

    add("activation", "activation")
    add("ntk-e", "ntk-e")
    for reduction in ("rms", "element-rms", "moments"):
        add(f"ntk-f {reduction}", "ntk-f", reduction=reduction)
        add(f"ntk-f {reduction}, 8 probes", "ntk-f", reduction=reduction, n_probes=8)
    for reduction in ("force-norm", "fields"):
        add(f"ntk-f {reduction}", "ntk-f", reduction=reduction)
    energy = features["ntk-e"][0]
    for reduction in ("rms", "moments"):
        force = features[f"ntk-f {reduction}"][0]
        for weight in WEIGHTS[1:-1]:
            blocks = (
                FeatureBlock(energy.shape[1], weight),
                FeatureBlock(force.shape[1], 1.0 - weight),
            )
            joined = np.concatenate([energy, force], axis=1)
            features[f"ntk-ef {reduction}, w = {weight}"] = (joined, blocks)
    return features


def score_by_kernels(features: Features, labelled: np.ndarray) -> dict[str, np.ndarray]:
    """Return the posterior variances of all structures under each kernel, λ = 1e-3."""
    scores = {}
    for label, (rows, blocks) in features.items():
        for normalise in ("cosine", "none"):
            train, pool = rows[labelled].copy(), rows.copy()
            normalise_rows(train, pool, blocks, normalise=normalise)
            scores[f"{label} | {normalise}"] = posterior_variance(
                LinearKernel(pool, normalise="none"), LinearKernel(train, normalise="none")
            ).numpy()
    return scores


def score_jointly(rows: dict[str, RowSets], labelled: np.ndarray) -> dict[str, np.ndarray]:
    """Return the joint posterior variances per atom: over λ, weights and probes."""
    scores = {}

    def add(label: str, sets: RowSets, regularisation: float, normalise: str, w: float) -> None:
        train = sets.take(torch.from_numpy(labelled))
        scales = RowScales.measured(train, normalise=normalise, energy_weight=w)
        posterior = JointPosterior(scales.weigh(train), regularisation)
        variance = posterior.variances(scales.weigh(sets)).numpy()
        scores[label] = variance / (sets.n_atoms.numpy() if normalise == "none" else 1)

    exact = rows["exact"]
    for regularisation in REGULARISATIONS:
        add(f"joint, λ = {regularisation} | none", exact, regularisation, "none", 0.0)
    for weight in WEIGHTS[1:]:
        add(f"joint, λ = 0.3, w = {weight} | none", exact, 0.3, "none", weight)
    add("joint, λ = 0.3 | cosine", exact, 0.3, "cosine", 0.0)
    for n_probes in N_PROBES:
        label = f"joint, λ = 0.3, {n_probes} probes | none"
        add(label, rows[f"{n_probes}"], 0.3, "none", 0.0)
    return scores


def study(structures: list[Atoms], potential: Potential, args: argparse.Namespace) -> Any:
    """Return the figures of one data set."""
    begin = time.process_time()
    n = len(structures)
    forces = [predict(potential, atoms) for atoms in structures]
    errors = [f - get(atoms, args.forces_key) for f, atoms in zip(forces, structures, strict=True)]
    rmse = np.array([np.sqrt(np.mean(np.square(error))) for error in errors])
    features = compute_features(structures, potential)
    rows = {"exact": join(structures, potential, None)}
    rows |= {f"{k}": join(structures, potential, k) for k in N_PROBES}
    fixed = {
        "force RMS of the model": np.array([np.sqrt(np.mean(np.square(f))) for f in forces]),
        "‖J_F‖²/N, no posterior": (rows["exact"].squares()[1] / rows["exact"].n_atoms).numpy(),
    }
    found: dict[str, list[tuple[float, float]]] = {}
    intervals = []
    for repeat in range(args.repeats):
        labelled = np.random.default_rng(repeat).choice(n, args.n_train, replace=False)
        rest = np.setdiff1d(np.arange(n), labelled)
        scores = fixed | score_by_kernels(features, labelled) | score_jointly(rows, labelled)
        for label, score in scores.items():
            rank = spearman(score[rest], rmse[rest])
            found.setdefault(label, []).append((rank, sparsification_area(score[rest], rmse[rest])))
        if repeat < args.interval_repeats:
            intervals.append(check_intervals(structures, potential, errors, labelled, rest, args))
    return {
        "n": n,
        "rmse": float(np.sqrt(np.mean(np.square(np.concatenate(errors))))),
        "oracle": sparsification_area(rmse, rmse),
        "scores": found,
        "intervals": intervals,
        "cpu_seconds": time.process_time() - begin,
    }


def check_intervals(
    structures: list[Atoms],
    potential: Potential,
    errors: list[np.ndarray],
    labelled: np.ndarray,
    rest: np.ndarray,
    args: argparse.Namespace,
) -> dict[str, float]:
    """Return rank correlation and coverage of the predicted standard deviations."""
    rest = rest[:: args.interval_every]
    found = predict_force_uncertainty(
        [structures[i] for i in rest],
        potential,
        train=[structures[i] for i in labelled],
        forces_key=args.forces_key,
    )
    rmse = [float(np.sqrt(np.mean(np.square(errors[i])))) for i in rest]
    assert found.atom_std is not None
    by_atom = [
        spearman(std, np.sqrt(np.mean(np.square(errors[i]), axis=1)))
        for i, std in zip(rest, found.atom_std, strict=True)
    ]
    inside = [
        np.abs(errors[i]) <= 1.645 * std for i, std in zip(rest, found.structure_std, strict=True)
    ]
    inside_by_atom = [
        np.abs(errors[i]) <= 1.645 * std[:, None]
        for i, std in zip(rest, found.atom_std, strict=True)
    ]
    return {
        "spearman": spearman(found.structure_std, np.array(rmse)),
        "coverage": float(np.concatenate(inside).mean()),
        "coverage_by_atom": float(np.concatenate(inside_by_atom).mean()),
        "spearman_over_atoms": float(np.nanmean(by_atom)),
    }


def join(structures: list[Atoms], potential: Potential, n_probes: int | None) -> RowSets:
    """Return the rows of all structures, exact or with probes."""
    parts = list(iter_row_sets(structures, potential, RepresentationOptions(n_probes=n_probes)))
    return join_row_sets(parts, parts[0].dim)


def predict(potential: Potential, atoms: Atoms) -> np.ndarray:
    """Return the model's forces on one structure, (n_atoms, 3), eV/Å."""
    forces = potential.predict(potential.collate([potential.prepare(atoms)])).forces
    assert forces is not None
    return forces.double().numpy()


def get(atoms: Atoms, key: str) -> np.ndarray:
    """Return the labelled forces, (n_atoms, 3), eV/Å."""
    return atoms.arrays[key] if key in atoms.arrays else atoms.get_forces(apply_constraint=False)


def tables(results: dict[str, Any]) -> str:
    """Return Spearman and sparsification of each score on each data set, and the intervals."""
    names = list(results)
    lines = [
        "| score | " + " | ".join(f"{name}: ρ | area" for name in names) + " |",
        "|---" * (1 + 2 * len(names)) + "|",
    ]
    for label in next(iter(results.values()))["scores"]:
        cells = []
        for name in names:
            values = np.array(results[name]["scores"][label])
            (rank, area), spread = values.mean(axis=0), values[:, 0].std(ddof=1)
            cells.append(f"{rank:.2f} ± {spread:.2f} | {area:.3f}")
        lines.append(f"| {label.replace(' | ', ', ')} | " + " | ".join(cells) + " |")
    oracle = " | ".join(f"1.00 | {results[name]['oracle']:.3f}" for name in names)
    lines += [f"| the errors themselves | {oracle} |", ""]
    columns = (
        "data set",
        "structures",
        "force RMSE",
        "ρ of the predicted std",
        "coverage of 90 %",
        "by atom",
        "ρ over the atoms of a structure",
    )
    lines += ["| " + " | ".join(columns) + " |", "|---" * len(columns) + "|"]
    for name in names:
        part = results[name]
        keys = ("spearman", "coverage", "coverage_by_atom", "spearman_over_atoms")
        values = np.array([[each[key] for key in keys] for each in part["intervals"]])
        cells = [
            f"{m:.2f} ± {s:.2f}" for m, s in zip(values.mean(0), values.std(0, ddof=1), strict=True)
        ]
        lines.append(
            f"| {name} | {part['n']} | {1000 * part['rmse']:.0f} meV/Å | {' | '.join(cells)} |"
        )
    return "\n".join(lines)


def quality_against_cost(results: dict[str, Any], costs: dict[str, Any]) -> str:
    """Return the better normalisation of each score beside what its rows cost.

    Args:
        results: By data set.
        costs: A part of force_tangents.json: row to force evaluations.
    """
    lines = [
        "| score | force evaluations | " + " | ".join(f"{name}: ρ" for name in results) + " |",
        "|---" * (2 + len(results)) + "|",
    ]
    for label, row in COST_OF.items():
        cost = f"{costs[row]['force_evaluations']:.1f}" if row in costs else "1.0"
        cells = []
        for part in results.values():
            found = part["scores"]
            names = [
                name for name in (label, f"{label} | none", f"{label} | cosine") if name in found
            ]
            means = {name: np.array(found[name])[:, 0].mean() for name in names}
            best = max(means, key=lambda name: means[name])
            cells.append(f"{means[best]:.2f}{' (cosine)' if best.endswith('cosine') else ''}")
        lines.append(f"| {label} | {cost} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Study what is not done, and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--data", nargs="*", default=[], metavar="NAME=FILE@SLICE")
    parser.add_argument("--forces-key", default="REF_forces")
    parser.add_argument("--n-train", type=int, default=15)
    parser.add_argument("--repeats", type=int, default=8)
    parser.add_argument("--interval-repeats", type=int, default=3)
    parser.add_argument("--interval-every", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--costs", type=Path, help="force_tangents.json, for quality by cost")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    potential = load_potential(args.model, device="cpu", trust=True)
    for spec in args.data:
        name, source = spec.split("=", 1)
        path = args.out / f"{name}.json"
        if not path.exists():
            structures = [atoms for atoms in read_structures(source) if len(atoms) > 1]
            path.write_text(json.dumps(study(structures, potential, args)))
    results = {path.stem: json.loads(path.read_text()) for path in sorted(args.out.glob("*.json"))}
    print(tables(results))
    if args.costs is not None:
        costs = json.loads(args.costs.read_text())[0]["rows"]
        print("\n" + quality_against_cost(results, costs))


if __name__ == "__main__":
    main()
