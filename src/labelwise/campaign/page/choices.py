"""What was chosen in each round, and what could not be labelled."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ase.symbols import Symbols

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.outcomes import Candidate
from labelwise.campaign.page.pool_map import MAP_NAME, MapPoints, name_score
from labelwise.campaign.page.scored import ScoredBatch, name_of
from labelwise.campaign.saved import SavedCampaign
from labelwise.campaign.state import PICKS, RANK_CORRELATION
from labelwise.pages.document import Cell, Choice, Table, TableColumn
from labelwise.selection.page.pool_columns import clean_text

#: Rounds whose choices are listed one by one, and structures of a table.
MOST_ROUNDS = 100
MOST_ROWS = 2_000
_FATES = {"labelled": "labelled", "failed": "failed", "waiting": "waits for its label"}


def make_choice_tables(
    saved: SavedCampaign, batches: Sequence[ScoredBatch], on_map: MapPoints | None
) -> Choice | None:
    """Return what each round chose, with the errors of the model before; None if nothing."""
    errors = {each.key: pair for batch in batches for each, pair in batch.pairs()}
    listed: dict[int, list[Candidate]] = {}
    for each in saved.candidates:
        if each.fate != "reserve":
            listed.setdefault(each.n_round, []).append(each)
    options = tuple(
        (f"round {n_round}", _choice_table(saved, n_round, found, errors, on_map))
        for n_round, found in sorted(listed.items())[-MOST_ROUNDS:]
    )
    return Choice("choices", "round", options, first=len(options) - 1) if options else None


def _choice_table(
    saved: SavedCampaign,
    n_round: int,
    candidates: Sequence[Candidate],
    errors: dict[str, tuple[float, float]],
    on_map: MapPoints | None,
) -> Table:
    has_score = saved.config.selection.rule != "random" and n_round > 0
    shown = list(candidates)[:MOST_ROWS]
    rows = []
    for each in shown:
        energy, forces = errors.get(each.key, (math.nan, math.nan))
        row: list[Cell] = [each.rank, each.role, name_of(each.source), _formula(saved, each)]
        row += [each.score] if has_score else []
        row += [_known(abs(energy)), _known(forces), _FATES[each.fate]]
        rows.append(tuple(row))
    columns = [TableColumn("rank"), TableColumn("for"), TableColumn("structure")]
    columns.append(TableColumn("formula"))
    columns += [TableColumn("score", 4)] if has_score else []
    columns += [
        TableColumn("energy error / meV/atom", 3),
        TableColumn("force RMSE / meV/Å", 3),
        TableColumn("label"),
    ]
    points: tuple[int, ...] = ()
    if on_map is not None:
        points = tuple(on_map.place.get(each.source, -1) for each in shown)
    return Table(
        f"choices-{n_round}",
        f"Chosen in round {n_round}",
        tuple(columns),
        tuple(rows),
        points=points,
        map_name=MAP_NAME if on_map is not None else "",
        caption=_write_caption(saved, n_round, len(candidates)),
    )


def _formula(saved: SavedCampaign, each: Candidate) -> str:
    """Return the formula of a structure whose label or failure is known."""
    state = saved.state
    record = state.labels.get(each.key) or state.failures.get(each.key)
    if record is None:
        return ""
    return str(Symbols(record["structure"]["numbers"]).get_chemical_formula())


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _write_caption(saved: SavedCampaign, n_round: int, n: int) -> str:
    words = ["Rank 0 was chosen first."]
    if n_round > 0:
        words.append(f"Errors are those of the model of round {n_round - 1}.")
        if saved.config.selection.rule != "random":
            words.append(f"Score: {name_score(saved)}.")
    if n > MOST_ROWS:
        words.append(f"The first {MOST_ROWS:,} of {n:,}.")
    path = saved.state.round_folder(n_round) / PICKS
    found: dict[str, Any] = read_json(path) if path.exists() else {}
    for name, value in found.get(RANK_CORRELATION, {}).items():
        if value is not None:
            words.append(
                f"Over the whole pool, the committee's deviation of {name} and the true error "
                f"have a rank correlation of {value:.2f}."
            )
    return " ".join(words)


def make_failure_table(saved: SavedCampaign, on_map: MapPoints | None) -> Table | None:
    """Return which structures could not be labelled and why; None if there are none."""
    failures = list(saved.state.failures.values())[:MOST_ROWS]
    if not failures:
        return None
    by_key = {each.key: each for each in saved.candidates}
    rows, points = [], []
    for record in failures:
        candidate = by_key.get(record["key"])
        file, frame = record["source"]
        seconds = saved.seconds.get(record["key"])
        rows.append(
            (
                int(record["round"]),
                clean_text(f"{file}@{frame}", 200),
                clean_text(str(record["failed"])),
                clean_text(str(record.get("detail", "")), 300),
                seconds,
            )
        )
        place = (
            -1 if on_map is None or candidate is None else on_map.place.get(candidate.source, -1)
        )
        points.append(place)
    names = ("round", "structure", "reason", "detail")
    return Table(
        "failures",
        "Structures without a label",
        (*(TableColumn(name) for name in names), TableColumn("time / s", 3)),
        tuple(rows),
        points=tuple(points) if on_map is not None else (),
        map_name=MAP_NAME if on_map is not None else "",
        caption="They are not chosen again unless the campaign is run with --retry-failed.",
    )
