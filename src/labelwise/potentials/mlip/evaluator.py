"""What is computed with a network of mlip's, compiled by XLA once for each size of batch.

All functions are pure: weights and batches go in, arrays come out. Everything is differentiated
for one structure's sake at a time although batches are evaluated at once: energies of different
structures have no atoms in common, and where weights are shared, as those of the other blocks
than the embedding are, structures lie along an axis of their own (``jax.vmap``).
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelwise.potentials.footprint import note_workspace
from labelwise.potentials.mlip.architectures import Architecture, find_architecture, import_mlip
from labelwise.potentials.mlip.padding import PaddedBatch

Weights = Mapping[str, Any]


class Evaluator:
    """A network's compiled functions, for one set of settings and one floating-point type.

    Attributes:
        architecture: Which network it is.
        settings: As mlip completes them: equal for equal models.
        numbers: Atomic numbers of all its data sets, in the order of the embedding's rows.
        n_compiled: How many functions were compiled so far, each size of batch counted.
    """

    def __init__(self, settings: Mapping[str, Any], *, double: bool, head: int) -> None:
        """Build the network; weights are not needed, and none are drawn.

        Args:
            settings: Those of the archive.
            double: Whether to compute in float64.
            head: Which of the data sets is in use.

        Raises:
            PotentialError: A network that cannot be evaluated here.
            pydantic.ValidationError: Settings that are none.
        """
        self.architecture: Architecture = find_architecture(settings)
        mlip = import_mlip()
        from mlip.data import DatasetInfo

        kind = getattr(mlip.models, self.architecture.name)
        config = kind.Config(**settings["config"])
        info = DatasetInfo(**settings["dataset_info"])
        self.numbers: list[int] = info.allowed_atomic_numbers
        self.settings = {
            "config": json.loads(config.model_dump_json()),
            "dataset_info": json.loads(info.model_dump_json()),
        }
        # Reference energies are added in double precision elsewhere; what is computed again
        # in backward passes to save memory cannot be looked into.
        plain = {"add_atomic_energies": False, "use_remat": False, "use_remat_edgewise": False}
        changes = {key: value for key, value in plain.items() if hasattr(config, key)}
        self._network = kind(config.model_copy(update=changes), info)
        self._double, self._head = double, head
        self._compiled: dict[Any, Any] = {}

    @property
    def n_compiled(self) -> int:
        """See the class."""
        return len(self._compiled)

    def draw_weights(self, seed: int) -> dict[str, NDArray[np.float32]]:
        """Return weights as mlip draws them, by their paths."""
        import jax
        from mlip.data.helpers.dummy_init_graph import get_dummy_graph_for_model_init

        with use_double(False):
            draw = jax.jit(lambda key: self._network.init(key, get_dummy_graph_for_model_init()))
            drawn = draw(jax.random.key(seed))["params"]
        return {name: np.array(array) for name, array in flatten(drawn).items()}

    def to_device(self, weights: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
        """Return weights in the type that is computed in, where JAX computes."""
        import jax

        kind = np.float64 if self._double else np.float32
        with use_double(self._double):
            return {name: jax.device_put(array.astype(kind)) for name, array in weights.items()}

    def predict(self, weights: Weights, batch: PaddedBatch) -> tuple[Any, Any]:
        """Return energies of atoms, (N,) eV, and the gradient of their sum, (N, 3) eV/Å."""

        def compute(weights: Weights, batch: PaddedBatch) -> tuple[Any, Any]:
            return self._slope(weights, batch, 0.0)

        return self._run(compute, weights, batch)  # type: ignore[no-any-return]

    def energies(self, weights: Weights, batch: PaddedBatch) -> Any:
        """Return energies of atoms, (N,) eV."""

        def compute_energies(weights: Weights, batch: PaddedBatch) -> Any:
            return self._energies(weights, batch, batch.positions, 0.0)

        return self._run(compute_energies, weights, batch)

    def count_activations(self, weights: Weights, batch: PaddedBatch) -> int:
        """Return how many invariant features an atom has in all layers, without computing them."""
        import jax

        with use_double(self._double), quiet_jax():
            return int(jax.eval_shape(self._collect, weights, batch).shape[1])

    def activations(self, weights: Weights, batch: PaddedBatch) -> Any:
        """Return the invariant features of atoms, (N, a), layer after layer."""
        return self._run(self._collect, weights, batch)

    def _collect(self, weights: Weights, batch: PaddedBatch) -> Any:
        import jax.numpy as jnp

        layers: dict[str, Any] = {}
        self._energies(weights, batch, batch.positions, 0.0, layers)
        return jnp.concatenate(list(layers.values()), axis=1)

    def embedding_gradient(self, weights: Weights, batch: PaddedBatch) -> Any:
        """Return the gradient of the sum of energies for initial features, (N, C) eV."""
        import jax

        def differentiate(weights: Weights, batch: PaddedBatch) -> Any:
            def total(shift: Any) -> Any:
                return self._energies(weights, batch, batch.positions, shift).sum()

            return jax.grad(total)(self._no_shift(weights, batch))

        return self._run(differentiate, weights, batch)

    def embedding_linearise(self, weights: Weights, batch: PaddedBatch) -> tuple[Any, Any, Any]:
        """Return what ``predict`` does, and what ``pull_back`` needs."""
        import jax

        def linearise(weights: Weights, batch: PaddedBatch) -> tuple[Any, Any, Any]:
            def both(shift: Any) -> Any:
                return self._slope(weights, batch, shift)

            (energies, slope), pull = jax.vjp(both, self._no_shift(weights, batch))
            return energies, slope, pull

        return self._run(linearise, weights, batch)  # type: ignore[no-any-return]

    def pull_back(self, pull: Any, energies: Any, slope: Any) -> Any:
        """Return the gradient for initial features, (N, C), of a sum over atoms.

        Args:
            pull: Of ``embedding_linearise``.
            energies: (N,), the factors of energies.
            slope: (N, 3), those of the energies' gradient in the positions.
        """

        def pull_rows(pull: Any, energies: Any, slope: Any) -> Any:
            return pull((energies, slope))[0]

        return self._run(pull_rows, pull, energies, slope)

    def block_gradients(self, block: Weights, others: Weights, batches: PaddedBatch) -> Any:
        """Return the energies' gradients for a block of weights, (b, p) eV, of b structures."""

        def energy(block: Weights, others: Weights, batch: PaddedBatch, _: Any) -> Any:
            return self._energies({**others, **block}, batch, batch.positions, 0.0).sum()

        return self._block_rows(energy, block, others, batches, batches.positions)

    def block_force_rows(
        self, block: Weights, others: Weights, batches: PaddedBatch, directions: Any
    ) -> Any:
        """Return Σ v·∂F/∂θ for a block of weights, (b, p); directions v are (b, N, 3)."""

        def work(block: Weights, others: Weights, batch: PaddedBatch, v: Any) -> Any:
            return -(self._slope({**others, **block}, batch, 0.0)[1] * v).sum()

        return self._block_rows(work, block, others, batches, directions)

    def _block_rows(
        self,
        scalar: Callable[..., Any],
        block: Weights,
        others: Weights,
        batches: PaddedBatch,
        directions: Any,
    ) -> Any:
        """Differentiate a function of one structure for a block, for each along the first axis."""
        import jax
        import jax.numpy as jnp

        def rows(block: Weights, others: Weights, batches: PaddedBatch, directions: Any) -> Any:
            def row(batch: PaddedBatch, direction: Any) -> Any:
                gradient = jax.grad(scalar)(block, others, batch, direction)
                return jnp.concatenate([gradient[name].reshape(-1) for name in sorted(gradient)])

            return jax.vmap(row)(batches, directions)

        rows.__name__ = f"rows of {scalar.__name__}"
        return self._run(rows, block, others, batches, directions)

    def _slope(self, weights: Weights, batch: PaddedBatch, shift: Any) -> tuple[Any, Any]:
        """Return energies of atoms and the gradient of their sum in the positions."""
        import jax
        import jax.numpy as jnp

        def compute(positions: Any) -> Any:
            return self._energies(weights, batch, positions, shift)

        energies, pull = jax.vjp(compute, batch.positions)
        return energies, pull(jnp.ones_like(energies))[0]

    def _no_shift(self, weights: Weights, batch: PaddedBatch) -> Any:
        """Return zeros to be added to initial features, (N, C)."""
        import jax.numpy as jnp

        table = weights[f"{self.architecture.table}/embedding"]
        return jnp.zeros((len(batch.numbers), table.shape[1]), table.dtype)

    def _energies(
        self,
        weights: Weights,
        batch: PaddedBatch,
        positions: Any,
        shift: Any,
        layers: dict[str, Any] | None = None,
    ) -> Any:
        """Return energies of atoms without reference energies, (N,) eV.

        Args:
            weights: By their paths.
            batch: Structures and padding.
            positions: (N, 3), Å, in place of the batch's.
            shift: Added to initial node features, (N, C) or 0.
            layers: Takes the invariant features of atoms by the names of layers, if given.
        """
        import flax.linen

        kind = self.architecture
        table = tuple(kind.table.split("/"))

        def watch(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            result = call(*args, **kwargs)
            if context.method_name != "__call__":
                return result
            path = context.module.path
            if path == table:
                return result + shift
            if layers is not None and len(path) == 1 and path[0].startswith(kind.layer):
                layers[path[0]] = kind.scalars(result.nodes.features)
            return result

        with flax.linen.intercept_methods(watch):
            graph = self._network.apply(
                {"params": unflatten(weights)}, _to_graph(batch, positions, self._head)
            )
        return graph.nodes.features["energy"]

    def _run(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Call a function, compiled for the arguments' shapes; tell what memory it takes."""
        import jax

        leaves, tree = jax.tree.flatten(arguments)
        key = function.__name__, tree, tuple((leaf.shape, leaf.dtype) for leaf in leaves)
        with use_double(self._double):
            compiled = self._compiled.get(key)
            if compiled is None:
                with quiet_jax():
                    compiled = jax.jit(function).lower(*arguments).compile()
                self._compiled[key] = compiled
            found = jax.block_until_ready(compiled(*arguments))
        taken = compiled.memory_analysis()
        if taken is not None:
            note_workspace(
                taken.temp_size_in_bytes + taken.output_size_in_bytes + taken.argument_size_in_bytes
            )
        return found


@lru_cache(maxsize=16)
def get_evaluator(settings: str, double: bool, head: int) -> Evaluator:
    """Return the evaluator of a network; models of equal settings share what is compiled.

    Args:
        settings: Those of the archive, as JSON.
        double: See ``Evaluator``.
        head: See ``Evaluator``.
    """
    return Evaluator(json.loads(settings), double=double, head=head)


@contextmanager
def use_double(double: bool) -> Iterator[None]:
    """Let JAX compute in float64, or not, for the time being."""
    import jax

    with jax.enable_x64(double):
        yield


@contextmanager
def quiet_jax() -> Iterator[None]:
    """Silence what JAX says of mlip: in float64 its tables of integers are of two types."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "scatter inputs have incompatible types", FutureWarning)
        yield


def flatten(tree: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Return the leaves of nested dictionaries by their paths."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= (
            flatten(value, f"{path}{key}/") if isinstance(value, Mapping) else {path + key: value}
        )
    return found


def unflatten(weights: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested dictionaries of leaves by their paths."""
    tree: dict[str, Any] = {}
    for name, value in weights.items():
        *modules, last = name.split("/")
        branch = tree
        for module in modules:
            branch = branch.setdefault(module, {})
        branch[last] = value
    return tree


def _to_graph(batch: PaddedBatch, positions: Any, head: int) -> Any:
    """Return the graph that mlip's networks take."""
    import jax.numpy as jnp
    from mlip.graph import EdgeOrdering, Graph, GraphEdges, GraphGlobals, GraphNodes

    n_structures = len(batch.atom_counts)
    return Graph(
        nodes=GraphNodes(atomic_numbers=batch.numbers, positions=positions),
        edges=GraphEdges(shifts=batch.unit_shifts),
        globals=GraphGlobals(
            cell=batch.cells,
            weight=jnp.ones(n_structures),
            charge=batch.charges,
            spin_multiplicity=batch.spins,
            dataset_idx=jnp.full(n_structures, head, dtype=jnp.int32),
        ),
        n_node=batch.atom_counts,
        n_edge=batch.edge_counts,
        senders=batch.senders,
        receivers=batch.receivers,
        ordering=EdgeOrdering.SENDER,
    )
