"""The joint posterior against a dense multi-output Gaussian process, before and after each pick."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import SelectionError
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules.joint_posterior import (
    JointPosterior,
    joint_variances,
    select_joint_posterior,
)
from labelwise.selection.rules.posterior_variance import select_posterior_variance

LAM = 0.3


def make_sets(n: int, dim: int, *, seed: int = 0, most_rows: int = 7) -> RowSets:
    """Make structures of different size with rows of different length."""
    rng = np.random.default_rng(seed)
    counts = torch.from_numpy(rng.integers(1, most_rows + 1, n))
    rows = torch.from_numpy(rng.normal(size=(int(counts.sum()), dim)))
    rows *= torch.from_numpy(rng.lognormal(size=(len(rows), 1)))
    return RowSets(rows, counts, torch.from_numpy(rng.integers(1, 20, n)))


def _rows(sets: RowSets, structure: int) -> np.ndarray:
    return sets.take(torch.tensor([structure])).rows.numpy()


def _dense_covariance(known: np.ndarray, rows: np.ndarray, lam: float) -> np.ndarray:
    """Posterior covariance of several outputs, written with kernel matrices only."""
    cross = rows @ known.T
    inner = np.linalg.inv(known @ known.T + lam * np.eye(len(known)))
    return rows @ rows.T - cross @ inner @ cross.T


def _dense_greedy(pool: RowSets, train: RowSets, n_select: int, divisor: np.ndarray):
    """Build the whole Gaussian process anew for every structure and every step."""
    known, picks, scores = train.rows.numpy(), [], []
    for _ in range(n_select):
        total = np.array(
            [np.trace(_dense_covariance(known, _rows(pool, x), LAM)) for x in range(len(pool))]
        )
        total /= divisor
        total[picks] = -np.inf
        picks.append(int(np.argmax(total)))
        scores.append(total[picks[-1]])
        known = np.concatenate([known, _rows(pool, picks[-1])])
    return picks, scores


@pytest.mark.parametrize("n_train", [1, 3, 12])
def test_variances_and_covariances_are_those_of_a_dense_process(n_train: int) -> None:
    pool, train = make_sets(9, 6), make_sets(n_train, 6, seed=1)
    posterior = JointPosterior(train, LAM)
    known = train.rows.numpy()
    for pick in (None, 4, 0, 7):
        if pick is not None:
            posterior.add(_rows_tensor(pool, pick))
            known = np.concatenate([known, _rows(pool, pick)])
        dense = [_dense_covariance(known, _rows(pool, x), LAM) for x in range(len(pool))]
        wanted = np.array([np.trace(each) for each in dense])
        np.testing.assert_allclose(posterior.variances(pool).numpy(), wanted, rtol=1e-8, atol=1e-9)
        got = posterior.covariance(_rows_tensor(pool, 5)).numpy()
        np.testing.assert_allclose(got, dense[5], rtol=1e-8, atol=1e-9)


def _rows_tensor(sets: RowSets, structure: int) -> torch.Tensor:
    return sets.take(torch.tensor([structure])).rows


@pytest.mark.parametrize("per_atom", [False, True])
@pytest.mark.parametrize("dim", [4, 30])
@pytest.mark.parametrize("n_train", [0, 2, 9])
def test_picks_are_those_of_a_dense_process(n_train: int, dim: int, per_atom: bool) -> None:
    pool, train = make_sets(40, dim), make_sets(n_train, dim, seed=1)
    divisor = pool.n_atoms.numpy() if per_atom else np.ones(len(pool))
    picks, scores = _dense_greedy(pool, train, 15, divisor)
    got = select_joint_posterior(pool, train, 15, regularisation=LAM, per_atom=per_atom)
    assert got.pool_idx.tolist() == picks
    np.testing.assert_allclose(got.score, scores, rtol=1e-8, atol=1e-10)


def test_one_row_a_structure_is_the_posterior_variance_rule() -> None:
    pool, train = make_sets(60, 8, most_rows=1), make_sets(5, 8, seed=1, most_rows=1)
    wanted = select_posterior_variance(
        LinearKernel(pool.rows, normalise="none"),
        LinearKernel(train.rows, normalise="none"),
        20,
        regularisation=LAM,
    )
    got = select_joint_posterior(pool, train, 20, regularisation=LAM)
    assert got.pool_idx.tolist() == wanted.pool_idx.tolist()
    np.testing.assert_allclose(got.score, wanted.score, rtol=1e-8)


def test_any_rows_with_the_same_gram_matrix_give_the_same_picks() -> None:
    """Rotating a structure mixes its force rows; nothing else may happen."""
    pool, train = make_sets(30, 6), make_sets(3, 6, seed=1)
    rng = np.random.default_rng(5)
    turned = pool.rows.clone()
    for start, count in zip(pool.starts.tolist(), pool.counts.tolist(), strict=True):
        turn = np.linalg.qr(rng.normal(size=(count, count)))[0]
        turned[start : start + count] = torch.from_numpy(turn) @ turned[start : start + count]
    other = RowSets(turned, pool.counts, pool.n_atoms)
    one = select_joint_posterior(pool, train, 10)
    two = select_joint_posterior(other, train, 10)
    assert one.pool_idx.tolist() == two.pool_idx.tolist()


@given(seed=st.integers(0, 10_000), n_select=st.integers(1, 25))
def test_picks_are_unique_in_range_and_their_scores_fall(seed: int, n_select: int) -> None:
    pool, train = make_sets(25, 5, seed=seed), make_sets(2, 5, seed=seed + 1)
    got = select_joint_posterior(pool, train, n_select)
    assert len(set(got.pool_idx.tolist())) == n_select
    assert set(got.pool_idx.tolist()) <= set(range(25))
    assert (np.diff(got.score) <= 1e-12).all()


@pytest.mark.parametrize("n_train", [0, 3, 30])
def test_no_structure_is_picked_twice_however_small_the_noise(n_train: int) -> None:
    pool, train = make_sets(80, 5), make_sets(n_train, 5, seed=1)
    n_done = 0
    for exponent in (-6, -10, -14, -16, -18, -30, -200):
        try:
            got = select_joint_posterior(pool, train, 80, regularisation=3e4 * 10.0**exponent)
        except SelectionError as error:
            assert exponent <= -14
            assert "is too small: against kernel values up to" in str(error)
            continue
        n_done += 1
        assert sorted(got.pool_idx.tolist()) == list(range(80))
        assert np.isfinite(got.score).all()
    assert n_done >= 2


def test_duplicates_in_the_pool_are_taken_last_and_the_first_of_them_first() -> None:
    pool = make_sets(6, 20)
    doubled = join_row_sets([pool, pool], 20)
    got = select_joint_posterior(doubled, pool.take(torch.tensor([], dtype=torch.int64)), 12)
    assert sorted(got.pool_idx[:6].tolist()) == list(range(6))


def test_labelled_structures_count() -> None:
    pool = make_sets(8, 30)
    best = int(select_joint_posterior(pool, make_sets(0, 30), 1).pool_idx[0])
    train = join_row_sets([pool.take(torch.tensor([best]))] * 40, 30)
    assert int(select_joint_posterior(pool, train, 1).pool_idx[0]) != best
    assert joint_variances(pool, train)[best] < 0.05 * joint_variances(pool, make_sets(0, 30))[best]


def test_unlabelled_and_all_alike_begins_with_the_most_typical() -> None:
    """Cosine rows have one prior variance; the first pick must not be the pool's first."""
    rng = np.random.default_rng(0)
    common = rng.normal(size=12)
    rows = np.concatenate([rng.normal(size=(6, 12)), common + 0.1 * rng.normal(size=(14, 12))])
    sets = RowSets(torch.from_numpy(rows), torch.full((10,), 2), torch.full((10,), 3))
    weighed = RowScales("cosine", 0.5).weigh(sets)
    grams = [_rows(weighed, x).T @ _rows(weighed, x) for x in range(10)]
    likeness = [np.sum(grams[x] * np.mean(grams, axis=0)) for x in range(10)]
    got = select_joint_posterior(weighed, make_sets(0, 12), 3)
    assert got.pool_idx[0] == int(np.argmax(likeness)) >= 3
    np.testing.assert_allclose(got.score[0], 1.0)


