"""What the output files of a calculation say of its failure, where its error says too little.

ASE runs a code and raises that its exit code was 1, or stumbles over an output that ends too
early. Why, the code has written down.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

#: Words of ORCA, VASP, Quantum ESPRESSO, CP2K and Psi4 for an SCF that was given up.
_UNCONVERGED = re.compile(
    r"scf not (fully )?converged|scf run not converged|convergence not achieved"
    r"|self-consistency was not achieved|could not converge scf|scf did not converge",
    re.IGNORECASE,
)
#: What is worth telling, the most telling first.
_TELLING = (
    _UNCONVERGED,
    re.compile(r"licen[cs]e", re.IGNORECASE),
    re.compile(
        r"\bversion\b.*\b(mismatch|unsupported|not supported|required|requires|too old|differs)"
        r"|\b(unsupported|incompatible|wrong|requires)\b.*\bversion\b",
        re.IGNORECASE,
    ),
    re.compile(r"\b(error|fatal|abort\w*|killed|not found|no such file)\b", re.IGNORECASE),
)
_TAIL_BYTES = 1 << 18
_MOST_FILES = 30
_LONGEST = 200


def find_unconverged_output(folder: Path, since: float) -> str:
    """Return the line in which a code says that its SCF did not converge; empty if none does.

    Args:
        folder: That of the calculation.
        since: Files that were changed before belong to an earlier one, seconds of the epoch.
    """
    return _find_line(folder, since, _UNCONVERGED)


def explain_failure(folder: Path, since: float) -> str:
    """Return what the output of a failed calculation says, or how it ends; empty if none is there.

    Args:
        folder: That of the calculation.
        since: Files that were changed before belong to an earlier one, seconds of the epoch.
    """
    for pattern in _TELLING:
        line = _find_line(folder, since, pattern)
        if line:
            return line
    for path, lines in _iter_outputs(folder, since):
        if lines:
            return f"{path.name} ends: {lines[-1][:_LONGEST]}"
    return ""


def _find_line(folder: Path, since: float, pattern: re.Pattern[str]) -> str:
    for path, lines in _iter_outputs(folder, since):
        for line in reversed(lines):
            if pattern.search(line):
                return f"{path.name} says: {line[:_LONGEST]}"
    return ""


def _iter_outputs(folder: Path, since: float) -> Iterator[tuple[Path, list[str]]]:
    """Yield the last lines of what was written as text, the youngest file first."""
    found = []
    with suppress(OSError):
        for path in folder.iterdir():
            status = path.stat()
            if path.is_file() and status.st_size and status.st_mtime >= since:
                found.append((status.st_mtime, path))
    for _, path in sorted(found, reverse=True)[:_MOST_FILES]:
        with suppress(OSError), path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - _TAIL_BYTES))
            content = stream.read()
            if b"\0" not in content:
                text = content.decode(errors="replace")
                yield path, [" ".join(line.split()) for line in text.splitlines() if line.strip()]
