"""What a campaign has cost: labels made and failed, time, updates of the weights."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np

from labelwise.campaign.page.wording import (
    as_float32,
    choose_time_unit,
    is_wide,
)
from labelwise.campaign.pool_map import spread_evenly
from labelwise.campaign.rounds import has_stress_errors, known_or_nan
from labelwise.campaign.saved import SavedCampaign
from labelwise.campaign.state import STAGES
from labelwise.pages.document import Axis, Chart, Choice, Mark, Series, Table, TableColumn
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.reasons import count

#: Rounds whose training is shown.
MOST_HISTORIES = 60
#: Reasons of failures that are told apart.
MOST_REASONS = 6
_ROUND = Axis("round")
_OTHERS = "other reasons"


def make_label_chart(saved: SavedCampaign) -> Chart | None:
    """Return labels made and failed in each round, None if there are none."""
    rows = [(record["round"], "labelled") for record in saved.state.labels.values()]
    failures = saved.state.failures.values()
    common = [reason for reason, _ in Counter(r["failed"] for r in failures).most_common()]
    kept = set(common[:MOST_REASONS])
    rows += [(r["round"], r["failed"] if r["failed"] in kept else _OTHERS) for r in failures]
    if not rows:
        return None
    counts = Counter(rows)
    rounds = range(max(n_round for n_round, _ in rows) + 1)
    names = ["labelled", *common[:MOST_REASONS]]
    names += [_OTHERS] if len(common) > MOST_REASONS else []
    series = tuple(
        Series(
            name if name == "labelled" else f"failed: {clean_text(name, 60)}",
            tuple(map(str, rounds)),
            as_float32([counts[n_round, name] for n_round in rounds]),
        )
        for name in names
    )
    return Chart(
        "labels-by-round",
        "Labels made and failed",
        Mark.STACKED,
        _ROUND,
        Axis("structures"),
        series,
        caption=f"{count(len(saved.state.labels), 'label')} and "
        f"{count(len(failures), 'failure')}; a structure that failed is replaced by the next "
        "candidate.",
    )


def make_time_chart(saved: SavedCampaign) -> Chart | None:
    """Return the time of each stage in each round, None if no stage has run."""
    if not saved.stages:
        return None
    rounds = sorted(saved.stages)
    sums = [sum(stages.values()) for stages in saved.stages.values()]
    unit, seconds = choose_time_unit(sums)
    others = {name for stages in saved.stages.values() for name in stages} - STAGES.keys()
    series = tuple(
        Series(
            name,
            tuple(map(str, rounds)),
            as_float32([saved.stages[r].get(name, 0.0) / seconds for r in rounds]),
        )
        for name in (*STAGES, *sorted(others))
    )
    return Chart(
        "time-by-round",
        "Time of each stage",
        Mark.STACKED,
        _ROUND,
        Axis(f"wall time / {unit}"),
        series,
        caption="Interrupted attempts are counted.",
    )


def make_training_history(saved: SavedCampaign) -> Choice | None:
    """Return loss and validation error during the fine-tuning of each round."""
    found = [item for item in sorted(saved.histories.items()) if item[1].get("history")]
    if not found:
        return None
    kept = [found[place] for place in spread_evenly(len(found), MOST_HISTORIES)]
    options = tuple((f"round {r}", _make_history(r, content)) for r, content in kept)
    return Choice("training", "round", options, first=len(options) - 1)


def _make_history(n_round: int, content: dict[str, Any]) -> Chart:
    records = content["history"]
    updates = np.array([record["updates"] for record in records], dtype=np.int32)
    series = [
        Series(name, updates, as_float32([known_or_nan(record.get(key)) for record in records]))
        for name, key in (("training loss", "train_loss"), ("validation loss", "valid_loss"))
    ]
    series = [each for each in series if np.isfinite(each.y).any()]
    best = content.get("best_epoch")
    places = [i for i, record in enumerate(records) if record["epoch"] == best]
    loss = known_or_nan(records[places[0]].get("valid_loss")) if places else float("nan")
    if places and np.isfinite(loss):
        series.append(Series("kept", updates[places], as_float32([loss]), style=4))
    values = [float(y) for each in series for y in each.y]
    return Chart(
        f"training-{n_round}",
        f"Fine-tuning of round {n_round}",
        Mark.LINES,
        Axis("updates of the weights"),
        Axis("loss", is_log=is_wide(values)),
        tuple(series),
        caption=f"Trained on {count(int(content['n_train']), 'structure')}; the weights of epoch "
        f"{best} were kept.",
    )


def make_round_table(saved: SavedCampaign) -> Table | None:
    """Return labels and errors of each round as a table, None before round 0 is finished."""
    if not saved.rounds:
        return None
    measure, role = saved.config.measure, saved.scored_role
    stress = has_stress_errors(saved.rounds)
    names = [measure.energy_error, "forces_mae", "forces_rmse"]
    names += ["stress_rmse"] if stress else []
    rows = []
    for record in saved.rounds:
        errors = [record.error(name, role) for name in names]
        shown = [None if math.isnan(value) else value for value in errors]
        rows.append((record.n_round, record.n_train, record.n_failed, *shown, record.seconds))
    return Table(
        "rounds",
        "Rounds",
        (
            TableColumn("round"),
            TableColumn("labelled structures"),
            TableColumn("set aside so far"),
            TableColumn(f"energy RMSE / {measure.energy_unit}", 4),
            TableColumn("force MAE / meV/Å", 4),
            TableColumn("force RMSE / meV/Å", 4),
            *((TableColumn("stress RMSE / meV/Å³", 4),) if stress else ()),
            TableColumn("time / s", 3),
        ),
        tuple(rows),
        caption=f"Errors on the {'test' if role == 'test' else 'validation'} set."
        if role
        else "Nothing was measured: there is neither a test nor a validation set.",
    )
