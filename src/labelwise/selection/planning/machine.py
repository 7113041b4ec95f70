"""How fast this machine multiplies, normalises rows, and writes and reads a folder."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from labelwise.errors import WriteError
from labelwise.features.representations import FeatureBlock, normalise_rows
from labelwise.runtime.memory import usable_memory_bytes

_GEMM_SIZE = 512
_FILE_BYTES_PER_S = 2**23
_LEAST_FILE_BYTES, _MOST_FILE_BYTES = 2**23, 2**26
_BLOCK_BYTES = 2**20
_LEAST_FREE = 2
_NORMALISED_ROWS = 2048


@dataclass(frozen=True)
class MachineRates:
    """What a machine does in a second.

    Attributes:
        float32_flops: Operations a second of a float32 matrix product of 512 × 512.
        float64_flops: The same in float64.
        write_bytes_per_s: To a file in the store's folder, until it is on the disk.
        read_bytes_per_s: From it again.
        reads_from_disk: Whether the system let go of the file before it was read; if not, the
            rate is that of its memory.
        normalise_s_per_value: Seconds to normalise a feature, by value.
        n_cores: Cores that this process may use.
        load_average: Programs that wanted a core over the last minute, this one included.
        memory_bytes: Memory of the machine, or of the part of it that the process may use.
        free_bytes: Free on the disk of the store's folder.
    """

    float32_flops: float
    float64_flops: float
    write_bytes_per_s: float
    read_bytes_per_s: float
    reads_from_disk: bool
    normalise_s_per_value: float
    n_cores: int
    load_average: float
    memory_bytes: int
    free_bytes: int


def probe_machine(folder: Path, width: int, *, seconds: float) -> MachineRates:
    """Measure a machine.

    Args:
        folder: Where a feature store would be; it need not exist yet. A temporary file of at
            most 64 MiB is written to it, or to the nearest folder above it, and removed.
        width: Length of the rows that are to be normalised, >= 1.
        seconds: How long to take, about.

    Raises:
        WriteError: The folder cannot be written to, or its disk is full.
    """
    folder = nearest_folder(folder)
    free = shutil.disk_usage(folder).free
    size = int(min(max(seconds * _FILE_BYTES_PER_S, _LEAST_FILE_BYTES), _MOST_FILE_BYTES))
    if free < _LEAST_FREE * size:
        raise WriteError(
            f"{folder} has {free / 1e6:.0f} MB left, too little to try how fast it is written "
            "to; give another folder by --store"
        )
    write, read, is_cold = _try_folder(folder, size, seconds / 2)
    return MachineRates(
        float32_flops=_measure_flops(torch.float32, seconds / 8),
        float64_flops=_measure_flops(torch.float64, seconds / 8),
        write_bytes_per_s=write,
        read_bytes_per_s=read,
        reads_from_disk=is_cold,
        normalise_s_per_value=_measure_normalising(width, seconds / 8),
        n_cores=len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1,
        load_average=os.getloadavg()[0],
        memory_bytes=usable_memory_bytes(),
        free_bytes=free,
    )


def nearest_folder(path: Path) -> Path:
    """Return a folder, or the nearest one above it that exists."""
    path = path.absolute()
    while not path.is_dir():
        path = path.parent
    return path


def median_seconds(task: Callable[[], object], seconds: float) -> float:
    """Return the median time of a task that is repeated for some seconds, twice at least."""
    task()
    deadline = time.perf_counter() + seconds
    times: list[float] = []
    while len(times) < 2 or time.perf_counter() < deadline:
        began = time.perf_counter()
        task()
        times.append(time.perf_counter() - began)
    return float(np.median(times))


def _measure_flops(dtype: torch.dtype, seconds: float) -> float:
    square = torch.ones((_GEMM_SIZE, _GEMM_SIZE), dtype=dtype)
    out = torch.empty_like(square)
    return 2.0 * _GEMM_SIZE**3 / median_seconds(lambda: torch.mm(square, square, out=out), seconds)


def _measure_normalising(width: int, seconds: float) -> float:
    rows = np.ones((max(1, min(_NORMALISED_ROWS, 2**22 // width)), width), dtype=np.float32)
    nothing = np.empty((0, width), dtype=np.float32)
    blocks = (FeatureBlock(width),)
    return median_seconds(lambda: normalise_rows(nothing, rows, blocks), seconds) / rows.size


def _try_folder(folder: Path, size: int, seconds: float) -> tuple[float, float, bool]:
    """Return bytes a second written and read, and whether reading went to the disk."""
    block = np.random.default_rng(0).bytes(_BLOCK_BYTES)
    try:
        with tempfile.TemporaryFile(dir=folder, buffering=0) as file:
            began = time.perf_counter()
            n_blocks = 0
            while n_blocks * _BLOCK_BYTES < size:
                file.write(block)
                n_blocks += 1
                if time.perf_counter() > began + seconds:
                    break
            os.fsync(file.fileno())
            write_s = time.perf_counter() - began
            is_cold = hasattr(os, "posix_fadvise")
            if is_cold:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            file.seek(0)
            began = time.perf_counter()
            while file.read(_BLOCK_BYTES):
                pass
            read_s = time.perf_counter() - began
    except OSError as error:
        raise WriteError(
            f"cannot try how fast {folder} is written to: {error.strerror or error}; give "
            "another folder by --store"
        ) from error
    n_bytes = n_blocks * _BLOCK_BYTES
    return n_bytes / write_s, n_bytes / read_s, is_cold
