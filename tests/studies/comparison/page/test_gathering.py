from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from labelwise.errors import ReadError
from labelwise.pages.document import Choice, Document, Kind
from labelwise.pages.page import render_page
from labelwise.studies.comparison.diagnosis import measure_diagnosis
from labelwise.studies.comparison.inputs import SampleOptions
from labelwise.studies.comparison.page import gather_comparison
from labelwise.studies.comparison.record import read_record
from labelwise.studies.comparison.report import write_report
from tests.studies.comparison.building import make_cell, make_study

CPU = SampleOptions(device="cpu", trust_model=True)


def iter_names(document: Document) -> Iterator[str]:
    for section in document.sections:
        yield section.name
        for panel in section.panels:
            yield panel.name
            if isinstance(panel, Choice):
                yield from (option.name for _, option in panel.options)


def test_a_study_as_a_page(study: Path) -> None:
    document = gather_comparison(study)
    assert document.kind is Kind.COMPARISON
    assert document.title == "A study"
    assert [section.title for section in document.sections] == [
        *("Results", "Learning curves", "Pools", "Test splits", "Committees", "Cost"),
    ]
    names = list(iter_names(document))
    assert len(set(names)) == len(names)
    assert document.notes[:2] == (
        "Model demo; seeds 0, 1; 4 rounds after round 0.",
        "Written by hand.",
    )
    assert document.notes[-1].startswith("No kernels: none were measured")
    assert len(document.sections[0].text) == 3


def test_the_record_may_be_named_itself(study: Path) -> None:
    assert gather_comparison(study / "results.json").title == "A study"


def test_one_pool_and_one_seed(single: Path) -> None:
    document = gather_comparison(single)
    titles = [section.title for section in document.sections]
    assert titles == ["Results", "Learning curves", "Cost"]


def test_kernels_of_a_study_with_data(with_data: Path) -> None:
    measure_diagnosis(read_record(with_data), CPU)
    document = gather_comparison(with_data)
    assert document.sections[-1].title == "Kernels"
    assert len(document.sections[-1].panels) == 5
    assert not any(note.startswith("No ") for note in document.notes)


def test_nothing_finished(tmp_path: Path) -> None:
    cells = [make_cell("p", "random", 0, n_rounds=3, is_finished=False)]
    write_report(tmp_path, cells, title="T", with_pictures=False)
    document = gather_comparison(tmp_path)
    assert "No campaign is finished" in document.sections[0].text[0]
    render_page(document)


def test_hostile_names_reach_the_page_escaped(tmp_path: Path) -> None:
    hostile = "</script><img src=x onerror=alert(1)>"
    cells = make_study(("random", hostile), pools=[hostile, "b"], n_rounds=3)
    write_report(tmp_path, cells, title=hostile, notes=[hostile], with_pictures=False)
    document = gather_comparison(tmp_path)
    names = list(iter_names(document))
    assert len(set(names)) == len(names)
    assert hostile not in render_page(document)


def test_no_study(tmp_path: Path) -> None:
    with pytest.raises(ReadError, match="does not exist"):
        gather_comparison(tmp_path / "nowhere")
