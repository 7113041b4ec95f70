"""Models of mlip behind the contract: JAX inside, torch's tensors outside."""

from __future__ import annotations

import hashlib
import json
from typing import IO, Any, ClassVar

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials.base import Linearisation, Potential, Prediction, Projection
from labelwise.potentials.graphs import Batch, GraphBuilder
from labelwise.potentials.mlip.archive import ModelArchive, write_archive
from labelwise.potentials.mlip.evaluator import get_evaluator
from labelwise.potentials.mlip.linearisation import BlockLinearisation, EmbeddingLinearisation
from labelwise.potentials.mlip.padding import PaddedBatch, find_room, group, pad, stack
from labelwise.potentials.passes import note_backward, note_forward
from labelwise.potentials.torch_potential import average_over_atoms, choose_head


class MlipPotential(Potential):
    """A MACE, NequIP, ViSNet or eSEN of mlip's and its features.

    Its heads are the data sets that it was trained on. Activations are the invariant features
    that each layer leaves. Batches are filled up to a few sizes, for each of which XLA compiles a
    function when it is first called, in seconds.

    Attributes:
        evaluator: The compiled functions, shared by potentials of equal settings.
    """

    file_suffixes: ClassVar = (".zip",)
    training_advice: ClassVar = (
        "train it with mlip's own TrainingLoop, save it with save_model_to_zip and select again "
        "with the new archive"
    )

    def __init__(
        self,
        archive: ModelArchive,
        *,
        name: str,
        dtype: torch.dtype = torch.float32,
        head: str | None = None,
    ) -> None:
        """Take a saved model.

        Args:
            archive: Its settings and weights.
            name: What to call it.
            dtype: Floating-point type to compute in.
            head: The data set whose level of theory is wanted; may be None if there is one.

        Raises:
            PotentialError: A network or weights that cannot be evaluated here, an unknown head,
                or a head is needed.
        """
        info = archive.settings["dataset_info"]
        names = info.get("dataset_name")
        self.heads = tuple(names) if isinstance(names, list) else ("Default",)
        self.head = choose_head(self.heads, head)
        self.name, self.dtype, self.device = name, dtype, torch.device("cpu")
        place = self.heads.index(self.head)
        settings = {key: archive.settings[key] for key in ("config", "dataset_info")}
        self.evaluator = get_evaluator(
            json.dumps(settings, sort_keys=True), dtype == torch.float64, place
        )
        self._archive = ModelArchive(archive.settings, dict(archive.weights))
        self._weights = self.evaluator.to_device(archive.weights)
        energies = info["atomic_energies_map"]
        energies = energies[place] if isinstance(energies, list) else energies
        table = {int(number): float(energy) for number, energy in energies.items()}
        self.elements = tuple(sorted(table))
        self._rows = torch.tensor([self.evaluator.numbers.index(z) for z in self.elements])
        adds = archive.settings["config"]["add_atomic_energies"]
        references = [table[number] if adds else 0.0 for number in self.elements]
        self._references = torch.tensor(references, dtype=torch.float64)
        self.cutoff = float(info["graph_cutoff_angstrom"])
        self.graph_builder = GraphBuilder(elements=self.elements, cutoff=self.cutoff)
        kind = self.evaluator.architecture
        self.parity = kind.parity
        self._names = {
            block: kind.list_weights(block, [n for n, w in archive.weights.items() if w.size])
            for block in ("embedding", *kind.blocks, "all")
        }
        self.blocks = tuple(block for block, names in self._names.items() if names)
        atom = self.graph_builder(Atoms([self.elements[0]]))
        self.activation_size = self.evaluator.count_activations(
            self._weights, self._pad(self.collate([atom]))
        )

    @property
    def content_hash(self) -> str:
        """See ``Potential.content_hash``."""
        settings = [type(self).__name__, str(self.dtype), self.head, self.evaluator.settings]
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True).encode())
        kind = np.float64 if self.dtype == torch.float64 else np.float32
        for name, weight in sorted(self._archive.weights.items()):
            digest.update(f"{name} {weight.shape}".encode())
            digest.update(np.ascontiguousarray(weight, dtype=kind).tobytes())
        return digest.hexdigest()

    def tangent_size(self, parameters: str = "embedding") -> int:
        """See ``Potential.tangent_size``."""
        self.check_block(parameters)
        return sum(int(self._archive.weights[name].size) for name in self._names[parameters])

    def predict(self, batch: Batch, *, forces: bool = True, stress: bool = False) -> Prediction:
        """See ``Potential.predict``; it gives no stress."""
        if stress:
            raise PotentialError(
                f"{self.name} is a {type(self).__name__}, whose stress is not calculated here; "
                "use mlip's own calculator"
            )
        note_forward(batch.n_structures)
        padded = self._pad(batch)
        if not forces:
            energies = self.evaluator.energies(self._weights, padded)
            return Prediction(self._total(batch, energies), None)
        note_backward(batch.n_structures)
        return self._prediction(batch, *self.evaluator.predict(self._weights, padded))

    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """See ``Potential.activations``."""
        note_forward(batch.n_structures)
        atoms = self.evaluator.activations(self._weights, self._pad(batch))
        return average_over_atoms(self._atoms(batch, atoms), batch)

    def energy_tangent(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Float[Tensor, "n k"]:
        """See ``Potential.energy_tangent``.

        The embedding takes one forward and one backward pass for the whole batch; the other
        blocks are taken for several structures of about one size side by side.
        """
        self.check_block(parameters)
        note_forward(batch.n_structures)
        note_backward(batch.n_structures)
        if parameters == "embedding":
            cotangent = self.evaluator.embedding_gradient(self._weights, self._pad(batch))
            rows = self.sum_by_element(batch, cotangent)
            return rows if project is None else project(rows)
        return self.block_rows(batch, parameters, project)

    def linearise(
        self,
        batch: Batch,
        *,
        parameters: str = "embedding",
        project: Projection | None = None,
    ) -> Linearisation:
        """See ``Potential.linearise``.

        Of the embedding it keeps what the forward and the backward pass left; for the other
        blocks each contraction is computed from the beginning.
        """
        self.check_block(parameters)
        note_forward(batch.n_structures)
        note_backward(batch.n_structures)
        if parameters != "embedding":
            return BlockLinearisation(self, batch, parameters, project)
        *values, pull = self.evaluator.embedding_linearise(self._weights, self._pad(batch))
        return EmbeddingLinearisation(self, batch, self._prediction(batch, *values), pull, project)

    def with_random_weights(self, seed: int, *, scale: float | None = None) -> MlipPotential:
        """See ``Potential.with_random_weights``; weights are drawn as mlip draws them."""
        settings = self._archive.settings
        if scale is not None:
            info = {**settings["dataset_info"], "scaling_stdev": float(scale)}
            settings = {**settings, "dataset_info": info}
        archive = ModelArchive(settings, self.evaluator.draw_weights(seed))
        return MlipPotential(archive, name=self.name, dtype=self.dtype, head=self.head)

    def write(self, stream: IO[bytes], suffix: str) -> None:  # noqa: ARG002  # one format
        """Write the archive that mlip's ``load_model_from_zip`` takes."""
        write_archive(stream, self._archive)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle settings and weights: what is compiled cannot be."""
        return _rebuild, (self._archive, self.name, self.dtype, self.head)

    def _pad(self, batch: Batch) -> PaddedBatch:
        """Fill a batch up; it may have as many structures as atoms."""
        room = find_room(batch.n_atoms, batch.n_edges)
        return pad(batch, self.elements, self.cutoff, room, room.n_atoms + 1)

    def _atoms(self, batch: Batch, array: Any) -> Float[Tensor, "N c"]:
        """Return what was computed for the atoms that are there."""
        return torch.from_numpy(np.array(array[: batch.n_atoms]))

    def _total(self, batch: Batch, atoms: Any) -> Float[Tensor, " n"]:
        """Add up energies of atoms and reference energies in double precision."""
        interaction = torch.from_numpy(np.array(atoms[: batch.n_atoms])).double()
        total = torch.zeros(batch.n_structures, dtype=torch.float64)
        total.index_add_(0, batch.structure_idx, interaction + self._references[batch.species])
        return total.to(self.dtype)

    def _prediction(self, batch: Batch, energies: Any, slope: Any) -> Prediction:
        """Return totals of energies of atoms, and forces."""
        return Prediction(self._total(batch, energies), -self._atoms(batch, slope))

    def pull_back(self, pull: Any, energy: float, slope: Float[Tensor, "N 3"]) -> Any:
        """Return the gradient for initial features of a sum over atoms, (N, C) and padding.

        Args:
            pull: Of ``Evaluator.embedding_linearise``.
            energy: The factor of all energies.
            slope: (N, 3), factors of the energies' gradient in the positions.
        """
        padded = np.zeros((find_room(len(slope), 0).n_atoms + 1, 3), slope.numpy().dtype)
        padded[: len(slope)] = slope.numpy()
        energies = np.full(len(padded), energy, padded.dtype)
        return self.evaluator.pull_back(pull, energies, padded)

    def sum_by_element(self, batch: Batch, cotangent: Any) -> Float[Tensor, "n p"]:
        """Turn gradients for initial features into gradients for their table.

        The features of an atom are its element's row of the table, so that a structure's gradient
        for that row is the sum over its atoms of that element.

        Args:
            batch: n structures.
            cotangent: (N, C) and padding.
        """
        atoms, n_rows = self._atoms(batch, cotangent), len(self.evaluator.numbers)
        rows = atoms.new_zeros(batch.n_structures * n_rows, atoms.shape[1])
        rows.index_add_(0, batch.structure_idx * n_rows + self._rows[batch.species], atoms)
        return rows.view(batch.n_structures, -1)

    def block_rows(
        self,
        batch: Batch,
        parameters: str,
        project: Projection | None,
        directions: Float[Tensor, "N 3"] | None = None,
    ) -> Float[Tensor, "n k"]:
        """Return the rows of a block: those of energies, or of forces along directions.

        Args:
            batch: n structures.
            parameters: A block.
            project: See ``Potential.energy_tangent``.
            directions: v, (N, 3), see ``Linearisation.force_rows``; None for energies.
        """
        names = set(self._names[parameters])
        block = {name: self._weights[name] for name in names}
        others = {name: w for name, w in self._weights.items() if name not in names}
        singles = list(batch.split())
        rows: dict[int, Tensor] = {}
        pieces = torch.split(
            batch.positions if directions is None else directions, list(batch.atom_counts)
        )
        for members in group(batch):
            padded = [
                pad(singles[i], self.elements, self.cutoff, members.room, 2) for i in members.places
            ]
            padded += padded[:1] * (members.size - len(padded))
            if directions is None:
                found = self.evaluator.block_gradients(block, others, stack(padded))
            else:
                vectors = np.zeros_like(stack(padded).positions)
                for row, place in enumerate(members.places):
                    vectors[row, : len(pieces[place])] = pieces[place].numpy()
                found = self.evaluator.block_force_rows(block, others, stack(padded), vectors)
            made = torch.from_numpy(np.array(found[: len(members.places)]))
            made = made if project is None else project(made)
            rows |= dict(zip(members.places, made, strict=True))
        return torch.stack([rows[place] for place in range(len(singles))])


def _rebuild(archive: ModelArchive, name: str, dtype: torch.dtype, head: str) -> MlipPotential:
    return MlipPotential(archive, name=name, dtype=dtype, head=head)
