"""What can go wrong with a feature store, beyond the errors of the whole package.

::

    ReadError
    └── DamagedChunkError    a chunk of rows that is not as it was written
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelwise.errors import ReadError
from labelwise.features.store.names import read_chunk_number


class DamagedChunkError(ReadError):
    """A chunk of rows that is missing, cut short or altered.

    ``FeatureStore.set_aside`` takes such a chunk out, so that its rows count as absent and are
    computed again.

    Args:
        folder: The chunk's folder.
        reason: What is wrong with it, in words.

    Attributes:
        folder: The chunk's folder.
        number: The chunk's number.
        reason: What is wrong with it, in words.
    """

    def __init__(self, folder: Path, reason: str) -> None:
        super().__init__(
            f"chunk {folder.name} of the feature store {folder.parent} is damaged: {reason}; set "
            "it aside (FeatureStore.set_aside), and its rows are computed again"
        )
        self.folder = folder
        self.number = read_chunk_number(folder.name)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """Let the error pass from a worker process to the one that repairs."""
        return DamagedChunkError, (self.folder, self.reason)
