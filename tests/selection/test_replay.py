from __future__ import annotations

import numpy as np
import pytest

from labelwise.kernels.base import Kernel
from labelwise.kernels.linear import LinearKernel
from labelwise.kernels.tanimoto import TanimotoKernel
from labelwise.selection.measurement import replay_clusters
from labelwise.selection.rules import select_k_center, select_lcmd


def _kernels(kind: str, n_train: int) -> tuple[Kernel, Kernel]:
    rng = np.random.default_rng(5)
    features = rng.normal(size=(40 + n_train, 6)).astype(np.float32)
    if kind == "linear":
        return LinearKernel(features[:40]), LinearKernel(features[40:])
    bits = (features > 0.3).astype(np.uint8)
    return TanimotoKernel(bits[:40]), TanimotoKernel(bits[40:])


def _naive(pool: Kernel, train: Kernel, picks: list[int]) -> list[tuple[int, int, float] | None]:
    """Return centre, members and part of the mass of each pick, from a whole matrix."""
    parts = [
        pool.block(slice(None), other, slice(None)).double().numpy() for other in (train, pool)
    ]
    own = pool.diagonal().double().numpy()
    centres = np.concatenate([train.diagonal().double().numpy(), own])
    square = np.maximum(own[:, None] + centres - 2 * np.concatenate(parts, axis=1), 0.0)
    known, found = list(range(len(train))), []
    for number, pick in enumerate(picks):
        if not known:
            found.append(None)
        else:
            nearest = square[:, known].argmin(axis=1)
            distance = square[:, known].min(axis=1)
            members = nearest == nearest[pick]
            n_open = int(members.sum() - members[picks[:number]].sum())
            share = distance[members].sum() / distance.sum()
            found.append((int(nearest[pick]), n_open, float(share)))
        known.append(len(train) + pick)
    return found


@pytest.mark.parametrize("kind", ["linear", "tanimoto"])
@pytest.mark.parametrize("n_train", [0, 4])
@pytest.mark.parametrize("choose", [select_lcmd, select_k_center])
def test_clusters_are_those_of_a_naive_loop(kind: str, n_train: int, choose) -> None:
    pool, train = _kernels(kind, n_train)
    selection = choose(pool, train, 9)
    replayed = replay_clusters(pool, train, selection.pool_idx)
    naive = _naive(pool, train, selection.pool_idx.tolist())
    assert (replayed[0] is None) == (n_train == 0)
    for found, expected, score in zip(replayed, naive, selection.score, strict=True):
        if found is None:
            assert expected is None
            continue
        assert found.sq_dist == pytest.approx(score, rel=1e-9)
        if kind == "linear":  # of sets of bits many are equally near to several centres
            assert expected is not None
            assert (found.centre, found.n_members) == expected[:2]
            assert found.mass_share == pytest.approx(expected[2], rel=1e-5)
        assert 0.0 <= found.mass_share <= 1.0
        assert found.n_members >= 1


def test_copies_of_what_is_labelled_have_no_mass() -> None:
    features = np.ones((3, 2), dtype=np.float32)
    found = replay_clusters(LinearKernel(features), LinearKernel(features[:1]), np.array([0, 1]))
    assert [cluster.mass_share for cluster in found if cluster is not None] == [0.0, 0.0]
