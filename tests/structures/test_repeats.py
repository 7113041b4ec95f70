"""Repeats found by fingerprints are those that the screen finds structure by structure."""

from __future__ import annotations

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.structures import Frame, Screen, Source
from labelwise.structures.identity import make_fingerprint
from labelwise.structures.repeats import Fingerprints, find_repeats


def rattled(atoms: Atoms, seed: int, size: float = 0.1) -> Atoms:
    copy = atoms.copy()
    copy.positions += np.random.default_rng(seed).normal(0.0, size, copy.positions.shape)
    return copy


def jumbled_pool() -> list[Atoms]:
    """Structures, copies within and beyond the tolerance, copies of copies, of several kinds."""
    rng = np.random.default_rng(5)
    kinds = [molecule("C2H6"), molecule("CH3OH"), bulk("Si", cubic=True), molecule("H2O")]
    originals = [rattled(kinds[i % 4], i) for i in range(24)]
    pool = list(originals)
    for i in rng.integers(0, 24, 30).tolist():
        copy = originals[i].copy()
        copy.positions += rng.choice([0.0, 4e-7, 9e-7, 3e-6, 1e-3]) * rng.choice([-1, 1])
        pool.append(copy)
    swapped = originals[0].copy()
    pool.append(swapped[[1, 0, *range(2, len(swapped))]])
    return [pool[i] for i in rng.permutation(len(pool)).tolist()]


def prints_of(structures: list[Atoms]) -> Fingerprints:
    return Fingerprints.of([make_fingerprint(atoms) for atoms in structures])


@pytest.mark.parametrize("n_train", [0, 7])
def test_agrees_with_the_screen(n_train: int) -> None:
    structures = jumbled_pool()
    train, pool = structures[:n_train], structures[n_train:]
    screen = Screen(None)
    for i, atoms in enumerate(train):
        screen.check_train(Frame(atoms, Source("train", i), i))
    found = [screen.check_pool(Frame(a, Source("pool", i), i)) for i, a in enumerate(pool)]
    of_train, of_pool = find_repeats(prints_of(pool), prints_of(train))
    expected = ["" if item is None else f"{item.reason}: {item.detail}" for item in found]
    got = [
        f"duplicate-of-train: equals train@{t}"
        if t >= 0
        else (f"duplicate-of-pool: equals pool@{p}" if p >= 0 else "")
        for t, p in zip(of_train.tolist(), of_pool.tolist(), strict=True)
    ]
    assert got == expected
    assert sum(bool(word) for word in got) > 5


def test_takes_empty_sets() -> None:
    nothing = Fingerprints.of([])
    assert find_repeats(nothing, nothing)[0].shape == (0,)
    of_train, of_pool = find_repeats(prints_of([molecule("H2O")]), nothing)
    assert of_train.tolist() == of_pool.tolist() == [-1]


def test_small_structures_close_to_each_other_agree_with_the_screen() -> None:
    rng = np.random.default_rng(1)
    lengths = 0.7 + 2e-4 * rng.random(400)
    pool = [Atoms("H2", [[0, 0, 0], [0, 0, length]]) for length in lengths]
    pool[::7] = [rattled(molecule("C2H6"), i, 1e-6) for i in range(len(pool[::7]))]
    screen = Screen(None)
    found = [screen.check_pool(Frame(a, Source("pool", i), i)) for i, a in enumerate(pool)]
    _, of_pool = find_repeats(prints_of(pool), Fingerprints.of([]))
    assert [place >= 0 for place in of_pool.tolist()] == [item is not None for item in found]
    assert 0 < (of_pool >= 0).sum() < len(pool)


def test_rows_of_fingerprints_are_those_of_their_structures() -> None:
    structures = [molecule("H2O"), bulk("Cu") * (3, 3, 3), molecule("C2H6"), molecule("H2")]
    prints = Fingerprints.join([prints_of(structures[:3]), prints_of(structures[3:])])
    for rows in (slice(1, 3), np.array([3, 0, 0, 2])):
        taken = prints[rows]
        for place, row in enumerate(np.arange(4)[rows].tolist()):
            assert taken.at(place).equals(make_fingerprint(structures[row]))
            assert np.array_equal(taken.at(place).coordinates, prints.at(row).coordinates)
