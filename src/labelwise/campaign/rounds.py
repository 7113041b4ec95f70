"""Finished rounds: the lines of ``rounds.jsonl``, and the learning curves that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

#: Key of the errors of each split of the test set, in ``measure.json`` and ``rounds.jsonl``.
SPLITS = "split_errors"
#: Name of the structures like those of the pretraining, beside the splits.
RETAINED = "retained"
#: Key of how many structures of a set have energies that the labels do not determine, there too.
UNDETERMINED = "undetermined"
#: A total energy that is farther off may be so for want of a reference energy, eV.
NOTABLE_ERROR = 1.0
_LEAST_POINTS = 3
_LAST_POINTS = 6


@dataclass(frozen=True)
class RoundRecord:
    """A finished round.

    Attributes:
        n_round: Its number, from 0.
        n_train: Structures that its model was trained on.
        n_labels: Labels of the campaign when it ended.
        n_failed: Structures that were set aside as failed then.
        errors: Fields of ``ErrorTable`` by set, ``valid`` and ``test``, in meV, meV/atom and
            meV/Å.
        split_errors: The same by split of the test set, and of ``RETAINED``.
        undetermined: By set, how many structures have energies that the labels do not determine.
        weights: Hash of its model's content.
        best_epoch: The epoch whose weights were kept.
        stages: ``seconds`` and ``peak_mib`` by stage, interrupted attempts included.
        versions: Of packages.
        files: SHA-256 of the files in its folder, by name.
        labels: ``bytes`` and ``sha256`` of ``labels.jsonl`` when it ended.
    """

    n_round: int
    n_train: int
    n_labels: int
    n_failed: int
    errors: Mapping[str, Mapping[str, Any]]
    stages: Mapping[str, Mapping[str, float]]
    files: Mapping[str, str]
    labels: Mapping[str, Any]
    split_errors: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    undetermined: Mapping[str, int] = field(default_factory=dict)
    weights: str = ""
    best_epoch: int | None = None
    versions: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_line(cls, line: Mapping[str, Any]) -> RoundRecord:
        """Read a line of ``rounds.jsonl``; early versions left some keys out."""
        return cls(
            line["round"],
            line["n_train"],
            line.get("n_labels", 0),
            line.get("n_failed", 0),
            line["errors"],
            line.get("stages", {}),
            line.get("files", {}),
            line.get("labels", {"bytes": 0, "sha256": ""}),
            line.get(SPLITS, {}),
            line.get(UNDETERMINED, {}),
            line.get("weights", ""),
            line.get("best_epoch"),
            line.get("versions", {}),
        )

    def as_line(self) -> dict[str, Any]:
        """Return the line of ``rounds.jsonl``."""
        return {
            "round": self.n_round,
            "n_train": self.n_train,
            "n_labels": self.n_labels,
            "n_failed": self.n_failed,
            "errors": self.errors,
            **({SPLITS: self.split_errors} if self.split_errors else {}),
            **({UNDETERMINED: self.undetermined} if self.undetermined else {}),
            "weights": self.weights,
            "best_epoch": self.best_epoch,
            "stages": self.stages,
            "versions": self.versions,
            "files": self.files,
            "labels": self.labels,
        }

    @property
    def role(self) -> str:
        """The set whose errors are shown: ``test``, else ``valid``, else nothing."""
        return next((role for role in ("test", "valid") if role in self.errors), "")

    @property
    def seconds(self) -> float:
        """Wall time of all stages."""
        return float(sum(stage["seconds"] for stage in self.stages.values()))

    @property
    def peak_mib(self) -> float:
        """Largest memory of a stage, MiB."""
        return float(max((stage["peak_mib"] for stage in self.stages.values()), default=0.0))

    @property
    def is_undetermined(self) -> bool:
        """Whether the energy errors that are shown say nothing about the model."""
        return bool(self.undetermined.get(self.role))

    def error(self, name: str, role: str | None = None) -> float:
        """Return an error in meV, meV/atom or meV/Å; NaN where it was not measured.

        Args:
            name: A field of ``ErrorTable``.
            role: ``valid`` or ``test``; None for the set that is shown.
        """
        return known_or_nan(self.errors.get(self.role if role is None else role, {}).get(name))


@dataclass(frozen=True)
class Forecast:
    """What one more batch would bring.

    Attributes:
        error: Name of the error.
        now: As measured last, meV, meV/atom or meV/Å.
        expected: After one more batch, same unit.
        spread: Factor by which the curve scatters about the fit (standard deviation of the
            logarithm), dimensionless; a change below it is not to be told from chance.
    """

    error: str
    now: float
    expected: float
    spread: float

    @property
    def gain(self) -> float:
        """The part of the error that one more batch is expected to take away."""
        return 1.0 - self.expected / self.now


def has_stress_errors(rounds: Sequence[RoundRecord]) -> bool:
    """Return whether the errors that are shown include those of stress."""
    return any("stress_rmse" in record.errors.get(record.role, {}) for record in rounds)


def known_or_nan(value: float | None) -> float:
    """Return a number of a JSON file, NaN where there is none."""
    return math.nan if value is None else float(value)


def sum_stages(events: Sequence[Mapping[str, Any]], n_round: int) -> dict[str, dict[str, float]]:
    """Return seconds and peak memory of a round's stages, interrupted ones included.

    Args:
        events: Lines of ``journal.jsonl``.
        n_round: The round.
    """
    stages: dict[str, dict[str, float]] = {}
    for event in events:
        if event.get("event") == "stage" and event["round"] == n_round:
            entry = stages.setdefault(event["stage"], {"seconds": 0.0, "peak_mib": 0})
            entry["seconds"] = round(entry["seconds"] + event["seconds"], 3)
            entry["peak_mib"] = max(entry["peak_mib"], event["peak_mib"])
    return stages


def sum_hours(rounds: Sequence[RoundRecord]) -> float:
    """Return the wall time of all stages of finished rounds, hours."""
    return sum(record.seconds for record in rounds) / 3600.0


def get_curve(rounds: Sequence[RoundRecord], error: str) -> list[tuple[int, float]]:
    """Return (labelled structures, error) of each round that was measured.

    Args:
        rounds: Finished rounds, in order.
        error: Field of ``ErrorTable``, on the test set; on the validation set without one.
    """
    points = [(record.n_train, record.error(error)) for record in rounds]
    return [point for point in points if not math.isnan(point[1])]


def forecast(
    rounds: Sequence[RoundRecord], n_batch: int, *, error: str = "forces_rmse"
) -> Forecast | None:
    """Estimate what one more batch would bring.

    Learning curves of potentials fall as a power of the number of labels, so a straight
    line is fitted to log error over log labels of the last six rounds (least squares) and
    read off one batch farther; what is expected is the last error times the ratio of the
    line at both places. It knows nothing of which structures are left.

    Args:
        rounds: Finished rounds, in order.
        n_batch: Structures of the batch.
        error: Field of ``ErrorTable``.

    Returns:
        The estimate; None with fewer than three measurements.
    """
    curve = [point for point in get_curve(rounds, error) if min(point) > 0][-_LAST_POINTS:]
    if len({n for n, _ in curve}) < _LEAST_POINTS:
        return None
    x, y = np.log(np.array(curve, dtype=np.float64)).T
    design = np.stack([x, np.ones_like(x)], axis=1)
    (slope, intercept), *_ = np.linalg.lstsq(design, y, rcond=None)
    residual = y - design @ np.array([slope, intercept])
    spread = float(np.sqrt(np.square(residual).sum() / max(1, len(curve) - 2)))
    n_now, now = curve[-1]
    ratio = float(((n_now + n_batch) / n_now) ** slope)
    return Forecast(error, now, now * ratio, float(np.exp(spread)))


def explain_undetermined(rounds: Sequence[RoundRecord]) -> str:
    """Say of which rounds the energy errors are no result; empty if there are none."""
    found = [record for record in rounds if record.is_undetermined]
    if not found:
        return ""
    numbers = ", ".join(str(record.n_round) for record in found)
    last = found[-1]
    count, total = last.undetermined[last.role], last.errors[last.role]["n_structures"]
    return (
        f"* The energy errors of round{'s' if len(found) > 1 else ''} {numbers} are no measure of "
        f"the model: {count} of {total} structures, whose energies are off by more than "
        f"{NOTABLE_ERROR:g} eV, have compositions whose reference energies the labelled "
        "structures do not determine. Label structures of other compositions, or give "
        "data.isolated_atoms"
    )
