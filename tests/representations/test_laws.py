from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from labelwise.potentials.mace_loading import make_potential
from labelwise.representations import (
    RepresentationOptions,
    list_representations,
    make_representation,
    represent,
)
from labelwise.testing.potentials import sample_structures
from labelwise.testing.representations import check_representation
from tests.potentials.models import VARIANTS, make_mace


@pytest.fixture(scope="module")
def potential() -> Any:
    return make_potential(make_mace(**VARIANTS["vectors"]), name="vectors")


@pytest.mark.parametrize("name", list_representations())
def test_every_representation_obeys_the_laws(name: str, potential: Any) -> None:
    representation = make_representation(name)
    structures = sample_structures(potential)
    check_representation(representation, structures, potential, invariant=name != "random")


@pytest.mark.parametrize("parameters", ["readout", "products", "all"])
def test_sketched_tangents_obey_the_laws(parameters: str, potential: Any) -> None:
    options = RepresentationOptions(parameters=parameters, sketch_dim=50, seed=3)
    structures = sample_structures(potential)
    check_representation(make_representation("ntk-e", options), structures, potential)


def test_supercells_have_the_same_activations_and_direction(potential: Any) -> None:
    crystal: Atoms = sample_structures(potential)[4]
    pair = [crystal, crystal.repeat((1, 2, 1))]
    one, two = represent(pair, potential, "activation")
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    one, two = represent(pair, potential, "ntk-e")
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5, atol=1e-6)
