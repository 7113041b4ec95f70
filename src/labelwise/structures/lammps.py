"""Files of LAMMPS that number their atoms' types and do not name elements.

ASE takes the types for atomic numbers: copper, type 1, would be hydrogen.
"""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from ase.data import atomic_numbers

from labelwise.errors import ReadError

_HEAD_LINES = 1000  # LAMMPS writes ten before the columns
_COLUMNS = "ITEM: ATOMS"
_NAMING_COLUMNS = frozenset({"element", "mass"})
_MASSES, _LABELS = "Masses", "Atom Type Labels"
_DUMP_REMEDY = "write the dump with the column `element` (dump_modify ... element Cu O)"
_DATA_REMEDY = "add the section Masses, or Atom Type Labels with the elements' symbols"


def refuse_types(path: Path, file_format: str, shown: Path) -> None:
    """Raise if a file is LAMMPS's and names no elements; others are not looked at.

    Elements are named by the columns ``element`` and ``mass`` of a dump, and in a data file by
    ``Masses``, or by type labels that are symbols.

    Args:
        path: The file, not compressed.
        file_format: What ASE calls its format.
        shown: The file, for the message.

    Raises:
        ReadError: There are types and no elements; says how to write them.
    """
    if file_format == "lammps-dump-binary" or (
        file_format == "lammps-dump-text" and not _dump_names_elements(path)
    ):
        remedy = _DUMP_REMEDY
    elif file_format == "lammps-data" and not _data_names_elements(path):
        remedy = _DATA_REMEDY
    else:
        return
    raise ReadError(
        f"{shown} has LAMMPS types and no elements; {remedy}, or convert it with the right symbols"
    )


def _dump_names_elements(path: Path) -> bool:
    """Return whether the first frame has such a column; True for a file without columns."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in islice(stream, _HEAD_LINES):
            if line.startswith(_COLUMNS):
                return bool(_NAMING_COLUMNS & {*line.split()})
    return True


def _data_names_elements(path: Path) -> bool:
    labels: list[str] = []
    is_label = False
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            words = line.split("#")[0].split()
            title = " ".join(words)
            if title == _MASSES:
                return True
            if not words or title == _LABELS:
                is_label = is_label or title == _LABELS
            elif is_label and words[0].isdigit() and len(words) > 1:
                labels.append(words[1])
            else:
                is_label = False
    return bool(labels) and all(label in atomic_numbers for label in labels)
