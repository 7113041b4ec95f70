from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import ArgumentError
from labelwise.runtime.memory import (
    format_bytes,
    parse_bytes,
    peak_resident_bytes,
    resident_bytes,
    usable_memory_bytes,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4 gb", 4 * 10**9),
        ("4G", 4 * 10**9),
        ("1.5GiB", 3 * 2**29),
        ("512MiB", 2**29),
        ("512m", 512 * 10**6),
        ("2TB", 2 * 10**12),
        ("7kB", 7000),
        ("7KiB", 7168),
        ("123456", 123456),
        ("10 B", 10),
    ],
)
def test_sizes_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-4GB", "4 XB", "0", "0.1B", "4GB of it", "nan", "1e9"])
def test_other_texts_are_refused(text):
    with pytest.raises(ArgumentError, match="as in 4GB"):
        parse_bytes(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1500, "1.5 kB"),
        (999_990, "1.0 MB"),
        (4e9, "4.0 GB"),
        (3.2e15, "3200.0 TB"),
    ],
)
def test_sizes_are_written(size, text):
    assert format_bytes(size) == text


@pytest.mark.skipif(sys.platform != "linux", reason="this is about glibc")
def test_freed_memory_is_given_back():
    """Blocks that are freed between others that stay would otherwise be kept."""
    code = (
        "import sys, numpy as np\n"
        "from labelwise.runtime.memory import give_freed_memory_back, resident_bytes\n"
        "assert sys.argv[1] == 'kept' or give_freed_memory_back()\n"
        "del_me = np.ones(2**21); del del_me\n"
        "blocks = [np.ones(2**20) for _ in range(60)]\n"
        "held = resident_bytes(); del blocks[:-1]; print(held - resident_bytes())\n"
    )
    freed = [
        int(
            subprocess.run(
                [sys.executable, "-c", code, how], capture_output=True, check=True
            ).stdout
        )
        for how in ("given back", "kept")
    ]
    assert freed[0] > 58 * 2**23 > freed[1] + 2**27


@pytest.mark.skipif(sys.platform != "linux", reason="the resident set is known on Linux")
def test_resident_memory_grows_with_what_is_written_and_the_peak_stays():
    before = resident_bytes()
    assert before > 10**7
    block = np.ones(2**24)
    during = resident_bytes()
    assert during - before > 0.9 * block.nbytes
    del block
    assert peak_resident_bytes() >= during - 2**20
    assert resident_bytes() < during - 2**26


WHOLE = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
V2, V1 = "memory.max", "memory.limit_in_bytes"
UNLIMITED_V1 = "9223372036854771712"


def make_groups(
    folder: Path, groups: str, mount: tuple[str, str, str], limits: dict[str, str]
) -> Path:
    """Write what the kernel tells of a process's control groups.

    Args:
        folder: Where to.
        groups: Lines of ``/proc/self/cgroup``.
        mount: Group that is mounted, type of the file system, and its options.
        limits: Files below the mount point to their content.
    """
    root, kind, options = mount
    top = folder / "mounted"
    for name, text in limits.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text(f"{text}\n")
    (folder / "cgroup").write_text(groups)
    (folder / "mountinfo").write_text(
        "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
        f"30 22 0:26 / {folder}/other rw shared:4 - cgroup cgroup rw,cpu,cpuacct\n"
        f"31 22 0:27 {root} {top} rw,nosuid shared:5 master:2 - {kind} {kind} {options}\n"
    )
    return folder


@pytest.mark.parametrize(
    ("groups", "mount", "limits", "usable"),
    [
        ("0::/\n", ("/", "cgroup2", "rw"), {V2: "1000000"}, 1_000_000),
        ("0::/\n", ("/", "cgroup2", "rw"), {V2: "max"}, WHOLE),
        ("0::/\n", ("/", "cgroup2", "rw"), {V2: str(8 * WHOLE)}, WHOLE),
        ("0::/\n", ("/", "cgroup2", "rw"), {}, WHOLE),
        # The groups around a group bind it, too, whichever is the least.
        ("0::/job/step\n", ("/", "cgroup2", "rw"),
         {f"job/step/{V2}": "max", f"job/{V2}": "3000000"}, 3_000_000),
        ("0::/job/step\n", ("/", "cgroup2", "rw"),
         {f"job/step/{V2}": "2000000", f"job/{V2}": "3000000", f"other/{V2}": "5"}, 2_000_000),
        # Version 1, alone and beside version 2 that has no limits.
        ("5:cpu,cpuacct:/a\n4:memory:/slurm/job\n", ("/", "cgroup", "rw,memory"),
         {V1: UNLIMITED_V1, f"slurm/{V1}": "7000000", f"slurm/job/{V1}": UNLIMITED_V1}, 7_000_000),
        ("4:memory:/\n0::/user\n", ("/", "cgroup", "rw,memory"), {V1: UNLIMITED_V1}, WHOLE),
        # A container: the group's name is the host's, its own folder is mounted.
        ("4:memory:/docker/f00\n", ("/docker/f00", "cgroup", "rw,memory"),
         {V1: "4000000"}, 4_000_000),
        ("0::/../elsewhere\n", ("/inner", "cgroup2", "rw"), {V2: "6000000"}, 6_000_000),
    ],
)  # fmt: skip
def test_control_groups_limit_what_may_be_used(
    tmp_path: Path, groups: str, mount: tuple[str, str, str], limits: dict[str, str], usable: int
) -> None:
    proc = make_groups(tmp_path, groups, mount, limits)
    assert usable_memory_bytes(proc) == usable


def test_without_control_groups_the_machine_counts(tmp_path: Path) -> None:
    assert usable_memory_bytes(tmp_path) == WHOLE


@pytest.mark.skipif(sys.platform != "linux", reason="ulimit -v is not kept elsewhere")
def test_the_address_space_counts() -> None:
    """A selection without --memory and a plan keep to what the process may use."""
    code = (
        "import torch\n"
        "from labelwise.selection.choosing import _find_budget\n"
        "from labelwise.runtime.memory import usable_memory_bytes\n"
        "print(usable_memory_bytes(), *_find_budget(None, torch.device('cpu')))"
    )
    limit = 6_000_000 * 1024
    words = ["bash", "-c", 'ulimit -v 6000000; exec "$0" -c "$1"', sys.executable, code]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(min(limit, WHOLE)), str(min(limit, WHOLE) // 2), "None"]
