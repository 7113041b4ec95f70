"""The rows of energies and forces of many structures, as a stream."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import RepresentationOptions
from labelwise.features.representations.probes import rademacher_directions, unit_directions
from labelwise.features.representations.row_sets import RowSets
from labelwise.features.representations.sketch import PROBES, derive_seed
from labelwise.features.representations.tangent import EnergyTangent
from labelwise.potentials.base import Potential
from labelwise.potentials.batching import build_graphs, check_batch_atoms, map_graphs
from labelwise.potentials.graphs import Batch, Graph
from labelwise.runtime.engines import Engine


class JointRows:
    """{J_E, J_F}: the gradients of a structure's energy and of its force components.

    Exact: 3N + 1 rows, 3N further backward passes, each serving all structures of a batch. With
    k probes: k + 1 rows, the force rows vᵀJ_F/√k with random signs v, so that their Gram matrix
    is J_FᵀJ_F on average; k passes. Exact rows turn with the structure but their Gram matrix does
    not: total variances are invariant to rotation, reflection, translation and the order of
    the atoms. Probed ones are so on average only.
    """

    name = "joint"
    needs_model = True

    def __init__(self, options: RepresentationOptions) -> None:
        """Take ``parameters``, ``sketch_dim``, ``seed`` and ``n_probes``.

        Raises:
            ArgumentError: An option is unknown or out of range.
        """
        self._tangent = EnergyTangent(options)
        if options.n_probes is not None and options.n_probes < 1:
            raise ArgumentError(
                f"n_probes is {options.n_probes}; it must be at least 1, or None for exact rows"
            )
        self._options = options

    def size(self, potential: Potential) -> int:
        """Return d, the length of a row with this potential."""
        return self._tangent.size(potential)

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n r d"]:
        """Return the rows of a batch, (n, r, d) with the energy's first.

        With exact rows r = 1 + 3m for the largest structure of m atoms, and those of smaller
        structures are filled up with zeros.
        """
        linear = self._tangent.linearise(potential, batch)
        n_probes = self._options.n_probes
        rows = [linear.energy_rows()]
        if n_probes is None:
            rows += [linear.force_rows(direction) for direction in unit_directions(batch)]
        else:
            seed = derive_seed(self._options.seed, PROBES)
            signs = rademacher_directions(batch, n_probes, seed=seed)
            rows += [linear.force_rows(sign / n_probes**0.5) for sign in signs]
        return torch.stack(rows, dim=1)

    def iter_graphs(
        self,
        graphs: Iterable[Graph],
        potential: Potential,
        *,
        batch_atoms: int | None = None,
        engine: Engine | None = None,
        progress: Callable[[int], None] | None = None,
    ) -> Iterator[RowSets]:
        """Compute the row sets of a stream of graphs; see ``iter_row_sets``."""
        sizes: deque[int] = deque()
        padded = map_graphs(
            potential,
            _noting_sizes(graphs, sizes),
            partial(self.compute, potential),
            batch_atoms=batch_atoms,
            engine=engine,
            progress=progress,
        )
        return (_trim(self, block, sizes) for block in padded)

    def remark(self, atoms: Atoms) -> str | None:  # noqa: ARG002
        """Return None: every structure can be represented as it should."""
        return None

    def count(self, n_atoms: int) -> int:
        """Return the rows of a structure of so many atoms."""
        n_probes = self._options.n_probes
        return 1 + (3 * n_atoms if n_probes is None else n_probes)


def iter_row_sets(
    structures: Iterable[Atoms],
    potential: Potential,
    options: RepresentationOptions,
    *,
    batch_atoms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Iterator[RowSets]:
    """Compute the rows of a stream of structures, a batch at a time.

    Args:
        structures: Any number of structures; read once, not modified.
        potential: Where the rows come from.
        options: ``parameters``, ``sketch_dim``, ``seed`` and ``n_probes`` are used.
        batch_atoms: Atoms per batch; by default what measured best for the device.
        progress: Called with the number of structures finished so far.

    Returns:
        Row sets of float32 on the CPU, not weighed, in the order of the structures. Rows that
        are not finite are left for the caller to see.

    Raises:
        ArgumentError: An option is unknown or out of range; at once.
        StructureError: A structure that the potential cannot take, with its place.
        OutOfMemoryError: One structure alone does not fit, with its place.
    """
    joint = JointRows(options)
    check_batch_atoms(batch_atoms)
    graphs = build_graphs(potential.graph_builder, structures)
    return joint.iter_graphs(graphs, potential, batch_atoms=batch_atoms, progress=progress)


def _noting_sizes(graphs: Iterable[Graph], sizes: deque[int]) -> Iterator[Graph]:
    for graph in graphs:
        sizes.append(graph.n_atoms)
        yield graph


def _trim(joint: JointRows, block: Float[Tensor, "n r d"], sizes: deque[int]) -> RowSets:
    """Take the filling off."""
    n_atoms = [sizes.popleft() for _ in range(len(block))]
    counts = torch.tensor([joint.count(n) for n in n_atoms])
    kept = torch.arange(block.shape[1])[None, :] < counts[:, None]
    return RowSets(block[kept].float(), counts, torch.tensor(n_atoms))
