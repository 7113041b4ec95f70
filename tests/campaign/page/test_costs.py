from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from labelwise.campaign.page import costs
from labelwise.campaign.page.costs import (
    make_label_chart,
    make_round_table,
    make_time_chart,
    make_training_history,
)
from labelwise.campaign.saved import SavedCampaign
from tests.campaign.page.reading import series


def test_labels_and_failures_of_each_round(saved: SavedCampaign) -> None:
    chart = make_label_chart(saved)
    assert chart is not None
    assert series(chart, "labelled").y.tolist() == [0.0, 4.0, 4.0]
    failed = Counter(record["round"] for record in saved.state.failures.values())
    assert series(chart, "failed: no-label").y.tolist() == [failed[r] for r in range(3)]


def test_rare_reasons_are_counted_together(
    saved: SavedCampaign, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(costs, "MOST_REASONS", 1)
    keys = list(saved.state.failures)
    changed = {k: {**r, "failed": "no-label" if k != keys[0] else "too-large"}
               for k, r in saved.state.failures.items()}  # fmt: skip
    chart = make_label_chart(replace(saved, state=replace(saved.state, failures=changed)))
    assert chart is not None
    total = sum(each.y.sum() for each in chart.series)
    assert total == len(saved.state.labels) + len(keys)
    assert series(chart, "failed: other reasons").y.sum() == 1


def test_times_are_those_of_the_rounds(saved: SavedCampaign) -> None:
    chart = make_time_chart(saved)
    assert chart is not None
    assert chart.y.label == "wall time / s"
    recorded = [record.stages["finetune"]["seconds"] for record in saved.state.rounds]
    assert series(chart, "finetune").y == pytest.approx(recorded)


def test_histories(saved: SavedCampaign) -> None:
    choice = make_training_history(saved)
    assert choice is not None
    assert [name for name, _ in choice.options] == ["round 0", "round 1", "round 2"]
    chart = choice.options[2][1]
    history = saved.histories[2]["history"]
    line = series(chart, "validation loss")
    assert line.x.tolist() == [record["updates"] for record in history]
    known = [record["valid_loss"] for record in history]
    assert line.y == pytest.approx(known, rel=1e-6)
    assert np.asarray(series(chart, "kept").y)[0] == pytest.approx(min(known), rel=1e-5)


def test_errors_of_each_round_are_listed(saved: SavedCampaign) -> None:
    table = make_round_table(saved)
    assert table is not None
    assert [row[:2] for row in table.rows] == [(0, 4), (1, 8), (2, 12)]
    assert table.rows[-1][-2] == saved.rounds[-1].errors["test"]["forces_rmse"]


def test_nothing_to_show(saved: SavedCampaign) -> None:
    state = replace(saved.state, rounds=(), labels={}, failures={})
    empty = replace(saved, state=state, stages={}, histories={})
    assert make_label_chart(empty) is None
    assert make_time_chart(empty) is None
    assert make_training_history(empty) is None
    assert make_round_table(empty) is None
