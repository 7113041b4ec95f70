"""Rows of an untrained network."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.features.representations import RepresentationOptions, make_representation, represent
from labelwise.kernels.building import build_kernels
from labelwise.potentials import Potential
from labelwise.potentials.mace.potential import MacePotential

PAIRS = {"activation-random": "activation", "ntk-random": "ntk-e"}


def test_rows_are_those_of_a_network_built_anew(
    potential: Potential, rattled_molecules: list[Atoms]
) -> None:
    state = torch.get_rng_state()
    built, other = potential.with_random_weights(5), potential.with_random_weights(6)
    assert torch.equal(state, torch.get_rng_state())
    assert (built.elements, built.cutoff) == (potential.elements, potential.cutoff)
    for name, inner in PAIRS.items():
        options = RepresentationOptions(seed=5)
        rows = represent(rattled_molecules, potential, name, options=options)
        np.testing.assert_array_equal(rows, represent(rattled_molecules, built, inner))
        for different in (other, potential):
            theirs = represent(rattled_molecules, different, inner)
            assert np.abs(rows - theirs).max() > 0.01 * np.abs(rows).max()


def test_a_network_is_built_once_and_not_kept_alive(
    potential: Potential, monkeypatch: pytest.MonkeyPatch, rattled_molecules: list[Atoms]
) -> None:
    built = []
    draw = MacePotential.with_random_weights

    def watch(self: MacePotential, seed: int) -> MacePotential:
        built.append(weakref.ref(network := draw(self, seed)))
        return network

    monkeypatch.setattr(MacePotential, "with_random_weights", watch)
    representation = make_representation("activation-random")
    represent(rattled_molecules, potential, representation, batch_atoms=20)
    assert len(built) == 1
    del representation
    gc.collect()
    assert built[0]() is None


def test_kernels(potential: Potential, rattled_molecules: list[Atoms]) -> None:
    train, pool = build_kernels([[], rattled_molecules], potential, "ntk-random")
    assert (len(train), len(pool)) == (0, 30)
    np.testing.assert_allclose(pool.diagonal(), 1.0, rtol=1e-6)


def test_a_negative_seed() -> None:
    for name in PAIRS:
        with pytest.raises(ArgumentError, match="seed is -1"):
            make_representation(name, RepresentationOptions(seed=-1))
