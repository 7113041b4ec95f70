"""Reading, writing, identifying, labelling and screening structures (``ase.Atoms``)."""

from typing import TYPE_CHECKING

from labelwise.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
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

__getattr__ = lazy_names(
    __name__,
    {
        "DuplicateIndex": "identity",
        "Frame": "reading",
        "Labels": "labels",
        "Screen": "screening",
        "Screened": "screening",
        "Source": "reading",
        "get_labels": "labels",
        "hash_structure": "identity",
        "iter_frames": "reading",
        "iter_unscreened": "reading",
        "read_sources": "reading",
        "read_structures": "reading",
        "write_structures": "writing",
    },
)
