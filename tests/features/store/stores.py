"""Small feature stores, whose rows tell which structure they belong to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int, UInt8

from labelwise.features.store import FeatureStore, Identity

BLOCKS = ((5, 1.0), (3, 1.0))
IDENTITY = Identity("ntk-e", BLOCKS, {"n_probes": 4}, model="abc")
WIDTH = IDENTITY.width


def key_of(numbers: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k 16"]:
    """Return keys whose halves differ in a few bits only."""
    words = np.stack([numbers // 4, numbers], axis=1).astype(np.uint64)
    return words.view(np.uint8).reshape(-1, 16)


def row_of(numbers: Int[np.ndarray, " k"], width: int = WIDTH) -> Float32[np.ndarray, "k d"]:
    """Return a raw row of each number, the same wherever and whenever it is asked for."""
    rows = [np.random.default_rng(int(number)).standard_normal(width) for number in numbers]
    return np.array(rows, dtype=np.float32).reshape(-1, width) * 10.0


def make_store(
    path: Path, n_rows: int = 10, chunk_rows: int = 4, identity: Identity = IDENTITY
) -> FeatureStore:
    """Make a store of the rows 0 … n - 1."""
    store = FeatureStore.open(path, identity, create=True)
    append(store, np.arange(n_rows), chunk_rows)
    return store


def append(store: FeatureStore, numbers: Int[np.ndarray, " k"], chunk_rows: int) -> list[int]:
    """Append rows in chunks of so many each, and return the chunks' numbers."""
    parts = [numbers[start : start + chunk_rows] for start in range(0, len(numbers), chunk_rows)]
    width = store.identity.width
    return [store.append_rows(row_of(part, width), key_of(part)) for part in parts]
