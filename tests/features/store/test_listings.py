from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.frames import FrameTable
from labelwise.features.store import FeatureStore
from labelwise.runtime.files import hash_file
from labelwise.structures.repeats import Fingerprints
from tests.features.store.stores import IDENTITY, key_of

HASH = "0123456789abcdef" * 2


def make_listing(n_frames: int = 5) -> FrameTable:
    keys = key_of(np.arange(n_frames))
    projections = np.linspace(0.0, 1.0, 8 * n_frames).reshape(n_frames, 8)
    aside = {1: ("no-neighbours", "no two atoms within the model's 5 Å"), 3: ("non-finite", "é\n")}
    counts, frames = np.arange(n_frames) + 3, 2 * np.arange(n_frames)
    groups = tuple(f"reaction {i}" for i in range(n_frames))
    coordinates = np.linspace(0.0, 1.0, 7)
    return FrameTable(
        keys,
        Fingerprints(keys[:, ::-1].copy(), counts, projections, coordinates),
        ("pool.extxyz",),
        np.zeros(n_frames, np.int32),
        frames,
        np.arange(n_frames),
        aside,
        groups,
    )


def open_store(path: Path, said: list[str]) -> FeatureStore:
    return FeatureStore.open(path, IDENTITY, create=True, say=said.append)


def test_a_listing_comes_back(tmp_path: Path) -> None:
    said: list[str] = []
    store = open_store(tmp_path / "s", said)
    assert store.load_listing(HASH) is None
    listing = make_listing()
    store.save_listing(HASH, listing)
    found = store.load_listing(HASH, "moved.extxyz")
    assert found is not None
    assert len(found) == 5
    assert str(found.source(2)) == "moved.extxyz@4"
    assert found.indices.tolist() == [0, 1, 2, 3, 4]
    assert np.array_equal(found.keys, listing.keys)
    for name in ("species", "projections", "coordinates", "n_atoms"):
        assert np.array_equal(getattr(found.prints, name), getattr(listing.prints, name))
    assert np.array_equal(found.frames, listing.frames)
    assert found.set_aside == listing.set_aside
    assert list(found.groups) == list(listing.groups)
    assert said == []


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_listing_is_removed_and_said(
    tmp_path_factory: pytest.TempPathFactory, at: int, bit: int, cut: bool
) -> None:
    said: list[str] = []
    store = open_store(tmp_path_factory.mktemp("s"), said)
    store.save_listing(HASH, make_listing())
    (path,) = (store.path / "listings").iterdir()
    content = bytearray(path.read_bytes())
    at %= len(content)
    content[at] ^= 1 << bit
    path.write_bytes(content[:at] if cut else content)
    assert store.load_listing(HASH) is None
    assert len(said) == 1
    assert "read again" in said[0]
    assert not path.exists()
    store.save_listing(HASH, make_listing())
    assert store.load_listing(HASH) is not None


@pytest.mark.parametrize("name", ["", "../../etc/passwd", HASH.upper(), HASH + "0"])
def test_only_hashes_name_listings(tmp_path: Path, name: str) -> None:
    store = open_store(tmp_path / "s", [])
    with pytest.raises(ArgumentError, match="file_hash"):
        store.load_listing(name)
    with pytest.raises(ArgumentError, match="file_hash"):
        store.save_listing(name, make_listing())


def test_listings_must_fit_together() -> None:
    listing = make_listing()
    with pytest.raises(ArgumentError, match=r"columns of \[4, 5\] frames"):
        replace(listing, groups=listing.groups[:4])
    with pytest.raises(ArgumentError, match="frame 5 of 5"):
        replace(listing, set_aside={5: ("a", "b")})


def test_files_are_told_apart_by_content(tmp_path: Path) -> None:
    first, copy, other = tmp_path / "a", tmp_path / "b", tmp_path / "c"
    first.write_bytes(b"x" * 3_000_000)
    copy.write_bytes(b"x" * 3_000_000)
    other.write_bytes(b"x" * 2_999_999 + b"y")
    assert hash_file(first, "blake2b") == hash_file(copy, "blake2b") != hash_file(other, "blake2b")
    assert len(hash_file(first, "blake2b")) == 32
    with pytest.raises(ReadError, match="cannot read"):
        hash_file(tmp_path / "none", "blake2b")


def test_a_listing_of_the_first_format_is_not_there(tmp_path: Path) -> None:
    """It told no charges apart, so that its file is read again."""
    said: list[str] = []
    store = open_store(tmp_path / "s", said)
    store.save_listing(HASH, make_listing())
    (path,) = (store.path / "listings").iterdir()
    body = path.read_bytes().partition(b"\n")[2].replace(b'"format": 2', b'"format": 1')
    seal = hashlib.blake2b(body, digest_size=16).hexdigest().encode()
    path.write_bytes(seal + b"\n" + body)
    assert store.load_listing(HASH) is None
    assert said == []
