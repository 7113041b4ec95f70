"""Finished blocks of a study on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.errors import ArgumentError, ReadError, WriteError
from labelwise.experiments.weight_results import (
    BatchErrors,
    BlockStudy,
    StudyReference,
    StudySets,
    WeightScore,
    WeightStudySettings,
)
from labelwise.potentials import Potential
from labelwise.structures import write_text
from labelwise.summary import to_json

FORMAT_VERSION = 1
_REFERENCE = "reference"


def describe_inputs(
    potential: Potential,
    settings: WeightStudySettings,
    sets: StudySets,
) -> dict[str, Any]:
    """Return all that a block's result depends on, as plain data: settings, model and files."""
    words = asdict(settings)
    del words["parameters"]  # blocks do not depend on one another
    used = {"pool": sets.pool, "train": sets.train}
    if settings.batch_size:
        used |= {"valid": sets.valid, "test": sets.test}
    else:
        del words["max_updates"]
    keys = (settings.energy_key, settings.forces_key)
    return {
        "format_version": FORMAT_VERSION,
        **{key: list(value) if isinstance(value, tuple) else value for key, value in words.items()},
        "model": potential.content_hash,
        **{name: _digest(structures, keys) for name, structures in used.items()},
    }


class StudyStore:
    """One JSON file for each finished block, and one for what all of them share.

    Args:
        folder: Where; None keeps nothing.
        settings: What results depend on, from ``describe_inputs``.
        force: Pass over files of other settings in place of raising.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], *, force: bool) -> None:
        if folder is not None and folder.exists() and not folder.is_dir():
            raise WriteError(f"{folder} is a file; a study needs a folder")
        self._folder, self._settings, self._force = folder, dict(settings), force

    def check(self, blocks: Sequence[str]) -> None:
        """Look at all files before anything is computed.

        Raises:
            ArgumentError: One was made with other settings.
            ReadError: One is damaged.
        """
        for name in (_REFERENCE, *blocks):
            self._read(name)

    def read_reference(self) -> StudyReference | None:
        """Return what all blocks are held against, if it is known."""
        found = self._read(_REFERENCE)
        if found is None:
            return None
        return StudyReference(
            tuple(found["force_errors"]),
            tuple(found["energy_errors"]),
            _as_floats(found["oracle"]),
            _as_batch(found["random"]),
        )

    def write_reference(self, reference: StudyReference) -> None:
        """Keep what all blocks are held against."""
        self._write(_REFERENCE, asdict(reference))

    def read_block(self, parameters: str) -> BlockStudy | None:
        """Return a block if it is done."""
        found = self._read(parameters)
        if found is None:
            return None
        scores = [
            WeightScore(
                item["kernel"],
                item["weight"],
                _as_floats(item["spearman_forces"]),
                _as_floats(item["spearman_energy"]),
                _as_floats(item["sparsification"]),
                _as_batch(item["batch"]),
            )
            for item in found["scores"]
        ]
        return BlockStudy(
            found["parameters"],
            found["n_parameters"],
            found["row_length"],
            found["seconds"],
            tuple(scores),
        )

    def write_block(self, block: BlockStudy) -> None:
        """Keep a block that is done."""
        self._write(block.parameters, asdict(block))

    def _write(self, name: str, result: dict[str, Any]) -> None:
        if self._folder is not None:
            content = {"settings": self._settings, "result": without_nan(result)}
            write_text(self._folder / f"{name}.json", to_json(content))

    def _read(self, name: str) -> dict[str, Any] | None:
        if self._folder is None or not (path := self._folder / f"{name}.json").exists():
            return None
        try:
            content = json.loads(path.read_text())
            settings, result = dict(content["settings"]), dict(content["result"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReadError(
                f"{path} is not a block of a study ({error}); delete it, or choose another folder"
            ) from error
        if settings == self._settings:
            return result
        if self._force:
            return None
        raise ArgumentError(
            f"{path} was made with other settings: {_explain(settings, self._settings)}; choose "
            "another folder, or compute it anew with --force"
        )


def without_nan(value: Any) -> Any:
    """Return plain data with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _explain(former: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the settings that differ, contents of files and models without their hashes."""
    hashed = {"model", "pool", "train", "valid", "test"}
    differing = [key for key in {**former, **now} if former.get(key) != now.get(key)]
    words = [
        f"another {key}" if key in hashed else f"{key} was {former.get(key)} and is {now.get(key)}"
        for key in differing
    ]
    return ", ".join(words)


def _as_floats(values: Sequence[float | None]) -> tuple[float, ...]:
    return tuple(float("nan") if value is None else float(value) for value in values)


def _as_batch(found: Mapping[str, Any] | None) -> BatchErrors | None:
    if found is None:
        return None
    return BatchErrors(tuple(found["pool_idx"]), found["energy_rmse"], found["forces_rmse"])


def _digest(structures: Sequence[Atoms], keys: tuple[str, str]) -> str:
    """Hash geometries and, where they are, labels."""
    digest = hashlib.sha256()
    for atoms in structures:
        results = getattr(atoms.calc, "results", None) or {}
        parts = [atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc]
        for key in keys:
            label = atoms.info.get(key, atoms.arrays.get(key, results.get(key)))
            parts.append(np.zeros(0) if label is None else np.asarray(label, dtype=np.float64))
        for part in parts:
            digest.update(f"{part.shape}{part.dtype}".encode())
            digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
