"""Labels that are kept for good: what was calculated once is not calculated again.

::

    STORE/
      4f0c…/                  a level of theory
        level.json            its name, the calculator and its arguments
        node7-4121-9a3f….jsonl   what one process calculated: a line for each structure

Each process that calculates has a file of its own, to which it alone appends: a line is there when
the structure's outcome is known and on the disk before the next thing is done. So any number of
processes, on any number of machines, write to one store without a lock, anybody may read it
meanwhile, and a process that is killed leaves at most half a line at the end of its file, which
nobody reads. Nothing is ever changed or removed.
"""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from ase import Atoms

from labelwise.campaign.atomic_io import SpareSpace, write_json
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.labelling.base import Failure, Label, Outcome, Task
from labelwise.campaign.labelling.checks import refuse_placeholder
from labelwise.campaign.labelling.encoding import encode_structure
from labelwise.campaign.labelling.level import CalculationSettings

LEVEL_FILE = "level.json"
#: Room for the label of a thousand atoms when the disk is full.
_SPARE_BYTES = 1 << 17


@dataclass(frozen=True)
class _Place:
    """Where a record is: file, first byte and number of bytes."""

    path: Path
    start: int
    size: int


class LabelStore:
    """The labels of one level of theory in a store, as its files say.

    Args:
        folder: The store.
        settings: Calculator and arguments, which tell the level.
    """

    def __init__(self, folder: Path, settings: CalculationSettings) -> None:
        self.level = settings.describe_level()
        self.folder = folder / self.level.digest
        self._words = settings.model_dump(
            mode="json", include={"calculator", "arguments", "info_arguments"}
        )
        self._read: dict[Path, int] = {}
        self._labels: dict[str, _Place] = {}
        self._failures: dict[str, list[_Place]] = {}
        self._seconds: list[float] = []

    def __len__(self) -> int:
        return len(self._labels)

    @property
    def mean_seconds(self) -> float | None:
        """Mean wall time of the calculations that are known, seconds; None of none."""
        return float(np.mean(self._seconds)) if self._seconds else None

    def refresh(self) -> None:
        """Read what has come since the last time.

        Raises:
            DamagedStateError: A file cannot be read, or a whole line in it is no record.
        """
        try:
            paths = sorted(self.folder.glob("[!.]*.jsonl"))
        except OSError as error:
            raise DamagedStateError(f"cannot read {self.folder}: {error.strerror}") from error
        for path in paths:
            self._read_on(path)

    def name_label(self, atoms: Atoms) -> str:
        """Return the name under which the label of a structure is kept."""
        return self.level.name_label(atoms)

    def find_label(self, atoms: Atoms, key: str, *, writers: str | None = None) -> Label | None:
        """Return the label of a structure as of the last ``refresh``; None if there is none.

        Args:
            atoms: The structure.
            key: What the label is to be called.
            writers: What the names of those begin with whose labels are paid for by who asks;
                those of others were there already and cost nothing.
        """
        place = self._labels.get(self.name_label(atoms))
        if place is None:
            return None
        record = _read_place(place)
        is_ours = writers is not None and place.path.name.startswith(writers)
        cost = (int(record["n_tries"]), float(record["seconds"])) if is_ours else (0, 0.0)
        forces = np.array(record["forces"], dtype=np.float64).reshape(-1, 3)
        stress = np.array(record["stress"], dtype=np.float64) if "stress" in record else None
        return Label(key, float(record["energy"]), forces, *cost, stress=stress)

    def find_failure(
        self, atoms: Atoms, key: str, *, writers: str = "", n_known: int = 0
    ) -> Failure | None:
        """Return the last failure of a structure; None if there is none, or a label.

        Args:
            atoms: The structure.
            key: What it is to be called.
            writers: What the names of those begin with whose failures count.
            n_known: So many failures are no news.
        """
        places = self._list_failures(atoms, writers)
        if len(places) <= n_known or self.name_label(atoms) in self._labels:
            return None
        said = _read_place(places[-1])
        return Failure(
            key, said["failed"], said["detail"], int(said["n_tries"]), float(said["seconds"])
        )

    def count_failures(self, atoms: Atoms, *, writers: str = "") -> int:
        """Return how many failures of a structure there are, see ``find_failure``."""
        return len(self._list_failures(atoms, writers))

    def prepare(self) -> None:
        """Make the folder and say in it which level this is.

        Raises:
            WriteError: It cannot be written to.
        """
        path = self.folder / LEVEL_FILE
        if not path.exists():
            write_json(path, {"level": self.level.name, **self._words})

    def _list_failures(self, atoms: Atoms, writers: str) -> list[_Place]:
        places = self._failures.get(self.name_label(atoms), [])
        return [place for place in places if place.path.name.startswith(writers)]

    def _read_on(self, path: Path) -> None:
        start = self._read.get(path, 0)
        try:
            if path.stat().st_size <= start:
                return
            with path.open("rb") as stream:
                stream.seek(start)
                content = stream.read()
        except OSError as error:
            raise DamagedStateError(f"cannot read {path}: {error.strerror}") from error
        for line in content[: content.rfind(b"\n") + 1].splitlines(keepends=True):
            self._add(_parse_line(line, path), _Place(path, start, len(line)))
            start += len(line)
        self._read[path] = start

    def _add(self, record: dict[str, Any], place: _Place) -> None:
        if "energy" in record:
            self._labels.setdefault(record["key"], place)
            self._seconds.append(float(record["seconds"]))
        else:
            self._failures.setdefault(record["key"], []).append(place)


