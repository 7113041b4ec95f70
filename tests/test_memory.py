from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from labelwise.errors import ArgumentError
from labelwise.memory import format_bytes, parse_bytes, peak_resident_bytes, resident_bytes


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
        "from labelwise.memory import give_freed_memory_back, resident_bytes\n"
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
