"""Laws that every potential must obey.

``check_potential`` evaluates a potential on molecules, a slab, a crystal and single atoms made
here of its own elements, and raises ``AssertionError`` with the name of the law that is broken.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray

from labelwise.finetuning.export import save_potential
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch
from labelwise.potentials.loading import load_potential
from labelwise.potentials.torch_potential import TorchPotential

_TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-4}


def check_potential(potential: Potential) -> None:
    """Raise unless a potential obeys the laws.

    Takes seconds for a small model. Float64 is held to 1e-9, relative to the largest value,
    float32 to 2e-4; derivatives are compared with finite differences in float64 only.

    Args:
        potential: The potential, on any device.

    Raises:
        AssertionError: A law is broken; the message names it.
    """
    default_dtype = torch.get_default_dtype()
    random_state = torch.get_rng_state()
    structures = sample_structures(potential)
    _check_attributes(potential)
    _check_inputs_unmodified(potential, structures)
    _check_batch_is_single(potential, structures)
    _check_symmetries(potential, structures)
    _check_supercell(potential)
    _check_tangents(potential, structures)
    _check_differentiable(potential, structures)
    _check_linearisation(potential, structures)
    _check_files(potential, structures)
    sent = cloudpickle.loads(cloudpickle.dumps(potential))
    require(sent.content_hash == potential.content_hash, "what is sent to a process is another")
    if isinstance(potential, TorchPotential):
        _check_training(potential, structures)
    if potential.dtype == torch.float64:
        _check_forces(potential, structures)
        if isinstance(potential, TorchPotential):
            _check_stress(potential, structures[4])
    require(torch.get_default_dtype() == default_dtype, "torch's default type was changed")
    require(torch.equal(torch.get_rng_state(), random_state), "torch's random state was changed")


def _check_files(potential: Potential, structures: Sequence[Atoms]) -> None:
    """Hold what is written and read again to the potential, for each kind of file."""
    batch = _batch(potential, structures[:5])
    energies = potential.predict(batch, forces=False).energies
    for suffix in potential.file_suffixes:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"written{suffix}"
            save_potential(potential, path)
            read = load_potential(
                path,
                device=str(potential.device),
                dtype=potential.dtype,
                head=potential.head,
                trust=True,
            )
        require(
            type(read) is type(potential) and read.content_hash == potential.content_hash,
            f"another model is read from {suffix} than was written",
        )
        found = read.predict(batch, forces=False).energies
        _assert_close(potential, found, energies, f"energies read from {suffix}")


def sample_structures(potential: Potential, *, seed: int = 0) -> list[Atoms]:
    """Make structures of a potential's elements: molecules, a lone pair, a slab, crystals, atoms.

    Args:
        potential: Gives elements and cutoff.
        seed: Of the geometries.

    Returns:
        Nine structures, atoms at least 0.8 Å apart; two are single atoms, one open and one in
        a periodic box, and one is a pair beyond the cutoff.
    """
    rng = np.random.default_rng(seed)
    elements, cutoff = potential.elements, potential.cutoff
    structures = []
    for n_atoms in (2, 5, 9, 12):
        atoms = Atoms(rng.choice(elements, n_atoms), positions=_spread(rng, n_atoms))
        structures.append(atoms)
    crystal = Atoms(
        rng.choice(elements, 4),
        cell=[[3.6, 0, 0], [0.7, 3.9, 0], [0.3, -0.4, 4.1]],
        scaled_positions=[[0, 0, 0], [0.5, 0.5, 0.04], [0.5, 0.02, 0.5], [0, 0.5, 0.5]],
        pbc=True,
    )
    slab = crystal.copy()
    slab.pbc = (True, True, False)
    pair = Atoms(rng.choice(elements, 2), positions=[[0, 0, 0], [0, 0, 1.5 * cutoff]])
    atom = Atoms([elements[-1]], positions=[[1.0, 2.0, 3.0]])
    boxed = Atoms([elements[0]], cell=np.eye(3) * 3 * cutoff, pbc=True)
    return [*structures, crystal, slab, pair, atom, boxed]


def symmetry_copies(atoms: Atoms, *, seed: int = 0) -> dict[str, tuple[Atoms, NDArray[np.float64]]]:
    """Make copies of a structure that are the same structure to physics.

    Args:
        atoms: The structure, not modified.
        seed: Of rotation, shift and order.

    Returns:
        Per law, the copy and the orthogonal matrix Q (3, 3) with r' = r Qᵀ; atoms keep their
        order except under ``atom order``, where they are reversed.
    """
    rng = np.random.default_rng(seed)
    rotation = np.linalg.qr(rng.normal(size=(3, 3)))[0]
    rotation *= np.sign(np.linalg.det(rotation))
    identity = np.eye(3)

    def turned(matrix: NDArray[np.float64]) -> Atoms:
        copy: Atoms = atoms.copy()
        copy.set_cell(atoms.cell.array @ matrix.T)
        copy.positions = atoms.positions @ matrix.T
        return copy

    moved = atoms.copy()
    moved.positions += rng.normal(size=3) * 20.0
    reversed_order = atoms[::-1]
    return {
        "rotation": (turned(rotation), rotation),
        "reflection": (turned(-rotation), -rotation),
        "translation": (moved, identity),
        "atom order": (reversed_order, identity),
    }


def _spread(rng: np.random.Generator, n_atoms: int) -> NDArray[np.float64]:
    """Draw positions in a small ball that keep 0.8 Å apart."""
    radius = 0.9 * n_atoms ** (1 / 3)
    positions: list[NDArray[np.float64]] = []
    while len(positions) < n_atoms:
        candidate = rng.uniform(-radius, radius, 3)
        if all(np.linalg.norm(candidate - other) > 0.8 for other in positions):
            positions.append(candidate)
        radius *= 1.001
    return np.array(positions)


def _batch(potential: Potential, structures: Sequence[Atoms]) -> Batch:
    return potential.collate([potential.prepare(atoms) for atoms in structures])


def _forces(potential: Potential, batch: Batch) -> torch.Tensor:
    forces = potential.predict(batch).forces
    if forces is None:
        raise AssertionError("predict(forces=True) gave no forces")
    return forces


def _everything(potential: Potential, structures: Sequence[Atoms]) -> dict[str, torch.Tensor]:
    batch = _batch(potential, structures)
    return {
        "energies": potential.predict(batch).energies,
        "forces": _forces(potential, batch),
        "activations": potential.activations(batch),
        "tangents": potential.energy_tangent(batch),
    }


def _assert_close(potential: Potential, got: torch.Tensor, wanted: torch.Tensor, law: str) -> None:
    require(
        got.shape == wanted.shape, f"{law}: {tuple(got.shape)} instead of {tuple(wanted.shape)}"
    )
    require(torch.isfinite(got).all(), f"{law}: values that are not finite")
    scale = max(1e-3, float(wanted.abs().max())) if wanted.numel() else 1.0
    error = float((got - wanted).abs().max()) / scale if wanted.numel() else 0.0
    require(error <= _TOLERANCE[potential.dtype], f"{law}: relative difference {error:.1e}")


def _check_attributes(potential: Potential) -> None:
    require(len(set(potential.elements)) == len(potential.elements) > 0, "elements repeat")
    require(potential.cutoff > 0, "the cutoff is not positive")
    require(potential.dtype in _TOLERANCE, "dtype is neither float32 nor float64")
    require(potential.head in potential.heads, "the head is not among the heads")
    digest = potential.content_hash
    require(len(digest) == 64 == len(digest.strip()), "content_hash is not 64 hex digits")
    require(potential.content_hash == digest, "content_hash changes from call to call")
    for parameters in potential.blocks:
        require(potential.tangent_size(parameters) > 0, f"the block {parameters} is empty")


def _check_inputs_unmodified(potential: Potential, structures: Sequence[Atoms]) -> None:
    for atoms in structures:
        atoms.info["note"] = "kept"
    before = deepcopy(list(structures))
    graphs = [potential.prepare(atoms) for atoms in structures]
    pickled = pickle.dumps(graphs)
    batch = potential.collate(graphs)
    positions = batch.positions.clone()
    potential.predict(batch)
    potential.energy_tangent(batch)
    require(pickle.dumps(graphs) == pickled, "a graph was changed")
    require(torch.equal(batch.positions, positions), "the batch's positions were changed")
    require(not batch.positions.requires_grad, "the batch's positions now require gradients")
    for atoms, copy in zip(structures, before, strict=True):
        require(atoms == copy and atoms.info == copy.info, "the structure was changed")


def _check_batch_is_single(potential: Potential, structures: Sequence[Atoms]) -> None:
    together = _everything(potential, structures)
    singles = [_everything(potential, [atoms]) for atoms in structures]
    for key, value in together.items():
        alone = torch.cat([single[key] for single in singles])
        _assert_close(potential, value, alone, f"batch = single, {key}")
    n, sizes = len(structures), (potential.activation_size, potential.tangent_size())
    require(together["energies"].shape == (n,), "energies are not one per structure")
    require(together["activations"].shape == (n, sizes[0]), "activation_size is wrong")
    require(together["tangents"].shape == (n, sizes[1]), "tangent_size is wrong")


def _check_symmetries(potential: Potential, structures: Sequence[Atoms]) -> None:
    for atoms in structures:
        original = _everything(potential, [atoms])
        for law, (copy, matrix) in symmetry_copies(atoms).items():
            if law == "reflection" and not potential.parity:
                continue
            got = _everything(potential, [copy])
            turn = torch.tensor(matrix, dtype=potential.dtype, device=potential.device)
            wanted = {**original, "forces": original["forces"] @ turn.T}
            if law == "atom order":
                wanted["forces"] = wanted["forces"].flip(0)
            for key, value in got.items():
                _assert_close(potential, value, wanted[key], f"{law}, {key}")


def _check_supercell(potential: Potential) -> None:
    """Another cell of the same crystal: sums over atoms grow with it, averages stay."""
    crystal = sample_structures(potential)[4]
    sheared = crystal.copy()
    sheared.set_cell([[1, 0, 0], [1, 1, 0], [0, -1, 1]] @ crystal.cell.array)
    wrapped = crystal.copy()
    wrapped.wrap(center=(0.1, 0.7, 0.3))
    one = _everything(potential, [crystal])
    for law, copy in (
        ("supercell", crystal.repeat((2, 1, 1))),
        ("another unit cell", sheared),
        ("atoms in other images", wrapped),
    ):
        got = _everything(potential, [copy])
        factor = len(copy) / len(crystal)
        _assert_close(potential, got["energies"], one["energies"] * factor, f"{law}, energies")
        _assert_close(potential, got["tangents"], one["tangents"] * factor, f"{law}, tangents")
        _assert_close(potential, got["activations"], one["activations"], f"{law}, activations")


def _check_tangents(potential: Potential, structures: Sequence[Atoms]) -> None:
    batch = _batch(potential, structures)
    for parameters in potential.blocks:
        got = potential.energy_tangent(batch, parameters=parameters)
        if isinstance(potential, TorchPotential):
            singles = [potential.block_gradient(single, parameters) for single in batch.split()]
        else:
            singles = [potential.energy_tangent(s, parameters=parameters) for s in batch.split()]
        law = f"tangents of {parameters} = one structure at a time"
        _assert_close(potential, got, torch.cat(singles), law)
        require(not got.requires_grad, "tangents are not detached")


def _check_differentiable(potential: Potential, structures: Sequence[Atoms]) -> None:
    """``energies`` gives the same values and gradients, and a double backward pass."""
    if not isinstance(potential, TorchPotential):
        return
    batch = _batch(potential, structures)
    prediction = potential.predict(batch)
    positions = batch.positions.clone().requires_grad_()
    embedding = potential.node_embedding(batch)
    if embedding is None:
        return
    embedding.requires_grad_()
    energies = potential.energies(batch, positions=positions, embedding=embedding)
    _assert_close(potential, energies.detach(), prediction.energies, "energies = predict")
    (gradient,) = torch.autograd.grad(energies.sum(), positions, create_graph=True)
    _assert_close(potential, -gradient.detach(), _forces(potential, batch), "forces from energies")
    (mixed,) = torch.autograd.grad(gradient.square().sum(), embedding)
    require(torch.isfinite(mixed).all() and mixed.any(), "no mixed derivatives")


def _check_linearisation(potential: Potential, structures: Sequence[Atoms]) -> None:
    """Mixed derivatives: the batch is the single, and the sum of a structure's forces is zero."""
    batch = _batch(potential, structures)
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(batch.n_atoms, 3, generator=generator, dtype=torch.float64)
    directions = directions.to(dtype=potential.dtype, device=potential.device)
    for parameters in potential.blocks:
        together = potential.linearise(batch, parameters=parameters)
        pieces = torch.split(directions, list(batch.atom_counts))
        alone = [
            potential.linearise(single, parameters=parameters).force_rows(piece)
            for single, piece in zip(batch.split(), pieces, strict=True)
        ]
        rows = together.force_rows(directions)
        _assert_close(potential, rows, torch.cat(alone), f"mixed derivatives of {parameters}")
        tangents = potential.energy_tangent(batch, parameters=parameters)
        law = f"linearised energies of {parameters}"
        _assert_close(potential, together.energy_rows(), tangents, law)
        _assert_close(potential, together.forces, _forces(potential, batch), law)
        scale = max(1e-3, float(rows.abs().max()))
        total = together.force_rows(torch.ones_like(directions)) / scale
        _assert_close(potential, total, torch.zeros_like(total), f"sum of forces, {parameters}")


