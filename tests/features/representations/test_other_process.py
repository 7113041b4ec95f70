"""Rows that another process computes."""

from __future__ import annotations

import pickle
import subprocess
import sys

import cloudpickle
import numpy as np
import pytest
from ase import Atoms

from labelwise.features.representations import make_representation
from labelwise.potentials import load_potential

ROWS = """
import pickle, sys
import torch
potential, representation, batches = pickle.load(sys.stdin.buffer)
for _ in range({n_calls}):  # as mace-torch's own calculator does
    edges = torch.ones(4, 3, requires_grad=True)
    out = potential.model.spherical_harmonics(edges).square().sum()
    torch.autograd.grad(out, edges, create_graph=True)
rows = [representation.compute(potential, potential.collate(batch)) for batch in batches]
sys.stdout.buffer.write(pickle.dumps([part.numpy() for part in rows]))
"""


@pytest.mark.parametrize("n_calls", [0, 4])
def test_force_rows_of_another_process_have_the_same_bits(
    n_calls: int, rattled_molecules: list[Atoms]
) -> None:
    """TorchScript rewrites what it was first called with, which differs between processes."""
    potential = load_potential("demo", device="cpu")
    representation = make_representation("ntk-f")
    graphs = [potential.graph_builder(atoms) for atoms in rattled_molecules]
    batches = [graphs[i : i + 6] for i in range(0, len(graphs), 6)]
    sent = cloudpickle.dumps((potential, representation, batches))
    code = ROWS.format(n_calls=n_calls)
    found = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code], input=sent, stdout=subprocess.PIPE, check=True
    )
    for batch, rows in zip(batches, pickle.loads(found.stdout), strict=True):
        here = representation.compute(potential, potential.collate(batch))
        np.testing.assert_array_equal(here.numpy(), rows)
