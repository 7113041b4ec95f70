from __future__ import annotations

from dataclasses import replace

import pytest

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.store import Identity
from tests.features.store.stores import IDENTITY


def test_a_record_comes_back() -> None:
    assert Identity.from_record(IDENTITY.to_record()) == IDENTITY
    assert IDENTITY.width == 8


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"model": "other"}, "another model"),
        ({"model": None}, "it was made with a model"),
        ({"representation": "activation"}, "representation was ntk-e and is activation"),
        ({"options": {"n_probes": 8}}, "option n_probes was 4 and is 8"),
        ({"options": {"n_probes": 4, "seed": None}}, "option seed was not set and is None"),
        ({"blocks": ((8, 1.0),)}, "blocks was [[5, 1.0], [3, 1.0]] and is [[8, 1.0]]"),
        ({"storage_dtype": "float16"}, "storage_dtype was float32 and is float16"),
    ],
)
def test_what_differs_is_said(changed: dict[str, object], words: str) -> None:
    assert IDENTITY.explain_difference(replace(IDENTITY, **changed)) == words
    assert IDENTITY.explain_difference(replace(IDENTITY)) == ""


def test_options_that_json_writes_alike_are_the_same() -> None:
    listed, grouped = (replace(IDENTITY, options={"sizes": sizes}) for sizes in ([1, 2], (1, 2)))
    assert listed.explain_difference(grouped) == ""


@pytest.mark.parametrize(
    "changed",
    [
        {"blocks": ()},
        {"blocks": ((0, 1.0),)},
        {"blocks": ((3, -1.0),)},
        {"blocks": ((3, float("nan")),)},
        {"storage_dtype": "float64"},
        {"options": {"a": object()}},
        {"options": {"a": float("inf")}},
    ],
)
def test_what_cannot_be_an_identity(changed: dict[str, object]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(changed))):
        replace(IDENTITY, **changed)


def test_another_format_is_refused() -> None:
    with pytest.raises(
        ReadError, match="has format 3; this version of Labelwise reads formats 1 to 2"
    ):
        Identity.from_record({**IDENTITY.to_record(), "format_version": 3})
