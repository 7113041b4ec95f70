"""Finished kernels of a calibration on disk, so that an interrupted one goes on where it was."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from labelwise.diagnostics.calibration_metrics import CalibrationMetrics
from labelwise.diagnostics.calibration_results import (
    CalibrationSets,
    CalibrationSettings,
    KernelCalibration,
    PrefixRecord,
    Replay,
)
from labelwise.errors import ArgumentError, ReadError, WriteError
from labelwise.potentials import Potential
from labelwise.structures import write_text
from labelwise.summary import to_json

FORMAT_VERSION = 1
KERNELS = "kernels"
_HASHED = ("model", "pool", "train", "valid", "test")


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
        if folder is not None and folder.exists() and not folder.is_dir():
            raise WriteError(f"{folder} is a file; a calibration needs a folder")
        self._folder = None if folder is None else folder / KERNELS
        self._settings: dict[str, Any] = json.loads(json.dumps(settings))
        self._force = force

    def read(self, kernel: str) -> KernelCalibration | None:
        """Return a kernel's result if it is there.

        Raises:
            ArgumentError: It was made with other settings.
            ReadError: It is damaged.
        """
        if self._folder is None or not (path := self._folder / f"{kernel}.json").exists():
            return None
        try:
            content = json.loads(path.read_text())
            settings, result = dict(content["settings"]), _as_result(content["result"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ReadError(
                f"{path} is not a kernel of a calibration ({error}); delete it, or choose another "
                "folder"
            ) from error
        if settings == self._settings:
            return result
        if self._force:
            return None
        raise ArgumentError(
            f"{path} was made with other settings: {_explain(settings, self._settings)}; choose "
            "another folder, or compute it anew with --force"
        )

    def write(self, result: KernelCalibration) -> None:
        """Keep a kernel that is done."""
        if self._folder is not None:
            content = {"settings": self._settings, "result": without_nan(asdict(result))}
            write_text(self._folder / f"{result.kernel}.json", to_json(content))


def without_nan(value: Any) -> Any:
    """Return plain data with None in place of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_nan(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def _explain(former: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the settings that differ, contents of files and models without their hashes."""
    differing = [key for key in {**former, **now} if former.get(key) != now.get(key)]
    words = [
        f"another {key}" if key in _HASHED else f"{key} was {former.get(key)} and is {now.get(key)}"
        for key in differing
    ]
    return ", ".join(words)


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
