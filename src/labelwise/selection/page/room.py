"""How the bytes of a page are divided among points, their columns and structures.

What a value becomes in the page was measured: numbers hardly compress, and base64 adds a third.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from labelwise.pages.document import CategoryColumn, Column

_BASE_BYTES = 2_600_000  # libraries, script and style, charts and tables
_BYTES_A_POINT = 20.0  # coordinates, role, file, frame, structure, neighbour
_BYTES_A_NUMBER, _BYTES_A_WORD = 5.0, 1.5
_BYTES_A_PACKED_BYTE = 1.2
_MOST_FOR_POINTS = 0.7


@dataclass(frozen=True)
class Room:
    """The bytes of a page.

    Attributes:
        max_megabytes: How large it may become, MB.
    """

    max_megabytes: float

    @property
    def for_all_structures(self) -> int:
        """Bytes for structures, as ``StructurePacker`` counts them, if there were no points."""
        return self._packed(self._free)

    def for_structures(self, n_points: int, columns: Sequence[Column]) -> int:
        """Return the bytes for structures beside points, as ``StructurePacker`` counts them."""
        taken = n_points * (_BYTES_A_POINT + sum(map(_bytes_of, columns)))
        return self._packed(self._free - taken)

    def fit(self, columns: Sequence[Column], n_points: int) -> tuple[Column, ...]:
        """Return the columns for which there is room, the first ones first.

        Args:
            columns: The most important first.
            n_points: Points that have them.
        """
        left = _MOST_FOR_POINTS * self._free / max(1, n_points) - _BYTES_A_POINT
        kept = []
        for column in columns:
            left -= _bytes_of(column)
            if left >= 0:
                kept.append(column)
        return tuple(kept)

    @property
    def _free(self) -> float:
        return max(0.0, 1e6 * self.max_megabytes - _BASE_BYTES)

    @staticmethod
    def _packed(n_bytes: float) -> int:
        return int(max(0.0, n_bytes) / _BYTES_A_PACKED_BYTE)


def _bytes_of(column: Column) -> float:
    return _BYTES_A_WORD if isinstance(column, CategoryColumn) else _BYTES_A_NUMBER
