"""Names of panels: letters, digits and hyphens, each once on a page."""

from __future__ import annotations

import re

_NOT_ALLOWED = re.compile(r"[^A-Za-z0-9]+")
_LONGEST = 60


class Namer:
    """Makes names of words, each once."""

    def __init__(self) -> None:
        self._taken: set[str] = set()

    def name(self, *words: str) -> str:
        """Return a name of these words that was not given before.

        Args:
            words: Of any characters; other letters than a to z, which titles keep, are left out.
        """
        parts = [_NOT_ALLOWED.sub("-", word).strip("-").lower() for word in words]
        stem = "-".join(part for part in parts if part)[:_LONGEST].strip("-") or "panel"
        found, number = stem, 1
        while found in self._taken:
            number += 1
            found = f"{stem}-{number}"
        self._taken.add(found)
        return found
