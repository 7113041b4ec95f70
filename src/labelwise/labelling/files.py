"""Labels by hand-over: a file for the cluster, and its answer when it is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.errors import LabelError
from labelwise.labelling.base import (
    Failure,
    Label,
    LabellingError,
    LabelsPending,
    Outcome,
    Task,
)
from labelwise.structures import Frame, get_labels, iter_frames
from labelwise.structures.electronic_state import encode_state, says_state
from labelwise.structures.energy_units import EnergyUnits
from labelwise.structures.identity import TOLERANCE
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY, get_energy
from labelwise.structures.writing import write_structures

TO_LABEL = "to_label.extxyz"
#: What a returned file may be called; a round can be returned in several files.
RETURNED = "labelled*"
KEY = "labelwise_key"
#: Info key by which a returned structure says that its calculation failed.
FAILED_KEY = "labelwise_failed"
#: Positions and cells of a returned structure may differ by so much, Å.
MATCH_TOLERANCE = 1e-3


class FilesLabeller:
    """Writes structures to ``to_label.extxyz`` and takes labels from ``labelled*``.

    A returned structure is known by its content: the same elements in the same order, and
    positions and cell within the tolerance, whichever image of a periodic atom is given. Of two
    that fit the nearer is meant. A file may return a part, or structures that were returned
    before; one that was never asked for is refused. A calculation that failed is returned with
    the info key ``labelwise_failed="reason"``, or with NaN for its energy.
    """

    name = "files"

    def __init__(
        self,
        folder: Path,
        *,
        done: Sequence[Task] = (),
        energy_key: str = DEFAULT_ENERGY_KEY,
        forces_key: str = DEFAULT_FORCES_KEY,
        tolerance: float = MATCH_TOLERANCE,
    ) -> None:
        """Name the folder and the keys.

        Args:
            folder: Where the files lie, one for each round.
            done: Structures of this round that have their outcome already.
            energy_key: Info key of the returned total energy, eV; ``energy`` for what ASE
                writes of a calculator.
            forces_key: Array key of the returned forces, eV/Å.
            tolerance: How far a returned coordinate may be off, Å.
        """
        self._folder = folder
        self._done = list(done)
        self._keys = {"energy_key": energy_key, "forces_key": forces_key}
        self._tolerance = tolerance

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Yield what was returned; see ``Labeller``.

        Raises:
            LabelsPending: Structures are still waiting; ``to_label.extxyz`` holds them.
            LabellingError: A returned structure was never asked for.
            LabelError: A returned structure has no energy or no forces, or the energies are in
                another unit than eV.
            ReadError: A returned file cannot be read.
            WriteError: ``to_label.extxyz`` cannot be written.
        """
        waiting: list[Task] = []
        returned = self._read_returned()
        while queue:
            added = list(queue)
            queue.clear()
            waiting += added
            matched = self._match(returned, waiting)
            for task, frame in matched:
                waiting.remove(task)
                self._done.append(task)
                yield self._outcome(task, frame)
        self._refuse_foreign(returned, waiting)
        if waiting:
            self._hand_over(waiting)

    def _read_returned(self) -> list[Frame]:
        paths = sorted(path for path in self._folder.glob(RETURNED) if path.is_file())
        frames = list(iter_frames(paths)) if paths else []
        self._refuse_units(frames)
        return frames

    def _refuse_units(self, frames: list[Frame]) -> None:
        """Refuse energies in another unit than eV; what has none is judged later."""
        key = self._keys["energy_key"]
        units = EnergyUnits(f"label {key!r}", "returned structures")
        for frame in frames:
            with suppress(LabelError):
                energy = get_energy(frame.atoms, str(frame.source), key)
                units.add(frame.atoms.numbers, energy, str(frame.source), frame.atoms.info)
        units.check()

    def _match(self, returned: list[Frame], waiting: list[Task]) -> list[tuple[Task, Frame]]:
        """Return the waiting tasks that have an answer, in the tasks' order."""
        known = [*waiting, *self._done]
        answers: dict[int, Frame] = {}
        for frame in returned:
            number, distance = _nearest(frame.atoms, known)
            if number is not None and number < len(waiting) and distance <= self._tolerance:
                answers[number] = frame  # the last answer counts
        return [(task, answers[i]) for i, task in enumerate(waiting) if i in answers]

    def _outcome(self, task: Task, frame: Frame) -> Outcome:
        failed = frame.atoms.info.get(FAILED_KEY)
        if failed is not None and failed is not False:
            return Failure(task.key, "reported", str(failed))
        energy = _raw_energy(frame.atoms, self._keys["energy_key"])
        if energy is not None and not np.isfinite(energy):
            return Failure(task.key, "not-finite", f"{frame.source}: energy {energy}")
        try:
            labels = get_labels(frame.atoms, str(frame.source), **self._keys)
        except LabelError as error:
            if "not finite" in str(error):
                return Failure(task.key, "not-finite", str(error))
            raise LabelError(
                f"{error}. Set labeller.energy_key and labeller.forces_key to the keys of the "
                f"returned file, or mark a failed calculation with {FAILED_KEY}"
            ) from error
        return Label(task.key, labels.energy, labels.forces)

    def _refuse_foreign(self, returned: list[Frame], waiting: list[Task]) -> None:
        known = [*waiting, *self._done]
        for frame in returned:
            _, distance = _nearest(frame.atoms, known)
            if distance > self._tolerance:
                how = (
                    f"the nearest one asked for is {distance:.3g} Å off"
                    if np.isfinite(distance)
                    else "none asked for has these elements in this order"
                )
                raise LabellingError(
                    f"{frame.source} ({frame.atoms.get_chemical_formula()}) is none of the "
                    f"structures of {self._folder / TO_LABEL}: {how} (allowed: "
                    f"{self._tolerance:g} Å). Take it out of the file; nothing else was lost"
                )

    def _hand_over(self, waiting: list[Task]) -> None:
        path = self._folder / TO_LABEL
        copies = []
        for task in waiting:
            copy: Atoms = task.atoms.copy()
            copy.calc = None
            copy.info = {k: v for k, v in copy.info.items() if k != self._keys["energy_key"]}
            copy.arrays.pop(self._keys["forces_key"], None)
            copy.info[KEY] = task.key
            copies.append(copy)
        write_structures(path, copies)
        raise LabelsPending(
            f"{len(waiting)} structures wait for labels in {path}. Put them, labelled "
            f"({self._keys['energy_key']} in eV, {self._keys['forces_key']} in eV/Å), into "
            f"{self._folder}/labelled.extxyz, all or some, and run again"
        )


