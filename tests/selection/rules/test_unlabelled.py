from __future__ import annotations

import numpy as np
import pytest
import torch

from labelwise.kernels.linear import LinearKernel
from labelwise.selection.rules import select_batch
from labelwise.selection.rules.unlabelled import first_pick, prior_order
from tests.selection.rules.oracles import RbfKernel, noise, paths

RULES = ["pv", "lcmd", "k-center", "top"]


@pytest.mark.parametrize("rule", RULES)
def test_unnormalised_kernels_begin_with_the_largest_norm(rule):
    features = noise(50, 4, seed=0)
    pool = LinearKernel(features, normalise="none")
    none = LinearKernel(features[:0], normalise="none")
    result = select_batch(rule, pool, none, 3)
    assert result.pool_idx[0] == int(features.norm(dim=1).argmax())
    assert result.score[0] == pytest.approx(float(pool.diagonal().max()))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rule", RULES)
def test_cosine_kernels_begin_with_the_most_typical(rule, dtype):
    """Norms equal but for rounding must not decide."""
    pool = LinearKernel(paths(90, 12, seed=1).to(dtype))
    unit = pool.features.double()
    most_typical = int((unit @ unit.mean(dim=0)).argmax())
    assert int(pool.diagonal().argmax()) != most_typical
    result = select_batch(rule, pool, LinearKernel(unit[:0].to(dtype)), 3)
    assert result.pool_idx[0] == most_typical


def test_zero_vectors_come_last():
    features = noise(6, 3, seed=2)
    features[[0, 3]] = 0.0
    pool = LinearKernel(features)
    assert prior_order(pool, pool.diagonal(), 4)[-2:].tolist() == [0, 3]


def test_kernels_without_features_begin_with_the_most_typical():
    pool = RbfKernel(noise(40, 2, seed=3))
    full = pool.block(slice(None), pool, slice(None))
    expected = int(full.mean(dim=1).argmax())
    assert {first_pick(pool, pool.diagonal(), size) for size in (1, 7, 100)} == {expected}


def test_the_whole_order_is_by_typicality():
    pool = LinearKernel(noise(30, 5, seed=4))
    order = prior_order(pool, pool.diagonal(), 8)
    typical = pool.features @ pool.features.mean(dim=0)
    np.testing.assert_array_equal(order.numpy(), typical.argsort(descending=True).numpy())
