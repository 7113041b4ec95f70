from __future__ import annotations

import fcntl
import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelwise.errors import ReadError, WriteError
from labelwise.runtime.files import hash_file, whole_file, write_text

_KILLED = """
import os, signal, sys
from labelwise.runtime.files import write_text
os.fsync = lambda _handle: os.kill(os.getpid(), signal.SIGKILL)
write_text(sys.argv[1], "half")
"""
_WRITES = (
    "import sys; from labelwise.runtime.files import write_text; write_text(sys.argv[1], 'whole')"
)


def run(code: str, path: Path) -> int:
    return subprocess.run([sys.executable, "-c", code, str(path)], check=False).returncode


def make_old(path: Path) -> Path:
    path.write_text("half")
    os.utime(path, (time.time() - 1000, time.time() - 1000))
    return path


def test_the_next_writer_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    target = tmp_path / "rows.npz"
    assert run(_KILLED, target) < 0
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".rows.npz.")
    assert run(_WRITES, tmp_path / "other.npz") == 0
    assert left.exists()  # it belongs to another file
    assert run(_WRITES, target) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"rows.npz", "other.npz"}
    assert target.read_text() == "whole"


def test_a_living_writer_keeps_its_file(tmp_path: Path) -> None:
    held = make_old(tmp_path / ".a.json.abcdefgh")
    with held.open("rb") as stream:
        fcntl.flock(stream.fileno(), fcntl.LOCK_EX)
        write_text(tmp_path / "a.json", "1")
        assert held.exists()
    write_text(tmp_path / "a.json", "2")
    assert not held.exists()


@pytest.mark.parametrize(
    "name",
    [".a.json.bak", "a.json.abcdefgh", ".a.json.ABCDEFGH", ".a.json.abcdefgh.json", ".b.abcdefgh"],
)
def test_what_is_not_ours_stays(tmp_path: Path, name: str) -> None:
    other = make_old(tmp_path / name)
    write_text(tmp_path / "a.json", "1")
    assert other.exists()


def test_what_was_just_made_stays(tmp_path: Path) -> None:
    """Its writer may not have locked it yet."""
    young = tmp_path / ".a.json.abcdefgh"
    young.write_text("")
    write_text(tmp_path / "a.json", "1")
    assert young.exists()


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    victim = make_old(tmp_path / "victim")
    (tmp_path / ".a.json.abcdefgh").symlink_to(victim)
    write_text(tmp_path / "a.json", "1")
    assert victim.exists()
    assert (tmp_path / ".a.json.abcdefgh").is_symlink()


def test_a_file_is_whole_or_as_it_was(tmp_path: Path) -> None:
    target = tmp_path / "new" / "a.bin"
    with whole_file(target) as temporary:
        temporary.write_text("first")
        assert not target.exists()
    with pytest.raises(KeyboardInterrupt), whole_file(target) as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "first"
    assert list(target.parent.iterdir()) == [target]
    with pytest.raises(WriteError, match="it is a directory"), whole_file(tmp_path):
        pass


def test_hash_of_a_part(tmp_path: Path) -> None:
    (tmp_path / "whole").write_bytes(b"abcdef")
    (tmp_path / "part").write_bytes(b"abc")
    for name in ("sha256", "blake2b"):
        assert hash_file(tmp_path / "whole", name, n_bytes=3) == hash_file(tmp_path / "part", name)
    with pytest.raises(ReadError, match="shorter"):
        hash_file(tmp_path / "part", n_bytes=4)
    with pytest.raises(ReadError, match="cannot read"):
        hash_file(tmp_path / "none", n_bytes=4)


def test_hashes_are_those_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(3_000_000))
    assert hash_file(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    own = hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest()
    assert hash_file(path, "blake2b") == own
