"""What a result depends on besides its settings: versions and the machine; and records as JSON."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = (
    "labelwise",
    "torch",
    "numpy",
    "ase",
    "mace-torch",
    "sevenn",
    "chgnet",
    "mlip",
    "e3nn",
    "sevenn",
    "mlip",
    "jax",
    "matscipy",
    "dscribe",
    "rdkit",
)


try:
    __version__ = version("labelwise")
except PackageNotFoundError:  # a source tree that was not installed
    __version__ = "0+unknown"


def package_versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that shape a result."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def describe_machine() -> str:
    """Return the processor, its cores and the versions that shape a result, in a line."""
    name = platform.processor() or platform.machine()
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                name = line.partition(":")[2].strip()
                break
    versions = ", ".join(f"{package} {number}" for package, number in package_versions().items())
    return f"{name}, {os.cpu_count()} cores; {versions}"


def to_json(summary: Mapping[str, Any]) -> str:
    """Return a summary as indented JSON with a final newline."""
    return json.dumps(summary, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
