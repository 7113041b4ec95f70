"""The streamed shortlist against sorting the whole pool."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import SelectionError
from labelwise.selection.joint_posterior import JointPosterior, select_joint_posterior
from labelwise.selection.joint_shortlist import JointShortlist
from tests.selection.test_joint_posterior import make_sets


@given(seed=st.integers(0, 1000), n_keep=st.integers(1, 70), chunk=st.integers(1, 40))
def test_it_is_the_head_of_the_sorted_pool(seed: int, n_keep: int, chunk: int) -> None:
    pool, train = make_sets(60, 5, seed=seed), make_sets(3, 5, seed=seed + 1)
    posterior = JointPosterior(train)
    shortlist = JointShortlist(posterior, n_keep, per_atom=True)
    for part in torch.arange(60).split(chunk):
        shortlist.add(pool.take(part))
    kept, places = shortlist.finish(5)
    score = (posterior.variances(pool) / pool.n_atoms).numpy()
    wanted = np.sort(np.argsort(-score, kind="stable")[:n_keep])
    assert places.tolist() == wanted.tolist()
    torch.testing.assert_close(kept.rows, pool.take(places).rows, rtol=0, atol=0)


def test_a_long_shortlist_gives_the_picks_of_the_whole_pool() -> None:
    pool, train = make_sets(80, 6), make_sets(4, 6, seed=1)
    shortlist = JointShortlist(JointPosterior(train), 60, per_atom=False)
    shortlist.add(pool)
    kept, places = shortlist.finish(6)
    inside = select_joint_posterior(kept, train, 5)
    whole = select_joint_posterior(pool, train, 5)
    assert places[torch.from_numpy(inside.pool_idx)].tolist() == whole.pool_idx.tolist()


def test_an_empty_stream_and_a_wrong_size() -> None:
    posterior = JointPosterior(make_sets(3, 5))
    assert len(JointShortlist(posterior, 4, per_atom=False).finish(5)[0]) == 0
    with pytest.raises(SelectionError, match="shortlist"):
        JointShortlist(posterior, 0, per_atom=False)
