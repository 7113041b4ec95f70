from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError, LabelwiseWarning, StructureError
from labelwise.potentials.graphs import GraphBuilder, collate, radius_edges

BUILDER = GraphBuilder(elements=(1, 6, 8), cutoff=3.0)


def brute_force(atoms: Atoms, cutoff: float, images: int = 4) -> set[tuple[int, ...]]:
    """Every (sender, receiver, shift) within the cutoff, by trying all images."""
    spans = [range(-images, images + 1) if periodic else (0,) for periodic in atoms.pbc]
    edges = set()
    for shift in itertools.product(*spans):
        offset = np.array(shift) @ atoms.cell.array
        for i, j in itertools.product(range(len(atoms)), repeat=2):
            distance = np.linalg.norm(atoms.positions[j] - atoms.positions[i] + offset)
            if 0 < distance < cutoff:
                edges.add((i, j, *shift))
    return edges


@given(
    seed=st.integers(0, 10_000),
    n_atoms=st.integers(1, 7),
    pbc=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    empty_open_vectors=st.booleans(),
)
def test_edges_are_those_of_brute_force(
    seed: int, n_atoms: int, pbc: tuple[bool, ...], empty_open_vectors: bool
) -> None:
    """Tilted cells, any mixture of boundaries, atoms outside the cell."""
    rng = np.random.default_rng(seed)
    cell = np.diag(rng.uniform(2.5, 5.0, 3)) + rng.uniform(-0.8, 0.8, (3, 3))
    cell = cell @ np.linalg.qr(rng.normal(size=(3, 3)))[0]
    if empty_open_vectors:
        cell[~np.array(pbc)] = 0.0
    positions = rng.uniform(-6.0, 6.0, (n_atoms, 3))
    atoms = Atoms(rng.choice([1, 6, 8], n_atoms), positions=positions, cell=cell, pbc=pbc)
    graph = BUILDER(atoms)
    got = [
        (*pair, *shift) for pair, shift in zip(graph.edge_index.T, graph.unit_shifts, strict=True)
    ]
    assert len(got) == len({tuple(map(int, edge)) for edge in got})
    assert {tuple(map(int, edge)) for edge in got} == brute_force(atoms, 3.0, images=12)


def test_large_molecules_take_the_cell_list_and_get_the_same_edges() -> None:
    rng = np.random.default_rng(3)
    positions = rng.uniform(-8, 8, (150, 3))
    open_boundaries = np.zeros(3, dtype=bool)
    edges, _ = radius_edges(positions, np.zeros((3, 3)), open_boundaries, 3.0)
    distances = np.linalg.norm(positions[:, None] - positions, axis=2)
    wanted = np.argwhere((distances < 3.0) & (distances > 0))
    assert {tuple(e) for e in edges.T.tolist()} == {tuple(e) for e in wanted.tolist()}


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (Atoms(), "without atoms"),
        (Atoms("HCl", positions=[[0, 0, 0], [0, 0, 1.3]]), "contains Cl"),
        (Atoms("HX", positions=[[0, 0, 0], [0, 0, 1.3]]), "contains X|atomic number 0"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, np.nan]]), "not finite"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 0]]), "on top of each other"),
        (Atoms("H2", positions=[[0, 0, 0], [4, 0, 0]], cell=[4, 4, 4], pbc=True), "on top"),
        (Atoms("H2", positions=[[0, 0, 0], [0, 0, 1]], pbc=True), "lattice vectors"),
        (
            Atoms("H", cell=[[4, 0, 0], [8, 0, 0], [0, 0, 4]], pbc=True),
            "lattice vectors",
        ),
    ],
)
def test_impossible_structures_are_refused(atoms: Atoms, message: str) -> None:
    with pytest.raises(StructureError, match=message):
        BUILDER(atoms)


def test_a_structure_far_away_gives_the_same_positions() -> None:
    near, far = molecule("CH3OH"), molecule("CH3OH")
    far.positions += 1e5
    np.testing.assert_allclose(BUILDER(near).positions, BUILDER(far).positions, atol=1e-10)


