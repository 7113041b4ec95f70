"""CHGNet behind the contract: the ``CHGNet`` module of chgnet, on batches of our own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import IO, Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.potentials.checkpoints import import_quietly, silenced
from labelwise.potentials.chgnet.bonds import build_bond_graph
from labelwise.potentials.chgnet.layers import propagate, uses_angles
from labelwise.potentials.graphs import Batch
from labelwise.potentials.passes import note_forward
from labelwise.potentials.torch_potential import TorchPotential, average_over_atoms

#: What the energy does not depend on: reference energies, and the head of magnetic moments.
_NOT_ENERGY = ("composition_model.", "site_wise.")
#: What angles alone use.
_OF_ANGLES = (
    *("angle_", "bond_conv_layers.", "bond_weights_bg."),
    "bond_basis_expansion.rbf_expansion_bg.",
)


class CHGNetPotential(TorchPotential):
    """A CHGNet and its features.

    Activations are the atoms' features behind each atom convolution. Magnetic moments are not
    predicted, and fine-tuning leaves their head as it is.
    """

    model: Any
    block_prefixes: ClassVar = {
        "embedding": ("atom_embedding.",),
        "basis": (
            *("bond_basis_expansion.", "bond_embedding.", "bond_weights_"),
            *("angle_basis_expansion.", "angle_embedding."),
        ),
        "atom_conv": ("atom_conv_layers.",),
        "bond_conv": ("bond_conv_layers.",),
        "angle": ("angle_layers.",),
        "readout": ("readout_norm.", "mlp."),
    }
    file_suffixes: ClassVar = (".pth.tar", ".pt")
    embedding_scale = 1.0

    def __init__(self, model: Any, *, name: str) -> None:
        """Wrap a complete model.

        Args:
            model: What ``build_model`` made, on its device and in its type.
            name: What to call it.
        """
        settings = model.model_args
        model.graph_converter = None  # it makes graphs of pymatgen's structures
        self._bond_cutoff = float(settings["bond_graph_cutoff"])
        last = f"angle_layers.{model.n_conv - 2}."  # which nothing follows
        unused = (*_NOT_ENERGY, last, *(() if uses_angles(model) else _OF_ANGLES))
        self._absent = frozenset(
            key for key, _ in model.named_parameters() if key.startswith(unused)
        )
        n_elements, n_channels = model.atom_embedding.embedding.weight.shape
        super().__init__(
            model,
            name=name,
            elements=range(1, n_elements + 1),
            cutoff=settings["atom_graph_cutoff"],
            activation_size=model.n_conv * n_channels,
        )
        self.blocks = tuple(block for block in self.blocks if self.tangent_size(block))

    def interaction_energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """See ``TorchPotential.interaction_energies``."""
        model, atoms = self.model, self._run(batch, positions, embedding)[-1]
        if model.readout_norm is not None:
            atoms = model.readout_norm(atoms)
        energies: Tensor
        if model.mlp_first:
            energies = model.pooling(model.mlp(atoms), batch.structure_idx)
        else:
            counts = torch.tensor(batch.atom_counts, dtype=atoms.dtype, device=atoms.device)
            energies = model.mlp(model.pooling(atoms, batch.structure_idx)) * counts[:, None]
        return energies.squeeze(1)

    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """See ``Potential.activations``."""
        with torch.no_grad():
            return average_over_atoms(torch.cat(self._run(batch, None, None), dim=1), batch)

    def absent_weights(self) -> frozenset[str]:
        """Name reference energies, magnetic moments, and layers that nothing follows."""
        return self._absent

    def reference_row(self) -> Float[Tensor, " E"]:
        """See ``TorchPotential.reference_row``: the model's composition model."""
        row: Tensor = self.model.composition_model.fc.weight[0]
        return row

    def with_random_weights(self, seed: int, *, scale: float | None = None) -> CHGNetPotential:
        """See ``Potential.with_random_weights``; the last layer is scaled."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            model = build_model(self.model.model_args).to(dtype=self.dtype, device=self.device)
        drawn = CHGNetPotential(model, name=self.name)
        drawn.set_reference_energies(self.reference_energies)
        if scale is not None:
            *_, last = (each for each in model.mlp.modules() if isinstance(each, torch.nn.Linear))
            for weight in last.parameters():
                weight.mul_(scale)
        return drawn

    def write(self, stream: IO[bytes], suffix: str) -> None:  # noqa: ARG002  # one format
        """Write a checkpoint that chgnet loads, of weights and plain values."""
        state = {key: value.detach().cpu() for key, value in self.model.state_dict().items()}
        content = {"state_dict": state, "model_args": self.model.model_args}
        torch.save({"model": content}, stream)

    def _run(
        self,
        batch: Batch,
        positions: Float[Tensor, "N 3"] | None,
        embedding: Float[Tensor, "N C"] | None,
    ) -> list[Float[Tensor, "N C"]]:
        """Return the atoms' features behind each atom convolution."""
        note_forward(batch.n_structures)
        positions = batch.positions if positions is None else positions
        table = self.model.atom_embedding
        sender, receiver = batch.edge_index
        vectors = positions[receiver] - positions[sender] + batch.shifts
        lengths = torch.linalg.vector_norm(vectors.detach(), dim=1)
        graph = build_bond_graph(batch, lengths, self._bond_cutoff)
        atoms = table(batch.species) if embedding is None else embedding
        return propagate(self.model, graph, vectors, atoms)


def build_model(settings: Mapping[str, Any]) -> Any:
    """Build a model of a checkpoint's ``model_args``, with weights as torch draws them.

    One without reference energies gets zeros, and its output is per atom: the same total energy.

    Raises:
        MissingDependencyError: chgnet is not installed.
        ValueError: energies would not grow with the cell: attention divides by the number of atoms
            once too often, or reference energies per atom would be added to a total energy.
    """
    import_chgnet()
    from chgnet.model.model import CHGNet

    settings = dict(settings)
    is_bare = settings.get("composition_model", "MPtrj") is None
    if is_bare:
        settings |= {"composition_model": "MPtrj", "is_intensive": True}
    with silenced():
        model = CHGNet(**settings)
    if model.read_out_type == "attn":
        raise ValueError(
            f"read_out is {settings['read_out']!r}, under which energies do not add up"
        )
    if model.composition_model.is_intensive != model.is_intensive:
        raise ValueError(
            f"is_intensive is {model.is_intensive}, which does not go with the reference energies "
            f"{settings.get('composition_model', 'MPtrj')!r}"
        )
    if is_bare:
        model.composition_model.fc.weight.zero_()
    return model


def import_chgnet() -> None:
    """Import chgnet.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import_quietly("chgnet.model.model", extra="chgnet", purpose="loading a CHGNet model")
