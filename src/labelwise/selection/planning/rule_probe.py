"""How fast a rule chooses: small runs of the rule itself, on rows like those of the pool."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float32, Int64

from labelwise.kernels.base import LinearKernel
from labelwise.selection.rules import select_batch, shortlist_by_variance

_SIZES = (1250, 5000, 20000)
_MOST_BYTES = 2**27
_MOST_TRAIN = 500
_PICKS = {"lcmd": 50, "k-center": 50, "pv": 100}
_PASS_ROWS, _PASS_WIDTH = 8192, 512
_PASS_PART = 0.2
_NOISE = 0.1
_MOST_IMITATED, _N_NEAR = 2000, 5


@dataclass(frozen=True)
class RuleRates:
    """What a rule took, in the sizes that its time goes with.

    n are the structures to choose from, m the labelled ones, d the width of a row.

    Attributes:
        pass_s_per_unit: Seconds of a pass of posterior variances, by n · d · min(m, d).
        assign_s_per_unit: Seconds until the first pick, by n · d · m.
        pick_s: Seconds of a pick, the part that does not grow with n.
        pick_s_per_row: Seconds of a pick, by n.
        n_rows: Rows of the largest run.
    """

    pass_s_per_unit: float = 0.0
    assign_s_per_unit: float = 0.0
    pick_s: float = 0.0
    pick_s_per_row: float = 0.0
    n_rows: int = 0


def probe_rule(
    rule: str,
    sample: Float32[np.ndarray, "s d"],
    *,
    n_pool: int,
    n_train: int,
    seconds: float,
    seed: int = 0,
) -> RuleRates:
    """Run a rule, and a pass of posterior variances, on rows that resemble a sample.

    Args:
        rule: A rule that takes kernels.
        sample: Normalised rows of the pool, d >= 1.
        n_pool: Structures that the rule will choose from: larger runs are not tried.
        n_train: Labelled structures.
        seconds: How long to take, about.
        seed: Of the rows.

    Raises:
        ArgumentError: An unknown rule.
    """
    width = sample.shape[1]
    if width == 0:
        return RuleRates()
    generator = np.random.default_rng(seed)
    per_unit = _time_pass(imitate_rows(sample, _PASS_ROWS, generator), n_train, seconds)
    if rule not in _PICKS or n_pool < 2:
        return RuleRates(pass_s_per_unit=per_unit)
    deadline = time.perf_counter() + (1.0 - _PASS_PART) * seconds
    most = max(2, min(n_pool, _MOST_BYTES // (4 * width)))
    points: list[tuple[int, float, float]] = []
    for n in sorted({min(size, most) for size in _SIZES}):
        left = deadline - time.perf_counter()
        if points and left < n / points[-1][0] * _spent(points[-1]):
            break
        points.append(_time_rule(rule, sample, n, n_train, generator))
    n, first_s, _ = points[-1]
    fixed, per_row = fit_line([(n, pick_s) for n, _, pick_s in points])
    m = max(1, min(n_train, _MOST_TRAIN))
    return RuleRates(per_unit, first_s / (n * m * width), fixed, per_row, n)


def fit_line(points: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Return (a, b), both >= 0, of seconds = a + b n through the last two points.

    Args:
        points: (n, seconds) by rising n, at least one; a single one gives a = 0.
    """
    n, seconds = points[-1]
    if len(points) > 1:
        n_before, before = points[-2]
        slope = (seconds - before) / (n - n_before)
        fixed = seconds - slope * n
        if slope >= 0.0 and fixed >= 0.0:
            return fixed, slope
    return 0.0, seconds / n


def imitate_rows(
    sample: Float32[np.ndarray, "s d"], n: int, generator: np.random.Generator
) -> Float32[np.ndarray, "n d"]:
    """Make rows that lie as those of a sample do: part of the way from one to a near one.

    The distance rules spare work where rows lie along paths or in clusters: their time depends
    by a factor of up to six on how the rows lie. On rows made so it came within a factor of two
    of that on the rows imitated, noise and paths.

    Args:
        sample: Rows to imitate, the first 2,000 of them; with fewer than two, rows of noise are
            made.
        n: Rows to make.
        generator: Of chance.

    Returns:
        Rows of norm one.
    """
    sample = sample[:_MOST_IMITATED]
    size, width = sample.shape
    rows = generator.standard_normal((n, width), dtype=np.float32)
    if size > 1:
        start = generator.integers(size, size=n)
        near = _nearest_in(sample)
        end = near[start, generator.integers(near.shape[1], size=n)]
        step = sample[end]
        step -= sample[start]
        step *= generator.uniform(0.0, 1.0, size=(n, 1)).astype(np.float32)
        rows *= np.linalg.norm(step, axis=1, keepdims=True) * np.float32(_NOISE / width**0.5)
        rows += step
        rows += sample[start]
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), np.float32(1e-12))
    return rows


def _nearest_in(sample: Float32[np.ndarray, "s d"]) -> Int64[np.ndarray, "s k"]:
    """Return the few rows nearest to each of a sample's."""
    rows = torch.from_numpy(sample)
    products = rows @ rows.T
    products.fill_diagonal_(-torch.inf)
    near: Int64[np.ndarray, "s k"]
    near = torch.topk(products, min(_N_NEAR, len(sample) - 1), dim=1).indices.numpy()
    return near


def _kernels(rows: Float32[np.ndarray, "r d"], n: int) -> tuple[LinearKernel, LinearKernel]:
    """Return the kernels of the first n rows, the pool, and of the others, labelled."""
    return (
        LinearKernel(rows[:n], normalise="none"),
        LinearKernel(rows[n:], normalise="none"),
    )


def _time_pass(rows: Float32[np.ndarray, "n d"], n_train: int, seconds: float) -> float:
    """Return the seconds of a pass, by n · d · min(m, d), from one on fewer columns."""
    width: int = min(rows.shape[1], _PASS_WIDTH)
    m: int = min(n_train, rows.shape[1]) * width // rows.shape[1]
    n_pool = len(rows) - m
    pool, train = _kernels(np.ascontiguousarray(rows[:, :width]), n_pool)
    times: list[float] = []
    deadline = time.perf_counter() + _PASS_PART * seconds
    while not times or time.perf_counter() + times[-1] < deadline:
        began = time.perf_counter()
        shortlist_by_variance(pool, train, max(1, n_pool // 4))
        times.append(time.perf_counter() - began)
    median = float(np.median(times))
    return median / (n_pool * width * max(1, m))


def _time_rule(
    rule: str,
    sample: Float32[np.ndarray, "s d"],
    n: int,
    n_train: int,
    generator: np.random.Generator,
) -> tuple[int, float, float]:
    """Return n, the seconds up to the first pick, and the seconds of a pick after it."""
    rows = imitate_rows(sample, n + min(n_train, _MOST_TRAIN), generator)
    pool, train = _kernels(rows, n)
    n_picks = min(_PICKS[rule], n - 1)
    began = time.perf_counter()
    select_batch(rule, pool, train, 1)
    middle = time.perf_counter()
    select_batch(rule, pool, train, 1 + n_picks)
    first_s = middle - began
    pick_s = max(0.0, time.perf_counter() - middle - first_s) / n_picks
    return n, first_s, pick_s


def _spent(point: tuple[int, float, float]) -> float:
    """Return about what a run took, the making of its rows included."""
    _, first_s, pick_s = point
    return 2.0 * first_s + max(_PICKS.values()) * pick_s
