"""Measures how well kernels know where the pretrained model errs, on a sample of a study's data."""

from __future__ import annotations

from typing import Any

import numpy as np

from labelwise.errors import ArgumentError
from labelwise.features.fill import make_screen
from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.structures import Frame
from labelwise.studies.comparison.inputs import StudyInputs, draw_frames
from labelwise.studies.diagnostics.calibration import calibrate
from labelwise.studies.diagnostics.calibration_metrics import DEFAULT_LEVELS
from labelwise.studies.diagnostics.calibration_report import mean_coverages
from labelwise.studies.diagnostics.calibration_results import CalibrationSets
from labelwise.studies.diagnostics.settings import CalibrationSettings

#: Structures of pool, validation and test set.
LARGEST_SETS = (150, 50, 100)
_N_INITIAL, _STEP, _MOST_LABELS = 10, 10, 100
_LEAST_SETS = (20, 5, 10)


def measure_reliability(
    inputs: StudyInputs, potential: Potential, store: PartStore, part: float
) -> dict[str, dict[str, Any]]:
    """Return how well each kernel's uncertainty fits the errors in energy.

    A Gaussian process with the kernel learns the pretrained model's residuals on a sample of
    the pool; its predictions are held against the test set. ``part``, 0 to 1, is that of
    ``LARGEST_SETS`` to take.

    Returns:
        Name of the kernel to ``coverages`` and numbers, as plain data; energies in eV or eV per
        atom.

    Raises:
        ArgumentError: Too few structures.
        LabelError: A label is missing.
    """
    sets = _draw_sets(inputs, potential, part)
    per_atom = inputs.config.measure.energy_errors == "per-atom"
    references = inputs.config.finetune.reference_energies
    results: dict[str, dict[str, Any]] = {}
    for choice in inputs.kernels:
        settings = CalibrationSettings(
            kernels=(choice.kernel,),
            n_initial=_N_INITIAL,
            step=_STEP,
            max_labels=min(_MOST_LABELS, len(sets.pool)),
            per_atom=per_atom,
            references="checkpoint" if references == "checkpoint" else "prefix",
            seed=inputs.asked.seed,
            energy_key=inputs.config.data.energy_key,
            options=choice.settings.options,
        )
        calibration = calibrate(potential, sets, settings)
        (kernel,) = calibration.kernels
        best = kernel.replays[0].best
        result = {
            "levels": list(DEFAULT_LEVELS),
            "coverages": mean_coverages(kernel)[0].tolist(),
            "n_labels": best.n_labels,
            "n_test": len(sets.test),
            "per_atom": per_atom,
            "nll": best.test.nll,
            "ece": best.test.ece,
            "coverage": best.test.coverage,
            "rmse": best.test.rmse,
            "bias_rmse": best.bias_rmse,
            "rank_correlation": best.test.rank_correlation,
        }
        store.write(choice.kernel, result)
        results[choice.kernel] = result
    return results


def _draw_sets(inputs: StudyInputs, potential: Potential, part: float) -> CalibrationSets:
    """Draw three sets that have no structure in common; without a file, from the pool."""
    sizes = [
        max(least, round(part * n)) for n, least in zip(LARGEST_SETS, _LEAST_SETS, strict=True)
    ]
    screen = make_screen(potential)
    seed = inputs.asked.seed
    drawn: dict[str, list[Frame]] = {}
    for number, role in enumerate(("valid", "test")):
        files = inputs.files_of(role)
        drawn[role] = draw_frames(files, screen, sizes[number + 1], seed=seed) if files else []
    n_more = sum(n for role, n in zip(("valid", "test"), sizes[1:], strict=True) if not drawn[role])
    pool = draw_frames(inputs.files_of("pool"), screen, sizes[0] + n_more, seed=seed)
    shuffled = [pool[i] for i in np.random.default_rng(seed).permutation(len(pool))]
    for role, size in zip(("valid", "test"), sizes[1:], strict=True):
        if not drawn[role]:
            n_taken = min(size, len(shuffled) // 3)
            drawn[role], shuffled = shuffled[:n_taken], shuffled[n_taken:]
    found = (shuffled, drawn["valid"], drawn["test"])
    if any(len(frames) < least for frames, least in zip(found, _LEAST_SETS, strict=True)):
        raise ArgumentError(
            f"pool, validation and test set of {inputs.pool} have {len(found[0])}, {len(found[1])} "
            f"and {len(found[2])} structures; a calibration takes {_LEAST_SETS[0]}, "
            f"{_LEAST_SETS[1]} and {_LEAST_SETS[2]} at least"
        )
    roles = dict(zip(("pool", "valid", "test"), found, strict=True))
    return CalibrationSets(
        **{role: [frame.atoms for frame in frames] for role, frames in roles.items()},
        sources={role: [frame.source for frame in frames] for role, frames in roles.items()},
    )
