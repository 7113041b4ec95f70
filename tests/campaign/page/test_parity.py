from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule

from labelwise.campaign.page import parity
from labelwise.campaign.page.parity import make_parity, shift_energies
from labelwise.campaign.page.scored import LabelledFrames, ScoredSet, measure_errors
from labelwise.campaign.predictions import Predictions
from labelwise.structures import Frame, Source


def make_set(rng: np.random.Generator, n: int = 6) -> LabelledFrames:
    """Return water and methane; of each structure the first atom does not count."""
    structures = [molecule(("H2O", "CH4")[i % 2]) for i in range(n)]
    sizes = [len(atoms) for atoms in structures]
    return LabelledFrames(
        "test",
        tuple(Frame(a, Source("test.xyz", i), i) for i, a in enumerate(structures)),
        np.array([-10.0 * size for size in sizes]) + rng.normal(size=n),
        tuple(rng.normal(size=(size, 3)) for size in sizes),
        tuple(np.arange(size) > 0 for size in sizes),
        n,
    )


def score(labelled: LabelledFrames, rng: np.random.Generator, n_rounds: int = 2) -> ScoredSet:
    predictions = tuple(
        Predictions(
            np.arange(len(labelled)),
            labelled.energies + rng.normal(size=len(labelled)),
            tuple(forces + rng.normal(size=forces.shape) for forces in labelled.forces),
        )
        for _ in range(n_rounds)
    )
    errors = tuple(measure_errors(labelled, each) for each in predictions)
    places = np.arange(len(labelled), dtype=np.int32)
    return ScoredSet(labelled, tuple(range(n_rounds)), predictions, errors, places)


def test_fixed_atoms_are_left_out_and_points_know_their_structures(
    rng: np.random.Generator,
) -> None:
    labelled = make_set(rng)
    scored = score(labelled, rng)
    _, choice = make_parity(scored, ["test"] * 6, seed=0)
    chart = choice.options[1][1]
    (points,) = chart.series
    pairs = zip(labelled.forces, labelled.counted, strict=True)
    expected = np.concatenate([forces[counted].ravel() for forces, counted in pairs])
    assert np.asarray(points.x) == pytest.approx(expected, rel=1e-6)
    n_components = [3 * int(c.sum()) for c in labelled.counted]
    assert points.structure.tolist() == np.repeat(np.arange(6), n_components).tolist()
    assert choice.first == 1


def test_a_sample_is_the_same_for_every_round(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parity, "MOST_COMPONENTS", 20)
    monkeypatch.setattr(parity, "MOST_ENERGIES", 4)
    scored = score(make_set(rng), rng)
    energies, forces = make_parity(scored, ["a", "b"] * 3, seed=3)
    for choice, n in ((energies, 4), (forces, 20)):
        charts = [option for _, option in choice.options]
        xs = [np.concatenate([np.asarray(each.x) for each in chart.series]) for chart in charts]
        assert len(xs[0]) == n
        assert np.array_equal(xs[0], xs[1])
    assert "20 components drawn" in charts[0].caption
    again = make_parity(scored, ["a", "b"] * 3, seed=4)
    assert not np.array_equal(np.asarray(again[1].options[0][1].series[0].x),
                              np.asarray(charts[0].series[0].x))  # fmt: skip


def test_compositions_are_subtracted(rng: np.random.Generator) -> None:
    labelled = make_set(rng, 40)
    left = labelled.energies - shift_energies(labelled)
    for kind in (slice(0, None, 2), slice(1, None, 2)):
        assert abs(left[kind].mean()) < 1e-6 + 1e-3 * abs(labelled.energies[kind].mean())


def test_one_wrong_label_does_not_shift_the_others(rng: np.random.Generator) -> None:
    labelled = make_set(rng, 40)
    energies = labelled.energies.copy()
    energies[0] += 3000.0
    shift = shift_energies(replace(labelled, energies=energies))
    assert shift[1:] == pytest.approx(shift_energies(labelled)[1:], abs=1.0)


def test_errors_of_structures(rng: np.random.Generator) -> None:
    labelled = make_set(rng)
    forces = tuple(f + np.array([0.1, 0.0, 0.0]) for f in labelled.forces)
    found = measure_errors(labelled, Predictions(np.arange(6), labelled.energies + 0.3, forces))
    assert found.energy == pytest.approx(300.0)
    assert found.energy_per_atom == pytest.approx([100.0, 60.0] * 3)
    assert found.forces == pytest.approx(100.0 / np.sqrt(3.0))
