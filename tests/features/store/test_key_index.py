from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from labelwise.features.store.key_index import KeyIndex

# Few values in each half, so that keys share a half, repeat, and are absent.
HALVES = st.tuples(st.sampled_from([0, 1, 255, 2**64 - 1]), st.integers(0, 3))
KEYS = st.lists(HALVES, max_size=12)


def as_keys(halves: list[tuple[int, int]]) -> np.ndarray:
    return np.array(halves, dtype=np.uint64).reshape(-1, 2).view(np.uint8).reshape(-1, 16)


@given(parts=st.lists(KEYS, max_size=5), asked=KEYS, data=st.data())
def test_places_are_those_of_a_dictionary(
    parts: list[list[tuple[int, int]]], asked: list[tuple[int, int]], data: st.DataObject
) -> None:
    index = KeyIndex()
    known: list[tuple[tuple[int, int], int]] = []
    first = 0
    for part in parts:
        index.add(as_keys(part), first)
        known += [(halves, first + i) for i, halves in enumerate(part)]
        first += len(part)
        if data.draw(st.booleans()):
            index.find(as_keys(asked))
        if data.draw(st.booleans()):
            start, stop = sorted(data.draw(st.tuples(*[st.integers(0, first)] * 2)))
            index.remove(start, stop)
            known = [(halves, place) for halves, place in known if not start <= place < stop]
    lowest = dict(reversed(known))
    expected = [lowest.get(halves, -1) for halves in asked]
    assert index.find(as_keys(asked)).tolist() == expected


def test_many_keys() -> None:
    keys = np.random.default_rng(0).integers(0, 256, (100_000, 16), dtype=np.uint8)
    index = KeyIndex()
    for start in range(0, 90_000, 9_000):
        index.add(keys[start : start + 9_000], start)
    order = np.random.default_rng(1).permutation(100_000)
    assert np.array_equal(index.find(keys[order]), np.where(order < 90_000, order, -1))
