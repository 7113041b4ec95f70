"""Features of real structures and perturbed copies of them, for ``selection.py --features``.

Each structure is followed by copies whose atoms are moved by Gaussian noise, until the
number asked for is reached: a large pool with the geometry of a real one.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ase import Atoms

from labelwise.features.representations import iter_features
from labelwise.potentials import load_potential
from labelwise.structures import read_structures


def perturbed(
    structures: list[Atoms], n_total: int, noise: float, rng: np.random.Generator
) -> Iterator[Atoms]:
    """Yield each structure and copies of it, n_total in all; ``noise`` in Å."""
    for number in range(n_total):
        atoms = structures[number * len(structures) // n_total].copy()
        if number % (n_total // len(structures)) != 0:
            atoms.positions += rng.normal(scale=noise, size=atoms.positions.shape)
        yield atoms


def main() -> None:
    """Write arrays pool (n, d) and train (m, d), float32, shuffled."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pool", required=True, help="structures, as labelwise reads them")
    parser.add_argument("--n-total", type=int, default=100_000)
    parser.add_argument("--n-train", type=int, default=50)
    parser.add_argument("--noise", type=float, default=0.03, help="Å")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    structures = read_structures(args.pool)
    potential = load_potential(args.model, trust=True)
    stream = perturbed(structures, args.n_total, args.noise, rng)
    rows = np.concatenate(list(iter_features(stream, potential, "ntk-e")))
    order = rng.permutation(len(rows))
    train, pool = order[: args.n_train], order[args.n_train :]
    np.savez(args.out, train=rows[train], pool=rows[pool])
    print(f"{len(pool)} x {rows.shape[1]} in the pool, {len(train)} labelled")


if __name__ == "__main__":
    main()
