"""Labelled structures, checked and with their neighbour lists built, once for all epochs."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Float64, Int64

from labelwise.errors import ArgumentError, LabelError, StructureError
from labelwise.potentials import Graph, GraphBuilder
from labelwise.structures import Labels, get_labels
from labelwise.structures.annotations import (
    get_head,
    get_stress_weight,
    get_weights,
    require_one_head,
)
from labelwise.structures.electronic_state import encode_state
from labelwise.structures.energy_units import EnergyUnits
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.isolated_atoms import is_isolated_atom, refuse_isolated_molecule
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
    get_energy,
    get_partial_labels,
    stress_key_of,
)
from labelwise.structures.levels import LevelCheck


@dataclass(frozen=True)
class LabelledSet:
    """Structures with labels, ready for training.

    Attributes:
        graphs: One graph per structure.
        energies: (n,) float64, eV, total energies.
        forces: (n_atoms_i, 3) float64 each, eV/Å.
        atom_counts: (n,) int64.
        free: (n_atoms_i,) bool each, the atoms that are not fixed.
        names: What to call each in a message, with file and frame.
        structures: The structures themselves; not to be modified.
        is_isolated: (n,) bool, atoms alone in space: their labels are reference energies.
        energy_weights: (n,) float64, weight of each energy in the loss, dimensionless.
        forces_weights: (n,) float64, the same of its forces.
        stresses: (n, 3, 3) float64, eV/Å³; NaN where there is no label.
        stress_weights: (n,) float64, weight of each stress.
        has_energy: (n,) bool, which structures have an energy; the others' is 0 and of weight 0.
        has_forces: (n,) bool, the same of forces.
        head: The head that the structures name; None if none does.
    """

    graphs: tuple[Graph, ...]
    energies: Float64[np.ndarray, " n"]
    forces: tuple[Float64[np.ndarray, "_ 3"], ...]
    atom_counts: Int64[np.ndarray, " n"]
    free: tuple[Bool[np.ndarray, " _"], ...]
    names: tuple[str, ...]
    structures: tuple[Atoms, ...]
    is_isolated: Bool[np.ndarray, " n"]
    energy_weights: Float64[np.ndarray, " n"]
    forces_weights: Float64[np.ndarray, " n"]
    stresses: Float64[np.ndarray, "n 3 3"]
    stress_weights: Float64[np.ndarray, " n"]
    has_energy: Bool[np.ndarray, " n"]
    has_forces: Bool[np.ndarray, " n"]
    head: str | None

    @property
    def n_structures(self) -> int:
        """Number of structures."""
        return len(self.graphs)

    @property
    def is_weighted(self) -> bool:
        """Whether any weight differs from 1."""
        return bool((self.energy_weights != 1).any() or (self.forces_weights != 1).any())

    @property
    def has_stress(self) -> Bool[np.ndarray, " n"]:
        """Which structures have a stress label, (n,)."""
        known: Bool[np.ndarray, " n"] = ~np.isnan(self.stresses[:, 0, 0])
        return known

    @property
    def counts(self) -> Bool[np.ndarray, " n"]:
        """Which structures have a label that is not of weight 0, (n,)."""
        of_stress = self.has_stress & (self.stress_weights > 0)
        counted: Bool[np.ndarray, " n"] = (
            (self.energy_weights > 0) | (self.forces_weights > 0) | of_stress
        )
        return counted

    def take(self, idx: Int64[np.ndarray, " m"]) -> LabelledSet:
        """Return some of the structures, (m,)."""
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        taken: dict[str, Any] = {
            name: value[idx] if isinstance(value, np.ndarray) else tuple(value[i] for i in idx)
            for name, value in values.items()
            if name != "head"
        }
        return LabelledSet(**taken, head=self.head)


def prepare_labelled(
    builder: GraphBuilder,
    structures: Sequence[Atoms],
    *,
    role: str,
    sources: Sequence[object] | None = None,
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    stress_key: str | None = DEFAULT_STRESS_KEY,
    partial_labels: bool = False,
    graphs: Sequence[Graph] | None = None,
) -> LabelledSet:
    """Read and check labels and build graphs; the structures are not modified.

    Isolated atoms need no forces, which are zero. Stress is optional.

    Args:
        builder: The potential's.
        structures: n structures.
        role: What they are, for messages: ``training``.
        sources: Where each came from, for messages: anything that prints as file and frame.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        stress_key: Info key of the stress, see ``get_stress``; None does not look for any.
        partial_labels: Whether structures may have energies alone or forces alone; what is not
            there counts with weight 0, as in mace-torch.
        graphs: What the builder makes of the structures, (n,), where that is known.

    Returns:
        The labelled set.

    Raises:
        ArgumentError: not as many sources as structures, or structures of several heads.
        LabelError: a label that is missing, not finite, or a zero that stands for a missing
            one, a weight that is no number >= 0, with file and frame; or energies in another
            unit than eV, or of two levels of theory.
        StructureError: a structure that the potential cannot take, with file and frame.
    """
    if sources is not None and len(sources) != len(structures):
        raise ArgumentError(
            f"sources has {len(sources)} entries for {len(structures)} {role} structures; "
            "allowed is one each"
        )
    built, labels, names = [], [], []
    is_isolated = np.zeros(len(structures), dtype=bool)
    weights = np.ones((len(structures), 2))
    stresses = np.full((len(structures), 3, 3), np.nan)
    stress_weights = np.ones(len(structures))
    known = np.ones((len(structures), 2), dtype=bool)
    units = EnergyUnits(f"label {energy_key!r}", f"{role} structures")
    levels = LevelCheck()
    keys: dict[str, Any] = {
        "energy_key": energy_key,
        "forces_key": forces_key,
        "stress_key": stress_key,
    }
    for i, atoms in enumerate(structures):
        where = f"{role} structure {i} ({atoms.get_chemical_formula()})"
        where = where if sources is None else f"{where} from {sources[i]}"
        names.append(where)
        refuse_isolated_molecule(atoms, where)
        is_isolated[i] = is_isolated_atom(atoms, cutoff=builder.cutoff)
        weights[i] = get_weights(atoms, where)
        if is_isolated[i]:
            labels.append(Labels(get_energy(atoms, where, energy_key), np.zeros((1, 3))))
        else:
            if partial_labels:
                found, known[i] = get_partial_labels(atoms, where, **keys)
                weights[i] *= known[i]
            else:
                found = get_labels(atoms, where, **keys)
            labels.append(found)
            if found.stress is not None:
                stresses[i], stress_weights[i] = found.stress, get_stress_weight(atoms, where)
        _refuse_zeros(atoms, labels[-1], where, energy_key, forces_key, known[i])
        if known[i, 0]:
            units.add(atoms.numbers, labels[-1].energy, where, atoms.info)
        levels.add(atoms, where)
        try:
            built.append(builder(atoms) if graphs is None else graphs[i])
        except StructureError as error:
            raise StructureError(f"{where}: {error}") from error
    units.check()
    with_forces = [label for label, has in zip(labels, known[:, 1], strict=True) if has]
    _refuse_all_zero_forces(with_forces, role, forces_key)
    energies = np.array([label.energy for label in labels], dtype=np.float64)
    counts = np.array([graph.n_atoms for graph in built], dtype=np.int64)
    return LabelledSet(
        graphs=tuple(built),
        energies=energies,
        forces=tuple(label.forces for label in labels),
        atom_counts=counts,
        free=tuple(free_atoms(atoms) for atoms in structures),
        names=tuple(names),
        structures=tuple(structures),
        is_isolated=is_isolated,
        energy_weights=weights[:, 0].copy(),
        forces_weights=weights[:, 1].copy(),
        stresses=stresses,
        stress_weights=stress_weights,
        has_energy=known[:, 0].copy(),
        has_forces=known[:, 1].copy(),
        head=require_one_head([get_head(atoms) for atoms in structures], role),
    )


def report_stress(
    sets: Sequence[tuple[str, LabelledSet]], stress_key: str | None
) -> tuple[str, ...]:
    """Say how many structures have stress labels, where some do or a key was named.

    Args:
        sets: What each is called, ``training``, and the set.
        stress_key: Info key of the stress.
    """
    found = []
    n_open = 0
    for role, labelled in sets:
        counted = ~labelled.is_isolated
        n_known = int((labelled.has_stress & counted).sum())
        if n_known:
            found.append(f"{n_known} of {int(counted.sum())} {role} structures")
        n_open += sum(
            stress_key is not None
            and not atoms.pbc.all()
            and stress_key_of(atoms, stress_key) is not None
            for atoms in labelled.structures
        )
    if not found:
        if stress_key not in (None, DEFAULT_STRESS_KEY):
            return (f"No structure that is periodic in three directions has {stress_key!r}.",)
        return ()
    unused = (
        f" {n_open} with a stress are not periodic in three directions: theirs is not used."
        if n_open
        else ""
    )
    return (f"Stress labels: {', '.join(found)}.{unused}",)


def hash_labelled(atoms: Atoms, labels: Labels) -> str:
    """Return a word for a structure and its labels, exact to the last bit: 32 hex digits.

    Args:
        atoms: N atoms.
        labels: Energy in eV, forces (N, 3) in eV/Å and, where it is known, stress in eV/Å³.
    """
    state = encode_state(atoms.info, atoms.arrays)
    digest = hashlib.blake2b(repr((labels.energy, state, atoms.pbc.tolist())).encode())
    arrays = [atoms.numbers, atoms.positions, atoms.cell.array, labels.forces]
    for array in arrays if labels.stress is None else [*arrays, labels.stress]:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:32]


def require_free_atoms(
    labelled: LabelledSet, role: str, *, idx: Int64[np.ndarray, " m"] | None = None
) -> None:
    """Raise unless the forces of at least one atom are left when those of fixed ones are not used.

    Args:
        labelled: The set.
        role: What it is, for the message: ``validation``.
        idx: (m,) int64, only these of its structures; None for all.

    Raises:
        ArgumentError: All atoms of all structures are fixed.
    """
    places = range(labelled.n_structures) if idx is None else idx.tolist()
    places = [i for i in places if labelled.has_forces[i]]
    if places and not any(labelled.free[i].any() for i in places):
        raise ArgumentError(
            f"all {sum(len(labelled.free[i]) for i in places)} atoms of the {len(places)} {role} "
            "structures are fixed, so that no forces are left; let the forces of fixed atoms "
            "count, or give structures with free atoms"
        )


def report_partial(sets: Sequence[tuple[str, LabelledSet]]) -> tuple[str, ...]:
    """Say how many structures have energies alone or forces alone, where some do.

    Args:
        sets: What each is called, ``training``, and the set.
    """
    parts = []
    for role, labelled in sets:
        n = labelled.n_structures
        for name, known in (("energy", labelled.has_energy), ("forces", labelled.has_forces)):
            if not known.all():
                parts.append(f"{int((~known).sum())} of {n} {role} structures have no {name}")
    return (f"Partial labels: {'; '.join(parts)}.",) if parts else ()


def _refuse_zeros(
    atoms: Atoms,
    labels: Labels,
    where: str,
    energy_key: str,
    forces_key: str,
    known: Bool[np.ndarray, " 2"],
) -> None:
    """Refuse zeros that can only stand for labels that are not there.

    Forces vanish exactly for one atom, and by symmetry in a crystal, but not in a molecule.
    """
    if len(atoms) == 1:
        return
    if known[0] and labels.energy == 0.0:
        raise LabelError(
            f"{where}: label {energy_key!r} is exactly zero, which no total energy is; label the "
            "structure or leave it out"
        )
    if known[1] and not atoms.pbc.any() and not labels.forces.any():
        raise LabelError(
            f"{where}: all forces under {forces_key!r} are exactly zero, which calculated forces "
            "of a molecule never are; label the structure or leave it out"
        )


def _refuse_all_zero_forces(labels: Sequence[Labels], role: str, forces_key: str) -> None:
    """Refuse zeros of all structures, unless all have a stress: forces may vanish by symmetry."""
    several = [label for label in labels if len(label.forces) > 1]
    lacks_stress = any(label.stress is None for label in several)
    if lacks_stress and not any(label.forces.any() for label in several):
        raise LabelError(
            f"all forces of all {len(labels)} {role} structures under {forces_key!r} are exactly "
            "zero; they look like placeholders: label the structures"
        )
