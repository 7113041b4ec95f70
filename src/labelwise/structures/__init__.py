"""Reading, writing, identifying, labelling and screening structures (``ase.Atoms``)."""

from labelwise.structures.identity import DuplicateIndex, hash_structure
from labelwise.structures.labels import Labels, get_labels
from labelwise.structures.reading import (
    Frame,
    Source,
    iter_frames,
    iter_unscreened,
    read_sources,
    read_structures,
)
from labelwise.structures.screening import Screen, Screened
from labelwise.structures.writing import write_structures

__all__ = [
    "DuplicateIndex",
    "Frame",
    "Labels",
    "Screen",
    "Screened",
    "Source",
    "get_labels",
    "hash_structure",
    "iter_frames",
    "iter_unscreened",
    "read_sources",
    "read_structures",
    "write_structures",
]
