from __future__ import annotations

import copy
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.stress import voigt_6_to_full_3x3_stress

from labelwise.errors import ArgumentError, PotentialError, StructureError
from labelwise.potentials import Potential
from labelwise.potentials.base import Prediction
from labelwise.potentials.mace.checkpoint import mace_warnings_silenced
from labelwise.potentials.mace.loading import make_potential
from labelwise.testing.potentials import central_difference, sample_structures
from tests.potentials.conftest import variant
from tests.potentials.models import VARIANTS, build_mace, make_mace

ODD = {"hidden_irreps": "5x0e + 5x0o + 5x1o"}

BLOCKS = ("embedding", "readout", "products", "interaction", "all")


def structures() -> list[Atoms]:
    crystal = bulk("C", "diamond", a=3.4, cubic=True)
    crystal.rattle(0.05, seed=1)
    slab = Atoms(
        "CO2H",
        cell=[4.0, 4.5, 0.0],
        pbc=(True, True, False),
        positions=[[0, 0, 0], [1.2, 0.1, 0.3], [5.0, -1.1, 0.2], [0.2, 1.0, 9.0]],
    )
    return [molecule("CH3CHO"), crystal, slab, molecule("H2O")]


def predict(potential: Any, atoms: list[Atoms]) -> Prediction:
    return potential.predict(potential.collate([potential.prepare(a) for a in atoms]))


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("scalars", None),
        ("plain", None),
        ("vectors", None),
        ("repulsion", None),
        ("nonlinear", None),
    ]
    + [("heads", head) for head in ("pbe", "r2scan", "Default")],
)
def test_predictions_are_those_of_the_calculator_of_mace(name: str, head: str | None) -> None:
    with mace_warnings_silenced():
        from mace.calculators import MACECalculator
    model = make_mace(**VARIANTS[name])
    choice = {} if head is None else {"head": head}
    calculator = MACECalculator(models=copy.deepcopy(model), default_dtype="float64", **choice)
    potential = make_potential(model, name=name, head=head)
    batch = potential.collate([potential.prepare(atoms) for atoms in structures()])
    energies, forces, stresses = potential.predict(batch, stress=True)
    wanted = [
        (a, calculator.get_potential_energy(a), calculator.get_forces(a)) for a in structures()
    ]
    np.testing.assert_allclose(energies, [energy for _, energy, _ in wanted], atol=1e-10, rtol=0)
    np.testing.assert_allclose(forces, np.concatenate([f for *_, f in wanted]), atol=1e-10, rtol=0)
    stress = voigt_6_to_full_3x3_stress(calculator.get_stress(wanted[1][0]))
    np.testing.assert_allclose(stresses[1], stress, atol=1e-12, rtol=0)


@pytest.mark.parametrize("parameters", BLOCKS)
@pytest.mark.parametrize("name", ["vectors", "heads", "charged"])
def test_tangents_are_the_slopes_of_the_energy(name: str, parameters: str) -> None:
    """Against finite differences of the energy for the three steepest weights of a block."""
    model = make_mace(**VARIANTS[name])
    potential: Any = make_potential(model, name=name)
    batch = potential.collate([potential.prepare(a) for a in structures()])
    tangents = potential.energy_tangent(batch, parameters=parameters)
    places = tangents.abs().sum(dim=0).topk(3).indices.tolist()
    weights = torch.cat([w.reshape(-1) for w in potential.block_weights(parameters)])
    for place in places:

        def energies(shift: float, place: int = place) -> Any:
            moved = weights.clone()
            moved[place] += shift
            torch.nn.utils.vector_to_parameters(moved, potential.block_weights(parameters))
            return potential.predict(batch, forces=False).energies

        slope = central_difference(energies, 1e-3)
        torch.nn.utils.vector_to_parameters(weights, potential.block_weights(parameters))
        error = (tangents[:, place] - slope).abs().max() / slope.abs().max()
        assert error < 1e-7, f"weight {place}"


def test_ntk_rows_are_parallel_to_plain_autograd_on_the_mace_model() -> None:
    """Against mace-torch's own forward, one structure at a time, in single precision too."""
    for dtype, limit in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
        model = make_mace(**VARIANTS["vectors"], dtype=dtype)
        reference = copy.deepcopy(model).requires_grad_(True)
        potential: Any = make_potential(model, name="vectors")
        batch = potential.collate([potential.prepare(a) for a in structures()])
        rows = potential.energy_tangent(batch)
        for row, single in zip(rows, batch.split(), strict=True):
            energy = reference(potential._inputs(single, None), compute_force=False)["energy"]
            (wanted,) = torch.autograd.grad(energy.sum(), reference.node_embedding.linear.weight)
            assert torch.nn.functional.cosine_similarity(row, wanted, dim=0) > 1 - 1e-6
            assert (row - wanted).abs().max() <= limit * wanted.abs().max()


def test_elements_that_are_absent_have_zero_tangents(vectors: Any) -> None:
    batch = vectors.collate([vectors.prepare(molecule("H2O")), vectors.prepare(molecule("CH4"))])
    rows = vectors.energy_tangent(batch).view(2, 3, -1)  # elements H, C, O
    assert not rows[0, 1].any() and not rows[1, 2].any()
    assert rows[0, 0].any() and rows[0, 2].any() and rows[1, 1].any()


def test_activations_are_the_mean_scalars_of_each_layer(vectors: Any) -> None:
    batch = vectors.collate([vectors.prepare(a) for a in structures()])
    with torch.no_grad():
        out = vectors.model(vectors._inputs(batch, None), compute_force=False)["node_feats"]
    # Layer 1 is 6x0e + 6x1o (24 numbers), layer 2 is 6x0e.
    scalars = torch.cat([out[:, :6], out[:, 24:]], dim=1)
    wanted = [part.mean(dim=0) for part in torch.split(scalars, batch.atom_counts)]
    torch.testing.assert_close(vectors.activations(batch), torch.stack(wanted))


