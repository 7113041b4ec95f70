"""Labels that are numbers but cannot be true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import compress

import numpy as np
from ase import Atoms

from labelwise.campaign.labelling.base import (
    MAX_ENERGY_DEVIATION,
    MAX_FORCE,
    Failure,
    Label,
    Outcome,
)
from labelwise.structures.atom_energies import count_elements, fit_atom_energies, in_row_space
from labelwise.structures.isolated_atoms import is_isolated_atom
from labelwise.structures.labels import Labels, is_placeholder


def refuse_placeholder(atoms: Atoms, label: Label) -> Outcome:
    """Return the label, or the failure that it is whatever is asked of labels.

    Forces of another shape, numbers that are not finite, zeros as if never calculated.
    """
    return _refuse(label, _find_placeholder(atoms, label))


class LabelChecks:
    """Finds labels that are not finite, or absurd.

    Total energies of different codes differ by thousands of eV an atom, so an absurd one
    shows only against others of the same level: the energies of the labelled structures
    are fitted by a sum of one energy for each element (``fit_atom_energies``, which labels that
    lie far off the others do not bend; isolated atoms where these are known fill in what the
    structures leave open), and the deviation from the sum is looked at. Compositions that
    neither determines are not checked.
    """

    def __init__(
        self,
        structures: Sequence[Atoms] = (),
        energies: Sequence[float] = (),
        *,
        isolated_atoms: Mapping[int, float] | None = None,
        max_force: float = MAX_FORCE,
        max_energy_deviation: float = MAX_ENERGY_DEVIATION,
    ) -> None:
        """Fit the energies of the elements.

        Args:
            structures: Labelled structures (n,); may be none.
            energies: Their total energies (n,), eV.
            isolated_atoms: Atomic number to energy, eV.
            max_force: Largest force component that is believed, eV/Å.
            max_energy_deviation: Largest deviation that is believed, eV/atom.
        """
        self._max_force = max_force
        self._max_deviation = max_energy_deviation
        isolated = {} if isolated_atoms is None else dict(isolated_atoms)
        samples = [not is_isolated_atom(atoms) for atoms in structures]
        structures = list(compress(structures, samples))
        self._elements = sorted(
            {int(z) for atoms in structures for z in atoms.numbers} | {*isolated}
        )
        counts = count_elements([atoms.numbers for atoms in structures], self._elements)
        fit = fit_atom_energies(
            counts,
            np.array(list(compress(energies, samples)), dtype=np.float64),
            prior=np.array([isolated.get(z, 0.0) for z in self._elements]),
            weights=np.square(counts.sum(axis=1), dtype=np.float64),
        )
        alone = np.eye(len(self._elements), dtype=np.int64)
        known = [alone[self._elements.index(z)][None] for z in isolated]
        self._known = np.concatenate([counts[fit.used], *known])
        self._fitted = fit.energies
        self._is_determined: dict[bytes, bool] = {}

    def check(self, atoms: Atoms, label: Label) -> Outcome:
        """Return the label, or the failure that it is."""
        return _refuse(label, _find_placeholder(atoms, label) or self._find_absurd(atoms, label))

    def _find_absurd(self, atoms: Atoms, label: Label) -> tuple[str, str] | None:
        largest = float(np.abs(label.forces).max()) if len(atoms) else 0.0
        if largest > self._max_force:
            return "absurd-forces", f"a force component of {largest:.4g} eV/Å"
        deviation = self.deviation(atoms, label.energy)
        if deviation is not None and abs(deviation) > self._max_deviation:
            found = f"{label.energy:.6g} eV is {deviation:+.4g} eV/atom from what the labelled "
            return "absurd-energy", found + "structures let expect of this composition"
        return None

    def deviation(self, atoms: Atoms, energy: float) -> float | None:
        """Return how far an energy is from the fit, eV/atom; None where it says nothing."""
        if len(self._known) == 0 or not {int(z) for z in atoms.numbers} <= {*self._elements}:
            return None
        row = count_elements([atoms.numbers], self._elements)
        name = row.tobytes()
        if name not in self._is_determined:
            self._is_determined[name] = bool(in_row_space(self._known, row)[0])
        if not self._is_determined[name]:
            return None
        return float((energy - row[0] @ self._fitted) / len(atoms))


def _find_placeholder(atoms: Atoms, label: Label) -> tuple[str, str] | None:
    """Return reason and detail of what can be no label; None if it can be one."""
    if label.forces.shape != (len(atoms), 3):
        return "exception", f"forces have shape {label.forces.shape}, not {(len(atoms), 3)}"
    if not (np.isfinite(label.energy) and np.isfinite(label.forces).all()):
        largest = np.abs(label.forces).max(initial=0.0)
        return "not-finite", f"energy {label.energy}, largest force {largest}"
    if is_placeholder(atoms, Labels(label.energy, label.forces)):
        return "zeros", "energy or all forces are exactly zero, as if never calculated"
    return None


def _refuse(label: Label, found: tuple[str, str] | None) -> Outcome:
    if found is None:
        return label
    return Failure(label.key, *found, n_tries=label.n_tries, seconds=label.seconds)
