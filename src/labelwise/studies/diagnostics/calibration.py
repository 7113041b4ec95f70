"""Whether a kernel's uncertainty is as large as the pretrained model's errors.

The pretrained prediction stays as it is. For each kernel, posterior-variance acquisition is
replayed from an initial set, a Gaussian process is fitted to the residuals of each prefix, the
validation set chooses a prefix by its likelihood, and the test set says how good that is.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float64, Int64
from pydantic import TypeAdapter

from labelwise.errors import ArgumentError
from labelwise.features.representations import make_representation
from labelwise.finetuning.metrics import root_mean_square
from labelwise.kernels.base import Kernel
from labelwise.kernels.building import build_kernels
from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.rules import select_posterior_variance
from labelwise.structures import DuplicateIndex
from labelwise.studies.diagnostics.calibration_metrics import gaussian_nll, measure_calibration
from labelwise.studies.diagnostics.calibration_results import (
    Calibration,
    CalibrationSets,
    KernelCalibration,
    PrefixRecord,
    Replay,
)
from labelwise.studies.diagnostics.pretrained_residuals import (
    PretrainedResiduals,
    compute_residuals,
    read_energies,
)
from labelwise.studies.diagnostics.residual_gp import HeldOut, NestedResidualGP
from labelwise.studies.diagnostics.settings import DEFAULT_MAX_LABELS, CalibrationSettings

FORMAT_VERSION = 2
KERNELS = "kernels"
_LEAST_TEST = 2


def calibrate(
    potential: Potential,
    sets: CalibrationSets,
    settings: CalibrationSettings | None = None,
    *,
    folder: Path | None = None,
    force: bool = False,
    batch_atoms: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Calibration:
    """Fit residual Gaussian processes with every kernel and measure their calibration.

    The order of acquisition depends on features alone, which stay as they are, so batches of
    any size give the same prefixes.

    Args:
        potential: The pretrained model; it is not modified.
        sets: Labelled structures; only their energies are needed.
        settings: What to do; None for the defaults.
        folder: Each kernel's result is written there when it is done, and read from there if
            an earlier run with the same settings and inputs did it; None keeps nothing.
        force: Compute anew, in place of raising, where the folder has results of other settings.
        batch_atoms: Atoms evaluated at once.
        progress: Called with stage, done, total.

    Returns:
        Measures of every prefix, and which one the validation set chose.

    Raises:
        ArgumentError: Sets that are too small or share a structure, residuals that do not vary at
            all, or another calibration's result in the folder.
        LabelError: An energy that is missing, not finite or zero in place of a missing one.
        StructureError: A structure that the potential cannot take.
        MissingDependencyError: A kernel needs a package that is not installed.
        ReadError: A result in the folder is damaged.
        WriteError: The folder cannot be written to.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 4.3 and appendix C.4.
    """
    settings = CalibrationSettings() if settings is None else settings
    sizes = choose_prefix_sizes(settings, len(sets.pool), len(sets.train))
    _check_sizes(settings, sets)
    energies = {
        role: read_energies(
            structures, role=role, sources=sets.sources.get(role), energy_key=settings.energy_key
        )
        for role, structures in sets.by_role().items()
    }
    _check_disjoint(sets)
    for kernel in settings.kernels:
        make_representation(kernel, settings.options)
    store = PartStore(
        None if folder is None else folder / KERNELS,
        _describe_inputs(potential, settings, sets, energies),
        kind="a kernel of a calibration",
        force=force,
    )
    known = {kernel: _restore(store.read(kernel)) for kernel in settings.kernels}
    run = _Run(potential, sets, settings, sizes, batch_atoms, progress)
    done: list[KernelCalibration] = []
    for kernel in settings.kernels:
        result = known[kernel]
        if result is None:
            result = run.calibrate(kernel, np.concatenate(list(energies.values())))
            store.write(kernel, asdict(result))
        done.append(result)
    return Calibration(
        settings,
        {role: len(structures) for role, structures in sets.by_role().items()},
        tuple(done),
        tuple(kernel for kernel, result in known.items() if result is not None),
    )


def _describe_inputs(
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


def _restore(found: Mapping[str, Any] | None) -> KernelCalibration | None:
    """Return a kernel's result of what is on disk, where None stands for NaN."""
    if found is None:
        return None
    for replay in found["replays"]:
        for prefix in replay["prefixes"]:
            test = prefix["test"]
            test |= {key: math.nan for key, value in test.items() if value is None}
    return TypeAdapter(KernelCalibration).validate_python(found)


