"""Rows that another process computes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
from ase import Atoms

from labelwise.features.representations import make_representation
from labelwise.potentials import load_potential

ROWS = """
import pickle, sys
potential, representation, batches = pickle.load(sys.stdin.buffer)
rows = [representation.compute(potential, potential.collate(batch)) for batch in batches]
sys.stdout.buffer.write(pickle.dumps([part.numpy() for part in rows]))
"""


def test_force_rows_of_another_process_are_the_same(rattled_molecules: list[Atoms]) -> None:
    """Equal to rounding: to the bit in a fresh process, and not always in one that did other work.

    TorchScript rewrites what it was first called with, so that harmonics are left as they are
    written; why other work changes last bits is not known.
    """
    potential = load_potential("demo", device="cpu")
    representation = make_representation("ntk-f")
    graphs = [potential.graph_builder(atoms) for atoms in rattled_molecules]
    batches = [graphs[i : i + 6] for i in range(0, len(graphs), 6)]
    sent = cloudpickle.dumps((potential, representation, batches))
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ROWS], input=sent, stdout=subprocess.PIPE, check=True
    )
    for batch, rows in zip(batches, pickle.loads(found.stdout), strict=True):
        here = representation.compute(potential, potential.collate(batch))
        largest = float(here.abs().max())
        np.testing.assert_allclose(here.numpy(), rows, rtol=0.0, atol=1e-6 * largest)
