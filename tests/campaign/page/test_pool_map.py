from __future__ import annotations

import numpy as np

from labelwise.campaign.saved import SavedCampaign
from labelwise.pages.document import CategoryColumn, Document, NumberColumn, Role
from tests.campaign.page.reading import panel

ROLES = list(Role)


def test_rounds_and_roles_are_those_of_the_records(
    document: Document, saved: SavedCampaign
) -> None:
    found = panel(document, "campaign-map")
    place = {
        (found.files[f], frame): i
        for i, (f, frame) in enumerate(zip(found.file.tolist(), found.frame.tolist(), strict=True))
    }
    for each in saved.candidates:
        point = place[each.source.file, each.source.frame]
        if each.fate == "labelled":
            assert found.rounds[point] == each.n_round
            assert ROLES[found.roles[point]] is Role.CHOSEN
        elif each.fate == "failed":
            assert found.rounds[point] == -1
            assert ROLES[found.roles[point]] is Role.SCREENED
    given = [i for i, f in enumerate(found.file.tolist()) if "train" in found.files[f]]
    assert len(given) == 4
    assert (found.rounds[given] == 0).all()
    assert len(found.x) == 4 + 24
    assert np.isfinite(found.x).all()


def test_neighbours_were_labelled_before(document: Document) -> None:
    found = panel(document, "campaign-map")
    rounds, neighbour = found.rounds, found.neighbour
    assert (neighbour[rounds == 0] == -1).all()
    chosen = rounds > 0
    assert (neighbour[chosen] >= 0).all()
    assert (rounds[neighbour[chosen]] < rounds[chosen]).all()
    others = rounds < 0
    assert (rounds[neighbour[others]] >= 0).all()


def test_columns_and_notes(document: Document, saved: SavedCampaign) -> None:
    found = panel(document, "campaign-map")
    columns = {column.name: column for column in found.columns}
    assert {"fate", "round", "posterior variance", "family", "image", "composition"} <= set(columns)
    fate = columns["fate"]
    assert isinstance(fate, CategoryColumn)
    assert set(fate.categories) == {"pool", "given", "chosen", "failed"}
    error = columns["force RMSE when chosen"]
    assert isinstance(error, NumberColumn)
    assert np.isfinite(error.values).sum() == len(saved.state.labels)
    notes = {note.point: dict(note.lines) for note in found.notes}
    assert len(notes) == len(saved.state.labels) + len(saved.state.failures)
    failed = [lines["failed"] for lines in notes.values() if "failed" in lines]
    assert len(failed) == len(saved.state.failures)
    assert all(text.startswith("no-label: ") for text in failed)


def test_rows_of_tables_point_at_the_map(document: Document, saved: SavedCampaign) -> None:
    found = panel(document, "campaign-map")
    for name in ("choices-1", "failures"):
        table = panel(document, name)
        assert table.map_name == found.name
        for row, point in zip(table.rows, table.points, strict=True):
            shown = f"{found.files[found.file[point]]}@{found.frame[point]}"
            assert shown in row
    assert len(panel(document, "failures").rows) == len(saved.state.failures)


def test_pages_number_choices_as_the_files_do(document: Document, saved: SavedCampaign) -> None:
    """The first choice has rank 0 in batch.extxyz, in the table and at its point of the map."""
    rows = panel(document, "choices-1").rows
    ranks = [each.rank for each in saved.candidates if each.n_round == 1]
    assert [row[0] for row in rows] == ranks == list(range(len(rows)))
    table, found = panel(document, "choices-1"), panel(document, "campaign-map")
    notes = {note.point: dict(note.lines) for note in found.notes}
    for row, point in zip(table.rows, table.points, strict=True):
        assert notes[point]["chosen"].startswith(f"round 1, rank {row[0]}, ")
