"""Labels by hand-over: a file for the cluster, and its answer when it is there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from ase.geometry.cell import complete_cell
from pydantic import Field

from labelwise.campaign.labelling.base import (
    Failure,
    Label,
    LabellerSettings,
    LabellingError,
    LabelsPending,
    Outcome,
    Task,
    register_labeller,
)
from labelwise.errors import LabelError
from labelwise.structures import Frame, get_labels, iter_frames
from labelwise.structures.convergence import find_unconverged_in
from labelwise.structures.electronic_state import (
    encode_state,
    find_contradiction,
    says_state,
)
from labelwise.structures.energy_units import EnergyUnits
from labelwise.structures.identity import TOLERANCE
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
    get_energy,
    stress_keys,
)
from labelwise.structures.writing import write_structures

TO_LABEL = "to_label.extxyz"
#: What a returned file may be called; a round can be returned in several files.
RETURNED = "labelled*"
KEY = "labelwise_key"
#: Info key by which a returned structure says that its calculation failed.
FAILED_KEY = "labelwise_failed"
#: Positions and cells of a returned structure may differ by so much, Å.
MATCH_TOLERANCE = 1e-3
#: Labels of one structure are the same within this, eV and eV/Å.
_LABEL_TOLERANCE = 1e-6


class FilesSettings(LabellerSettings):
    """Labels by hand-over.

    Attributes:
        energy_key: Info key of the returned total energy, eV; ``energy`` for what ASE writes of
            a calculator.
        forces_key: Array key of the returned forces, eV/Å.
        stress_key: Info key of the returned stress of crystals, where there is one; None does not
            look for any.
        tolerance: How far a returned coordinate may be off, Å.
    """

    kind: str = "files"
    energy_key: str = DEFAULT_ENERGY_KEY
    forces_key: str = DEFAULT_FORCES_KEY
    stress_key: str | None = DEFAULT_STRESS_KEY
    tolerance: float = Field(default=MATCH_TOLERANCE, gt=0.0)


class FilesLabeller:
    """Writes structures to ``to_label.extxyz`` and takes labels from ``labelled*``.

    A returned structure is known by its content: the same elements in the same order, and
    positions and cell within the tolerance, whichever image of a periodic atom is given. Of two
    that fit the nearer is meant. One that has kept its ``labelwise_key`` may also have been moved
    as a whole, and a molecule may have been given a cell: neither changes energy or forces. A
    file may return a part, or structures that were returned before; one that was never asked for
    is refused, and so are two different labels for one structure. A calculation that failed is
    returned with the info key ``labelwise_failed="reason"``, with ``converged=F``, or with NaN for
    its energy.

    Args:
        folder: Where the files lie, one for each round.
        settings: Keys and tolerance.
        done: Structures of this round that have their outcome already.
    """

    name = "files"

    def __init__(
        self, folder: Path, settings: FilesSettings | None = None, done: Sequence[Task] = ()
    ) -> None:
        settings = FilesSettings() if settings is None else settings
        self._folder = folder
        self._done = list(done)
        self._keys: dict[str, Any] = {
            "energy_key": settings.energy_key,
            "forces_key": settings.forces_key,
            "stress_key": settings.stress_key,
        }
        self._tolerance = settings.tolerance
        self._contradictions: list[str] = []

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Yield what was returned; see ``Labeller``.

        Raises:
            LabelsPending: Structures are still waiting; ``to_label.extxyz`` holds them.
            LabellingError: A returned structure was never asked for, or has two labels.
            LabelError: A returned structure has no energy or no forces, or the energies are in
                another unit than eV.
            ReadError: A returned file cannot be read.
            WriteError: ``to_label.extxyz`` cannot be written.
        """
        waiting: list[Task] = []
        returned = self._read_returned()
        while queue:
            waiting += queue
            queue.clear()
            for task, outcome in self._settle(list(waiting), returned):
                waiting.remove(task)
                self._done.append(task)
                yield outcome
        self._refuse_foreign(returned, waiting)
        if self._contradictions:
            raise LabellingError("; ".join(dict.fromkeys(self._contradictions)))
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

    def _match(self, returned: list[Frame], known: list[Task]) -> dict[int, list[Frame]]:
        """Return the frames that answer each of the known tasks, in the order of the files."""
        answers: dict[int, list[Frame]] = {}
        for frame in returned:
            number = self._find(frame.atoms, known)
            if number is not None:
                answers.setdefault(number, []).append(frame)
        return answers

    def _find(self, atoms: Atoms, known: list[Task]) -> int | None:
        """Return which task a returned structure answers: that of its key, else the nearest."""
        key = str(atoms.info.get(KEY))
        for number, task in enumerate(known):
            if find_contradiction(atoms, task.atoms):
                continue
            if task.key == key and _least_deviation(atoms, task.atoms) <= self._tolerance:
                return number
        nearest, distance = _nearest(atoms, known)
        if nearest is None or distance > self._tolerance:
            return None
        return None if find_contradiction(atoms, known[nearest].atoms) else nearest

    def _settle(self, waiting: list[Task], returned: list[Frame]) -> Iterator[tuple[Task, Outcome]]:
        """Yield an outcome for each waiting task that has one; note what is contradictory."""
        known = [*waiting, *self._done]
        answers = self._match(returned, known)
        for number, task in enumerate(known):
            frames = answers.get(number, [])
            if not frames or (number >= len(waiting) and len(frames) == 1):
                continue
            outcomes = [self._outcome(task, frame) for frame in frames]
            last = max((i for i, o in enumerate(outcomes) if isinstance(o, Label)), default=-1)
            contradiction = _find_contradiction(frames, outcomes, last)
            if contradiction:
                self._contradictions.append(contradiction)
            elif number < len(waiting):
                yield task, outcomes[last]

    def _outcome(self, task: Task, frame: Frame) -> Outcome:
        failed = frame.atoms.info.get(FAILED_KEY)
        if failed is not None and failed is not False:
            return Failure(task.key, "reported", str(failed))
        unconverged = find_unconverged_in(frame.atoms)
        if unconverged:
            return Failure(task.key, "not-converged", f"{frame.source}: {unconverged}")
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
        return Label(task.key, labels.energy, labels.forces, stress=labels.stress)

    def _refuse_foreign(self, returned: list[Frame], waiting: list[Task]) -> None:
        known = [*waiting, *self._done]
        for frame in returned:
            if self._find(frame.atoms, known) is None:
                raise LabellingError(
                    f"{frame.source} ({frame.atoms.get_chemical_formula()}) is none of the "
                    f"structures of {self._folder / TO_LABEL}: "
                    f"{_explain_foreign(frame.atoms, known)} (allowed: {self._tolerance:g} Å). "
                    "Take it out of the file; nothing else was lost"
                )

    def _hand_over(self, waiting: list[Task]) -> None:
        path = self._folder / TO_LABEL
        copies = []
        for task in waiting:
            copy: Atoms = task.atoms.copy()
            copy.calc = None
            own = (self._keys["energy_key"], *stress_keys(self._keys["stress_key"]))
            copy.info = {k: v for k, v in copy.info.items() if k not in own}
            copy.arrays.pop(self._keys["forces_key"], None)
            copy.info[KEY] = task.key
            copies.append(copy)
        write_structures(path, copies)
        raise LabelsPending(
            f"{len(waiting)} structures wait for labels in {path}. Put them, labelled "
            f"({self._keys['energy_key']} in eV, {self._keys['forces_key']} in eV/Å), into "
            f"{self._folder}/labelled.extxyz, all or some, and run again; mark a calculation that "
            f"failed or did not converge with {FAILED_KEY}=reason"
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


def _explain_foreign(atoms: Atoms, known: Sequence[Task]) -> str:
    """Say why a returned structure is none of those that were asked for."""
    asked = next((t.atoms for t in known if t.key == str(atoms.info.get(KEY))), None)
    near = [t.atoms for t in known if _least_deviation(atoms, t.atoms) <= MATCH_TOLERANCE]
    other_state = next(filter(None, (find_contradiction(atoms, each) for each in near)), "")
    if other_state:
        return f"{other_state} as asked for"
    if asked is None:
        _, distance = _nearest(atoms, known)
        if np.isfinite(distance):
            return f"the nearest one asked for is {distance:.3g} Å off"
        return "none asked for has these elements in this order"
    if not np.array_equal(asked.numbers, atoms.numbers):
        return f"the one with its {KEY} has other elements, or these in another order"
    if _is_turned(atoms, asked):
        return (
            f"the one with its {KEY} was turned or mirrored, so that its forces point elsewhere; "
            "return it as it was handed over, it may be moved as a whole"
        )
    return (
        f"the one with its {KEY} is {_least_deviation(atoms, asked):.3g} Å off, "
        "wherever it is moved as a whole, as if it had been relaxed"
    )


def _find_contradiction(frames: Sequence[Frame], outcomes: Sequence[Outcome], last: int) -> str:
    """Say where two frames give one structure different labels; empty if they agree.

    A failure that was followed by a label was tried again.

    Args:
        frames: All that was returned for it.
        outcomes: What they say.
        last: Which of them is the last label; -1 if none is.
    """
    if last < 0:
        return ""
    label = outcomes[last]
    for number, (frame, outcome) in enumerate(zip(frames, outcomes, strict=True)):
        is_tried_again = isinstance(outcome, Failure) and number < last
        if is_tried_again or _agree(outcome, label):
            continue
        return (
            f"{frame.source} and {frames[last].source} are one structure "
            f"({frame.atoms.get_chemical_formula()}) with different labels: {_describe(outcome)} "
            f"and {_describe(label)}. Take one out of the files; nothing else was lost"
        )
    return ""


def _agree(one: Outcome, other: Outcome) -> bool:
    """Return whether two labels are the same, to the digits that files have."""
    if not (isinstance(one, Label) and isinstance(other, Label)):
        return False
    is_same = abs(one.energy - other.energy) <= _LABEL_TOLERANCE
    return is_same and np.allclose(one.forces, other.forces, rtol=0.0, atol=_LABEL_TOLERANCE)


def _describe(outcome: Outcome) -> str:
    if isinstance(outcome, Label):
        largest = float(np.abs(outcome.forces).max(initial=0.0))
        return f"{outcome.energy:.8g} eV with forces up to {largest:.4g} eV/Å"
    return f"failed ({outcome.reason}: {outcome.detail})"


def _least_deviation(atoms: Atoms, other: Atoms) -> float:
    """Return the largest difference of a coordinate, Å, where it is moved as a whole or not.

    Energy and forces do not change if all atoms are moved by the same vector, nor if a molecule
    is put into a cell: codes that know plane waves alone need both.
    """
    if not np.array_equal(atoms.numbers, other.numbers):
        return np.inf
    cells = np.where(other.pbc[:, None], other.cell.array, atoms.cell.array)
    is_periodic = (other.pbc | atoms.pbc) & cells.any(axis=1)
    stretched = np.abs(atoms.cell.array - other.cell.array)[other.pbc].max(initial=0.0)
    moved = atoms.positions - other.positions
    moved = moved - moved[:1]
    if np.linalg.matrix_rank(cells[is_periodic]) == is_periodic.sum() > 0:
        cell = complete_cell(cells * is_periodic[:, None])
        n_vectors = np.round(np.linalg.solve(cell.T, moved.T).T)
        moved = moved - (n_vectors * is_periodic) @ cell
    moved = moved - (moved.max(axis=0, initial=-np.inf) + moved.min(axis=0, initial=np.inf)) / 2
    as_whole = max(float(stretched), float(np.abs(moved).max(initial=0.0)))
    return min(_deviation(atoms, other), as_whole if np.isfinite(as_whole) else np.inf)


def _is_turned(atoms: Atoms, other: Atoms) -> bool:
    """Return whether a molecule is the same but for a rotation or reflection."""
    from scipy.linalg import orthogonal_procrustes  # seldom needed

    a, b = (each.positions - each.positions.mean(axis=0) for each in (atoms, other))
    rotation, _ = orthogonal_procrustes(a, b)
    return bool(np.abs(a @ rotation - b).max(initial=0.0) <= MATCH_TOLERANCE)


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


register_labeller(
    "files",
    lambda settings, where: FilesLabeller(where.folder, settings, where.done),
    FilesSettings,
)
