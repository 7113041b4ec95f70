"""Samples over families, and the kernels of several models."""

from __future__ import annotations

import math

import numpy as np
import pytest
from ase import Atoms
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.features.representations import represent
from labelwise.potentials import Potential
from labelwise.structures import Frame, Source
from labelwise.studies.diagnostics.geometry import centred_alignment, measure_geometry
from labelwise.studies.diagnostics.geometry_study import (
    check_kernels,
    depends_on_weights,
    needs_model,
    read_families,
    read_order,
    sample_families,
    study_geometry,
)


def frames_of(structures: list[Atoms]) -> list[Frame]:
    return [Frame(atoms, Source("pool.xyz", i), i) for i, atoms in enumerate(structures)]


@given(
    sizes=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    spare=st.integers(0, 100),
    seed=st.integers(0, 100),
)
def test_samples_are_even(sizes: list[int], spare: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    families = rng.permutation([f"r{i}" for i, n in enumerate(sizes) for _ in range(n)]).tolist()
    order = rng.permutation(len(families)).astype(np.float64)
    n_max = max(2, 2 * len(sizes)) + spare
    sample = sample_families(families, order, max_structures=n_max)
    assert len(set(sample.idx.tolist())) == len(sample.idx) == min(n_max, len(families))
    taken = np.bincount(sample.family)
    for i, name in enumerate(sample.names):
        own = sample.idx[sample.family == i]
        assert {families[j] for j in own} == {name}
        places = order[own]
        assert (np.diff(places) > 0).all()
        np.testing.assert_array_equal(places, sample.order[sample.family == i])
        every = np.sort(order[[j for j, family in enumerate(families) if family == name]])
        assert places[0] == every[0]
        assert len(own) == 1 or places[-1] == every[-1]
        skipped = np.diff(np.searchsorted(every, places))
        assert len(skipped) == 0 or skipped.max() - skipped.min() <= 1
        is_whole = len(own) == sample.n_offered[i]
        assert is_whole or taken[i] >= taken.max() - 1
    again = sample_families(families, order, max_structures=n_max)
    np.testing.assert_array_equal(again.idx, sample.idx)


def test_numbers_in_names_count() -> None:
    assert sample_families(["r10", "r9", "r9", "x", "r10"]).names == ("r9", "r10", "x")


def test_without_an_order_structures_stay_as_they_come() -> None:
    sample = sample_families(["b", "a", "b", "a", "b"])
    assert sample.idx.tolist() == [1, 3, 0, 2, 4]
    assert sample.order is None


@pytest.mark.parametrize(
    ("families", "n_max", "words"),
    [([], 4, "no structures"), (["a"] * 9, 1, "2 to 4000"), (list("aabbcc"), 5, "less than two")],
)
def test_samples_that_cannot_be_drawn(families: list[str], n_max: int, words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        sample_families(families, max_structures=n_max)


def test_families_and_places_are_read(rattled_molecules: list[Atoms]) -> None:
    for i, atoms in enumerate(rattled_molecules):
        atoms.info["place"] = np.int64(i) if i % 2 else i / 2
    frames = frames_of(rattled_molecules)
    assert read_families(frames, "family") == [a.info["family"] for a in rattled_molecules]
    assert read_order(frames, "place")[:3].tolist() == [0.0, 1.0, 1.0]
    del rattled_molecules[7].info["family"]
    with pytest.raises(ArgumentError, match=r"1 of 30 .* 'family', the first pool.xyz@7.*place"):
        read_families(frames, "family")


@pytest.mark.parametrize(
    ("value", "words"),
    [("3", "is '3'"), (True, "is True"), (math.nan, "is nan"), (None, "is missing")],
)
def test_places_that_are_no_numbers(water: Atoms, value: object, words: str) -> None:
    if value is not None:
        water.info["place"] = value
    with pytest.raises(ArgumentError, match=f"'place' {words} in"):
        read_order(frames_of([water]), "place")


def test_kernels_of_models_are_compared_with_the_first(
    potential: Potential, rattled_molecules: list[Atoms]
) -> None:
    families = [atoms.info["family"] for atoms in rattled_molecules]
    sample = sample_families(families, max_structures=18)
    other = potential.with_random_weights(3)
    reported: list[tuple[str, int, int | None]] = []
    study = study_geometry(
        rattled_molecules,
        sample,
        ("ntk-random", "activation", "random", "ntk-e"),
        potentials=(pair for pair in [("before", potential), ("after", other)]),
        progress=lambda *words: reported.append(words),
    )
    assert [(entry.kernel, entry.model) for entry in study.entries] == [
        ("activation", "before"), ("activation", "after"),
        ("ntk-e", "before"), ("ntk-e", "after"),
        ("ntk-random", None), ("random", None),
    ]  # fmt: skip
    assert study.models == ("before", "after")
    chosen = [rattled_molecules[i] for i in sample.idx]
    rows = represent(chosen, other, "activation").astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    before, after, ntk, _, untrained, noise = study.entries
    np.testing.assert_allclose(after.K, rows @ rows.T, atol=1e-5)
    assert math.isnan(before.similarity) and math.isnan(noise.similarity)
    assert after.similarity == pytest.approx(centred_alignment(before.K, after.K))
    assert untrained.similarity == pytest.approx(centred_alignment(ntk.K, untrained.K))
    wanted = measure_geometry(after.K, sample.family, names=sample.names)
    assert after.geometry.alignment == wanted.alignment
    assert {("activation", 18, 18), ("activation, after", 18, 18)} <= set(reported)


def test_descriptors_need_no_model(rattled_molecules: list[Atoms]) -> None:
    sample = sample_families([atoms.info["family"] for atoms in rattled_molecules])
    study = study_geometry(rattled_molecules, sample, ("random",))
    assert [(entry.kernel, entry.model) for entry in study.entries] == [("random", None)]
    with pytest.raises(ArgumentError, match="needs a potential"):
        study_geometry(rattled_molecules, sample, ("ntk-e",))


def test_two_models_of_one_name(potential: Potential, rattled_molecules: list[Atoms]) -> None:
    sample = sample_families([atoms.info["family"] for atoms in rattled_molecules])
    pairs = [("m", potential), ("m", potential)]
    with pytest.raises(ArgumentError, match="two models are called 'm'"):
        study_geometry(rattled_molecules, sample, ("activation",), potentials=pairs)


@pytest.mark.parametrize(
    ("kernels", "words"), [((), "empty"), (("ntk-e", "ntk-e"), "twice"), (("ntk",), "allowed are")]
)
def test_kernels_that_cannot_be_made(kernels: tuple[str, ...], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        check_kernels(kernels)


def test_what_depends_on_weights() -> None:
    names = ("activation", "ntk-e", "activation-random", "ntk-random", "random")
    assert [depends_on_weights(name) for name in names] == [True, True, False, False, False]
    assert [needs_model(name) for name in names] == [True, True, True, True, False]
