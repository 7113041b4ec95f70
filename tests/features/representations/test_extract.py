from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import molecule

from labelwise.errors import ArgumentError, StructureError
from labelwise.features.representations import (
    ModelRepresentation,
    RepresentationOptions,
    feature_size,
    iter_features,
    list_representations,
    make_representation,
    register_representation,
)
from labelwise.features.representations import represent as represent_with
from labelwise.potentials import Batch
from labelwise.potentials.mace.loading import make_potential
from tests.potentials.models import make_mace


def represent(
    structures: list[Atoms],
    potential: Any = None,
    representation: Any = "ntk-e",
    *,
    batch_atoms: int | None = None,
    **options: Any,
) -> np.ndarray:
    return represent_with(
        structures,
        potential,
        representation,
        options=RepresentationOptions(**options),
        batch_atoms=batch_atoms,
    )


@pytest.fixture(scope="module")
def potential() -> Any:
    return make_potential(make_mace(), name="scalars")


@pytest.fixture
def structures() -> list[Atoms]:
    names = ["H2O", "CH4", "CH3OH", "CO2", "H", "C2H4"]
    rng = np.random.default_rng(1)
    pool = [molecule(name) for name in names * 4]
    for atoms in pool:
        atoms.positions += rng.normal(scale=0.1, size=atoms.positions.shape)
    return pool


def test_known_representations() -> None:
    assert {"activation", "ntk-e", "ntk-ef", "ntk-f", "random"} <= set(list_representations())


def test_features_are_those_of_the_potential(potential: Any, structures: list[Atoms]) -> None:
    batch = potential.collate([potential.prepare(atoms) for atoms in structures])
    for name, wanted in (
        ("ntk-e", potential.energy_tangent(batch)),
        ("activation", potential.activations(batch)),
    ):
        np.testing.assert_allclose(
            represent(structures, potential, name), wanted, rtol=1e-5, atol=1e-6
        )


def test_sketched_products_approach_the_exact_ones(potential: Any, structures: list[Atoms]) -> None:
    exact = represent(structures, potential, parameters="all", sketch_dim=10**9)
    assert exact.shape[1] == potential.tangent_size("all")
    grams = [
        rows @ rows.T
        for seed in range(20)
        for rows in [represent(structures, potential, parameters="all", sketch_dim=256, seed=seed)]
    ]
    scale = np.outer(*[np.linalg.norm(exact, axis=1)] * 2)
    assert np.abs((np.mean(grams, axis=0) - exact @ exact.T) / scale).max() < 5 / np.sqrt(20 * 128)


def test_sketches_follow_their_seed_and_default_length(potential: Any) -> None:
    atoms = [molecule("CH3OH")]
    one = represent(atoms, potential, parameters="all", sketch_dim=64, seed=1)
    assert np.array_equal(one, represent(atoms, potential, parameters="all", sketch_dim=64, seed=1))
    assert not np.allclose(
        one, represent(atoms, potential, parameters="all", sketch_dim=64, seed=2)
    )
    assert represent(atoms, potential, parameters="all", sketch_dim=100).shape == (1, 100)
    assert potential.tangent_size("all") < 2048  # shorter than the default: exact
    exact = represent(atoms, potential, parameters="all")
    assert exact.shape == (1, potential.tangent_size("all"))
    small = represent(atoms, potential, parameters="readout")
    assert small.shape == (1, potential.tangent_size("readout"))
    assert represent(atoms, potential, sketch_dim=10).shape == (1, 10)


def test_random_rows_depend_on_content_and_seed_alone(structures: list[Atoms]) -> None:
    rows = represent(structures, representation="random", seed=5)
    assert np.array_equal(rows, represent(structures[::-1], representation="random", seed=5)[::-1])
    assert np.array_equal(rows[3:4], represent(structures[3:4], representation="random", seed=5))
    assert not np.allclose(rows, represent(structures, representation="random", seed=6))
    assert len(np.unique(rows, axis=0)) == len(structures)
    labelled = structures[0].copy()
    labelled.info["REF_energy"] = 1.0
    assert np.array_equal(represent([labelled], representation="random", seed=5)[0], rows[0])
    assert represent(structures, representation="random", sketch_dim=9).shape[1] == 9
    many = represent([molecule("H2O")], representation="random", sketch_dim=40_000)
    assert abs(many.mean()) < 0.03 and abs(many.std() - 1) < 0.03


