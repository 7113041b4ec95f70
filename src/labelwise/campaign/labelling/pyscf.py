"""PySCF as an ASE calculator, for the ``calculator`` labeller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ase import Atoms
from ase.calculators.calculator import (
    CalculationFailed,
    Calculator,
    PropertyNotImplementedError,
    all_changes,
)
from ase.units import Bohr, Hartree

from labelwise.errors import ArgumentError


class PySCF(Calculator):
    """Energy and forces of a molecule by density-functional theory or Hartree–Fock.

    In a campaign: ``calculator: pyscf``, ``arguments: {xc: wb97x-v, basis: def2-tzvp}``.
    Energies come back in eV, forces in eV/Å.
    """

    implemented_properties = ["energy", "forces"]  # noqa: RUF012 - ASE's convention

    def __init__(
        self,
        *,
        xc: str = "pbe",
        basis: str = "def2-svp",
        charge: int = 0,
        n_unpaired: int = 0,
        max_cycle: int = 100,
        conv_tol: float = 1e-9,
        grid_level: int = 3,
        max_memory_mb: int = 4000,
        density_fit: bool = False,
    ) -> None:
        """Set the level of theory.

        Args:
            xc: Functional by PySCF's name; ``hf`` for Hartree–Fock.
            basis: Basis set by PySCF's name.
            charge: Total charge, e.
            n_unpaired: Unpaired electrons; above 0 the calculation is unrestricted.
            max_cycle: Iterations before the calculation counts as failed.
            conv_tol: Energy change that counts as converged, Hartree.
            grid_level: PySCF's integration grid, 0 to 9.
            max_memory_mb: What PySCF may use, MB.
            density_fit: Approximate the Coulomb integrals.
        """
        super().__init__()  # type: ignore[no-untyped-call]
        self._xc = xc
        self._grid_level = grid_level
        self._density_fit = density_fit
        self._molecule_options = {
            "basis": basis,
            "charge": charge,
            "spin": n_unpaired,
            "max_memory": max_memory_mb,
        }
        self._solver_options = {"max_cycle": max_cycle, "conv_tol": conv_tol}

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] | None = None,
        system_changes: Sequence[str] = tuple(all_changes),
    ) -> None:
        """Calculate; ASE calls this.

        Raises:
            ArgumentError: No structure was given.
            PropertyNotImplementedError: The structure is periodic.
            CalculationFailed: The iterations did not converge.
        """
        super().calculate(atoms, properties, list(system_changes))  # type: ignore[no-untyped-call]
        if atoms is None:
            raise ArgumentError("no structure was given")
        if atoms.pbc.any():
            raise PropertyNotImplementedError("this calculator takes molecules, not crystals")
        solver = self._make_solver(atoms)
        energy = solver.kernel()
        if not solver.converged:
            raise CalculationFailed(
                f"the SCF did not converge in {self._solver_options['max_cycle']} iterations"
            )
        gradient = solver.nuc_grad_method().kernel()
        self.results = {"energy": energy * Hartree, "forces": -gradient * (Hartree / Bohr)}

    def _make_solver(self, atoms: Atoms) -> Any:
        from pyscf import dft, gto, scf

        molecule = gto.M(
            atom=list(zip(atoms.symbols, atoms.positions.tolist(), strict=True)),
            unit="Angstrom",
            verbose=0,
            **self._molecule_options,
        )
        is_open = self._molecule_options["spin"] != 0
        if self._xc.lower() == "hf":
            solver = (scf.UHF if is_open else scf.RHF)(molecule)
        else:
            solver = (dft.UKS if is_open else dft.RKS)(molecule, xc=self._xc)
            solver.grids.level = self._grid_level
        if self._density_fit:
            solver = solver.density_fit()
        for name, value in self._solver_options.items():
            setattr(solver, name, value)
        return solver
