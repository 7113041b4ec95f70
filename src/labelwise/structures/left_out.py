"""What a file cannot hold of the structures that are written to it, said once."""

from __future__ import annotations

import os
import warnings
from collections import Counter

from labelwise.errors import LabelwiseWarning

_N_NAMED = 8


class LeftOut:
    """Counts what is left out of a file, by name.

    Args:
        format_name: What the file is, for the message: ``extended XYZ``.
    """

    def __init__(self, format_name: str) -> None:
        self._format_name = format_name
        self._counts: Counter[str] = Counter()

    def note(self, kind: str, key: object) -> None:
        """Note that something of a structure is left out.

        Args:
            kind: ``info``, ``array``, ``result`` or ``constraint``.
            key: The key, or the constraint's class.
        """
        self._counts[f"{kind} {key!r}"] += 1

    def warn(self, path: str | os.PathLike[str]) -> None:
        """Say what was left out of a file, if anything was.

        Args:
            path: The file.

        Warns:
            LabelwiseWarning: Names it, and how many structures have it.
        """
        if not self._counts:
            return
        named = [
            f"{name} of {n} structure{'s' if n > 1 else ''}"
            for name, n in self._counts.most_common(_N_NAMED)
        ]
        n_more = len(self._counts) - len(named)
        more = f" and {n_more} more" if n_more else ""
        message = (
            f"{os.fspath(path)}: left out what {self._format_name} cannot hold so that it could "
            f"be read again: {', '.join(named)}{more}"
        )
        warnings.warn(message, LabelwiseWarning, stacklevel=3)
