"""What a reader may ask of a page."""

from __future__ import annotations

import math
from dataclasses import dataclass

from labelwise.errors import ArgumentError, check_name

#: How kernels become a plane.
MAP_METHODS = ("pca", "umap")


@dataclass(frozen=True)
class ReportOptions:
    """What a reader may ask of a page.

    Attributes:
        map_method: ``pca`` or ``umap``.
        colour_by: Name of the column by which maps are coloured at first; by role if None.
        max_megabytes: How large the page may become, MB.
        seed: Seed of samples and of UMAP, >= 0.
    """

    map_method: str = "pca"
    colour_by: str | None = None
    max_megabytes: float = 9.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ArgumentError: An unknown method, a size that is not above 0, or a negative seed.
        """
        check_name("map", self.map_method, MAP_METHODS)
        if not (math.isfinite(self.max_megabytes) and self.max_megabytes > 0):
            raise ArgumentError(f"max_megabytes is {self.max_megabytes}; it must be above 0")
        if self.seed < 0:
            raise ArgumentError(f"seed is {self.seed}; allowed are whole numbers from 0")
