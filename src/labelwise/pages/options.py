"""What a reader may ask of a page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labelwise.runtime.settings import Seed, Setting, check_bounds

#: How kernels become a plane.
MAP_METHODS = ("pca", "umap")


@dataclass(frozen=True)
class ReportOptions:
    """What a reader may ask of a page.

    Raises:
        ArgumentError: An unknown method, a size that is not above 0, or a negative seed.
    """

    map_method: Annotated[
        str,
        Setting(
            "How the map of the pool is made: pca, or umap, which needs umap-learn.",
            flags=("--map",),
            choices=MAP_METHODS,
        ),
    ] = "pca"
    colour_by: Annotated[
        str | None, Setting("Colour maps by this column at first, else by role.", metavar="KEY")
    ] = None
    max_megabytes: Annotated[float, Setting("How large the page may become, MB.", gt=0)] = 9.0
    seed: Seed = 0

    def __post_init__(self) -> None:
        check_bounds(self)
