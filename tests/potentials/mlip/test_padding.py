"""Batches are filled up to few sizes, and what is filled in is out of everybody's sight."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.potentials.graphs import Batch, GraphBuilder, collate
from labelwise.potentials.mlip.padding import find_room, group, pad

ELEMENTS, CUTOFF = (1, 6, 8), 3.5


def make_batch(structures: list[Atoms]) -> Batch:
    builder = GraphBuilder(elements=ELEMENTS, cutoff=CUTOFF)
    return collate([builder(atoms) for atoms in structures], dtype=torch.float64)


def test_rooms_are_few_and_little_larger() -> None:
    atoms = [find_room(n, 0).n_atoms for n in range(1, 1025)]
    edges = [find_room(1, n).n_edges for n in range(1, 10_241)]
    assert len(set(atoms)) == 11
    assert len(set(edges)) == 22
    assert all(n <= room < max(33, 1.5 * n) for n, room in enumerate(atoms, start=1))
    assert all(n <= room < max(257, 1.25 * n + 1) for n, room in enumerate(edges, start=1))
    assert find_room(256, 10_240) == (256, 10_240)


def test_padded_arrays_are_the_batch_and_edges_beyond_the_cutoff() -> None:
    crystal = bulk("C", "diamond", a=3.6)
    batch = make_batch([molecule("CH3OH"), crystal, Atoms("O")])
    room = find_room(batch.n_atoms, batch.n_edges)
    padded = pad(batch, ELEMENTS, CUTOFF, room, 6)
    n, m = batch.n_atoms, batch.n_edges
    assert padded.numbers[:n].tolist() == [6, 8, 1, 1, 1, 1, 6, 6, 8]
    assert not padded.numbers[n:].any()
    assert padded.atom_counts.tolist() == [6, 2, 1, room.n_atoms + 1 - n, 0, 0]
    assert padded.edge_counts.tolist() == [*batch.edge_counts, room.n_edges - m, 0, 0]
    assert (np.diff(padded.senders) >= 0).all()
    assert (padded.senders[m:] == n).all() and (padded.receivers[m:] == n).all()
    cells = np.repeat(padded.cells, padded.edge_counts, axis=0)
    vectors = padded.positions[padded.receivers] - padded.positions[padded.senders]
    vectors += np.einsum("ej,ejk->ek", padded.unit_shifts, cells)
    lengths = np.linalg.norm(vectors, axis=1)
    assert (lengths[:m] < CUTOFF).all() and (lengths[m:] == 2 * CUTOFF).all()
    sender, receiver = batch.edge_index
    wanted = batch.positions[receiver] - batch.positions[sender] + batch.shifts
    np.testing.assert_allclose(np.sort(lengths[:m]), np.sort(wanted.norm(dim=1)))


def test_groups_hold_every_structure_once() -> None:
    names = ["H2O", "CH4", "C6H6", "CH3CH2OH"]
    structures = [molecule(names[i % 4]) for i in range(37)] + [bulk("C").repeat((5, 5, 5))]
    batch = make_batch(structures)
    groups = list(group(batch))
    assert sorted(place for each in groups for place in each.places) == list(range(38))
    for each in groups:
        assert len(each.places) <= each.size <= 8
        assert max(batch.atom_counts[i] for i in each.places) <= each.room.n_atoms
        assert max(batch.edge_counts[i] for i in each.places) <= each.room.n_edges
        assert each.size == 1 or each.size * each.room.n_atoms <= 512