def choose_prefix_sizes(
    settings: CalibrationSettings, n_pool: int, n_given: int = 0
) -> tuple[int, ...]:
    """Return the sizes of the prefixes, the last of which is ``max_labels``.

    Args:
        settings: ``n_initial``, ``step`` and ``max_labels``.
        n_pool: Structures of the pool.
        n_given: Structures of a given initial set; 0 draws it from the pool.

    Raises:
        ArgumentError: The pool is too small, or ``max_labels`` less than the initial set.
    """
    first, available = n_given or settings.n_initial, n_pool + n_given
    if available <= first:
        raise ArgumentError(
            f"the pool has {n_pool} structures and the initial set takes {first}, so none is left "
            "to acquire; give more, or a smaller n_initial"
        )
    if settings.max_labels is None:
        last = min(available, max(DEFAULT_MAX_LABELS, first))
    else:
        last = settings.max_labels
    if not first <= last <= available:
        raise ArgumentError(
            f"max_labels is {last}; allowed is from the initial set, {first}, to all structures "
            f"that can be labelled, {available}"
        )
    return (*range(first, last, settings.step), last)


def draw_initial_sets(
    settings: CalibrationSettings, n_pool: int, n_given: int = 0
) -> list[Int64[np.ndarray, " k"]]:
    """Return the initial sets as places among pool and training set, in this order.

    Args:
        settings: ``n_initial``, ``n_repeats`` and ``seed``.
        n_pool: Structures of the pool.
        n_given: Structures of a given initial set; 0 draws ``n_repeats`` from the pool.

    Returns:
        (k,) int64 each, ascending. A repeat's does not depend on how many there are.
    """
    if n_given:
        return [np.arange(n_pool, n_pool + n_given, dtype=np.int64)]
    return [
        np.sort(
            np.random.default_rng((settings.seed, repeat)).choice(
                n_pool, settings.n_initial, replace=False
            )
        )
        for repeat in range(settings.n_repeats)
    ]


class _Kernels(NamedTuple):
    """The kernels of what can be labelled (pool, then training set), and of the others."""

    labelled: Kernel
    valid: Kernel
    test: Kernel


class _Run:
    """What the kernels of one calibration share; energies are predicted when first needed."""

    def __init__(
        self,
        potential: Potential,
        sets: CalibrationSets,
        settings: CalibrationSettings,
        sizes: tuple[int, ...],
        batch_atoms: int | None,
        progress: ProgressCallback,
    ) -> None:
        self._potential, self._sets, self._settings = potential, sets, settings
        self._sizes, self._batch_atoms, self._progress = sizes, batch_atoms, progress
        self._joined = [atoms for part in sets.by_role().values() for atoms in part]
        self._residuals: PretrainedResiduals | None = None

    def calibrate(self, kernel: str, energies: Float64[np.ndarray, " n"]) -> KernelCalibration:
        """Replay the acquisition of one kernel from every initial set."""
        if self._residuals is None:
            self._residuals = self._predict(energies)
        start = time.perf_counter()
        kernels = self._build(kernel)
        built = time.perf_counter()
        settings, n_pool = self._settings, len(self._sets.pool)
        initial_sets = draw_initial_sets(settings, n_pool, len(self._sets.train))
        replays: list[Replay] = []
        stage = f"replay {kernel}"
        self._progress(stage, 0, len(initial_sets))
        for initial in initial_sets:
            replays.append(self._replay(kernels, initial, self._residuals))
            self._progress(stage, len(replays), len(initial_sets))
        seconds = (round(built - start, 2), round(time.perf_counter() - built, 2))
        return KernelCalibration(kernel, seconds, tuple(replays))

    def _predict(self, energies: Float64[np.ndarray, " n"]) -> PretrainedResiduals:
        n = len(self._joined)
        self._progress("predict", 0, n)
        return compute_residuals(
            self._potential,
            self._joined,
            energies,
            batch_atoms=self._batch_atoms,
            progress=lambda n_done: self._progress("predict", n_done, n),
        )

    def _build(self, kernel: str) -> _Kernels:
        sets, n = self._sets, len(self._joined)
        stage = f"features {kernel}"
        self._progress(stage, 0, n)
        built = build_kernels(
            [[*sets.pool, *sets.train], sets.valid, sets.test],
            self._potential,
            kernel,
            options=self._settings.options,
            normalise=self._settings.normalise,
            batch_atoms=self._batch_atoms,
            progress=lambda n_done: self._progress(stage, n_done, n),
        )
        return _Kernels(*built)

    def _replay(
        self, kernels: _Kernels, initial: Int64[np.ndarray, " k"], residuals: PretrainedResiduals
    ) -> Replay:
        """Acquire from one initial set and fit a Gaussian process to every prefix."""
        settings, sizes = self._settings, self._sizes
        picked = _acquire(
            kernels.labelled,
            initial,
            len(self._sets.pool),
            sizes[-1] - len(initial),
            settings.regularisation,
        )
        sequence = np.concatenate([initial, picked])
        order = torch.from_numpy(sequence)
        gp = NestedResidualGP(kernels.labelled.take(order), regularisation=settings.regularisation)
        valid, test = gp.at(kernels.valid), gp.at(kernels.test)
        prefixes = [
            self._fit(sequence[:size], len(initial), valid, test, residuals) for size in sizes
        ]
        chosen = choose_prefix([item.valid_nll for item in prefixes])
        _, _, test_idx = self._places()
        fitted = self._fitted_to(sequence[: sizes[chosen]], len(initial))
        reached = residuals.reached(fitted, test_idx)
        offset = len(self._sets.pool) if self._sets.train else 0
        return Replay(
            tuple((initial - offset).tolist()),
            tuple(picked.tolist()),
            tuple(prefixes),
            chosen,
            int((~reached).sum()),
        )

    def _fit(
        self,
        labelled: Int64[np.ndarray, " t"],
        n_initial: int,
        valid: HeldOut,
        test: HeldOut,
        residuals: PretrainedResiduals,
    ) -> PrefixRecord:
        """Fit one prefix and measure it."""
        settings = self._settings
        references = residuals.checkpoint
        if settings.references != "checkpoint":
            references = residuals.fit_references(self._fitted_to(labelled, n_initial))
        _, valid_idx, test_idx = self._places()
        train_r, valid_r, test_r = (
            self._targets(residuals, idx, references) for idx in (labelled, valid_idx, test_idx)
        )
        noise = settings.regularisation if settings.with_noise else 0.0
        at_valid, at_test = valid.predict(train_r), test.predict(train_r)
        return PrefixRecord(
            n_labels=len(labelled),
            scale=at_test.scale,
            valid_nll=gaussian_nll(valid_r - at_valid.mean, at_valid.std_with(noise)),
            test=measure_calibration(
                test_r - at_test.mean, at_test.std_with(noise), n_bins=settings.n_bins
            ),
            bias_rmse=root_mean_square(test_r - train_r.mean()),
        )

    def _fitted_to(
        self, labelled: Int64[np.ndarray, " t"], n_initial: int
    ) -> Int64[np.ndarray, " k"]:
        """Return the structures of a prefix that its reference energies are fitted to."""
        return labelled[:n_initial] if self._settings.references == "initial" else labelled

    def _targets(
        self,
        residuals: PretrainedResiduals,
        idx: Int64[np.ndarray, " m"],
        references: Float64[np.ndarray, " E"],
    ) -> Float64[np.ndarray, " m"]:
        values = residuals.at(idx, references)
        return values / residuals.counts[idx].sum(axis=1) if self._settings.per_atom else values

    def _places(self) -> tuple[Int64[np.ndarray, " l"], ...]:
        """Return where pool and training set, validation set and test set are."""
        sets = self._sets
        ends = np.cumsum([len(sets.pool) + len(sets.train), len(sets.valid), len(sets.test)])
        parts = np.split(np.arange(ends[-1], dtype=np.int64), ends[:-1])
        return tuple(parts)