class LabelWriter:
    """One process's part of a store.

    Args:
        store: The store at a level.
        name: What the file's name begins with; None for that of the machine.
    """

    def __init__(self, store: LabelStore, name: str | None = None) -> None:
        self._store = store
        who = f"{socket.gethostname().partition('.')[0]}-{os.getpid()}" if name is None else name
        self.path = store.folder / f"{who}-{secrets.token_hex(4)}.jsonl"
        self._spare: SpareSpace | None = None

    def append(self, task: Task, outcome: Outcome) -> Outcome:
        """Keep the outcome of a calculation; it is on the disk afterwards.

        Returns:
            The outcome as it was kept: what cannot be a label is a failure.

        Raises:
            WriteError: The disk is full. The outcome is kept nevertheless, unless the message
                says otherwise.
        """
        if isinstance(outcome, Label):
            outcome = refuse_placeholder(task.atoms, outcome)
        self.prepare().append_line(self.path, self._encode(task, outcome))
        return outcome

    def prepare(self) -> SpareSpace:
        """Return room for an outcome that comes when the disk is full; taken at the first call.

        Raises:
            WriteError: There is none: nothing should be calculated.
        """
        if self._spare is None:
            self._store.prepare()
            self._spare = SpareSpace(self._store.folder, _SPARE_BYTES)
        return self._spare

    def close(self) -> None:
        """Give back the space that was kept for a full disk."""
        if self._spare is not None:
            self._spare.release()

    def _encode(self, task: Task, outcome: Outcome) -> dict[str, Any]:
        record: dict[str, Any] = {"key": self._store.name_label(task.atoms)}
        if isinstance(outcome, Label):
            record |= {"energy": outcome.energy, "forces": outcome.forces.tolist()}
            record |= {} if outcome.stress is None else {"stress": outcome.stress.tolist()}
        else:
            record |= {"failed": outcome.reason, "detail": outcome.detail}
        record |= {"n_tries": outcome.n_tries, "seconds": round(outcome.seconds, 3)}
        return {**record, "structure": encode_structure(task.atoms)}


def _parse_line(line: bytes, path: Path) -> dict[str, Any]:
    """Return the record that a whole line is.

    Raises:
        DamagedStateError: It is none.
    """
    try:
        record: dict[str, Any] = orjson.loads(line)
    except ValueError as error:
        raise DamagedStateError(f"{path}: a line is not JSON ({error})") from error
    return record


def _read_place(place: _Place) -> dict[str, Any]:
    try:
        with place.path.open("rb") as stream:
            stream.seek(place.start)
            line = stream.read(place.size)
    except OSError as error:
        raise DamagedStateError(f"cannot read {place.path}: {error.strerror}") from error
    return _parse_line(line, place.path)