def test_pseudoscalars_do_not_enter_activations() -> None:
    potential: Any = make_potential(make_mace(**ODD), name="odd")
    assert potential.activation_size == 10
    atoms = sample_structures(potential)[3]
    mirrored = atoms.copy()
    mirrored.positions[:, 0] *= -1
    batch = potential.collate([potential.prepare(atoms), potential.prepare(mirrored)])
    one, other = potential.activations(batch)
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_forbidden_paths_have_no_tangent_before_and_after_pickling() -> None:
    """mace-torch freezes their weights at zero, in a class that a pickle does not keep."""
    fresh: Any = make_potential(build_mace(**ODD), name="fresh")
    loaded: Any = make_potential(make_mace(**ODD), name="loaded")
    n_weights = sum(weight.numel() for weight in fresh.model.parameters())
    assert fresh.tangent_size("all") == loaded.tangent_size("all") < n_weights
    batch = fresh.collate([fresh.prepare(molecule("CH3OH"))])
    for parameters in BLOCKS:
        one = fresh.energy_tangent(batch, parameters=parameters)
        torch.testing.assert_close(one, loaded.energy_tangent(batch, parameters=parameters))
        assert one.any()


def test_charge_and_spin_reach_a_model_that_wants_them() -> None:
    potential: Any = variant("charged")
    neutral, cation, triplet = (molecule("CH3") for _ in range(3))
    cation.info["charge"] = 1
    triplet.info["total_spin"] = 3
    energies = predict(potential, [neutral, cation, triplet]).energies
    assert len(set(energies.tolist())) == 3
    explicit = molecule("CH3")
    explicit.info.update(total_charge=0, total_spin=1)
    assert predict(potential, [explicit]).energies[0] == pytest.approx(
        float(energies[0]), rel=1e-12
    )


@pytest.mark.parametrize(
    "info",
    [{"charge": 5}, {"spin": -1}, {"charge": 1, "total_charge": 0}, {"charge": "plus one"}],
)
def test_charges_and_spins_that_the_model_lacks_are_refused(info: dict[str, Any]) -> None:
    atoms = molecule("CH4")
    atoms.info.update(info)
    with pytest.raises(StructureError, match="CH4"):
        variant("charged").prepare(atoms)


def test_charge_is_ignored_by_a_model_without_it(vectors: Any) -> None:
    atoms = molecule("CH4")
    atoms.info["charge"] = "whatever"
    assert replace(vectors.graph_builder)(atoms).charge == 0.0


def test_tangents_leave_no_trace_on_the_model(potential: Any) -> None:
    batch = potential.collate([potential.prepare(molecule("CH3OH"))])
    before = {key: value.clone() for key, value in potential.model.state_dict().items()}
    for parameters in BLOCKS:
        potential.energy_tangent(batch, parameters=parameters)
    potential.predict(batch)
    assert all(p.grad is None and not p.requires_grad for p in potential.model.parameters())
    assert all(torch.equal(v, before[k]) for k, v in potential.model.state_dict().items())
    with mace_warnings_silenced():
        pickle.dumps(potential.model)


def test_features_follow_weights_that_change_in_place() -> None:
    model: Any = make_mace()
    potential: Any = make_potential(model, name="changing")
    batch = potential.collate([potential.prepare(molecule("CH3OH"))])
    before, digest = potential.energy_tangent(batch), potential.content_hash
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.1)
    fresh: Any = make_potential(copy.deepcopy(model), name="fresh")
    after = potential.energy_tangent(batch)
    torch.testing.assert_close(after, fresh.energy_tangent(batch))
    assert not torch.allclose(after, before)
    assert potential.content_hash == fresh.content_hash != digest


def test_content_hash_tells_models_heads_and_types_apart() -> None:
    models = {
        "a": make_potential(make_mace(), name="a"),
        "weights": make_potential(make_mace(seed=1), name="b"),
        "dtype": make_potential(make_mace(), name="c", dtype=torch.float32),
        "head": make_potential(make_mace(**VARIANTS["heads"]), name="d", head="pbe"),
        "other head": make_potential(make_mace(**VARIANTS["heads"]), name="e", head="r2scan"),
    }
    assert len({model.content_hash for model in models.values()}) == len(models)
    model: Any = make_mace()
    for interaction in model.interactions:
        interaction.avg_num_neighbors = 7.0
    assert make_potential(model, name="f").content_hash != models["a"].content_hash
    assert make_potential(make_mace(), name="again").content_hash == models["a"].content_hash


def test_heads_must_be_known_and_chosen() -> None:
    heads = ("pbe", "r2scan")
    with pytest.raises(PotentialError, match="pbe, r2scan"):
        make_potential(make_mace(heads=heads), name="two")
    with pytest.raises(PotentialError, match="'b3lyp'"):
        make_potential(make_mace(heads=heads), name="two", head="b3lyp")
    assert make_potential(make_mace(heads=heads), name="two", head="r2scan").head == "r2scan"


def test_unknown_parameter_block_is_refused(vectors: Potential) -> None:
    with pytest.raises(ArgumentError, match="embedding, readout, products, interaction, all"):
        vectors.tangent_size("everything")


def test_tangent_blocks_add_up(vectors: Potential) -> None:
    sizes = {block: vectors.tangent_size(block) for block in BLOCKS}
    total = sum(p.numel() for p in vectors.model.parameters())  # type: ignore[attr-defined]
    assert sizes["all"] == total
    assert sizes["embedding"] == 3 * 6
    assert sum(sizes.values()) - sizes["all"] == total