def choose_prefix(nll: Sequence[float]) -> int:
    """Return the place of the least validation negative log likelihood, the first of equal ones.

    Args:
        nll: One value for each prefix, in order of size; at least one.
    """
    return int(np.argmin(np.array(nll, dtype=np.float64)))


def _acquire(
    labelled: Kernel,
    initial: Int64[np.ndarray, " k"],
    n_pool: int,
    n_select: int,
    regularisation: float,
) -> Int64[np.ndarray, " m"]:
    """Return the pool structures that posterior variance picks, in order."""
    if n_select == 0:
        return np.zeros(0, dtype=np.int64)
    candidates = np.setdiff1d(np.arange(n_pool, dtype=np.int64), initial)
    selection = select_posterior_variance(
        labelled.take(torch.from_numpy(candidates)),
        labelled.take(torch.from_numpy(initial)),
        n_select,
        regularisation=regularisation,
    )
    return candidates[selection.pool_idx]


def _check_sizes(settings: CalibrationSettings, sets: CalibrationSets) -> None:
    if not sets.valid:
        raise ArgumentError(
            "valid is empty; the prefix is chosen by the likelihood of a validation set: give "
            "labelled structures that are neither in the pool nor in the test set"
        )
    if len(sets.test) < max(_LEAST_TEST, settings.n_bins):
        raise ArgumentError(
            f"test has {len(sets.test)} structures; at least {max(_LEAST_TEST, settings.n_bins)} "
            f"are needed for {settings.n_bins} bins: give more, or a smaller n_bins"
        )
    if sets.train and settings.n_repeats > 1:
        raise ArgumentError(
            f"n_repeats is {settings.n_repeats}, but with a given training set there is one "
            "initial set; leave out one of them"
        )
    if 0 < len(sets.train) < 2:
        raise ArgumentError("train has one structure; allowed are none, or at least 2")


def _check_disjoint(sets: CalibrationSets) -> None:
    """Refuse a structure that is in two sets; within a set, copies may be."""
    index = DuplicateIndex()
    places: list[tuple[str, int]] = []
    for role, structures in sets.by_role().items():
        for place, atoms in enumerate(structures):
            found = index.find(atoms)
            if found is not None and places[found][0] != role:
                other, other_place = places[found]
                raise ArgumentError(
                    f"{role} structure {place} ({atoms.get_chemical_formula()}) is {other} "
                    f"structure {other_place}, too; leave it out of one of them"
                )
            index.add(atoms, len(places))
            places.append((role, place))