def _check_training(potential: TorchPotential, structures: Sequence[Atoms]) -> None:
    """What fine-tuning rests on: copies, reference energies, gradients by the weights."""
    batch = _batch(potential, structures)
    digest, energies = potential.content_hash, potential.predict(batch).energies
    work = potential.copy()
    require(work.content_hash == digest, "a copy has another content_hash")
    references = np.linspace(-3.0, 5.0, len(potential.elements))
    work.set_reference_energies(references)
    _assert_close(work, torch.tensor(work.reference_energies), torch.tensor(references), "set")
    counts = torch.zeros(batch.n_structures, len(references), dtype=torch.float64)
    counts.index_put_(
        (batch.structure_idx.cpu(), batch.species.cpu()),
        torch.ones(batch.n_atoms, dtype=torch.float64),
        accumulate=True,
    )
    interaction = work.without_references().predict(batch).energies
    total = interaction.cpu().double() + counts @ torch.tensor(references)
    got = work.predict(batch).energies.cpu().double()
    _assert_close(work, got, total, "energies = interaction + reference energies")
    work.set_reference_energies(np.zeros(len(references)))
    named = dict(work.model.named_parameters())
    for name, shapes in work.matrix_shapes().items():
        filled = sum(rows * columns for rows, columns in shapes)
        require(filled == named[name].numel(), f"matrix_shapes of {name} do not fill it")
    weights = work.trained_weights()
    for weight in weights:
        weight.requires_grad_(True)
    network = work.training_network()
    prepared = network.prepare([work.prepare(atoms) for atoms in structures])
    found, forces = network.energies_and_forces(network.collate(prepared), training=True)
    _assert_close(work, found.detach(), interaction, "energies of the training network")
    _assert_close(
        work, forces.detach(), _forces(potential, batch), "forces of the training network"
    )
    *same, stresses = network.energies_forces_stresses(network.collate(prepared), training=True)
    law = "energies, forces and stress of the training network"
    wanted = potential.predict(batch, stress=True).stresses
    assert wanted is not None  # noqa: S101  # it was asked for
    for got, value in zip((*same, stresses), (found, forces, wanted), strict=True):
        _assert_close(work, got.detach(), value.detach(), law)
    (found.square().sum() + forces.square().sum()).backward()  # type: ignore[no-untyped-call]
    require(
        any(weight.grad is not None and weight.grad.any() for weight in weights),
        "no weight has a gradient",
    )
    with torch.no_grad():
        weights[0].add_(0.1)
    require(work.content_hash != digest, "content_hash does not see the weights")
    unchanged = potential.content_hash == digest
    require(unchanged and torch.equal(potential.predict(batch).energies, energies), "not a copy")


