from __future__ import annotations

import math

import numpy as np
import pytest

from labelwise.campaign.page.calibration import Reliability, bin_reliability, correlate
from labelwise.campaign.saved import SavedCampaign
from labelwise.finetuning.metrics import root_mean_square
from labelwise.pages.document import Document
from labelwise.selection.rules.base import DEFAULT_REGULARISATION
from tests.campaign.page.reading import panel, series


def make_reliability(predicted: np.ndarray, observed: np.ndarray) -> Reliability:
    return Reliability(predicted, observed, np.full(len(predicted), -1, dtype=np.int32))


def test_bins_have_equal_counts_and_keep_the_squares(rng: np.random.Generator) -> None:
    predicted = rng.uniform(1.0, 2.0, size=100)
    observed = rng.uniform(1.0, 2.0, size=100)
    x, y = bin_reliability(make_reliability(predicted, observed))
    assert len(x) == 10
    assert (np.diff(x) > 0).all()
    assert root_mean_square(y) == pytest.approx(root_mean_square(observed))
    few, _ = bin_reliability(make_reliability(predicted[:7], observed[:7]))
    assert len(few) == 1
    observed[:3] = np.nan
    x, _ = bin_reliability(make_reliability(predicted, observed))
    assert np.isfinite(x).all()


def test_rank_correlations_need_three_known_pairs() -> None:
    assert correlate(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 9.0])) == 1.0
    assert math.isnan(correlate(np.array([1.0, 2.0]), np.array([2.0, 4.0])))
    assert math.isnan(correlate(np.array([1.0, 2.0, np.nan]), np.array([2.0, 4.0, 1.0])))
    assert math.isnan(correlate(np.ones(3), np.array([2.0, 4.0, 1.0])))


def test_scores_are_those_of_the_time_of_choice(document: Document, saved: SavedCampaign) -> None:
    chart = panel(document, "score-against-error")
    for n_round in (1, 2):
        chosen = [each for each in saved.candidates if each.n_round == n_round]
        scores = [each.score for each in chosen if each.fate == "labelled"]
        assert np.asarray(series(chart, f"round {n_round}").x) == pytest.approx(scores, rel=1e-6)
        table = panel(document, f"choices-{n_round}")
        errors = [row[6] for row in table.rows if row[7] == "labelled"]
        assert series(chart, f"round {n_round}").y == pytest.approx(errors, rel=1e-5)


def test_predicted_errors_are_as_large_as_those_of_the_validation_set(
    document: Document,
) -> None:
    """The factor comes from the validation set; both sets are alike here."""
    chart = panel(document, "predicted-error-2")
    points = series(chart, "test set")
    ratio = np.asarray(points.y) / np.asarray(points.x)
    assert 0.2 < root_mean_square(ratio) < 5.0
    assert "fitted on the validation set" in chart.caption
    assert [each.name for each in panel(document, "predicted-error-1").series] == [
        "test set", "chosen in round 2",
    ]  # fmt: skip
    assert len(chart.series) == 1  # nothing was chosen after the last round


def test_labelled_structures_are_known_up_to_the_noise(document: Document) -> None:
    pool_map = panel(document, "campaign-map")
    variance = next(c for c in pool_map.columns if c.name == "posterior variance").values
    labelled = pool_map.rounds >= 0
    assert variance[labelled].max() < DEFAULT_REGULARISATION
    assert variance[~labelled].max() > variance[labelled].max()
