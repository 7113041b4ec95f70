"""Whether the uncertainty that structures are chosen by tells where the model errs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from labelwise.campaign.config import COMMITTEE_RULES
from labelwise.campaign.page.pool_map import MapPoints, name_score
from labelwise.campaign.page.scored import ScoredBatch, ScoredSet
from labelwise.campaign.page.wording import as_float32
from labelwise.campaign.saved import SavedCampaign
from labelwise.finetuning.metrics import root_mean_square, spearman
from labelwise.pages.document import Axis, Chart, Choice, Mark, Series

#: Rounds whose chosen structures have a series of their own.
MOST_SERIES = 10
MOST_BINS = 10
#: Structures that a bin has at least.
LEAST_IN_BIN = 5
_LEAST_FOR_RANKS = 3
_MEV = 1000.0


@dataclass(frozen=True)
class Reliability:
    """Predicted and observed force errors of a set after a round, meV/Å.

    Attributes:
        predicted: Standard deviation under the kernel, times one factor, (n,).
        observed: Root mean square error of each structure's force components, (n,).
        structure: Place among the page's structures, (n,).
    """

    predicted: Float64[np.ndarray, " n"]
    observed: Float64[np.ndarray, " n"]
    structure: np.ndarray

    @property
    def rank_correlation(self) -> float:
        """Spearman's, NaN where it cannot be told."""
        return correlate(self.predicted, self.observed)


def correlate(predicted: np.ndarray, observed: np.ndarray) -> float:
    """Return Spearman's rank correlation where both are known; NaN for fewer than 3 pairs."""
    known = np.isfinite(predicted) & np.isfinite(observed)
    if int(known.sum()) < _LEAST_FOR_RANKS:
        return math.nan
    return spearman(predicted[known], observed[known])


def make_score_chart(saved: SavedCampaign, batches: Sequence[ScoredBatch]) -> Chart | None:
    """Return scores at the time of choice against the errors that labels then showed.

    Returns:
        None if the rule has no score, or nothing chosen was labelled.
    """
    rule = saved.config.selection.rule
    if rule == "random" or not batches:
        return None
    is_energy, is_deviation = rule == "committee-e", rule in COMMITTEE_RULES
    scale = _MEV if is_deviation else 1.0
    scores = [scale * np.array([each.score for each in batch.candidates]) for batch in batches]
    observed = [np.abs(b.errors.energy) if is_energy else b.errors.forces for b in batches]
    unit = "meV" if is_energy else "meV Å⁻¹"
    what = "absolute energy error" if is_energy else "force RMSE"
    label = f"deviation of the committee / {unit}" if is_deviation else name_score(saved)
    return Chart(
        "score-against-error",
        "Score when chosen, and the error that the label showed",
        Mark.POINTS,
        Axis(label),
        Axis(f"{what} of the model before / {unit}"),
        tuple(_merge_rounds(batches, scores, observed)),
        diagonal=is_deviation,
        caption=_caption_scores(batches, scores, observed),
    )


def _merge_rounds(
    batches: Sequence[ScoredBatch], scores: Sequence[np.ndarray], observed: Sequence[np.ndarray]
) -> Iterator[Series]:
    """Yield a series for each round, or of several rounds where there are many."""
    groups = np.array_split(np.arange(len(batches)), min(MOST_SERIES, len(batches)))
    for style, idx in enumerate(members.tolist() for members in groups):
        first, last = batches[idx[0]].n_round, batches[idx[-1]].n_round
        yield Series(
            f"round {first}" if first == last else f"rounds {first} to {last}",
            as_float32(np.concatenate([scores[i] for i in idx])),
            as_float32(np.concatenate([observed[i] for i in idx])),
            style=style,
            structure=np.concatenate([batches[i].structure for i in idx]),
        )


def _caption_scores(
    batches: Sequence[ScoredBatch], scores: Sequence[np.ndarray], observed: Sequence[np.ndarray]
) -> str:
    overall = correlate(np.concatenate(scores), np.concatenate(observed))
    within = [correlate(x, y) for x, y in zip(scores, observed, strict=True)]
    known = [value for value in within if math.isfinite(value)]
    mean = f" and {np.mean(known):.2f} on average within a round" if known else ""
    first = (
        "Each point is a chosen structure; its error is that of the model of the round before, "
        "which had not seen it."
    )
    words = [
        first,
        f"Spearman's ρ is {overall:.2f} over all{mean}." if math.isfinite(overall) else "",
        "Scores of one batch are not independent: each was computed given the picks before it.",
    ]
    if len(batches) == 1:
        words.append("One round says little.")
    return " ".join(filter(None, words))


def judge_rounds(
    points: MapPoints,
    scored: ScoredSet,
    calibration: ScoredSet | None,
    batches: Sequence[ScoredBatch],
) -> dict[int, tuple[Reliability, Reliability | None, bool]]:
    """Hold posterior standard deviations against errors, after each round that is shown.

    σ²(x) is the posterior variance under the map's kernel given all that was labelled up
    to the round. One factor makes meV/Å of σ: that by which the mean of (error/σ)² over the
    calibration set becomes one.

    Args:
        points: What was measured under the kernel; rounds that it does not tell of are left out.
        scored: The held-out set that is shown.
        calibration: Another one, for the factor; the shown set itself if None.
        batches: What rounds chose.

    Returns:
        Round to what is shown of the held-out set, of what the next round chose (None if
        nothing), and whether the factor comes from another set.
    """
    found = {}
    by_round = {batch.n_round: batch for batch in batches}
    for place, n_round in enumerate(scored.rounds):
        sigma = _deviations(points, scored, n_round)
        if sigma is None:
            continue
        factor, is_apart = math.nan, False
        if calibration is not None and n_round in calibration.rounds:
            other = calibration.errors[calibration.rounds.index(n_round)].forces
            factor = _fit_factor(_deviations(points, calibration, n_round), other)
            is_apart = math.isfinite(factor)
        observed = scored.errors[place].forces
        if not is_apart:
            factor = _fit_factor(sigma, observed)
        if not math.isfinite(factor):
            continue
        shown = Reliability(factor * sigma, observed, scored.structure)
        batch = by_round.get(n_round + 1)
        chosen = None if batch is None else _judge_batch(points, batch, n_round, factor)
        found[n_round] = (shown, chosen, is_apart)
    return found