def _check_forces(potential: Potential, structures: Sequence[Atoms], step: float = 1e-4) -> None:
    for atoms in (structures[1], structures[4]):
        forces = _forces(potential, _batch(potential, [atoms]))

        def energy(shift: float, atoms: Atoms = atoms) -> float:
            moved = atoms.copy()
            moved.positions[1, 0] += shift
            return float(potential.predict(_batch(potential, [moved]), forces=False).energies)

        slope = central_difference(energy, step)
        error = abs(float(forces[1, 0]) + slope)
        limit = 1e-6 * max(1.0, abs(slope))
        require(error < limit, f"forces = -dE/dr: differ by {error:.1e} eV/Å")


def _check_stress(potential: TorchPotential, crystal: Atoms, step: float = 1e-5) -> None:
    """The stress is the derivative of the energy by a strain, divided by the volume."""
    stress = potential.predict(_batch(potential, [crystal]), stress=True).stresses
    require(stress is not None and stress.shape == (1, 3, 3), "predict(stress=True) gave none")
    assert stress is not None  # noqa: S101  # said above
    for first, second in ((0, 0), (0, 1), (2, 2)):

        def energy(size: float, place: tuple[int, int] = (first, second)) -> float:
            strain = np.eye(3)
            strain[place] += size / 2
            strain[place[::-1]] += size / 2
            strained = crystal.copy()
            strained.set_cell(crystal.cell.array @ strain, scale_atoms=True)
            return float(potential.predict(_batch(potential, [strained]), forces=False).energies)

        slope = central_difference(energy, step) / crystal.get_volume()
        error = abs(float(stress[0, first, second]) - slope)
        limit = 1e-6 * max(1.0, abs(slope))
        require(error < limit, f"stress = dE/dε / V: differs by {error:.1e} eV/Å³")


def require(condition: object, law: str) -> None:
    """Raise ``AssertionError`` with the name of a law unless it holds."""
    if not condition:
        raise AssertionError(law)


def central_difference(function: Callable[[float], Any], step: float) -> Any:
    """Return the derivative at zero by a fourth-order central difference."""
    near = function(step) - function(-step)
    far = function(2 * step) - function(-2 * step)
    return (8 * near - far) / (12 * step)
