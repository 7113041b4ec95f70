from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelwise.errors import ReadError
from labelwise.selection.page import is_summary, read_record
from tests.selection.page.conftest import Select


@pytest.fixture
def summary(select: Select) -> Path:
    return select(None, rule="random", representation="soap", model=None, group_by="family")


def _changed(summary: Path, **changes: Any) -> Path:
    content = json.loads(summary.read_text()) | changes
    summary.write_text(json.dumps(content))
    return summary


def test_a_summary_is_read_back(summary: Path) -> None:
    record = read_record(summary)
    content = json.loads(summary.read_text())
    assert is_summary(summary)
    assert record.settings.rule.name == "random"
    assert record.settings.group_by == "family"
    assert [pick.pool_index for pick in record.picks] == [
        pick["pool_index"] for pick in content["picks"]
    ]
    assert len(record.screened) == len(content["screened"])
    assert (record.n_pool, record.n_train) == (43, 7)
    assert record.input("out") == "batch.extxyz"
    assert record.find_file("pool_a.extxyz") == Path("pool_a.extxyz")
    assert record.find_file("nothing.extxyz") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("not json", "is not JSON"),
        ("[1, 2]", "is not the summary of a selection"),
        ('{"format_version": 1}', "it has no 'inputs'"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "other.json"
    path.write_text(text)
    assert not is_summary(path)
    with pytest.raises(ReadError, match=message):
        read_record(path)
    with pytest.raises(ReadError, match="cannot read"):
        read_record(tmp_path / "nothing.json")


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"n_select": "many", "unknown": 1}},
        {"picks": [{"rank": 0}]},
        {"counts": {}},
        {"stages": 3},
        {"inputs": []},
    ],
)
def test_a_damaged_summary_is_refused(summary: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ReadError, match="has not the form of a summary"):
        read_record(_changed(summary, **changes))


@pytest.mark.parametrize("place", [43, -1])
def test_picks_that_cannot_be_are_refused(summary: Path, place: int) -> None:
    picks = json.loads(summary.read_text())["picks"]
    picks[1]["pool_index"] = place
    with pytest.raises(ReadError, match="contradicts itself"):
        read_record(_changed(summary, picks=picks))
    picks[1] = picks[0]
    with pytest.raises(ReadError, match="contradicts itself"):
        read_record(_changed(summary, picks=picks))
    with pytest.raises(ReadError, match="contradicts itself"):
        read_record(_changed(summary, picks=[]))
