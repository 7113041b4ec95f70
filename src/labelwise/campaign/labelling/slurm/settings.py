"""What ``campaign.yaml`` may say of labels from a SLURM queue."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from labelwise.campaign.labelling.calculator import CalculatorSettings
from labelwise.campaign.labelling.level import CalculationSettings
from labelwise.runtime.timing import parse_duration

#: A controller is asked at most so often, seconds.
LEAST_POLL_S = 1.0


def _check_duration(text: str) -> str:
    parse_duration(text)
    return text


Duration = Annotated[str, AfterValidator(_check_duration)]


#: Options of sbatch by which jobs could not be followed any more, and what there is instead.
_OURS = {
    "array": "structures_per_job and max_jobs",
    "clusters": "a SLURM_CONF of that cluster",
    "job-name": "nothing: jobs are known by it",
    "output": "nothing: what a job prints is read",
    "time": "time",
    "wait": "nothing: runs wait unless --no-wait is given",
}


def _check_options(given: dict[str, str | int | bool]) -> dict[str, str | int | bool]:
    for name in given:
        plain = name.lstrip("-").replace("_", "-")
        if plain in _OURS:
            raise ValueError(f"{plain} is set by the labeller; use {_OURS[plain]}")
    return given


class SlurmSettings(CalculationSettings):
    """Labels from a SLURM queue.

    Attributes:
        store: Folder of labels that were made at any time, on a file system that the nodes
            see; relative to the campaign.
        partition: Where jobs go; None for SLURM's default.
        sbatch: Any other option of ``sbatch``, without the dashes: ``{account: chem,
            mem-per-cpu: 4G, exclusive: true}``.
        structures_per_job: Structures of one element of a job array; ``auto`` for as many as
            the jobs allowed at once and the time limit leave to each.
        workers_per_job: Calculations at once on a node; each has ``n_threads`` cores.
        time: Time limit of a job, such as ``4h``; None for the partition's.
        max_time: Time limit that is not passed when a job is submitted again with more.
        max_jobs: Elements that wait or run at once.
        setup: Lines of shell before the calculations, such as ``module load orca``.
        retries: So often a structure whose job ended without its label is submitted again.
        poll_s: Least seconds between two questions to SLURM.
        settle_s: Seconds for which the files of a job that has ended are waited for: network
            file systems show them late.
    """

    kind: str = "slurm"
    store: str = "label_store"
    partition: str | None = None
    sbatch: Annotated[dict[str, str | int | bool], AfterValidator(_check_options)] = Field(
        default_factory=dict
    )
    structures_per_job: Annotated[int, Field(ge=1)] | Literal["auto"] = "auto"
    workers_per_job: int = Field(default=1, ge=1)
    time: Duration | None = None
    max_time: Duration | None = None
    max_jobs: int = Field(default=50, ge=1, le=1000)
    setup: list[str] = Field(default_factory=list)
    retries: int = Field(default=2, ge=0)
    poll_s: float = Field(default=30.0, ge=LEAST_POLL_S)
    settle_s: float = Field(default=60.0, ge=0.0)

    @property
    def n_at_once(self) -> int:
        """Calculations at once."""
        return self.max_jobs * self.workers_per_job

    @property
    def n_cores(self) -> int:
        """Cores of a job."""
        return self.workers_per_job * self.n_threads

    def limit_minutes(self, n_doublings: int = 0) -> int | None:
        """Return the time limit of a job, whole minutes, as SLURM has it; None for none.

        Args:
            n_doublings: How often time was the reason that it is submitted again.
        """
        if self.time is None:
            return None
        seconds = parse_duration(self.time) * 2.0**n_doublings
        if self.max_time is not None:
            seconds = min(seconds, parse_duration(self.max_time))
        return max(1, math.ceil(seconds / 60.0))

    def on_node(self, store: str) -> CalculatorSettings:
        """Return the settings of the calculations of one job.

        Args:
            store: The store's folder, absolute.
        """
        words = self.model_dump(include={*CalculationSettings.model_fields} - {"kind"})
        return CalculatorSettings(**{**words, "n_workers": self.workers_per_job, "store": store})