def test_batches_split_into_what_they_were_made_of() -> None:
    graphs = [BUILDER(molecule(name)) for name in ("H2O", "H", "CH3OH")]
    batch = collate(graphs, dtype=torch.float64)
    assert batch.n_structures == 3 and batch.n_atoms == 10
    assert batch.n_edges == sum(graph.n_edges for graph in graphs)
    for single, graph in zip(batch.split(), graphs, strict=True):
        alone = collate([graph], dtype=torch.float64)
        for field in type(batch).__slots__:
            got, wanted = getattr(single, field), getattr(alone, field)
            assert torch.equal(got, wanted) if torch.is_tensor(wanted) else got == wanted


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(ArgumentError, match="at least one"):
        collate([], dtype=torch.float64)


def test_graphs_describe_themselves() -> None:
    assert BUILDER(molecule("CH3CHO")).formula == "H4C2O"


@pytest.mark.parametrize(
    ("one", "other", "words"),
    [
        ({}, {"total_charge": 1}, r"total charge \(0.0 and 1.0\)"),
        ({"charge": -1}, {"charge": "0"}, r"total charge \(-1.0 and 0.0\)"),
        ({}, {"spin": 3}, r"multiplicity \(1.0 and 3.0\)"),
        ({"spin": 1}, {"multiplicity": 2}, r"multiplicity \(1.0 and 2.0\)"),
        ({"charge": 0}, {"charge": "odd"}, r"total charge \(0.0 and odd\)"),
        ({}, {"charge": 1, "spin": 2}, r"total charge \(0.0 and 1.0\) and multiplicity"),
    ],
)
def test_ignored_states_that_differ_are_said_once(
    one: dict[str, object], other: dict[str, object], words: str
) -> None:
    builder = GraphBuilder((1, 8), 5.0)
    structures = [molecule("H2O") for _ in range(4)]
    structures[1].info.update(one)
    structures[0].info.update(one)
    structures[2].info.update(other)
    builder(structures[0])
    builder(structures[1])
    with pytest.warns(LabelwiseWarning, match=words) as said:
        builder(structures[2])
    assert len(said) == 1
    for atoms in structures:
        assert builder(atoms).charge == 0.0


def test_states_that_are_taken_or_alike_are_not_remarked() -> None:
    ions = [molecule("H2O") for _ in range(3)]
    for charge, atoms in enumerate(ions):
        atoms.info.update(charge=charge, spin=1 + charge)
    taking = GraphBuilder((1, 8), 5.0, charge_range=(-1.0, 5.0), spin_range=(0.0, 5.0))
    assert [(g.charge, g.spin) for g in map(taking, ions)] == [(0, 1), (1, 2), (2, 3)]
    ignoring = GraphBuilder((1, 8), 5.0)
    assert [ignoring(ions[2]).charge for _ in range(3)] == [0.0] * 3


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        ({"multiplicity": 3}, 3.0),
        ({"uhf": 2}, 3.0),
        ({"spin_multiplicity": "2"}, 2.0),
        ({"spin": 0, "multiplicity": 1}, 0.0),
        ({"spin": None, "uhf": 1}, 2.0),
        ({"total_spin": np.array([3])}, 3.0),
        ({"mult": 2}, 2.0),
        ({"n_unpaired": 1}, 2.0),
    ],
)
def test_multiplicities_in_other_words(info: dict[str, object], expected: float) -> None:
    atoms = molecule("H2O")
    atoms.info.update(info)
    assert GraphBuilder((1, 8), 5.0, spin_range=(0.0, 5.0))(atoms).spin == expected


@pytest.mark.parametrize(
    ("info", "expected"),
    [({"net_charge": 1}, 1.0), ({"Charge": "-1"}, -1.0), ({"charge": 0, "net_charge": 1}, 0.0)],
)
def test_charges_in_other_words(info: dict[str, object], expected: float) -> None:
    atoms = molecule("H2O")
    atoms.info.update(info)
    assert GraphBuilder((1, 8), 5.0, charge_range=(-5.0, 5.0))(atoms).charge == expected
