"""The Tanimoto kernel against RDKit, dense formulas and the rules' oracles."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rdkit import DataStructs

from labelwise.errors import ArgumentError
from labelwise.kernels import tanimoto
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.tanimoto import TanimotoKernel, pack_bits
from labelwise.selection.rules import find_nearest, select_batch
from labelwise.selection.rules.posterior_variance import posterior_variance
from tests.selection.rules.oracles import (
    brute_k_center,
    brute_lcmd,
    brute_pv,
    gram,
    kernel_variance,
)

ALL = slice(None)


def draw_bits(n: int, n_bits: int = 100, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((n, n_bits)) < 0.15


def make_pair(n: int = 80, m: int = 12) -> tuple[TanimotoKernel, TanimotoKernel]:
    bits = draw_bits(n + m)
    return TanimotoKernel(bits[:n]), TanimotoKernel(bits[n:])


def by_rdkit(bits: np.ndarray) -> np.ndarray:
    vectors = []
    for row in bits:
        vector = DataStructs.ExplicitBitVect(len(row))
        vector.SetBitsFromList(np.flatnonzero(row).tolist())
        vectors.append(vector)
    return np.array([DataStructs.BulkTanimotoSimilarity(each, vectors) for each in vectors])


@pytest.mark.parametrize("n_bits", [1, 8, 63, 64, 65, 2048])
def test_values_are_those_of_rdkit(n_bits: int) -> None:
    bits = draw_bits(30, n_bits)
    bits[:, 0] = True  # RDKit calls two empty sets different
    kernel = TanimotoKernel(bits)
    np.testing.assert_allclose(gram(kernel, kernel), by_rdkit(bits), rtol=1e-15)


def test_empty_sets_equal_each_other_only() -> None:
    bits = draw_bits(40, 12)
    bits[3] = bits[7] = False
    bits[5] = True
    kernel = TanimotoKernel(bits)
    values = gram(kernel, kernel)
    assert values[3, 7] == 1.0
    assert values[3, 5] == 0.0
    assert np.array_equal(np.diag(values), kernel.diagonal().numpy())
    assert np.linalg.eigvalsh(values).min() > -1e-12


def test_any_rows_and_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, train = make_pair()
    whole = gram(pool, train)
    monkeypatch.setattr(tanimoto, "_PAIRS_AT_ONCE", 7)
    rows, cols = torch.tensor([5, 79, 5]), torch.tensor([11, 0])
    np.testing.assert_array_equal(pool.block64(rows, train, cols), whole[[5, 79, 5]][:, [11, 0]])
    np.testing.assert_array_equal(pool.block(slice(None), train, slice(2, 5)), whole[:, 2:5])
    part = pool.take(rows)
    assert isinstance(part, TanimotoKernel)
    np.testing.assert_array_equal(gram(part, train), whole[[5, 79, 5]])
    assert pool.block(slice(0, 0), train, ALL).shape == (0, 12)
    assert pool.block(ALL, train.take(torch.tensor([], dtype=torch.int64)), ALL).shape == (80, 0)


def test_packed_bits_make_the_same_kernel() -> None:
    bits = draw_bits(9, 77)
    packed = TanimotoKernel.from_packed(pack_bits(bits), 77)
    np.testing.assert_array_equal(gram(packed, packed), gram(*[TanimotoKernel(bits)] * 2))


def test_what_cannot_be_taken() -> None:
    with pytest.raises(ArgumentError, match="shape"):
        TanimotoKernel(np.zeros(3))
    with pytest.raises(ArgumentError, match="other values than 0 and 1"):
        TanimotoKernel(np.array([[0.0, 2.0]]))
    pool, _ = make_pair()
    for other in (TanimotoKernel(draw_bits(3, 64)), LinearKernel(torch.ones(3, 100))):
        with pytest.raises(ArgumentError, match="cannot be paired"):
            pool.block(slice(None), other, ALL)


def test_rules_pick_what_brute_force_picks() -> None:
    pool, train = make_pair()
    oracles = {
        "pv": lambda: brute_pv(pool, train, 20, 1e-3),
        "lcmd": lambda: brute_lcmd(pool, train, 20),
        "k-center": lambda: brute_k_center(pool, train, 20),
    }
    for rule, oracle in oracles.items():
        selection = select_batch(rule, pool, train, 20, regularisation=1e-3, seed=0)
        picks, scores = oracle()
        assert selection.pool_idx.tolist() == picks, rule
        np.testing.assert_allclose(selection.score, scores, rtol=1e-8, atol=1e-12)


def test_variances_are_those_of_a_dense_process() -> None:
    pool, train = make_pair()
    expected = kernel_variance(pool, train, 1e-3)
    np.testing.assert_allclose(posterior_variance(pool, train), expected, rtol=1e-9, atol=1e-12)
    top = select_batch("top", pool, train, 10, regularisation=1e-3, seed=0)
    assert top.pool_idx.tolist() == np.argsort(-expected, kind="stable")[:10].tolist()
    short = select_batch("pv", pool, train, 5, regularisation=1e-3, seed=0, shortlist=10)
    assert set(short.pool_idx.tolist()) <= set(top.pool_idx.tolist())
    assert np.array_equal(pool.diagonal64().numpy(), np.ones(80))


def test_nearest_labelled() -> None:
    pool, train = make_pair()
    nearest, distance = find_nearest(pool, train, np.arange(80))
    sq_dist = 2.0 - 2.0 * gram(pool, train)
    assert nearest.tolist() == sq_dist.argmin(axis=1).tolist()
    np.testing.assert_allclose(distance, np.sqrt(sq_dist.min(axis=1)))