def _nearest(atoms: Atoms, tasks: Sequence[Task]) -> tuple[int | None, float]:
    """Return the nearest task of the same elements, and its largest deviation, Å.

    Raises:
        LabellingError: Tasks differ in their electronic state alone, and the structure does not
            tell which of them is meant.
    """
    distances = {
        number: _deviation(atoms, task.atoms)
        for number, task in enumerate(tasks)
        if np.array_equal(task.atoms.numbers, atoms.numbers)
    }
    least = min(distances.values(), default=np.inf)
    if not np.isfinite(least):
        return None, np.inf
    nearest = [number for number, each in distances.items() if each <= least + 2 * TOLERANCE]
    return _choose_state(atoms, tasks, nearest), float(least)


def _choose_state(atoms: Atoms, tasks: Sequence[Task], nearest: list[int]) -> int:
    """Return which of the tasks of one geometry a returned structure answers."""
    by_key = [number for number in nearest if tasks[number].key == str(atoms.info.get(KEY))]
    if by_key:
        return by_key[0]
    states = {n: encode_state(tasks[n].atoms.info, tasks[n].atoms.arrays) for n in nearest}
    if len(set(states.values())) == 1:
        return nearest[0]
    state = encode_state(atoms.info, atoms.arrays)
    same = [number for number, each in states.items() if each == state]
    if same and (state or says_state(atoms)):
        return same[0]
    raise LabellingError(
        f"{len(nearest)} structures asked for have the geometry of a returned "
        f"{atoms.get_chemical_formula()} and differ in charge, multiplicity or initial moments, "
        f"and it does not tell which it is: return each with its {KEY}, or with total_charge and "
        "total_spin as they were handed over"
    )


def _deviation(atoms: Atoms, other: Atoms) -> float:
    """Return the largest difference of a coordinate, Å; cells matter where periodic.

    Programs such as VASP return atoms wrapped into the cell: an atom may have moved by whole
    lattice vectors.
    """
    moved = atoms.positions - other.positions
    largest = 0.0
    if other.pbc.any():
        cells = atoms.cell.array - other.cell.array
        largest = float(np.abs(cells[other.pbc]).max())
        cell = other.cell.complete().array
        n_vectors = np.round(np.linalg.solve(cell.T, moved.T).T)
        moved = moved - (n_vectors * other.pbc) @ cell
    distance = max(largest, float(np.abs(moved).max(initial=0.0)))
    return distance if np.isfinite(distance) else np.inf


def _raw_energy(atoms: Atoms, key: str) -> float | None:
    """Return the energy as it stands in the file, NaN included; None if it is not there."""
    results: dict[str, Any] = getattr(atoms.calc, "results", None) or {}
    value = atoms.info.get(key, results.get(key))
    try:
        return None if value is None else float(value)
    except (TypeError, ValueError):
        return None
