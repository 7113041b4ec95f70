from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from labelwise.campaign.page import gather_campaign
from labelwise.cli.recognising import find_summary, gather, recognise
from labelwise.errors import ArgumentError, ReadError
from labelwise.pages.options import ReportOptions
from labelwise.selection.page import gather_selection
from labelwise.studies.comparison.page import gather_comparison

_KEYS = ("format_version", "inputs", "settings", "counts", "picks", "screened", "stages")


def _write_summary(path: Path) -> Path:
    path.write_text(json.dumps(dict.fromkeys(_KEYS)))
    return path


def _gatherer(path: Path) -> object:
    found = recognise(path)
    assert isinstance(found, partial)
    return found.func, found.args


def test_folders_are_told_by_their_files(tmp_path: Path) -> None:
    (tmp_path / "campaign.yaml").touch()
    assert _gatherer(tmp_path) == (gather_campaign, (tmp_path,))
    (tmp_path / "campaign.yaml").unlink()
    for name in ("study.yaml", "results.json"):
        (tmp_path / name).write_text("{}")
        assert _gatherer(tmp_path) == (gather_comparison, (tmp_path,))
        if name == "results.json":
            assert _gatherer(tmp_path / name) == (gather_comparison, (tmp_path / name,))
        (tmp_path / name).unlink()


def test_a_selection_is_found_from_its_summary_batch_and_folder(tmp_path: Path) -> None:
    summary = _write_summary(tmp_path / "batch.json")
    batch = tmp_path / "batch.extxyz"
    batch.touch()
    for target in (summary, batch, tmp_path):
        assert _gatherer(target) == (gather_selection, (summary,))
    assert find_summary(batch) == summary
    _write_summary(tmp_path / "second.json")
    with pytest.raises(ReadError, match=r"2 selections \(batch.json, second.json\)"):
        recognise(tmp_path)


def test_anything_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match=r"there is no .*nothing; give the JSON summary"):
        gather(tmp_path / "nothing", ReportOptions())
    with pytest.raises(ReadError, match="is no campaign, no study and holds no selection"):
        gather(tmp_path, ReportOptions())
    other = tmp_path / "other.json"
    other.write_text("{}")
    with pytest.raises(ReadError, match=r"other\.json is not the summary of a selection"):
        gather(other, ReportOptions())
    pool = tmp_path / "pool.extxyz"
    pool.touch()
    with pytest.raises(ReadError, match=r"the summary of .*pool\.extxyz is not beside it"):
        gather(pool, ReportOptions())


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ({"map_method": "tsne"}, "allowed are pca, umap"),
        ({"max_megabytes": 0.0}, "max_megabytes is 0.0; allowed is > 0"),
        ({"seed": -1}, "seed is -1; allowed is >= 0"),
    ],
)
def test_options_are_checked(wanted: dict[str, object], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        ReportOptions(**wanted)
