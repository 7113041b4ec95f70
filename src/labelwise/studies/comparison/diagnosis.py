"""Measures kernels of a study on its own data, within bounds, for the study's page."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
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


def measure_diagnosis(record: StudyRecord, asked: SampleOptions) -> None:
    """Look at a study's kernels on a sample of its first pool, and write down what was found.

    What cannot be measured is told in words. Results of single kernels are kept, too, so that
    only those that are new or whose data have changed are measured again.
    """
    found = _diagnose(record, asked)
    write_text(record.folder / DIAGNOSIS, to_json(without_nan(found)))


def _diagnose(record: StudyRecord, asked: SampleOptions) -> dict[str, Any]:
    nothing: dict[str, Any] = {
        "pool": "",
        "styles": {},
        "kernels": {},
        "reliability": {},
        "ranking": {},
    }
    if not record.comparison.n_used:
        return {**nothing, "notes": []}
    try:
        inputs = find_inputs(record, asked)
        settings = inputs.describe() if inputs.ranked else {}
    except LabelwiseError as error:
        return {**nothing, "notes": [f"No kernels: {error}."]}
    if not inputs.ranked:
        return {**nothing, "notes": ["No kernels: no method of the study chooses by one."]}
    run = _Run(record, inputs, settings)
    labels = [choice.kernel for choice in inputs.kernels]
    kernels, no_kernels = run.find("kernels", labels)
    reliability, no_reliability = run.find("reliability", labels)
    ranking, no_ranking = run.find("ranking", [*(each.label for each in inputs.ranked), ORACLE])
    return {
        "pool": inputs.pool,
        "styles": {choice.kernel: choice.style for choice in inputs.kernels},
        "kernels": kernels,
        "reliability": reliability,
        "ranking": ranking,
        "notes": [*no_kernels, *no_reliability, *no_ranking],
    }


class _Run:
    """What heat maps and reliability share; the model is loaded when first needed."""

    def __init__(
        self, record: StudyRecord, inputs: StudyInputs, settings: Mapping[str, Any]
    ) -> None:
        self._inputs, self._settings = inputs, settings
        self._folder = record.folder / KEPT
        self._potential: Potential | None = None
        self._part = _bound(record, inputs)

    def find(self, name: str, labels: Sequence[str]) -> tuple[Results, tuple[str, ...]]:
        """Return results by label, kept or computed, or none and the reason."""
        settings = {**self._settings, "part": round(self._part, 2)}
        store = PartStore(self._folder / name, settings, kind="a result of a page", force=True)
        measure = {
            "kernels": self._measure_kernels,
            "reliability": self._measure_reliability,
            "ranking": self._measure_ranking,
        }
        try:
            known = {label: found for label in labels if (found := store.read(label)) is not None}
            return (known if len(known) == len(labels) else measure[name](store)), ()
        except LabelwiseError as error:
            if isinstance(error, PotentialError | DamagedStateError):
                warnings.warn(f"no {name}: {error}", LabelwiseWarning, stacklevel=3)
            return {}, (f"No {name}: {error}.",)

    def _measure_kernels(self, store: PartStore) -> Results:
        n_most = round(self._part * LARGEST_SAMPLE)
        return measure_kernels(self._inputs, self._load(), store, n_most)

    def _measure_reliability(self, store: PartStore) -> Results:
        return measure_reliability(self._inputs, self._load(), store, self._part)

    def _measure_ranking(self, store: PartStore) -> Results:
        return measure_ranking(self._inputs, self._load(), store, self._part)

    def _load(self) -> Potential:
        if self._part < _LEAST_PART:
            raise ArgumentError(
                "with this model the features of a sample take longer than "
                f"{LONGEST:.0f} s; use 'labelwise geometry' and 'labelwise calibrate'"
            )
        if self._potential is None:
            self._potential = self._inputs.load()
        return self._potential


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
