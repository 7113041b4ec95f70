"""What is recorded of the files of a run."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from labelwise.errors import LabelwiseWarning
from labelwise.selection import input_files
from labelwise.selection.input_files import describe_files, mark_files, warn_of_changes


def test_files_that_were_not_touched_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / name for name in ("a.xyz", "b.xyz", "c.xyz")]
    for path in paths:
        path.write_text("1\n\nH 0 0 0\n")
    files = {"pool": describe_files([str(path) for path in paths])}
    marks = mark_files(files)
    os.utime(paths[1], (1.0, 1.0))
    paths[2].write_text("1\n\nC 0 0 0\n")
    read = []
    hash_file = input_files.hash_file
    monkeypatch.setattr(
        input_files, "hash_file", lambda path, name: read.append(path) or hash_file(path, name)
    )
    with pytest.warns(LabelwiseWarning, match=r"c\.xyz changed") as caught:
        warn_of_changes(files, marks)
    assert read == paths[1:]
    assert "b.xyz" not in str(caught[0].message)
    paths[0].unlink()
    with pytest.warns(LabelwiseWarning, match=r"a\.xyz, .*c\.xyz changed"):
        warn_of_changes(files, marks)
