"""Files are recognised by what is in them; damage is nobody's, and never an error of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from labelwise.errors import PotentialError
from labelwise.potentials.files import check_container, list_members, read_words

WORDS = {"config", "model_state_dict", "weight"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "model.pth"
    content = {"config": {"cutoff": 5.0}, "model_state_dict": {"weight": torch.ones(3)}}
    torch.save(content, path)
    return path


def test_keys_and_classes_are_listed(checkpoint: Path, tmp_path: Path) -> None:
    assert read_words(checkpoint) >= WORDS
    assert any(name.endswith("/data.pkl") for name in list_members(checkpoint))
    check_container(checkpoint)
    torch.save({"path": Path("x")}, tmp_path / "code.pth")
    assert "pathlib PosixPath" in read_words(tmp_path / "code.pth")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04.", b"PK\x03\x04" + b"x" * 99, b"text"])
def test_another_kind_of_file_has_no_words(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    assert read_words(path) == frozenset()
    assert read_words(tmp_path / "absent") == read_words(tmp_path) == frozenset()


def test_damage_is_nobodys_file(checkpoint: Path) -> None:
    whole = checkpoint.read_bytes()
    for cut in range(0, len(whole) - 1, 13):
        checkpoint.write_bytes(whole[:cut])
        assert read_words(checkpoint) == frozenset()
        with pytest.raises(PotentialError, match=r"damaged or truncated|not a model file"):
            check_container(checkpoint)
    rng = np.random.default_rng(0)
    n_unknown = 0
    for _ in range(1000):
        content = bytearray(whole)
        for place in rng.integers(len(whole), size=3):
            content[place] = rng.integers(256)
        checkpoint.write_bytes(content)
        n_unknown += not read_words(checkpoint) >= WORDS
    assert n_unknown > 100
