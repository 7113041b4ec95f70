"""The streamed shortlist against sorting the whole pool."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import SelectionError
from labelwise.features.representations.row_sets import RowScales
from labelwise.selection.rules.joint_posterior import JointPosterior, select_joint_posterior
from labelwise.selection.rules.joint_shortlist import JointShortlist
from tests.selection.rules.test_joint_posterior import make_sets


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


@pytest.mark.parametrize("chunk", [1, 7, 60])
def test_with_nothing_labelled_the_most_typical_stay(chunk: int) -> None:
    """Under the cosine all prior variances are one but for the rounding of float32."""
    sets = make_sets(60, 5)
    sets = RowScales("cosine", 0.5).weigh(replace(sets, rows=sets.rows.float()))
    shortlist = JointShortlist(JointPosterior(make_sets(0, 5)), 12, per_atom=False)
    for part in torch.arange(60).split(chunk):
        shortlist.add(sets.take(part))
    _, places = shortlist.finish(5)
    grams = [sets.take(torch.tensor([x])).rows.double() for x in range(60)]
    grams = torch.stack([rows.T @ rows for rows in grams])
    likeness = (grams * grams.mean(0)).sum((1, 2)).numpy()
    force_only = float(sets.squares()[0].sub(0.5).abs().max())
    assert force_only < 1e-6
    prior = grams.diagonal(dim1=1, dim2=2).sum(1).numpy()
    whole = np.flatnonzero(prior > 1.0 - 1e-5)  # a structure of one row has no forces
    wanted = whole[np.argsort(-likeness[whole], kind="stable")[:12]]
    assert places.tolist() == sorted(wanted.tolist())
    picks = select_joint_posterior(sets.take(places), make_sets(0, 5), 1).pool_idx
    assert places[picks[0]] == select_joint_posterior(sets, make_sets(0, 5), 1).pool_idx[0]


def test_an_empty_stream_and_a_wrong_size() -> None:
    posterior = JointPosterior(make_sets(3, 5))
    assert len(JointShortlist(posterior, 4, per_atom=False).finish(5)[0]) == 0
    with pytest.raises(SelectionError, match="shortlist"):
        JointShortlist(posterior, 0, per_atom=False)
