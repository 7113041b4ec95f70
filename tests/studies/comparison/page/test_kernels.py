from __future__ import annotations

from labelwise.structures import Frame
from labelwise.structures.reading import Source
from labelwise.studies.comparison.kernel_sample import choose_families, keep_largest
from tests.campaign.building import make_structures


def make_frames(n: int, **info: list[object]) -> list[Frame]:
    frames = []
    for i, atoms in enumerate(make_structures(n)):
        atoms.info.update({key: values[i % len(values)] for key, values in info.items()})
        frames.append(Frame(atoms, Source("pool.extxyz", i), i))
    return frames


def test_families_are_of_the_key_that_was_asked_for() -> None:
    frames = make_frames(12, site=["a", "b"], reaction=[1, 2, 3])
    assert choose_families(frames, "site") == (["a", "b"] * 6, "site")
    assert choose_families(frames, None) == (["1", "2", "3"] * 4, "reaction")
    assert choose_families(frames, "missing")[1] == "reaction"


def test_keys_that_tell_nothing_are_passed_over() -> None:
    frames = make_frames(12, reaction=[1], family=list(range(12)), split=["train"])
    families, key = choose_families(frames, None)
    assert key == "formula"
    assert families[:2] == ["H2O", "CH4"]


def test_the_largest_families_are_kept_in_order() -> None:
    families = ["b", "a", "c", "a", "c", "d", "a"]
    assert keep_largest(families, 2) == [1, 2, 3, 4, 6]
    assert keep_largest(families, 9) == list(range(7))