def _deviations(
    points: MapPoints, scored: ScoredSet, n_round: int
) -> Float64[np.ndarray, " n"] | None:
    """Return σ of a held-out set, NaN where a structure has no features; None if not measured."""
    sigma = points.data.deviations.get((scored.labelled.role, n_round))
    places = [frame.index for frame in scored.labelled.frames]
    if sigma is None or max(places) >= len(sigma):
        return None
    found: Float64[np.ndarray, " n"] = sigma[places]
    return found


def _fit_factor(sigma: np.ndarray | None, errors: np.ndarray) -> float:
    """Return the factor that makes the mean of (error / σ)² one; NaN if there is none."""
    if sigma is None:
        return math.nan
    known = np.isfinite(sigma) & np.isfinite(errors) & (sigma > 0)
    factor = root_mean_square(errors[known] / sigma[known]) if known.any() else 0.0
    return factor if factor > 0 else math.nan


def _judge_batch(
    points: MapPoints, batch: ScoredBatch, n_round: int, factor: float
) -> Reliability | None:
    places = np.array([points.place.get(each.source, -1) for each in batch.candidates])
    sigma = points.data.deviations["points", n_round][places]
    known = np.flatnonzero((places >= 0) & np.isfinite(sigma))
    if len(known) == 0:
        return None
    return Reliability(factor * sigma[known], batch.errors.forces[known], batch.structure[known])


def make_trust_charts(
    judged: dict[int, tuple[Reliability, Reliability | None, bool]], title: str
) -> tuple[Choice | Chart, ...]:
    """Return predicted against observed errors by round, and their reliability."""
    if not judged:
        return ()
    options = tuple(
        (f"after round {n_round}", _trust_chart(n_round, *found, title))
        for n_round, found in judged.items()
    )
    lines = [
        (n_round, bin_reliability(judged[n_round][0]))
        for n_round in dict.fromkeys((min(judged), max(judged)))
    ]
    series = tuple(
        Series(f"after round {n_round}", as_float32(binned[0]), as_float32(binned[1]))
        for n_round, binned in lines
        if len(binned[0]) > 1
    )
    choice = Choice("predicted-error", "model", options, first=len(options) - 1)
    if not series:
        return (choice,)
    reliability = Chart(
        "reliability",
        "Reliability of predicted force errors",
        Mark.LINES,
        Axis("predicted force RMSE / meV Å⁻¹"),
        Axis("observed force RMSE / meV Å⁻¹"),
        series,
        diagonal=True,
        caption=f"The {title}, sorted by predicted error and cut into bins of equal count; on "
        "the diagonal, errors are as large as predicted. A flat line says that the kernel does "
        "not tell large errors from small ones.",
    )
    return choice, reliability


def _trust_chart(
    n_round: int, shown: Reliability, chosen: Reliability | None, is_apart: bool, title: str
) -> Chart:
    series = [_points(title, shown, 0)]
    if chosen is not None:
        series.append(_points(f"chosen in round {n_round + 1}", chosen, 1))
    rho = shown.rank_correlation
    words = [
        f"Spearman's ρ is {rho:.2f} on the {title}." if math.isfinite(rho) else "",
        "Predicted: the standard deviation given all labels so far, under the kernel of the "
        "map, times one factor fitted on the "
        + ("validation set." if is_apart else "same structures, for want of others."),
    ]
    return Chart(
        f"predicted-error-{n_round}",
        f"Predicted and observed force errors after round {n_round}",
        Mark.POINTS,
        Axis("predicted force RMSE / meV Å⁻¹"),
        Axis("observed force RMSE / meV Å⁻¹"),
        tuple(series),
        diagonal=True,
        caption=" ".join(filter(None, words)),
    )


def _points(name: str, found: Reliability, style: int) -> Series:
    return Series(
        name,
        as_float32(found.predicted),
        as_float32(found.observed),
        style=style,
        structure=found.structure,
    )


def bin_reliability(
    found: Reliability,
) -> tuple[Float64[np.ndarray, " b"], Float64[np.ndarray, " b"]]:
    """Return root mean square predicted and observed errors of bins of equal count, (b,) each."""
    known = np.isfinite(found.predicted) & np.isfinite(found.observed)
    predicted, observed = found.predicted[known], found.observed[known]
    n_bins = max(1, min(MOST_BINS, len(predicted) // LEAST_IN_BIN))
    bins = np.array_split(np.argsort(predicted, kind="stable"), n_bins)
    return (
        np.array([root_mean_square(predicted[members]) for members in bins], dtype=np.float64),
        np.array([root_mean_square(observed[members]) for members in bins], dtype=np.float64),
    )
