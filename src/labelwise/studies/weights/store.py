"""Finished blocks of a study on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.studies.weights.results import (
    BatchErrors,
    BlockStudy,
    StudyReference,
    StudySets,
    WeightScore,
)
from labelwise.studies.weights.settings import WeightStudySettings

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
        self._parts = PartStore(folder, settings, kind="a block of a study", force=force)

    def check(self, blocks: Sequence[str]) -> None:
        """Look at all files before anything is computed.

        Raises:
            ArgumentError: One was made with other settings.
            ReadError: One is damaged.
        """
        for name in (_REFERENCE, *blocks):
            self._parts.read(name)

    def read_reference(self) -> StudyReference | None:
        """Return what all blocks are held against, if it is known."""
        found = self._parts.read(_REFERENCE)
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
        self._parts.write(_REFERENCE, asdict(reference))

    def read_block(self, parameters: str) -> BlockStudy | None:
        """Return a block if it is done."""
        found = self._parts.read(parameters)
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
        self._parts.write(block.parameters, asdict(block))


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
