"""Numbers of kernel matrices, held against scikit-learn, SciPy and loops."""

from __future__ import annotations

import itertools
import math
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import squareform
from scipy.stats import spearmanr

from labelwise.errors import ArgumentError
from labelwise.studies.diagnostics.geometry import (
    centred_alignment,
    effective_rank,
    family_alignment,
    kernel_distances,
    mean_by_family,
    measure_geometry,
    neighbour_hits,
    path_correlations,
    silhouettes,
)


def make_kernel(seed: int, n: int = 24, n_families: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Return a kernel of unit rows near the centres of families, and the families."""
    rng = np.random.default_rng(seed)
    family = np.sort(np.concatenate([np.arange(n_families), rng.integers(0, n_families, n)]))
    family = family[:n] if len(np.unique(family[:n])) == n_families else family
    rows = rng.normal(size=(n_families, 5))[family] + 0.7 * rng.normal(size=(len(family), 5))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T, family.astype(np.int64)


@pytest.fixture(params=[0, 1, 2])
def kernel(request: pytest.FixtureRequest) -> tuple[np.ndarray, np.ndarray]:
    return make_kernel(request.param)


def test_distances_are_those_between_rows(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(7, 3))
    rows[4] = rows[2]
    wanted = np.linalg.norm(rows[:, None] - rows[None, :], axis=2)
    distance = kernel_distances(rows @ rows.T)
    np.testing.assert_allclose(distance, wanted, atol=1e-7)
    assert distance[2, 4] == 0.0
    assert not np.diag(distance).any()


def test_means_by_family_are_those_of_a_loop(kernel) -> None:
    K, family = kernel
    table = mean_by_family(K, family)
    for a, b in itertools.product(range(3), repeat=2):
        pairs = [
            K[i, j]
            for i, j in itertools.permutations(range(len(K)), 2)
            if family[i] == a and family[j] == b
        ]
        np.testing.assert_allclose(table[a, b], np.mean(pairs) if pairs else np.nan)


def test_silhouettes_are_those_of_scikit_learn(kernel) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    K, family = kernel
    distance = kernel_distances(K)
    ours = silhouettes(distance, family)
    theirs = metrics.silhouette_samples(distance, family, metric="precomputed")
    np.testing.assert_allclose(ours, theirs, atol=1e-12)
    score = metrics.silhouette_score(distance, family, metric="precomputed")
    assert measure_geometry(K, family).silhouette == pytest.approx(score)


def test_family_of_one_has_no_silhouette() -> None:
    distance = squareform([1.0, 4.0, 4.0])
    np.testing.assert_allclose(silhouettes(distance, np.array([0, 0, 1])), [0.75, 0.75, 0.0])


def test_neighbours_are_those_of_scikit_learn(kernel) -> None:
    neighbours = pytest.importorskip("sklearn.neighbors")
    K, family = kernel
    distance = kernel_distances(K)
    found = neighbours.NearestNeighbors(n_neighbors=1, metric="precomputed").fit(distance)
    nearest = found.kneighbors(return_distance=False)[:, 0]  # of the others: nothing was given
    hits = neighbour_hits(distance, family)
    np.testing.assert_array_equal(hits, family[nearest] == family)
    assert measure_geometry(K, family).neighbour_accuracy == pytest.approx(hits.mean())


def test_neighbours_that_are_equally_near_share_the_hit() -> None:
    distance = np.ones((4, 4)) - np.eye(4)
    hits = neighbour_hits(distance, np.array([0, 0, 1, 1]))
    np.testing.assert_allclose(hits, 1 / 3)


def test_path_correlation_is_that_of_scipy(kernel, rng: np.random.Generator) -> None:
    K, family = kernel
    distance = kernel_distances(K)
    order = rng.integers(0, 6, len(K)).astype(np.float64)  # with ties
    found = path_correlations(distance, family, order)
    for i in range(3):
        own = np.flatnonzero(family == i)
        pairs = list(itertools.combinations(own, 2))
        along = [abs(order[a] - order[b]) for a, b in pairs]
        wanted = spearmanr([distance[a, b] for a, b in pairs], along).statistic
        assert found[i] == pytest.approx(wanted)
    assert measure_geometry(K, family, order=order).path_correlation == pytest.approx(found.mean())


def test_path_is_resolved_by_a_line_and_not_by_a_point() -> None:
    place = np.array([0.0, 1.0, 3.0, 0.0, 1.0, 3.0])
    family = np.array([0, 0, 0, 1, 1, 1])
    rows = np.stack([np.where(family == 0, place, 9.0), family], axis=1)
    found = path_correlations(kernel_distances(rows @ rows.T), family, place)
    np.testing.assert_allclose(found, [1.0, 0.0])


def test_path_of_two_structures_or_of_one_place_is_unknown() -> None:
    distance = squareform(np.arange(1.0, 11.0))
    family = np.array([0, 0, 1, 1, 1])
    assert np.isnan(path_correlations(distance, family, np.array([0.0, 1, 2, 2, 2]))).all()


def test_alignment_by_hand() -> None:
    """Cortes et al.: centre both, then the cosine of the matrices."""
    K = np.array([[2.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.5, 3.0]])
    L = np.array([[1.0, 0.2, 0.1], [0.2, 1.0, 0.9], [0.1, 0.9, 1.0]])
    H = np.eye(3) - 1 / 3
    first, second = H @ K @ H, H @ L @ H
    wanted = np.trace(first @ second) / math.sqrt(
        np.trace(first @ first) * np.trace(second @ second)
    )
    assert centred_alignment(K, L) == pytest.approx(wanted)


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100.0), offset=st.floats(-5.0, 5.0))
def test_alignment_knows_neither_scale_nor_offset(seed: int, scale: float, offset: float) -> None:
    K, _ = make_kernel(seed, n=8)
    L, _ = make_kernel(seed + 1, n=len(K))
    L = L[: len(K), : len(K)]
    K = K[: len(L), : len(L)]
    value = centred_alignment(K, L)
    assert -1e-9 <= value <= 1.0 + 1e-9
    assert centred_alignment(L, K) == pytest.approx(value)
    assert centred_alignment(scale * K + offset, L) == pytest.approx(value, abs=1e-7)
    assert centred_alignment(K, K) == pytest.approx(1.0)


def test_kernel_of_families_alone_is_aligned_fully() -> None:
    family = np.array([0, 0, 1, 2, 2])
    K = 0.3 + 0.5 * (family[:, None] == family[None, :])
    assert family_alignment(K, family) == pytest.approx(1.0)
    assert math.isnan(family_alignment(np.ones((5, 5)), family))
    assert math.isnan(family_alignment(K, np.zeros(5, dtype=np.int64)))


def test_effective_rank_of_known_spectra() -> None:
    simplex = np.eye(5)  # five corners, all as far: n − 1 equal directions
    assert effective_rank(simplex) == pytest.approx(4.0)
    line = np.arange(6.0)[:, None]
    assert effective_rank(line @ line.T) == pytest.approx(1.0)
    assert effective_rank(np.ones((4, 4))) == 0.0
    rows = np.array([[3.0, 0.0], [-3.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    wanted = math.exp(-(0.9 * math.log(0.9) + 0.1 * math.log(0.1)))
    assert effective_rank(rows @ rows.T) == pytest.approx(wanted)


def test_all_numbers_together(kernel) -> None:
    K, family = kernel
    result = measure_geometry(K, family, names=["a", "b", "c"])
    table, apart = mean_by_family(K, family), mean_by_family(kernel_distances(K), family)
    off = ~np.eye(3, dtype=bool)
    assert result.within == pytest.approx(np.nanmean(np.diag(table)))
    assert result.between == pytest.approx(table[off].mean())
    assert result.gap == pytest.approx(result.within - result.between)
    assert result.spread == pytest.approx(np.nanmean(np.diag(apart)) / apart[off].mean())
    assert math.isnan(result.path_correlation)
    assert [item.name for item in result.families] == ["a", "b", "c"]
    assert [item.n_structures for item in result.families] == np.bincount(family).tolist()
    for i, item in enumerate(result.families):
        others = K[family == i][:, family != i]
        assert item.between == pytest.approx(others.mean())
        if item.n_structures > 1:
            own = K[np.ix_(family == i, family == i)]
            assert item.effective_rank == pytest.approx(effective_rank(own))


@given(seed=st.integers(0, 1000))
def test_order_of_structures_does_not_matter(seed: int) -> None:
    K, family = make_kernel(seed)
    order = np.random.default_rng(seed).normal(size=len(K))
    shuffled = np.random.default_rng(seed + 1).permutation(len(K))
    first = measure_geometry(K, family, order=order)
    second = measure_geometry(
        K[np.ix_(shuffled, shuffled)], family[shuffled], order=order[shuffled]
    )
    for name in [item.name for item in fields(first) if item.name != "families"]:
        assert getattr(first, name) == pytest.approx(getattr(second, name), nan_ok=True), name


def test_one_family_has_no_numbers_between() -> None:
    K, _ = make_kernel(0)
    one = measure_geometry(K, np.zeros(len(K), dtype=np.int64), order=np.arange(len(K)) * 1.0)
    for name in ("between", "gap", "ratio", "alignment", "neighbour_accuracy", "silhouette",
                 "spread"):  # fmt: skip
        assert math.isnan(getattr(one, name)), name
    assert math.isfinite(one.within) and math.isfinite(one.path_correlation)
    assert one.effective_rank == pytest.approx(one.effective_rank_within)


def test_inputs_are_left_as_they_were(kernel) -> None:
    K, family = kernel
    before = K.copy()
    measure_geometry(K, family, order=np.arange(len(K)) * 1.0)
    np.testing.assert_array_equal(K, before)


@pytest.mark.parametrize(
    ("K", "family", "order", "words"),
    [
        (np.ones((3, 3)), [0, 0, 1, 1], None, "shape"),
        (np.array([[1.0, np.nan], [np.nan, 1.0]]), [0, 1], None, "not finite"),
        (np.array([[1.0, 0.5], [0.2, 1.0]]), [0, 1], None, "not symmetric"),
        (np.eye(2), [0, 2], None, "without a gap"),
        (np.eye(2), [0, 1], np.array([0.0, np.inf]), "finite numbers"),
    ],
)
def test_what_does_not_fit_is_refused(K, family, order, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        measure_geometry(K, np.array(family), order=order)
