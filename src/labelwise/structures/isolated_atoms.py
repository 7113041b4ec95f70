"""Atoms alone in space, whose energies are reference energies and no samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell

from labelwise.errors import LabelError
from labelwise.structures.electronic_state import is_charged
from labelwise.structures.images import find_nearest_distance
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, get_energy
from labelwise.structures.reading import Frame

#: An atom without another one, or an image, within so many Å is alone; no element is a crystal
#: of one atom a cell with wider gaps.
REACH = 6.0
#: Energies of the same atom that differ by more than this contradict each other, eV.
SAME_ENERGY = 0.01
_CONFIG_TYPE = "config_type"
_NAMES = ("isolatedatom", "isolatedatoms")


def is_isolated_atom(atoms: Atoms, *, cutoff: float = REACH) -> bool:
    """Tell whether a structure is one atom alone in space.

    It is one atom that the file calls an isolated atom (``config_type=IsolatedAtom``, as MACE
    and GAP write it, in any spelling), or one atom without periodic images in reach.

    Args:
        atoms: The structure.
        cutoff: How far the model sees, Å; images beyond 6 Å count for no model.
    """
    if len(atoms) != 1:
        return False
    return is_called_isolated(atoms) or not _has_images(atoms, min(cutoff, REACH))


def is_called_isolated(atoms: Atoms) -> bool:
    """Tell whether a structure is one atom that the file calls an isolated atom."""
    return len(atoms) == 1 and _has_name(atoms)


def refuse_isolated_molecule(atoms: Atoms, where: str) -> None:
    """Raise if the file calls several atoms an isolated atom.

    Args:
        atoms: The structure.
        where: File and frame, for the error message.

    Raises:
        LabelError: It does.
    """
    if len(atoms) != 1 and _has_name(atoms):
        raise LabelError(
            f"{where}: {_CONFIG_TYPE} is {atoms.info[_CONFIG_TYPE]!r}, but there are {len(atoms)} "
            "atoms; allowed is one: correct the key or take the structure out"
        )


def collect_isolated_energies(
    atoms: Iterable[tuple[Atoms, str]],
    *,
    known: Mapping[int, float] | None = None,
    energy_key: str = DEFAULT_ENERGY_KEY,
) -> dict[int, float]:
    """Read reference energies from isolated atoms.

    Args:
        atoms: Structures of one atom each, and where each came from. Ions are passed over.
        known: Energies in eV by atomic number that they are added to.
        energy_key: Info key of the total energy, eV.

    Returns:
        Energies in eV by atomic number.

    Raises:
        LabelError: An energy is missing, or two of an element differ by more than 0.01 eV.
    """
    energies = {} if known is None else dict(known)
    sources = dict.fromkeys(energies, "the isolated atoms given")
    for each, where in atoms:
        if is_charged(each):
            continue
        number, energy = int(each.numbers[0]), get_energy(each, where, energy_key)
        before = energies.setdefault(number, energy)
        if abs(before - energy) > SAME_ENERGY:
            raise LabelError(
                f"{where}: an isolated atom of {chemical_symbols[number]} has {energy:.6g} eV, and "
                f"{before:.6g} eV in {sources[number]}; allowed is one reference energy an "
                "element: take the wrong one out"
            )
        sources.setdefault(number, where)
    return energies


def read_isolated_energies(
    frames: Iterable[Frame], *, energy_key: str = DEFAULT_ENERGY_KEY
) -> dict[int, float]:
    """Read a file of isolated atoms, one a frame.

    Args:
        frames: The structures.
        energy_key: Info key of the total energy, eV.

    Returns:
        Energies in eV by atomic number.

    Raises:
        LabelError: A frame is not one atom, an energy is missing, or two of an element differ
            by more than 0.01 eV.
    """
    atoms = []
    for frame in frames:
        if len(frame.atoms) != 1:
            raise LabelError(
                f"{frame.source}: a file of isolated atoms is expected to have one atom a frame, "
                f"this one has {len(frame.atoms)}"
            )
        atoms.append((frame.atoms, str(frame.source)))
    return collect_isolated_energies(atoms, energy_key=energy_key)


def _has_name(atoms: Atoms) -> bool:
    kind = str(atoms.info.get(_CONFIG_TYPE, ""))
    return "".join(filter(str.isalpha, kind.lower())) in _NAMES


def _has_images(atoms: Atoms, reach: float) -> bool:
    if not atoms.pbc.any():
        return False
    if not (np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()):
        return True
    if (np.linalg.norm(atoms.cell.array[atoms.pbc], axis=1) <= reach).any():
        return True  # the atom's own image along that vector; a search takes milliseconds
    cell = complete_cell(atoms.cell.array)
    if abs(np.linalg.det(cell)) < 1e-9:
        return True
    return find_nearest_distance(atoms.positions, cell, atoms.pbc, reach) <= reach