def turned_copies(n_different: int, n_copies: int, *, most_first: bool) -> RowSets:
    """Return structures of four rows, each with copies of which the rows are mixed and rounded."""
    rng = np.random.default_rng(3)
    common, parts = rng.normal(size=(4, 9)), []
    for x in range(n_different):
        part = common + (0.3 + 0.1 * x) * rng.normal(size=(4, 9))
        turns = [np.linalg.qr(rng.normal(size=(4, 4)))[0] for _ in range(n_copies)]
        parts += [turn @ part for turn in turns]
    rows = torch.from_numpy(np.concatenate(parts if most_first else parts[::-1])).float()
    n = n_different * n_copies
    sets = RowSets(rows, torch.full((n,), 4), torch.full((n,), 3))
    return RowScales("cosine", 0.0).weigh(_with_one_energy(sets))


def _with_one_energy(sets: RowSets) -> RowSets:
    """Give all structures the same energy row, which has no weight."""
    rows = sets.rows.reshape(len(sets), 4, 9)
    energy = torch.ones(len(sets), 1, 9)
    return RowSets(torch.cat([energy, rows], 1).reshape(-1, 9), sets.counts + 1, sets.n_atoms)


@pytest.mark.parametrize("n_copies", [2, 5, 40])
def test_copies_that_differ_by_rounding_are_taken_in_pool_order(n_copies: int) -> None:
    """Every prior variance is one, and of the most typical structure there are many copies."""
    sets = turned_copies(6, n_copies, most_first=True)
    assert float(sets.squares()[1].sub(1).abs().max()) < 1e-6
    first = int(select_joint_posterior(sets, make_sets(0, 9), 1).pool_idx[0])
    assert first % n_copies == 0
    reverse = turned_copies(6, n_copies, most_first=False)
    again = int(select_joint_posterior(reverse, make_sets(0, 9), 1).pool_idx[0])
    assert again % n_copies == 0
    assert 5 - again // n_copies == first // n_copies


def test_absent_elements_do_not_matter() -> None:
    pool, train = make_sets(20, 6), make_sets(3, 6, seed=1)
    wide = [
        RowSets(torch.nn.functional.pad(each.rows, (3, 5)), each.counts, each.n_atoms)
        for each in (pool, train)
    ]
    one, two = select_joint_posterior(pool, train, 8), select_joint_posterior(*wide, 8)
    assert one.pool_idx.tolist() == two.pool_idx.tolist()


def test_wrong_arguments_raise() -> None:
    pool, train = make_sets(5, 3), make_sets(2, 3)
    for n_select in (0, 6):
        with pytest.raises(SelectionError, match="n_select"):
            select_joint_posterior(pool, train, n_select)
    with pytest.raises(SelectionError, match="regularisation"):
        select_joint_posterior(pool, train, 1, regularisation=0.0)
    broken = RowSets(pool.rows.clone(), pool.counts, pool.n_atoms)
    broken.rows[int(pool.starts[3])] = float("nan")
    with pytest.raises(SelectionError, match="pool structure 3"):
        select_joint_posterior(broken, train, 1)
