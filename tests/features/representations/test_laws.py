from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from ase import Atoms

from labelwise.features.representations import (
    RepresentationOptions,
    list_representations,
    make_representation,
    represent,
)
from labelwise.features.representations.reductions import REDUCTIONS
from labelwise.potentials.mace.loading import make_potential
from labelwise.testing.potentials import sample_structures
from labelwise.testing.representations import check_representation
from tests.potentials.models import VARIANTS, make_mace


@pytest.fixture(scope="module")
def potential() -> Any:
    return make_potential(make_mace(**VARIANTS["vectors"]), name="vectors")


def small(structures: list[Atoms]) -> list[Atoms]:
    """Return two molecules, a crystal, a lone pair and an atom: 3N passes each are bearable."""
    return [structures[which] for which in (0, 1, 4, 6, 7)]


@pytest.mark.parametrize("name", list_representations())
def test_every_representation_obeys_the_laws(name: str, potential: Any) -> None:
    representation = make_representation(name, RepresentationOptions(n_probes=None))
    structures = sample_structures(potential)
    if name in ("ntk-f", "ntk-ef"):
        structures = small(structures)
    check_representation(representation, structures, potential, invariant=name != "random")


@pytest.mark.parametrize("parameters", ["readout", "products", "all"])
def test_sketched_tangents_obey_the_laws(parameters: str, potential: Any) -> None:
    options = RepresentationOptions(parameters=parameters, sketch_dim=50, seed=3)
    structures = sample_structures(potential)
    check_representation(make_representation("ntk-e", options), structures, potential)


@pytest.mark.parametrize(
    ("reduction", "n_probes"),
    [
        ("element-rms", None),
        ("moments", None),
        ("force-norm", None),
        ("fields", 2),  # takes no probes
        ("rms", 2),
        ("element-rms", 2),
        ("moments", 2),
    ],
)
def test_force_tangents_obey_the_laws(reduction: str, n_probes: int | None, potential: Any) -> None:
    is_estimate = n_probes is not None and reduction != "fields"
    options = RepresentationOptions(reduction=reduction, n_probes=n_probes)
    structures = small(sample_structures(potential))
    representation = make_representation("ntk-f", options)
    check_representation(representation, structures, potential, invariant=not is_estimate)


@pytest.mark.parametrize("reduction", sorted(REDUCTIONS))
def test_force_tangents_of_sketched_weights_obey_the_laws(reduction: str, potential: Any) -> None:
    options = RepresentationOptions(
        parameters="readout", sketch_dim=7, seed=3, reduction=reduction, n_probes=None
    )
    structures = small(sample_structures(potential))
    check_representation(make_representation("ntk-f", options), structures[::2], potential)


def test_supercells_have_the_same_activations_and_direction(potential: Any) -> None:
    crystal: Atoms = sample_structures(potential)[4]
    pair = [crystal, crystal.repeat((1, 2, 1))]
    one, two = represent(pair, potential, "activation")
    np.testing.assert_allclose(one, two, rtol=1e-5, atol=1e-6)
    one, two = represent(pair, potential, "ntk-e")
    np.testing.assert_allclose(two, 2 * one, rtol=1e-5, atol=1e-6)
