"""Writing a fine-tuned potential to a file of its family's."""

from __future__ import annotations

import os
from pathlib import Path

from labelwise.errors import ArgumentError
from labelwise.potentials import Potential
from labelwise.runtime.files import whole_file


def save_potential(potential: Potential, path: str | os.PathLike[str]) -> None:
    """Write a potential to a file, whole or not at all.

    For MACE, ``.pt`` is a weights-only checkpoint, which runs no code when it is read, and
    ``.model`` the pickled module that mace-torch, its ASE calculator and its LAMMPS and OpenMM
    exporters take.
    ``load_potential`` reads both. The module is written on the CPU with gradients on, as
    mace-torch writes it.

    Args:
        potential: The potential; it is not modified.
        path: File, for MACE ending in ``.pt`` or ``.model``; an existing one is replaced.

    Example:
        >>> import labelwise as lw
        >>> lw.save_potential(lw.load_potential("demo"), "copy.pt")
        >>> lw.load_potential("copy.pt").content_hash == lw.load_potential("demo").content_hash
        True

    Raises:
        ArgumentError: another ending.
        PotentialError: a potential of a family that cannot be written.
        WriteError: the file cannot be written.
    """
    target = Path(path)
    require_file_name(potential, target)
    with whole_file(target) as temporary, temporary.open("wb") as stream:
        endings = (each for each in potential.file_suffixes if target.name.endswith(each))
        potential.write(stream, next(endings, target.suffix))


def require_file_name(potential: Potential, path: Path) -> None:
    """Raise unless a potential can be written to a file of this name.

    Raises:
        ArgumentError: The family does not know the ending.
    """
    if potential.file_suffixes and not path.name.endswith(potential.file_suffixes):
        raise ArgumentError(
            f"path is {str(path)!r}; {potential.name} can be written to names ending in "
            f"{' or '.join(potential.file_suffixes)}"
        )
