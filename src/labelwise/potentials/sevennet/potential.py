"""SevenNet behind the contract: the ``AtomGraphSequential`` models of sevenn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.checkpoints import import_quietly, silenced
from labelwise.potentials.convolution import EdgeTables, NeighbourConvolution, can_convolve
from labelwise.potentials.graphs import Batch
from labelwise.potentials.passes import note_forward
from labelwise.potentials.torch_potential import (
    TorchPotential,
    average_over_atoms,
    default_dtype,
    list_scalars,
)

_MOST_LAYERS = 20
_EMBEDDING, _RESCALE = "onehot_to_feature_x", "rescale_atomic_energy"
_SKIPPED = ("onehot_idx_to_onehot", _EMBEDDING)
_OUTPUTS = (_RESCALE, "reduce_total_enegy", "force_output")  # the package's own spelling


class SevenNetPotential(TorchPotential):
    """A SevenNet model and its features.

    Its heads are its modalities (levels of theory). Activations are the scalars behind the gate
    of each layer.

    Attributes:
        config: The settings that the model was built with, as sevenn's checkpoints hold them.
    """

    model: Any
    block_prefixes: ClassVar = {
        "embedding": (f"{_EMBEDDING}.",),
        "radial": tuple(f"{layer}_convolution." for layer in range(_MOST_LAYERS)),
        "interaction": tuple(f"{layer}_self_" for layer in range(_MOST_LAYERS)),
        "readout": ("reduce_",),
    }
    file_suffixes: ClassVar = (".pth", ".pt")

    def __init__(
        self, model: Any, config: Mapping[str, Any], *, name: str, head: str | None = None
    ) -> None:
        """Wrap a complete model.

        Args:
            model: What ``SevenNetCheckpoint.build_model`` made, on its device and in its type.
            config: The settings that it was built with.
            name: What to call it.
            head: The modality to use; may be None if there is one.

        Raises:
            PotentialError: unknown head, or a head is needed.
        """
        type_map: dict[int, int] = config["_type_map"]
        modalities: dict[str, int] = config.get("_modal_map") or {"Default": 0}
        self.config = dict(config)
        self._fixed = frozenset(
            weight_name
            for weight_name, weight in model.named_parameters()
            if not weight.requires_grad or weight_name.startswith(f"{_RESCALE}.")
        )
        self._has_modality = bool(config.get("use_modality"))
        self._scalars = {
            key: list_scalars(module.gate.irreps_out)
            for key, module in model.named_children()
            if key.endswith("_equivariant_gate")
        }
        super().__init__(
            model,
            name=name,
            elements=sorted(type_map, key=type_map.__getitem__),
            cutoff=float(config["cutoff"]),
            activation_size=sum(len(places) for places in self._scalars.values()),
            heads=tuple(sorted(modalities, key=modalities.__getitem__)),
            head=head,
        )
        tables = EdgeTables()
        self._convolutions = {
            key: NeighbourConvolution(module.convolution, tables)
            for key, module in model.named_children()
            if key.endswith("_convolution") and can_convolve(module.convolution)
        }
        self._modality = modalities[self.head]
        self.parity = bool(config.get("is_parity", False))
        linear = model._modules[_EMBEDDING].linear
        if len(linear.instructions) == 1:  # no bias, and no modality beside the element
            self.embedding_scale = float(linear.instructions[0].path_weight)

    def interaction_energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """See ``TorchPotential.interaction_energies``."""
        data, _ = self._run(batch, positions, embedding)
        scale = self._row_of(self.model._modules[_RESCALE].scale)
        atoms = data["scaled_atomic_energy"].squeeze(1) * scale[batch.species]
        return atoms.new_zeros(batch.n_structures).index_add(0, batch.structure_idx, atoms)

    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """See ``Potential.activations``."""
        with torch.no_grad():
            _, layers = self._run(batch, None, None)
            return average_over_atoms(torch.cat(layers, dim=1), batch)

    def absent_weights(self) -> frozenset[str]:
        """Name what sevenn does not train, and reference energies and scales."""
        return self._fixed

    def reference_row(self) -> Float[Tensor, " E"]:
        """See ``TorchPotential.reference_row``: the model's shifts of atomic energies."""
        return self._row_of(self.model._modules[_RESCALE].shift)

    def with_random_weights(self, seed: int, *, scale: float | None = None) -> SevenNetPotential:
        """See ``Potential.with_random_weights``."""
        with torch.random.fork_rng(devices=[]), silenced():
            torch.manual_seed(seed)
            model = build_model(self.config, self.dtype).to(self.device)
        drawn = SevenNetPotential(model, self.config, name=self.name, head=self.head)
        drawn.set_reference_energies(self.reference_energies)
        with torch.no_grad():
            own = self.model._modules[_RESCALE].scale
            model._modules[_RESCALE].scale.copy_(own if scale is None else own * 0.0 + scale)
        return drawn

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle settings and weights: the compiled modules inside cannot be."""
        state = {key: value.detach() for key, value in self.model.state_dict().items()}
        return _rebuild, (self.config, state, self.name, self.head)

    def write(self, stream: IO[bytes], suffix: str) -> None:  # noqa: ARG002  # one format
        """Write a checkpoint that sevenn's calculator takes, of weights and plain values."""
        state = {key: value.detach().cpu() for key, value in self.model.state_dict().items()}
        content = {
            "config": _plain(self.config),
            "model_state_dict": state,
            "optimizer_state_dict": {},
            "scheduler_state_dict": {},
            "epoch": 0,
        }
        torch.save(content, stream)

    def _run(
        self,
        batch: Batch,
        positions: Float[Tensor, "N 3"] | None,
        embedding: Float[Tensor, "N C"] | None,
    ) -> tuple[dict[str, Tensor], list[Float[Tensor, "N _"]]]:
        """Run the layers up to atomic energies; return their data, and the scalars of each gate."""
        note_forward(batch.n_structures)
        positions = batch.positions if positions is None else positions
        # In each pair both directions are there, so that either end may be sevenn's centre.
        centre, neighbour = batch.edge_index
        one_hot = torch.nn.functional.one_hot(batch.species, len(self.elements)).to(self.dtype)
        data: dict[str, Tensor] = {
            "edge_index": batch.edge_index,
            "edge_vec": positions[neighbour] - positions[centre] + batch.shifts,
            "batch": batch.structure_idx,
            "atom_type": batch.species,
            "node_attr": one_hot,
            "x": one_hot,
        }
        if self._has_modality:
            data["modal_type"] = torch.full(
                (batch.n_structures,), self._modality, device=self.device
            )
        edges = batch.edge_index.flip(0)  # one object for all layers, whose table is kept
        layers = []
        for key, module in self.model.named_children():
            if key == _EMBEDDING and embedding is not None:
                data["x"] = embedding
            elif key in self._convolutions:
                self._convolve(module, self._convolutions[key], data, edges)
            elif key not in (_SKIPPED[0], *_OUTPUTS):
                data = module(data)
            if key in self._scalars:
                layers.append(data["x"][:, self._scalars[key].to(self.device)])
        return data, layers

    @staticmethod
    def _convolve(
        module: Any, convolution: NeighbourConvolution, data: dict[str, Tensor], edges: Tensor
    ) -> None:
        """Do what an ``IrrepsConvolution`` does to the data; senders of edges come first."""
        weights = module.weight_nn(data[module.key_weight_input])
        data[module.key_x] = convolution(
            data[module.key_x],
            data[module.key_filter],
            weights,
            edges,
        ).div(module.denominator)

    def _row_of(self, table: Tensor) -> Float[Tensor, " E"]:
        """Return the row of (E,) or (modalities, E) that is in use."""
        return table if table.dim() == 1 else table[self._modality]


