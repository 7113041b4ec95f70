"""Streaming structures through a potential in batches that fill the device.

A batch is filled by atoms and by edges, since cost and memory follow these and not the number
of structures. When memory runs out the batch is halved, down to a single structure.
"""

from __future__ import annotations

import itertools
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from typing import TypeVar

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import (
    ArgumentError,
    LabelwiseWarning,
    OutOfMemoryError,
    StructureError,
    collect_warnings,
)
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch, Graph, GraphBuilder

# Measured, see benchmarks/results/representations.md.
DEFAULT_BATCH_ATOMS = {"cpu": 256, "cuda": 8192, "mps": 2048}
_EDGES_PER_ATOM = 40
_PREFETCH_STRUCTURES = 64

Item = TypeVar("Item")
Result = TypeVar("Result")

_MEMORY_MESSAGES = ("can't allocate memory", "not enough memory", "out of memory")


def map_batches(
    potential: Potential,
    structures: Iterable[Atoms],
    function: Callable[[Batch], torch.Tensor],
    *,
    batch_atoms: int | None = None,
    workers: int = 0,
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
        workers: Processes that build neighbour lists ahead; 0 builds them here. They are
            spawned, so a script needs its ``if __name__ == "__main__":``.
        progress: Called with the number of structures finished so far, after each batch.

    Returns:
        Results in the order of the structures, one tensor per batch, on the CPU.

    Raises:
        ArgumentError: batch_atoms < 1 or workers < 0.
        StructureError: a structure that the potential cannot take, with its place.
        OutOfMemoryError: one structure alone does not fit, with its place.
    """
    if workers < 0:
        raise ArgumentError(f"workers is {workers}; allowed are whole numbers from 0")
    check_batch_atoms(batch_atoms)
    graphs = build_graphs(potential.graph_builder, structures, workers=workers)
    return map_graphs(potential, graphs, function, batch_atoms=batch_atoms, progress=progress)


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
    progress: Callable[[int], None] | None = None,
) -> Iterator[torch.Tensor]:
    """Apply a function to batches of a stream of graphs; see ``map_batches``.

    Args:
        potential: Makes batches.
        graphs: What its ``graph_builder`` made.
        function: Maps a batch of n structures to a tensor whose first axis is n long.
        batch_atoms: Atoms per batch.
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
    n_done = 0
    for group in fill_batches(graphs, batch_atoms, batch_atoms * _EDGES_PER_ATOM):
        for result in _halving(potential, group, function, n_done):
            n_done += len(result)
            yield result
            if progress is not None:
                progress(n_done)


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
    builder: GraphBuilder, structures: Iterable[Atoms], *, workers: int = 0
) -> Iterator[Graph]:
    """Build graphs in order, here or ahead in worker processes.

    Raises:
        StructureError: a structure that the potential cannot take, with its place.
    """
    chunks = _chunks(structures, _PREFETCH_STRUCTURES if workers else 1)
    if workers == 0:
        for place, chunk in chunks:
            yield from _build_chunk(builder, place, chunk)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for graphs in map_ahead(pool, partial(_build_place, builder), chunks, 2 * workers):
            yield from graphs


def map_ahead(
    pool: Executor,
    function: Callable[[Item], Result],
    items: Iterable[Item],
    n_ahead: int,
    *,
    told: set[str] | None = None,
) -> Iterator[Result]:
    """Apply a function in other processes, a bounded number of items ahead.

    Warnings that it gives there are given here, each once.

    Args:
        pool: Runs it.
        function: Picklable.
        items: Read as they are needed.
        n_ahead: Items begun beyond the one whose result is asked for.
        told: Warnings that were given before; new ones are added. None for none.

    Yields:
        Results in the order of the items.
    """
    known = set() if told is None else told
    pending: deque[Future[tuple[Result, list[str]]]] = deque()
    for item in items:
        pending.append(pool.submit(_collecting, function, item))
        if len(pending) > n_ahead:
            yield _tell(*pending.popleft().result(), known)
    while pending:
        yield _tell(*pending.popleft().result(), known)


def _collecting(function: Callable[[Item], Result], item: Item) -> tuple[Result, list[str]]:
    with collect_warnings() as texts:
        return function(item), texts


def _tell(result: Result, texts: Iterable[str], told: set[str]) -> Result:
    """Give the warnings of another process that were not given before, and return its result."""
    for text in texts:
        if text not in told:
            told.add(text)
            warnings.warn(text, LabelwiseWarning, stacklevel=3)
    return result


def _build_place(builder: GraphBuilder, chunk: tuple[int, list[Atoms]]) -> list[Graph]:
    return _build_chunk(builder, *chunk)


def _chunks(structures: Iterable[Atoms], size: int) -> Iterator[tuple[int, list[Atoms]]]:
    stream = iter(structures)
    place = 0
    while chunk := list(itertools.islice(stream, size)):
        yield place, chunk
        place += len(chunk)


def _build_chunk(builder: GraphBuilder, place: int, chunk: Sequence[Atoms]) -> list[Graph]:
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
