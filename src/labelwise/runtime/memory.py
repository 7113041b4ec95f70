"""How much memory does a process use, and how much may it?

A bound on memory is a bound on the resident set: what the process holds in physical memory,
with the libraries that it has loaded. Nothing else counts against the machine's memory, and
nothing else is what a batch system kills for.
"""

from __future__ import annotations

import ctypes
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from labelwise.errors import ArgumentError
from labelwise.runtime.control_groups import iter_limits

_UNITS = {
    "": 1,
    "k": 1000,
    "m": 1000**2,
    "g": 1000**3,
    "t": 1000**4,
    "ki": 2**10,
    "mi": 2**20,
    "gi": 2**30,
    "ti": 2**40,
}
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
_MEMINFO = Path("/proc/meminfo")
_KEPT_FREE_BYTES = 2**26
_RETURNED_BLOCK_BYTES = 2**17
#: Where a control group says what its processes may use together, by version.
_LIMIT_FILES = {"cgroup2": "memory.max", "cgroup": "memory.limit_in_bytes"}
_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]i?)?b?\s*", re.IGNORECASE)


def parse_bytes(text: str) -> int:
    """Return the bytes that a text such as ``4GB`` means.

    Args:
        text: A positive number with kB, MB, GB or TB (powers of 1000), KiB, MiB, GiB or TiB
            (powers of 1024), or no unit for bytes; case and spaces do not matter.

    Raises:
        ArgumentError: It is no such text.
    """
    match = _SIZE.fullmatch(text)
    size = int(float(match[1]) * _UNITS[(match[2] or "").lower()]) if match else 0
    if size < 1:
        raise ArgumentError(
            f"{text!r} is no amount of memory: allowed are positive numbers with kB, MB, GB, TB "
            "or KiB, MiB, GiB, TiB, as in 4GB"
        )
    return size


def format_bytes(size: int | float) -> str:
    """Return a size as text in powers of 1000, as in ``1.5 GB``."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 999.95:
            return f"{size:.0f} B" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000.0
    return f"{size:.1f} TB"


def usable_memory_bytes(proc: Path = Path("/proc/self")) -> int:
    """Return how much memory this process may use, bytes.

    The least of the machine's memory, the limits of the control groups that the process is in
    and of all groups around them (containers and batch systems set them; versions 1 and 2),
    and the limit of its address space (``ulimit -v``).

    Args:
        proc: Where the kernel tells of this process.
    """
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    texts = iter_limits("memory", _LIMIT_FILES, proc)
    groups = (int(text) for text in texts if text.isdigit())  # and not "max"
    return min([machine, *groups, *_address_space_limit()])


def available_bytes() -> int:
    """Return how much more memory this process may take now, bytes.

    What is left of ``usable_memory_bytes``, or what the machine has to give, if that is less.
    """
    left = usable_memory_bytes() - resident_bytes()
    with suppress(OSError):
        match = re.search(r"^MemAvailable:\s*(\d+) kB$", _MEMINFO.read_text(), re.MULTILINE)
        if match is not None:
            left = min(left, 1024 * int(match[1]))
    return max(0, left)


def resident_bytes() -> int:
    """Return the resident memory of this process now, bytes; the peak where that is not known."""
    status = _read_status("VmRSS")
    return peak_resident_bytes() if status is None else status


def peak_resident_bytes() -> int:
    """Return the largest resident memory of this process so far, bytes; 0 where not known."""
    status = _read_status("VmHWM")
    if status is not None:
        return status
    try:
        import resource
    except ImportError:  # not on Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def give_freed_memory_back() -> bool:
    """Have the C library return large blocks to the system when they are freed, from now on.

    glibc learns to keep blocks of up to 32 MiB for later, and seldom finds one again for an
    aligned array of the same size: a process that goes through a pool chunk by chunk so came
    to hold four times what it had asked for. Fresh blocks cost some time.

    This changes the whole process; where the C library is another one, nothing.

    Returns:
        Whether it was changed.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    kept = mallopt(_M_TRIM_THRESHOLD, _KEPT_FREE_BYTES)
    return bool(mallopt(_M_MMAP_THRESHOLD, _RETURNED_BLOCK_BYTES) and kept)


def _address_space_limit() -> Iterator[int]:
    with suppress(ImportError):  # not on Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            yield soft


def _read_status(field: str) -> int | None:
    """Return a field of the kernel's account of this process, bytes; None where it has none."""
    try:
        text = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(rf"^{field}:\s*(\d+) kB$", text, re.MULTILINE)
    return None if match is None else 1024 * int(match[1])
