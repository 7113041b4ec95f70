from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import get_rule, posterior_variance, select_batch
from labelwise.selection.rules.target import select_target, shortlist_by_gain
from labelwise.testing.selectors import check_selector
from tests.selection.rules.oracles import (
    PlainLinearKernel,
    RbfKernel,
    TanimotoKernel,
    gram,
    noise,
    paths,
    split,
)

LAMBDA = 1e-3


def brute_target(pool, train, target, n_select, regularisation=LAMBDA):
    """Greedy V-optimality: the target's variances by a dense solve for every candidate."""

    def variance(picks):
        joint = np.block(
            [
                [gram(train, train), gram(train, pool)[:, picks]],
                [gram(pool, train)[picks], gram(pool, pool)[np.ix_(picks, picks)]],
            ]
        )
        cross = np.concatenate([gram(target, train), gram(target, pool)[:, picks]], axis=1)
        inverse = np.linalg.solve(joint + regularisation * np.eye(len(joint)), cross.T)
        return np.diag(gram(target, target)).mean() - (cross * inverse.T).sum(axis=1).mean()

    picks, scores = [], []
    for _ in range(n_select):
        now = variance(picks)
        rest = [x for x in range(len(pool)) if x not in picks]
        falls = [now - variance([*picks, x]) for x in rest]
        picks.append(rest[int(np.argmax(falls))])
        scores.append(max(falls))
    return picks, scores


def sets(data, seed, *, n_target, make=LinearKernel, d=7):
    features = data(60 + 8 + n_target, d, seed=seed)
    return make(features[:60]), make(features[60:68]), make(features[68:])


@pytest.mark.parametrize("n_train", [0, 3, 8])
@pytest.mark.parametrize("n_target", [3, 25])
@pytest.mark.parametrize("data", [noise, paths])
def test_picks_are_those_of_brute_force(data, n_target, n_train):
    pool, train, target = sets(data, 1, n_target=n_target)
    train = train.take(slice(0, n_train))
    result = select_target(pool, train, 9, target=target)
    picks, scores = brute_target(pool, train, target, 9)
    assert result.pool_idx.tolist() == picks
    np.testing.assert_allclose(result.score, scores, rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize("make", [RbfKernel, PlainLinearKernel])
def test_kernels_without_features(make):
    pool, train, target = sets(paths, 2, n_target=11, make=make)
    result = select_target(pool, train, 9, target=target, chunk_size=17)
    picks, scores = brute_target(pool, train, target, 9)
    assert result.pool_idx.tolist() == picks
    np.testing.assert_allclose(result.score, scores, rtol=1e-7, atol=1e-12)


def test_tanimoto_kernels():
    bits = noise(90, 64, seed=6) > 1.0
    pool, train, target = (TanimotoKernel(part) for part in bits.split([60, 8, 22]))
    result = select_target(pool, train, 5, target=target)
    assert result.pool_idx.tolist() == brute_target(pool, train, target, 5)[0]


def test_without_a_target_it_is_the_pool():
    pool, train = split(paths(130, 12, seed=3), 120)
    mine = select_target(pool, train, 20)
    named = select_target(pool, train, 20, target=pool)
    np.testing.assert_array_equal(mine.pool_idx, named.pool_idx)
    assert mine.pool_idx[:5].tolist() == brute_target(pool, train, pool, 5)[0]


def test_features_and_plain_kernels_agree_on_long_batches():
    pool, train, target = sets(noise, 4, n_target=40, d=30)
    plain = (PlainLinearKernel(k.features) for k in (pool, train, target))
    ours = select_target(pool, train, 60, target=target)
    theirs_pool, theirs_train, theirs_target = plain
    theirs = select_target(theirs_pool, theirs_train, 60, target=theirs_target)
    np.testing.assert_array_equal(ours.pool_idx, theirs.pool_idx)
    np.testing.assert_allclose(ours.score, theirs.score, rtol=1e-6, atol=1e-11)


def test_float32_features_are_decided_in_float64():
    pool, train, target = sets(paths, 5, n_target=12, make=lambda x: LinearKernel(x.float()))
    double = [LinearKernel(k.features.double(), normalise="none") for k in (pool, train, target)]
    ours = select_target(pool, train, 30, target=target)
    exact = select_target(*double[:2], 30, target=double[2])
    np.testing.assert_array_equal(ours.pool_idx, exact.pool_idx)
    np.testing.assert_allclose(ours.score, exact.score, rtol=1e-9, atol=1e-14)


def test_scores_add_up_to_the_fall_of_the_mean_variance():
    pool, train, target = sets(noise, 6, n_target=9)
    result = select_target(pool, train, 12, target=target)
    both = LinearKernel(torch.cat([train.features, pool.features[result.pool_idx]]))
    before, after = (float(posterior_variance(target, k).mean()) for k in (train, both))
    assert result.score.sum() == pytest.approx(before - after, rel=1e-9)


def test_what_is_far_from_the_target_is_left():
    """Half of the pool is strange and says nothing about the target: pv wants it, this does not."""
    features = noise(100, 12, seed=7)
    features[:50, :6] = 0.0
    features[50:, 6:] = 0.0
    pool, target = LinearKernel(features), LinearKernel(features[60:80] + 0.05 * noise(20, 12, 8))
    train = pool.take(slice(0, 0))
    assert (select_target(pool, train, 6, target=target).pool_idx >= 50).all()
    assert (select_batch("pv", pool, train, 6).pool_idx < 50).any()


def test_shortlist_keeps_what_gains_most_by_itself():
    pool, train, target = sets(noise, 8, n_target=9)
    kept = shortlist_by_gain(pool, train, 20, target=target)
    alone = [brute_target(pool.take(torch.tensor([x])), train, target, 1)[1][0] for x in range(60)]
    assert kept.tolist() == sorted(np.argsort(alone)[-20:].tolist())
    chosen = select_batch("target", pool, train, 6, target=target, shortlist=20).pool_idx
    within = select_target(pool.take(torch.from_numpy(kept)), train, 6, target=target)
    assert chosen.tolist() == kept[within.pool_idx].tolist()


def test_a_shortlist_is_for_the_whole_pool():
    pool, train, _ = sets(paths, 9, n_target=1)
    kept = shortlist_by_gain(pool, train, 20)
    within = select_target(pool.take(torch.from_numpy(kept)), train, 6, target=pool)
    chosen = select_batch("target", pool, train, 6, shortlist=20).pool_idx
    assert chosen.tolist() == kept[within.pool_idx].tolist()


def test_laws():
    check_selector(get_rule("target"))
    check_selector(select_target, make_kernel=RbfKernel)
    check_selector(select_target, make_kernel=lambda x: LinearKernel(x, normalise="none"))
    check_selector(select_target, make_kernel=lambda x: LinearKernel(x, dtype=torch.float32))


def test_errors():
    pool, train, target = sets(noise, 10, n_target=4)
    with pytest.raises(SelectionError, match="target holds no structures"):
        select_target(pool, train, 2, target=target.take(slice(0, 0)))
    with pytest.raises(ArgumentError, match="'lcmd' takes no target: choose the rule target"):
        select_batch("lcmd", pool, train, 2, target=target)
    with pytest.raises(ArgumentError, match="differ in width"):
        select_target(pool, train, 2, target=LinearKernel(noise(3, 5, 0)))
    with pytest.raises(SelectionError, match="regularisation"):
        select_target(pool, train, 2, target=target, regularisation=0.0)
