"""Measures kernels of a study on its own data, within bounds, for the study's page."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from labelwise.campaign.errors import DamagedStateError
from labelwise.errors import ArgumentError, LabelwiseError, LabelwiseWarning, PotentialError
from labelwise.potentials import Potential
from labelwise.runtime.files import write_text
from labelwise.runtime.part_store import PartStore, without_nan
from labelwise.runtime.provenance import to_json
from labelwise.studies.comparison.inputs import (
    KernelChoice,
    SampleOptions,
    StudyInputs,
    find_inputs,
)
from labelwise.studies.comparison.kernel_sample import LARGEST_SAMPLE, measure_kernels
from labelwise.studies.comparison.methods import ROW_OPTIONS, name_kernel
from labelwise.studies.comparison.page.diagnosis import DIAGNOSIS, KEPT
from labelwise.studies.comparison.ranking import LARGEST_RANKING, ORACLE, measure_ranking
from labelwise.studies.comparison.record import StudyRecord
from labelwise.studies.comparison.reliability_sample import LARGEST_SETS, measure_reliability

#: Seconds that features of all structures may take.
LONGEST = 30.0
_USUAL_SECONDS = 0.02
_LEAST_PART = 0.15

Results = dict[str, dict[str, Any]]

#: What is measured, by its name on the page: of a part, 0 to 1, of its largest sample.
_MEASURES: dict[str, Callable[[StudyInputs, Potential, PartStore, float], Results]] = {
    "kernels": measure_kernels,
    "reliability": measure_reliability,
    "ranking": measure_ranking,
}


def measure_diagnosis(record: StudyRecord, asked: SampleOptions) -> None:
    """Look at a study's kernels on a sample of its first pool, and write down what was found.

    What cannot be measured is told in words. Results of single kernels are kept, too, so that
    only those that are new or whose data have changed are measured again.
    """
    found = _diagnose(record, asked)
    write_text(record.folder / DIAGNOSIS, to_json(without_nan(found)))


def _diagnose(record: StudyRecord, asked: SampleOptions) -> dict[str, Any]:
    found: dict[str, Any] = {"pool": "", "styles": {}, **{name: {} for name in _MEASURES}}
    found["notes"] = []
    if not record.comparison.n_used:
        return found
    try:
        inputs = find_inputs(record, asked)
        settings = inputs.describe() if inputs.ranked else {}
    except LabelwiseError as error:
        return {**found, "notes": [f"No kernels: {error}."]}
    if not inputs.ranked:
        return {**found, "notes": ["No kernels: no method of the study chooses by one."]}
    part = _bound(record, inputs)
    run = _Run(inputs, {**settings, "part": round(part, 2)}, part, record.folder / KEPT)
    found |= {"pool": inputs.pool, "styles": {each.kernel: each.style for each in inputs.kernels}}
    for name in _MEASURES:
        found[name] = run.find(name, found["notes"])
    return found


class _Run:
    """What the measurements share; the model is loaded when first needed."""

    def __init__(
        self, inputs: StudyInputs, settings: Mapping[str, Any], part: float, folder: Path
    ) -> None:
        self._inputs, self._settings, self._part, self._folder = inputs, settings, part, folder

    def find(self, name: str, notes: list[str]) -> Results:
        """Return results by label, kept or computed; or none, and the reason in the notes."""
        labels = [choice.kernel for choice in self._inputs.kernels]
        if name == "ranking":
            labels = [*(choice.label for choice in self._inputs.ranked), ORACLE]
        store = PartStore(
            self._folder / name, self._settings, kind="a result of a page", force=True
        )
        try:
            known = {label: found for label in labels if (found := store.read(label)) is not None}
            if len(known) == len(labels):
                return known
            return _MEASURES[name](self._inputs, self._potential, store, self._part)
        except LabelwiseError as error:
            if isinstance(error, PotentialError | DamagedStateError):
                warnings.warn(f"no {name}: {error}", LabelwiseWarning, stacklevel=3)
            notes.append(f"No {name}: {error}.")
            return {}

    @cached_property
    def _potential(self) -> Potential:
        if self._part < _LEAST_PART:
            raise ArgumentError(
                "with this model the features of a sample take longer than "
                f"{LONGEST:.0f} s; use 'labelwise geometry' and 'labelwise calibrate'"
            )
        return self._inputs.load()


def _bound(record: StudyRecord, inputs: StudyInputs) -> float:
    """Return which part of the largest samples fits into the time, from what methods cost."""
    measured = {cost.method: cost.seconds_per_structure for cost in record.costs}
    methods = [series.method for series in record.comparison.series]

    def seconds(choices: Iterable[KernelChoice]) -> float:
        costs = (measured.get(methods[choice.style], _USUAL_SECONDS) for choice in choices)
        return sum(max(cost, 0.0) for cost in costs)

    rows = {name_kernel(each.settings, ROW_OPTIONS): each for each in inputs.ranked}
    total = seconds(inputs.kernels) * (LARGEST_SAMPLE + sum(LARGEST_SETS))
    total += seconds(rows.values()) * LARGEST_RANKING
    return min(1.0, LONGEST / max(total, 1e-9))
