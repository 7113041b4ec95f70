"""Labels that are numbers but cannot be true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.labelling.base import Failure, Label, Outcome

#: A force component beyond this is a failed calculation, eV/Å.
MAX_FORCE = 100.0
#: An energy farther than this from what the composition lets expect is one too, eV/atom.
MAX_ENERGY_DEVIATION = 10.0
_ISOLATED_WEIGHT = 1e-2
_IN_SPAN = 1e-6


class LabelChecks:
    """Finds labels that are not finite, or absurd.

    Total energies of different codes differ by thousands of eV an atom, so an absurd one
    shows only against others of the same level: the energies of the labelled structures
    are fitted by a sum of one energy for each element (least squares, drawn weakly to the
    isolated atoms where these are known), and the deviation from the sum is looked at.
    Compositions that the labelled set does not determine are not checked.
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
        self._elements = sorted(
            {int(z) for atoms in structures for z in atoms.numbers} | {*isolated}
        )
        rows = [self._count(atoms) for atoms in structures]
        targets = list(energies)
        for z, energy in isolated.items():
            row = np.zeros(len(self._elements))
            row[self._elements.index(z)] = _ISOLATED_WEIGHT
            rows.append(row)
            targets.append(_ISOLATED_WEIGHT * energy)
        self._rows = np.array(rows).reshape(len(rows), len(self._elements))
        self._fitted = np.linalg.pinv(self._rows) @ np.asarray(targets, dtype=np.float64)
        self._span = np.linalg.pinv(self._rows) @ self._rows

    def check(self, atoms: Atoms, label: Label) -> Outcome:
        """Return the label, or the failure that it is.

        Args:
            atoms: The labelled structure.
            label: Energy in eV, forces in eV/Å.
        """
        found = self._find(atoms, label)
        if found is None:
            return label
        return Failure(label.key, *found, n_tries=label.n_tries, seconds=label.seconds)

    def _find(self, atoms: Atoms, label: Label) -> tuple[str, str] | None:
        if label.forces.shape != (len(atoms), 3):
            return "exception", f"forces have shape {label.forces.shape}, not {(len(atoms), 3)}"
        if not (np.isfinite(label.energy) and np.isfinite(label.forces).all()):
            return (
                "not-finite",
                f"energy {label.energy}, largest force {np.abs(label.forces).max()}",
            )
        if _is_placeholder(atoms, label):
            return "zeros", "energy or all forces are exactly zero, as if never calculated"
        largest = float(np.abs(label.forces).max()) if len(atoms) else 0.0
        if largest > self._max_force:
            return "absurd-forces", f"a force component of {largest:.4g} eV/Å"
        deviation = self.deviation(atoms, label.energy)
        if deviation is not None and abs(deviation) > self._max_deviation:
            found = f"{label.energy:.6g} eV is {deviation:+.4g} eV/atom from what the labelled "
            return "absurd-energy", found + "structures let expect of this composition"
        return None

    def deviation(self, atoms: Atoms, energy: float) -> float | None:
        """Return how far an energy is from the fit, eV/atom; None where it says nothing.

        Args:
            atoms: The structure.
            energy: Its total energy, eV.
        """
        if len(self._rows) == 0 or not {int(z) for z in atoms.numbers} <= {*self._elements}:
            return None
        row = self._count(atoms)
        if np.abs(row @ self._span - row).max() > _IN_SPAN * row.sum():
            return None
        return float((energy - row @ self._fitted) / len(atoms))

    def _count(self, atoms: Atoms) -> Float64[np.ndarray, " n_elements"]:
        """Return how many atoms of each element a structure has."""
        counts = [np.count_nonzero(atoms.numbers == z) for z in self._elements]
        return np.array(counts, dtype=np.float64)


def _is_placeholder(atoms: Atoms, label: Label) -> bool:
    """Return whether zeros stand for numbers: forces vanish by symmetry in crystals only."""
    if len(atoms) == 1:
        return False
    return label.energy == 0.0 or not (atoms.pbc.any() or label.forces.any())
