"""Finished kernels of a calibration on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.studies.diagnostics.calibration_metrics import CalibrationMetrics
from labelwise.studies.diagnostics.calibration_results import (
    CalibrationSets,
    KernelCalibration,
    PrefixRecord,
    Replay,
)
from labelwise.studies.diagnostics.settings import CalibrationSettings

FORMAT_VERSION = 2
KERNELS = "kernels"


def describe_inputs(
    potential: Potential,
    settings: CalibrationSettings,
    sets: CalibrationSets,
    energies: Mapping[str, Float64[np.ndarray, " _"]],
) -> dict[str, Any]:
    """Return all that a kernel's result depends on, as plain data: settings, model and sets."""
    words = asdict(settings)
    del words["kernels"]  # they do not depend on one another
    options = words.pop("options")
    digests = {}
    for role, structures in sets.by_role().items():
        digest = hashlib.sha256(energies[role].tobytes())
        for atoms in structures:
            for part in (atoms.numbers, atoms.positions, atoms.cell.array, atoms.pbc):
                digest.update(f"{part.shape}{part.dtype}".encode())
                digest.update(np.ascontiguousarray(part).tobytes())
        digests[role] = digest.hexdigest()
    model = {"model": potential.content_hash, "head": potential.head}
    return {
        "format_version": FORMAT_VERSION,
        **words,
        **options,
        "representation_seed": options["seed"],
        "seed": words["seed"],
        "dtype": str(potential.dtype).removeprefix("torch."),
        **model,
        **digests,
    }


class CalibrationStore:
    """One JSON file for each finished kernel, ``kernels/NAME.json``.

    Args:
        folder: Where; None keeps nothing.
        settings: What results depend on, from ``describe_inputs``.
        force: Pass over files of other settings in place of raising.
    """

    def __init__(self, folder: Path | None, settings: Mapping[str, Any], *, force: bool) -> None:
        place = None if folder is None else folder / KERNELS
        self._parts = PartStore(place, settings, kind="a kernel of a calibration", force=force)

    def read(self, kernel: str) -> KernelCalibration | None:
        """Return a kernel's result if it is there.

        Raises:
            ArgumentError: It was made with other settings.
            ReadError: It is damaged.
        """
        found = self._parts.read(kernel)
        return None if found is None else _as_result(found)

    def write(self, result: KernelCalibration) -> None:
        """Keep a kernel that is done."""
        self._parts.write(result.kernel, asdict(result))


def _as_result(found: Mapping[str, Any]) -> KernelCalibration:
    feature_seconds, replay_seconds = found["seconds"]
    return KernelCalibration(
        found["kernel"],
        (feature_seconds, replay_seconds),
        tuple(_as_replay(item) for item in found["replays"]),
    )


def _as_replay(found: Mapping[str, Any]) -> Replay:
    return Replay(
        tuple(found["initial_idx"]),
        tuple(found["pool_idx"]),
        tuple(_as_prefix(item) for item in found["prefixes"]),
        found["chosen"],
        found["n_unreached"],
    )


def _as_prefix(found: Mapping[str, Any]) -> PrefixRecord:
    test: dict[str, Any] = dict(found["test"])
    if test["rank_correlation"] is None:
        test["rank_correlation"] = math.nan
    test["coverages"] = tuple(test["coverages"])
    return PrefixRecord(**{**found, "test": CalibrationMetrics(**test)})
