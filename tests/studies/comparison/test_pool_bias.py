"""Shifted pools: coordinates, weighted draws, measured shifts."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import rel_entr
from scipy.stats import chisquare, rankdata

from labelwise.errors import ArgumentError
from labelwise.structures import read_structures
from labelwise.studies.comparison.pool_bias import (
    bias_coordinate,
    measure_shift,
    thin_pool,
    write_biased_pools,
)
from labelwise.studies.comparison.pools import prepare_pools
from tests.studies.comparison.pool_building import write_folder


def test_draws_follow_the_successive_weighted_law() -> None:
    u, strength, n_draws = np.array([0.0, 0.3, 0.6, 1.0]), 1.5, 4000
    weights = np.exp(-strength * u)
    expected = dict.fromkeys(itertools.combinations(range(4), 2), 0.0)
    for first, second in itertools.permutations(range(4), 2):
        left = weights.sum() - weights[first]
        pair = (min(first, second), max(first, second))
        expected[pair] += weights[first] / weights.sum() * weights[second] / left
    counts = dict.fromkeys(expected, 0)
    for seed in range(n_draws):
        counts[tuple(thin_pool(u, strength, n_keep=2, seed=seed).tolist())] += 1
    found = chisquare(list(counts.values()), [n_draws * p for p in expected.values()])
    assert found.pvalue > 1e-3


@given(
    seed=st.integers(0, 10_000),
    strengths=st.tuples(st.floats(0, 8), st.floats(0, 8)),
    n=st.integers(2, 80),
)
def test_the_mean_never_rises_with_the_strength(
    seed: int, strengths: tuple[float, float], n: int
) -> None:
    u = np.random.default_rng(seed).random(n)
    weak, strong = (
        thin_pool(u, strength, n_keep=(n + 1) // 2, seed=seed) for strength in sorted(strengths)
    )
    assert len(set(weak.tolist())) == len(weak) == len(strong)
    assert u[strong].mean() <= u[weak].mean() + 1e-12


def test_no_strength_is_a_uniform_draw() -> None:
    u = np.linspace(0, 1, 10)
    counts = np.zeros(10)
    for seed in range(3000):
        counts[thin_pool(u, 0.0, n_keep=5, seed=seed)] += 1
    assert np.abs(counts / 3000 - 0.5).max() < 0.04


def test_coordinates_are_ranks() -> None:
    rng = np.random.default_rng(0)
    families = [f"r{i}" for i in rng.integers(0, 4, size=60).tolist()]
    order = rng.integers(0, 10, size=60).astype(float).tolist()
    energies = rng.normal(size=60).tolist()
    names = np.array(families)
    path = bias_coordinate("path", families, order=order)
    for name in set(families):
        own = np.array(order)[names == name]
        assert np.allclose(path[names == name], (rankdata(own) - 1) / (len(own) - 1))
    energy = bias_coordinate("energy", families, energies=energies)
    above = np.array(
        [e - min(np.array(energies)[names == n]) for e, n in zip(energies, families, strict=True)]
    )
    assert np.allclose(energy, (rankdata(above) - 1) / 59)
    family = bias_coordinate("family", families, seed=5)
    assert sorted(set(family.tolist())) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert all(len(set(family[names == name])) == 1 for name in set(families))


def test_the_shift_is_measured_as_by_hand() -> None:
    u = np.random.default_rng(1).random(500)
    kept = thin_pool(u, 3.0, n_keep=250, seed=0)
    found = measure_shift(u, kept)
    bins = np.minimum((u * 10).astype(int), 9)
    whole = np.bincount(bins, minlength=10) / 500
    part = np.bincount(bins[kept], minlength=10) / 250
    assert found.total_variation == pytest.approx(0.5 * np.abs(part - whole).sum())
    assert found.kl_nats == pytest.approx(rel_entr(part, whole).sum())
    assert found.mean_u == pytest.approx(u[kept].mean())
    assert found.mean_u < found.mean_u_whole
    nothing = measure_shift(u, np.arange(500))
    assert nothing.total_variation == nothing.kl_nats == 0


def test_biased_pools_on_disk(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "set", n_train=8)
    base = prepare_pools([str(source)], tmp_path, layout="natural", seed=0)
    found = write_biased_pools(base, tmp_path, strengths=[1.0, 4.0], seed=2)
    shifts = ("family", "path", "energy")
    assert list(found.pools) == ["set-s0", *(f"set-{s}-s{n}" for s in shifts for n in (1, 4))]
    achieved = {}
    for name, section in found.pools.items():
        assert section.test == base.pools["set"].test
        assert section.train == []
        assert len(read_structures(tmp_path / section.pool[0])) == 64
        manifest = json.loads((tmp_path / "data" / name / "manifest.json").read_text())
        achieved[name] = manifest["achieved"]
    for shift in shifts:
        none, weak, strong = (
            achieved[name][shift]["mean_u"]
            for name in ("set-s0", f"set-{shift}-s1", f"set-{shift}-s4")
        )
        assert strong < weak <= none
    assert any("into the pool" in change for change in found.changes)


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="allowed are family, path, energy"):
        bias_coordinate("energies", ["a", "b"])
    with pytest.raises(ArgumentError, match="one family"):
        bias_coordinate("family", ["a", "a"])
    with pytest.raises(ArgumentError, match="needs a value"):
        bias_coordinate("path", ["a", "b"])
    with pytest.raises(ArgumentError, match="strength is -1"):
        thin_pool(np.zeros(4), -1.0, n_keep=2, seed=0)
    with pytest.raises(ArgumentError, match="allowed are 1 to 4"):
        thin_pool(np.zeros(4), 1.0, n_keep=5, seed=0)
    base = prepare_pools([str(write_folder(tmp_path / "set"))], tmp_path, layout="natural", seed=0)
    with pytest.raises(ArgumentError, match="each once"):
        write_biased_pools(base, tmp_path, shifts=["path", "path"])
    with pytest.raises(ArgumentError, match="strength is"):
        write_biased_pools(base, tmp_path, strengths=[float("nan")])
