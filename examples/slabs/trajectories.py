"""What a calculation of a system visits: a relaxation, rattled frames and short dynamics."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from ase import Atoms, units
from ase.calculators.emt import EMT
from ase.md.verlet import VelocityVerlet
from ase.optimize import FIRE

#: Frames with a larger force on an atom are left out, eV/Å.
LARGEST_FORCE = 20.0
_FORCE_GOAL, _MOST_STEPS, _EVERY = 0.05, 80, 2
_N_RATTLED, _SPREADS = 8, (0.03, 0.15)  # Å
_N_DYNAMICS, _STEPS_BETWEEN, _TIME_STEP, _TEMPERATURE = 10, 4, 1.0, 900.0  # fs, K


@dataclass(frozen=True, slots=True)
class LabelledFrame:
    """A frame with its labels.

    Attributes:
        kind: ``relaxation``, ``rattled`` or ``md``.
        positions: (n, 3) Å.
        energy: Total energy, eV.
        forces: (n, 3) eV/Å, those of fixed atoms too.
    """

    kind: str
    positions: np.ndarray
    energy: float
    forces: np.ndarray


def iter_trajectory(start: Atoms, rng: np.random.Generator) -> Iterator[LabelledFrame]:
    """Yield the frames of a system in the order of calculation.

    First every second frame of a relaxation, then rattled frames of it and frames of dynamics at
    900 K from its end, as OC20 has them. Frames next to each other are nearly equal; that is the
    bias of such a pool. Frames with a force above 20 eV/Å are left out.

    Args:
        start: With fixed atoms as constraints; not modified.
        rng: Decides rattled frames and velocities.

    Source: L. Chanussot et al., *ACS Catal.* 11, 6059 (2021), for the three kinds.
    """
    atoms = start.copy()
    atoms.calc = EMT()
    relaxed = [frame for frame in _relax(atoms) if _is_sane(frame)]
    yield from relaxed
    if not relaxed:
        return
    for frame in _rattle(atoms, relaxed, rng):
        if _is_sane(frame):
            yield frame
    atoms.positions = relaxed[-1].positions
    for frame in _run_dynamics(atoms, rng):
        if not _is_sane(frame):
            return
        yield frame


def label_frame(atoms: Atoms, kind: str) -> LabelledFrame:
    """Return a structure with the labels of its calculator.

    Args:
        atoms: With a calculator.
        kind: Where it comes from.
    """
    energy = float(atoms.get_potential_energy())
    forces = atoms.get_forces(apply_constraint=False)
    return LabelledFrame(kind, atoms.positions.copy(), energy, forces.copy())


def _relax(atoms: Atoms) -> Iterator[LabelledFrame]:
    steps = FIRE(atoms, logfile=None).irun(fmax=_FORCE_GOAL, steps=_MOST_STEPS)
    for number, _ in enumerate(steps):
        if number % _EVERY == 0:
            yield label_frame(atoms, "relaxation")


def _rattle(
    atoms: Atoms, relaxed: list[LabelledFrame], rng: np.random.Generator
) -> Iterator[LabelledFrame]:
    """Shift the free atoms of frames of the relaxation."""
    for _ in range(_N_RATTLED):
        chosen = relaxed[int(rng.integers(len(relaxed)))]
        shifts = rng.uniform(*_SPREADS) * rng.standard_normal(chosen.positions.shape)
        atoms.set_positions(chosen.positions + shifts)  # which leaves fixed atoms in place
        yield label_frame(atoms, "rattled")


def _run_dynamics(atoms: Atoms, rng: np.random.Generator) -> Iterator[LabelledFrame]:
    """Start at twice the temperature, half of which becomes potential energy."""
    spread = np.sqrt(2 * units.kB * _TEMPERATURE * atoms.get_masses())
    atoms.set_momenta(spread[:, None] * rng.standard_normal(atoms.positions.shape))
    dynamics = VelocityVerlet(atoms, timestep=_TIME_STEP * units.fs, logfile=None)
    for _ in range(_N_DYNAMICS):
        dynamics.run(_STEPS_BETWEEN)
        yield label_frame(atoms, "md")


def _is_sane(frame: LabelledFrame) -> bool:
    """Return whether all is finite and no force is out of the ordinary."""
    largest = float(np.linalg.norm(frame.forces, axis=1).max())
    return bool(np.isfinite(frame.energy)) and largest <= LARGEST_FORCE
