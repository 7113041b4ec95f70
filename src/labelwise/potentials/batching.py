"""Streaming structures through a potential in batches that fill the device.

A batch is filled by atoms and by edges, since cost and memory follow these and not the number
of structures. When memory runs out the batch is halved, down to a single structure.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from operator import length_hint
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import ArgumentError, OutOfMemoryError, StructureError
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch, Graph, GraphBuilder
from labelwise.runtime.engines import Engine, LocalEngine, Ready

# Measured, see benchmarks/results/representations.md.
DEFAULT_BATCH_ATOMS = {"cpu": 256, "cuda": 8192, "mps": 2048}
_EDGES_PER_ATOM = 40
_PREFETCH_STRUCTURES = 64

_ITEM_S = 0.3  # batches go to another process in groups that take so long: a group costs 5 ms
_MOST_BATCHES = 64

_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")


def map_batches(
    potential: Potential,
    structures: Iterable[Atoms],
    function: Callable[[Batch], torch.Tensor],
    *,
    batch_atoms: int | None = None,
    engine: Engine | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[torch.Tensor]:
    """Apply a function to batches of a stream of structures; memory stays bounded.

    Args:
        potential: Builds graphs and batches.
        structures: Any number of structures; read once, not modified.
        function: Maps a batch of n structures to a tensor whose first axis is n long.
        batch_atoms: Atoms per batch; a batch also holds at most 40 edges per such atom. A
            larger structure is a batch of its own. By default what measured best for
            the device.
        engine: Where batches are evaluated or, for a model on a GPU, neighbour lists are built
            ahead; None for this process. The batches, and so the bits, are the same.
        progress: Called with the number of structures finished so far, after each batch.

    Returns:
        Results in the order of the structures, one tensor per batch, on the CPU.

    Raises:
        ArgumentError: batch_atoms < 1.
        StructureError: a structure that the potential cannot take, with its place.
        OutOfMemoryError: one structure alone does not fit, with its place.
    """
    check_batch_atoms(batch_atoms)
    ahead = None if potential.device.type == "cpu" else engine
    return map_graphs(
        potential,
        build_graphs(potential.graph_builder, structures, engine=ahead),
        function,
        batch_atoms=batch_atoms,
        engine=engine,
        n_graphs=length_hint(structures, 0),
        progress=progress,
    )


def predict_structures(
    potential: Potential, structures: Sequence[Atoms], *, batch_atoms: int | None = None
) -> tuple[Float64[np.ndarray, " n"], list[Float64[np.ndarray, "_ 3"]]]:
    """Predict energies and forces of many structures.

    Args:
        potential: It predicts.
        structures: n structures; not modified.
        batch_atoms: Atoms per batch.

    Returns:
        (n,) eV, and (n_atoms_i, 3) each, eV/Å.

    Raises:
        ArgumentError: batch_atoms < 1.
        StructureError: a structure that the potential cannot take, with its place.
        OutOfMemoryError: one structure alone does not fit, with its place.
    """

    def predict(batch: Batch) -> torch.Tensor:
        """Predict a batch, (n, 1 + m, 3): energy and forces up to the largest structure."""
        found = potential.predict(batch)
        forces = torch.zeros(0) if found.forces is None else found.forces
        rows = torch.nn.utils.rnn.pad_sequence(
            list(torch.split(forces, list(batch.atom_counts))), batch_first=True
        )
        energies = found.energies[:, None, None].expand(-1, 1, 3)
        return torch.cat((energies.to(rows), rows), dim=1)

    parts = map_batches(potential, structures, predict, batch_atoms=batch_atoms)
    rows = [row.double().numpy() for row in itertools.chain.from_iterable(parts)]
    forces = [row[1 : 1 + len(atoms)] for row, atoms in zip(rows, structures, strict=True)]
    return np.array([row[0, 0] for row in rows], dtype=np.float64), forces


def map_graphs(
    potential: Potential,
    graphs: Iterable[Graph],
    function: Callable[[Batch], torch.Tensor],
    *,
    batch_atoms: int | None = None,
    engine: Engine | None = None,
    n_graphs: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Iterator[torch.Tensor]:
    """Apply a function to batches of a stream of graphs; see ``map_batches``.

    Args:
        potential: Makes batches.
        graphs: What its ``graph_builder`` made.
        function: Maps a batch of n structures to a tensor whose first axis is n long.
        batch_atoms: Atoms per batch.
        engine: Where batches are evaluated, if the model is on a CPU; None for this process.
        n_graphs: How many there are, for the engine's estimate; 0 where that is not known.
        progress: Called with the number of structures finished so far, after each batch.

    Yields:
        Results in the order of the graphs, one tensor per batch, on the CPU.

    Raises:
        ArgumentError: batch_atoms < 1.
        OutOfMemoryError: one structure alone does not fit, with its place.
    """
    check_batch_atoms(batch_atoms)
    if batch_atoms is None:
        batch_atoms = DEFAULT_BATCH_ATOMS.get(potential.device.type, 256)
    if engine is None or potential.device.type != "cpu":
        engine = LocalEngine()
    groups = fill_batches(graphs, batch_atoms, batch_atoms * _EDGES_PER_ATOM)
    lots = _Lots(groups, n_graphs, most=1 if engine.n_workers == 1 else _MOST_BATCHES)
    n_done = 0
    for results, seconds in engine.map(
        Ready(_Evaluator(potential, function)), _Evaluator.evaluate, lots
    ):
        lots.note(len(results), seconds)
        for result in results:
            n_done += len(result)
            yield result
            if progress is not None:
                progress(n_done)


class _Lots:
    """Batches in groups that take about equally long, with the place of their first structure.

    Args:
        batches: Graphs by batch.
        n_graphs: Graphs in all; 0 where that is not known.
        most: Batches in a group at most.
    """

    def __init__(self, batches: Iterator[list[Graph]], n_graphs: int, *, most: int) -> None:
        self._batches, self._n_graphs, self._most = batches, n_graphs, most
        self._size = 1  # batches in the next group
        self._place = self._n_lots = 0

    def __iter__(self) -> Iterator[tuple[int, list[list[Graph]]]]:
        while lot := list(itertools.islice(self._batches, self._size)):
            yield self._place, lot
            self._place += sum(map(len, lot))
            self._n_lots += 1

    def __length_hint__(self) -> Any:
        """Return about how many groups are to come, if they stay as they are."""
        if not self._n_graphs or not self._place:
            return NotImplemented
        return max(0, self._n_graphs - self._place) * self._n_lots // self._place

    def note(self, n_batches: int, seconds: float) -> None:
        """Take in how long so many batches took."""
        wanted = round(_ITEM_S * n_batches / max(seconds, 1e-6))
        self._size = min(max(1, wanted), self._most)


@dataclass
class _Evaluator:
    """A model and what is done with its batches."""

    potential: Potential
    function: Callable[[Batch], torch.Tensor]

    def evaluate(self, lot: tuple[int, list[list[Graph]]]) -> tuple[list[torch.Tensor], float]:
        """Return the results of some batches, and the seconds that they took."""
        place, groups = lot
        begun_s = time.perf_counter()
        results: list[torch.Tensor] = []
        for group in groups:
            results += _halving(self.potential, group, self.function, place)
            place += len(group)
        return results, time.perf_counter() - begun_s


def check_batch_atoms(batch_atoms: int | None) -> None:
    """Raise ``ArgumentError`` unless it is None or at least 1."""
    if batch_atoms is not None and batch_atoms < 1:
        raise ArgumentError(f"batch_atoms is {batch_atoms}; allowed are whole numbers from 1")


def fill_batches(graphs: Iterable[Graph], max_atoms: int, max_edges: int) -> Iterator[list[Graph]]:
    """Group graphs in order, each group within both limits or a single graph.

    Yields:
        Non-empty lists.
    """
    group: list[Graph] = []
    n_atoms = n_edges = 0
    for graph in graphs:
        n_atoms += graph.n_atoms
        n_edges += graph.n_edges
        if group and (n_atoms > max_atoms or n_edges > max_edges):
            yield group
            group, n_atoms, n_edges = [], graph.n_atoms, graph.n_edges
        group.append(graph)
    if group:
        yield group


def build_graphs(
    builder: GraphBuilder, structures: Iterable[Atoms], *, engine: Engine | None = None
) -> Iterator[Graph]:
    """Build graphs in order, here or ahead in other processes.

    Raises:
        StructureError: a structure that the potential cannot take, with its place.
    """
    engine = LocalEngine() if engine is None else engine
    chunks = _chunks(structures, 1 if engine.n_workers == 1 else _PREFETCH_STRUCTURES)
    for graphs in engine.map(Ready(builder), _build_chunk, chunks):
        yield from graphs


def _chunks(structures: Iterable[Atoms], size: int) -> Iterator[tuple[int, list[Atoms]]]:
    stream = iter(structures)
    place = 0
    while chunk := list(itertools.islice(stream, size)):
        yield place, chunk
        place += len(chunk)


def _build_chunk(builder: GraphBuilder, numbered: tuple[int, Sequence[Atoms]]) -> list[Graph]:
    place, chunk = numbered
    graphs = []
    for i, atoms in enumerate(chunk, start=place):
        try:
            graphs.append(builder(atoms))
        except StructureError as error:
            raise StructureError(f"structure {i}: {error}") from error
    return graphs


def _halving(
    potential: Potential,
    graphs: Sequence[Graph],
    function: Callable[[Batch], torch.Tensor],
    place: int,
) -> Iterator[torch.Tensor]:
    """Evaluate a group, in halves if it does not fit; ``place`` is its first structure's."""
    try:
        result = function(potential.collate(graphs)).detach().cpu()
    except (RuntimeError, MemoryError) as error:
        if not _is_out_of_memory(error):
            raise
        # The traceback keeps the failed batch's tensors alive: leave this block first.
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    else:
        yield result
        return
    _release_memory(potential.device)
    if len(graphs) == 1:
        graph = graphs[0]
        raise OutOfMemoryError(
            f"structure {place} ({graph.formula}, {graph.n_atoms} atoms, {graph.n_edges} edges) "
            f"alone does not fit into the memory of {potential.device}: {reason}; set it aside, "
            "use float32, or use another device"
        )
    middle = len(graphs) // 2
    evaluate = partial(_halving, potential, function=function)
    yield from evaluate(graphs[:middle], place=place)
    yield from evaluate(graphs[middle:], place=place + middle)


def _is_out_of_memory(error: BaseException) -> bool:
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return any(message in str(error).lower() for message in _MEMORY_MESSAGES)


def _release_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
