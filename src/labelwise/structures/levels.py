"""Levels of theory: labels of two of them are not of one set."""

from __future__ import annotations

from collections.abc import Iterable

from ase import Atoms

from labelwise.errors import LabelError

#: Info key of the level of theory at which a structure was labelled.
LEVEL_KEY = "labelwise_level"


class LevelCheck:
    """Sees that labels are of one level of theory; those that do not say theirs go with any."""

    def __init__(self) -> None:
        self._first: dict[str, str] = {}

    def add(self, atoms: Atoms, where: str) -> None:
        """Look at one labelled structure.

        Args:
            atoms: The structure.
            where: File and frame, for the error message.

        Raises:
            LabelError: An earlier one was labelled at another level.
        """
        level = atoms.info.get(LEVEL_KEY)
        if level is not None:
            self.add_level(str(level), where)

    def add_level(self, level: str, where: str) -> None:
        """Do the same for a level that is known otherwise.

        Raises:
            LabelError: An earlier one was another.
        """
        self._first.setdefault(level, where)
        if len(self._first) > 1:
            (other, there), (ours, here) = self._first.items()
            raise LabelError(
                f"{there} is labelled at the level of theory {other!r} and {here} at {ours!r}; "
                "energies of two levels make no training set: label all of it at one. If both "
                f"are one level, give them one {LEVEL_KEY}"
            )


def require_one_level(structures: Iterable[tuple[str, Atoms]]) -> None:
    """Raise ``LabelError`` unless labelled structures, each with its name, are of one level."""
    check = LevelCheck()
    for where, atoms in structures:
        check.add(atoms, where)