def _rebuild(
    config: Mapping[str, Any], state: Mapping[str, Tensor], name: str, head: str
) -> SevenNetPotential:
    """Make a potential of settings and weights, in the weights' type and on their device."""
    weight = state[f"{_EMBEDDING}.linear.weight"]
    with torch.random.fork_rng(devices=[]), silenced():
        model = build_model(config, weight.dtype).to(weight.device)
    model.load_state_dict(state)
    return SevenNetPotential(model, config, name=name, head=head)


def build_model(config: Mapping[str, Any], dtype: torch.dtype) -> Any:
    """Build a model of a configuration in a type, with weights as torch draws them.

    A scale or shift that all elements share becomes one for each, which is the same function.

    Raises:
        MissingDependencyError: sevenn is not installed.
    """
    import_sevenn()
    import e3nn
    from sevenn.model_build import build_E3_equivariant_model
    from sevenn.nn.scale import Rescale, SpeciesWiseRescale

    before = e3nn.get_optimization_defaults()
    e3nn.set_optimization_defaults(jit_script_fx=False)  # takes a third of the time, runs as fast
    try:
        with default_dtype(dtype):
            model = build_E3_equivariant_model(dict(config)).to(dtype)
    finally:
        e3nn.set_optimization_defaults(**before)
    shared = model._modules[_RESCALE]
    if isinstance(shared, Rescale):
        n_elements = len(config["_type_map"])
        shift, scale = [shared.get_shift()] * n_elements, [shared.get_scale()] * n_elements
        model._modules[_RESCALE] = SpeciesWiseRescale(shift, scale).to(dtype)
    return model


def import_sevenn() -> None:
    """Import sevenn.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import_quietly("sevenn.checkpoint", extra="sevenn", purpose="loading a SevenNet model")


def _plain(value: Any) -> Any:
    """Write NumPy's arrays and numbers as plain ones, so that no code is needed to read them."""
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return value.tolist()
    return value
