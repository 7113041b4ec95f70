"""Calculators for campaigns: they label as ``building.label`` does, or fail in some way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ase import Atoms
from ase.calculators.calculator import all_changes
from ase.calculators.morse import MorsePotential


class Faulty(MorsePotential):
    """Labels the first structures, then fails; ``trace`` counts calculations over processes."""

    def __init__(self, trace: str, n_good: int = 0, fault: str = "raises") -> None:
        super().__init__(epsilon=2.0, r0=1.2, rho0=3.0)
        self._trace = Path(trace)
        self._n_good = n_good
        self._fault = fault

    def calculate(self, atoms: Atoms, properties: Any = None, changes: Any = all_changes) -> None:
        with self._trace.open("a") as stream:
            stream.write(".")
            n_begun = stream.tell()
        super().calculate(atoms, properties, changes)
        self.results["energy"] -= 30.0 * len(atoms)
        if n_begun <= self._n_good:
            return
        if self._fault == "raises":
            raise RuntimeError("pseudopotential file not found")
        if self._fault == "unconverged":
            self.converged = False
        elif self._fault == "other level":
            self.results["energy"] += 30.0 * len(atoms)
        elif self._fault == "nan":
            self.results["energy"] = float("nan")
        else:
            self.results["forces"] *= 1e6
