"""Calculators that misbehave, for workers to import."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes


class Moody(Calculator):
    """A harmonic energy, or what the structure's info key ``mood`` asks for."""

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's convention

    def __init__(self, trace: str = "", charge: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self._trace = trace
        self._charge = charge

    def calculate(self, atoms: Atoms, properties: Any = None, changes: Any = all_changes) -> None:
        super().calculate(atoms, properties, changes)
        mood = atoms.info.get("mood", "")
        if self._trace:
            with Path(self._trace).open("a") as stream:
                stream.write(f"{mood} {os.getpid()} {os.environ['OMP_NUM_THREADS']}\n")
        print("a code that talks on standard output")  # noqa: T201
        Path("scratch.txt").write_text("left behind")
        getattr(self, f"_be_{mood}", lambda: None)()
        energy = float((atoms.positions**2).sum()) + self._charge
        self.results = {"energy": energy, "forces": -2.0 * atoms.positions}
        if mood == "nan":
            self.results["energy"] = float("nan")
        if mood == "deep":
            self.results["energy"] -= 5e3
        if mood == "zero":
            self.results["energy"] = 0.0
        if mood == "huge":
            self.results["forces"] = atoms.positions + 200.0

    def _be_stubborn(self) -> None:
        raise RuntimeError("SCF did not converge in 50 iterations")

    def _be_broken(self) -> None:
        raise ValueError("no basis set")

    def _be_unconverged(self) -> None:
        self.converged = False

    def _be_slow(self) -> None:
        # A program of its own, as ORCA would be; it has to die as well.
        subprocess.run(["sleep", "60"], check=True)

    def _be_dead(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def _be_lazy(self) -> None:
        time.sleep(0.2)

    def _be_flaky(self) -> None:
        flag = Path(self._trace).with_suffix(".flag")
        if not flag.exists():
            flag.touch()
            raise RuntimeError("this time only")


def make_moody(trace: str) -> Moody:
    """Return a calculator: a function will do as well as a class."""
    return Moody(trace=trace)


def sane_forces(atoms: Atoms) -> np.ndarray:
    """Return what ``Moody`` gives, (n_atoms, 3), eV/Å."""
    return -2.0 * atoms.positions
