from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from labelwise.errors import ArgumentError, SelectionError
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import (
    Rule,
    Selection,
    get_rule,
    list_rules,
    register_rule,
    registry,
    select_batch,
    select_k_center,
    select_lcmd,
    select_posterior_variance,
    select_random,
    select_top_variance,
)
from labelwise.testing.selectors import check_selector
from tests.selection.rules.oracles import RbfKernel, noise, paths, split

DIRECT = {
    "pv": select_posterior_variance,
    "lcmd": select_lcmd,
    "k-center": select_k_center,
    "top": select_top_variance,
    "random": lambda pool, _train, n: select_random(len(pool), n),
}


def test_names():
    assert list_rules("kernel") == ["k-center", "lcmd", "pv", "random", "target", "top"]
    assert list_rules() == ["joint-pv", *list_rules("kernel")]
    assert [get_rule(name).name for name in list_rules()] == list_rules()


@pytest.mark.parametrize("rule", DIRECT)
def test_a_name_runs_its_rule(rule):
    pool, train = split(paths(230, 10, seed=1), 200)
    by_name, direct = select_batch(rule, pool, train, 30), DIRECT[rule](pool, train, 30)
    np.testing.assert_array_equal(by_name.pool_idx, direct.pool_idx)
    np.testing.assert_array_equal(by_name.score, direct.score)


def test_rules_differ():
    pool, train = split(paths(230, 10, seed=1), 200)
    batches = {tuple(select_batch(rule, pool, train, 30).pool_idx) for rule in DIRECT}
    assert len(batches) == len(DIRECT)


@pytest.mark.parametrize("make", [LinearKernel, RbfKernel])
@pytest.mark.parametrize("rule", DIRECT)
def test_laws(rule, make):
    check_selector(get_rule(rule), make_kernel=make)


@pytest.mark.parametrize("rule", ["pv", "lcmd", "k-center", "top"])
def test_laws_with_a_shortlist_of_the_whole_pool(rule):
    check_selector(partial(select_batch, rule, shortlist=60))


def test_arguments_are_checked():
    pool, train = split(noise(23, 4, seed=0), 20)
    with pytest.raises(ArgumentError, match="allowed are k-center, lcmd, pv, random, target, top"):
        select_batch("bald", pool, train, 3)
    with pytest.raises(SelectionError, match="allowed are 1 to 20"):
        select_batch("lcmd", pool, train, 21)
    with pytest.raises(SelectionError, match="shortlist=3 is below n_select=4"):
        select_batch("lcmd", pool, train, 4, shortlist=3)
    with pytest.raises(SelectionError, match="chunk_size=0"):
        select_batch("lcmd", pool, train, 4, chunk_size=0)
    with pytest.raises(SelectionError, match="n_select=True"):
        select_batch("lcmd", pool, train, True)


def test_a_rule_can_be_registered(monkeypatch):
    monkeypatch.setattr(registry, "_RULES", dict(registry._RULES))

    def first(_pool, _train, n_select, *, regularisation, seed):
        return Selection(np.arange(n_select) + seed, np.full(n_select, regularisation))

    register_rule(Rule("first", first))
    pool, train = split(noise(9, 4, seed=0), 7)
    result = select_batch("first", pool, train, 3, regularisation=0.5)
    assert result.pool_idx.tolist() == [0, 1, 2]
    assert result.score.tolist() == [0.5] * 3
    with pytest.raises(ArgumentError, match="'first' exists already"):
        register_rule(Rule("first", first))


def test_what_is_no_kernel_is_refused():
    pool, _ = split(noise(9, 4, seed=0), 7)
    with pytest.raises(ArgumentError, match="ndarray is not a kernel: derive it from"):
        select_batch("lcmd", pool, np.zeros((2, 4)), 3)


@pytest.mark.parametrize("shortlist", [None, 50])
@pytest.mark.parametrize("rule", ["pv", "lcmd", "k-center", "top"])
def test_progress_runs_to_the_end(rule, shortlist):
    pool, train = split(noise(320, 4, seed=0), 300)
    calls = []
    select_batch(
        rule,
        pool,
        train,
        20,
        shortlist=shortlist,
        chunk_size=16,
        progress=lambda done, total: calls.append((done, total)),
    )
    assert calls[-1][0] == calls[-1][1] > 0
    assert all(0 < done <= total for done, total in calls)


def test_training_structures_count_whatever_the_rule():
    """apax's max_dist gives the same picks for any training set."""
    features = paths(400, 10, seed=4)
    pool = LinearKernel(features[:300])
    for rule in ("pv", "lcmd", "k-center", "top"):
        one = select_batch(rule, pool, LinearKernel(features[300:350]), 20).pool_idx
        two = select_batch(rule, pool, LinearKernel(features[:50]), 20).pool_idx
        assert not np.array_equal(one, two), rule
        if rule in ("lcmd", "k-center"):
            assert not set(two) & set(range(50)), rule


def test_float32_and_float64_agree_on_the_order_of_files():
    features = paths(330, 24, seed=5).float()
    order = torch.from_numpy(np.random.default_rng(0).permutation(300))
    for rule in ("pv", "lcmd", "k-center", "top"):
        for labelled in (features[300:], features[:0]):
            straight = select_batch(rule, LinearKernel(features[:300]), LinearKernel(labelled), 40)
            shuffled = select_batch(
                rule, LinearKernel(features[:300][order]), LinearKernel(labelled), 40
            )
            np.testing.assert_array_equal(order.numpy()[shuffled.pool_idx], straight.pool_idx)
