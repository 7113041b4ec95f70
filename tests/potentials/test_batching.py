from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from labelwise.errors import ArgumentError, OutOfMemoryError, StructureError
from labelwise.potentials import Batch, map_batches
from labelwise.potentials.batching import build_graphs, fill_batches
from labelwise.potentials.graphs import GraphBuilder
from labelwise.potentials.mace.loading import make_potential
from labelwise.potentials.mace.potential import MacePotential
from labelwise.runtime.engines import Engine, ProcessEngine
from tests.potentials.models import make_mace
from tests.runtime.engines.pickled import PickledEngine

NAMES = ["H2O", "CH4", "CH3OH", "CO2", "H", "C2H4", "CH3CHO", "O", "H2CO", "CO"] * 3


def pool() -> list[Atoms]:
    rng = np.random.default_rng(0)
    structures = [molecule(name) for name in NAMES]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return structures


def reference(potential: Any) -> torch.Tensor:
    return potential.energy_tangent(potential.collate([potential.prepare(a) for a in pool()]))


@pytest.mark.parametrize("batch_atoms", [1, 5, 17, 10_000, None])
def test_results_come_in_order_whatever_the_batch(vectors: Any, batch_atoms: int | None) -> None:
    done: list[int] = []
    chunks = map_batches(
        vectors, pool(), vectors.energy_tangent, batch_atoms=batch_atoms, progress=done.append
    )
    rows = torch.cat(list(chunks))
    torch.testing.assert_close(rows, reference(vectors), rtol=1e-10, atol=1e-12)
    assert done[-1] == len(NAMES) and done == sorted(set(done))


def test_batches_keep_within_atoms_and_edges() -> None:
    builder = GraphBuilder(elements=(1, 6, 8), cutoff=3.5)
    graphs = list(build_graphs(builder, pool()))
    for max_atoms, max_edges in ((12, 10_000), (10_000, 60), (20, 100), (1, 1)):
        groups = list(fill_batches(iter(graphs), max_atoms, max_edges))
        assert [g for group in groups for g in group] == graphs
        for group in groups:
            within = (
                sum(g.n_atoms for g in group) <= max_atoms
                and sum(g.n_edges for g in group) <= max_edges
            )
            assert within or len(group) == 1


def test_streams_are_read_only_as_far_as_needed(vectors: Any) -> None:
    n_read = 0

    def stream() -> Iterator[Atoms]:
        nonlocal n_read
        for atoms in pool():
            n_read += 1
            yield atoms

    chunks = map_batches(vectors, stream(), vectors.activations, batch_atoms=10)
    first = next(chunks)
    assert n_read <= len(first) + 1


class SmallMemory(MacePotential):
    """A real potential on a device that holds only so many atoms: a fault is injected."""

    def __init__(self, limit: int, error: Callable[[], BaseException]) -> None:
        super().__init__(make_mace(), name="small memory")
        self.limit = limit
        self.error = error
        self.sizes: list[int] = []

    def energy_tangent(self, batch: Batch, **options: Any) -> torch.Tensor:
        self.sizes.append(batch.n_atoms)
        if batch.n_atoms > self.limit:
            raise self.error()
        return super().energy_tangent(batch, **options)


MEMORY_ERRORS: dict[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB"),
    "cpu": lambda: RuntimeError(
        "[enforce fail at alloc_cpu.cpp:121] . DefaultCPUAllocator: can't allocate memory: "
        "you tried to allocate 20 bytes. Error code 12 (Cannot allocate memory)"
    ),
    "python": lambda: MemoryError(),
}


@pytest.mark.parametrize("kind", sorted(MEMORY_ERRORS))
def test_batches_are_halved_when_memory_runs_out(kind: str) -> None:
    potential = SmallMemory(11, MEMORY_ERRORS[kind])
    rows = torch.cat(list(map_batches(potential, pool(), potential.energy_tangent)))
    assert max(potential.sizes) > 100 and min(potential.sizes) <= 11
    roomy = SmallMemory(10_000, MEMORY_ERRORS[kind])
    torch.testing.assert_close(rows, reference(roomy), rtol=1e-10, atol=1e-12)


def test_a_structure_that_does_not_fit_is_named() -> None:
    potential = SmallMemory(6, MEMORY_ERRORS["cuda"])  # the first of seven atoms is CH3CHO
    chunks = map_batches(potential, pool(), potential.energy_tangent)
    with pytest.raises(OutOfMemoryError, match=r"structure 6 \(H4C2O, 7 atoms.*Tried to allocate"):
        list(chunks)


def test_other_errors_are_not_taken_for_lack_of_memory() -> None:
    potential = SmallMemory(11, lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="shapes"):
        list(map_batches(potential, pool(), potential.energy_tangent))


@pytest.fixture(params=["alone", "engine"])
def engine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Engine | None:
    return request.getfixturevalue("two_processes") if request.param == "engine" else None


@pytest.fixture(scope="module")
def two_processes() -> Iterator[Engine]:
    with ProcessEngine(2) as engine:
        yield engine


def test_a_structure_that_cannot_be_taken_is_named(vectors: Any, engine: Engine | None) -> None:
    structures = [*pool()[:7], molecule("NH3"), *pool()[7:]]
    with pytest.raises(StructureError, match=r"structure 7: .*NH3|structure 7: H3N"):
        list(map_batches(vectors, structures, vectors.activations, engine=engine))


def test_processes_give_the_same_bits_and_count(two_processes: Engine) -> None:
    potential = make_potential(make_mace(), name="small")
    structures = pool() * 40
    counts: list[int] = []
    here = list(map_batches(potential, structures, potential.energy_tangent, batch_atoms=30))
    shared = map_batches(
        potential,
        iter(structures),
        potential.energy_tangent,
        batch_atoms=30,
        engine=two_processes,
        progress=counts.append,
    )
    for one, other in zip(here, shared, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert counts == list(np.cumsum([len(part) for part in here]))


def test_a_structure_that_alone_does_not_fit_is_named_by_its_place() -> None:
    potential = SmallMemory(6, MEMORY_ERRORS["cuda"])
    small = [atoms for atoms in pool() if len(atoms) <= 6]
    structures = [*small * 30, molecule("C2H6")]
    with pytest.raises(OutOfMemoryError, match=rf"structure {30 * len(small)} \(H6C2, 8 atoms"):
        list(map_batches(potential, structures, potential.energy_tangent, engine=PickledEngine()))


def test_processes_give_the_same_graphs_in_order(two_processes: Engine) -> None:
    builder = GraphBuilder(elements=(1, 6, 8), cutoff=3.5)
    structures = pool() * 8
    here = build_graphs(builder, structures)
    ahead = build_graphs(builder, iter(structures), engine=two_processes)
    for one, other in zip(here, ahead, strict=True):
        np.testing.assert_array_equal(one.positions, other.positions)
        np.testing.assert_array_equal(one.edge_index, other.edge_index)


def test_impossible_options_are_refused(vectors: Any) -> None:
    with pytest.raises(ArgumentError, match="batch_atoms"):
        list(map_batches(vectors, pool(), vectors.activations, batch_atoms=0))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_a_gpu_gives_the_same_rows() -> None:
    here = make_potential(make_mace(), name="cpu")
    there = make_potential(make_mace(), name="cuda", device="cuda")
    rows = torch.cat(list(map_batches(there, pool(), there.energy_tangent)))
    torch.testing.assert_close(rows, reference(here), rtol=1e-8, atol=1e-10)
    assert os.environ.get("CUDA_VISIBLE_DEVICES", "0") != ""