def test_streams_give_what_lists_give(potential: Any, structures: list[Atoms]) -> None:
    chunks = list(iter_features(iter(structures), potential, batch_atoms=9))
    assert len(chunks) > 3
    np.testing.assert_allclose(
        np.concatenate(chunks), represent(structures, potential), rtol=1e-5, atol=1e-6
    )


def test_no_structures_give_no_rows(potential: Any) -> None:
    assert represent([], potential).shape == (0, potential.tangent_size())
    assert represent([], representation="random").shape == (0, 256)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("soup", {}, "allowed are activation, activation-random, morgan, ntk-e"),
        ("ntk-e", {"parameters": "head"}, "embedding, readout, products, interaction, all"),
        ("ntk-e", {"sketch_dim": 0}, "sketch_dim"),
        ("ntk-e", {"seed": -1}, "seed"),
        ("ntk-f", {"parameters": "head"}, "embedding, readout, products, interaction, all"),
        ("ntk-f", {"sketch_dim": 0, "reduction": "moments"}, "sketch_dim"),
        ("ntk-f", {"seed": -1}, "seed"),
        ("ntk-f", {"reduction": "mean"}, "rms, element-rms, force-norm, fields, moments"),
        ("ntk-f", {"n_probes": 0}, "n_probes is 0; it must be at least 1"),
        ("ntk-ef", {"reduction": "mean"}, "reduction is 'mean'"),
        ("ntk-ef", {"n_probes": -1}, "n_probes"),
        ("ntk-ef", {"energy_weight": 1.1}, "energy_weight is 1.1; it must be between 0 and 1"),
        ("ntk-ef", {"energy_weight": -0.1}, "energy_weight"),
        ("ntk-ef", {"energy_weight": float("nan")}, "energy_weight"),
    ],
)
def test_unknown_options_are_refused_at_once(
    potential: Any, name: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ArgumentError, match=message):
        iter_features([], potential, name, options=RepresentationOptions(**options))


def test_a_potential_is_asked_for_where_it_is_needed() -> None:
    with pytest.raises(ArgumentError, match="needs a potential"):
        represent([molecule("H2O")])
    with pytest.raises(ArgumentError, match="needs a potential"):
        feature_size(make_representation("activation"), None)


class Broken(ModelRepresentation):
    """Divides by zero for methane."""

    name = "broken"

    def size(self, potential: Any) -> int:
        return 1

    def compute(self, potential: Any, batch: Batch) -> torch.Tensor:
        counts = torch.tensor(batch.atom_counts, dtype=potential.dtype)
        return (1 / (counts - 5))[:, None]


def test_features_that_are_not_finite_are_refused_with_their_place(potential: Any) -> None:
    structures = [molecule(name) for name in ("H2O", "CH3OH", "CH4")]
    with pytest.raises(StructureError, match="structure 2 has broken features"):
        represent(structures, potential, Broken(), batch_atoms=7)


def test_registered_representations_join_and_names_are_unique(
    potential: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labelwise.features.representations import base

    monkeypatch.setattr(base, "_FACTORIES", dict(base._FACTORIES))
    register_representation("broken", lambda _: Broken())
    assert represent([molecule("H2O")], potential, "broken").shape == (1, 1)
    with pytest.raises(ArgumentError, match="registered already"):
        register_representation("ntk-e", lambda _: Broken())
    assert make_representation("ntk-e", RepresentationOptions(seed=1)).name == "ntk-e"


def test_ntk_rows_of_the_shared_model_are_parallel_to_autograd(shared_data: Any) -> None:
    """The specification's own check: 32 geometries, float32, cosine above 1 - 1e-6."""
    from ase.io import read

    from labelwise.potentials import load_potential

    model = load_potential(shared_data.parent / "models" / "mace_spice.model", trust=True)
    atoms = read(shared_data / "t1x_xtb" / "mixed" / "pool.extxyz", ":3200:100")
    batch = model.collate([model.prepare(each) for each in atoms])
    rows = model.energy_tangent(batch)
    singles = torch.cat([model.block_gradient(each, "embedding") for each in batch.split()])
    cosines = torch.nn.functional.cosine_similarity(rows.double(), singles.double())
    assert len(rows) == 32 and float(cosines.min()) > 1 - 1e-6
    assert float((rows - singles).abs().max() / singles.abs().max()) < 1e-5
