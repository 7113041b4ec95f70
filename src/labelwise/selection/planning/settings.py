"""What can be asked of a plan."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labelwise.errors import ArgumentError
from labelwise.features.options import STORAGE_DTYPES, MemoryBytes, StoreDtype
from labelwise.runtime.settings import Setting, check_bounds

#: Headings of the help.
RUN, COST = "The run", "Cost and limits"


@dataclass(frozen=True)
class RunSettings:
    """Where and how the selection will run."""

    store_dtype: StoreDtype = STORAGE_DTYPES[0]
    memory_bytes: MemoryBytes = None
    n_gpus: Annotated[
        int | None,
        Setting(
            "Represent on N GPUs like the one here, or like that of --structures-per-second.",
            ge=1,
            metavar="N",
            panel=RUN,
        ),
    ] = None
    structures_per_second: Annotated[
        float | None,
        Setting(
            "Structures that one machine or GPU represents in a second, as 'plan --json' "
            "measured it there.",
            gt=0,
            metavar="R",
            panel=RUN,
        ),
    ] = None
    price_per_hour: Annotated[
        float | None,
        Setting(
            "Of the machine, or of one of the GPUs with its share of one.",
            ge=0,
            metavar="X",
            panel=COST,
        ),
    ] = None
    hours: Annotated[
        float | None,
        Setting("Also say how large a pool can be done in so many hours.", gt=0, panel=COST),
    ] = None

    def check(self, device: str) -> None:
        """Raise unless a run can be estimated.

        Args:
            device: Where the model runs here.

        Raises:
            ArgumentError: A number is out of range, or the speed of the GPUs is not known.
        """
        check_bounds(self)
        if self.n_gpus is None or self.structures_per_second is not None:
            return
        if not device.startswith("cuda"):
            raise ArgumentError(
                f"n_gpus is {self.n_gpus}, but the model runs on {device}, which does not tell how "
                "fast a GPU is: run 'labelwise plan --json' on a machine with such a GPU, and "
                "give here what it says under represent_structures_per_second, as "
                "--structures-per-second"
            )
