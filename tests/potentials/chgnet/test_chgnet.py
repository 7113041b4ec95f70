"""CHGNet: the laws of every potential, chgnet's own numbers, files, and every command's needs.

Small models are built with chgnet itself; its pretrained models lie inside its wheel.
"""

from __future__ import annotations

import contextlib
import io
import pickle
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111, molecule

from labelwise.errors import PotentialError
from labelwise.finetuning.export import save_potential
from labelwise.potentials import Potential, load_potential
from labelwise.testing.potentials import check_potential
from tests.potentials.families import (
    list_choices,
    require_choice,
    require_learning,
    require_parts,
)

chgnet = pytest.importorskip("chgnet", reason="chgnet is not installed (make test-families)")
pytestmark = pytest.mark.filterwarnings("ignore")  # of chgnet's and pymatgen's own

NAMES = ("chgnet-0.3.0", "chgnet-0.2.0", "chgnet-r2scan")
SMALL: dict[str, Any] = {
    "atom_fea_dim": 8,
    "bond_fea_dim": 7,
    "angle_fea_dim": 5,
    **{f"{kind}_conv_hidden_dim": 6 for kind in ("atom", "bond")},
    "num_radial": 5,
    "num_angular": 5,
    "n_conv": 3,
    "mlp_hidden_dims": [8, 6],
    "atom_graph_cutoff": 4.0,
    "bond_graph_cutoff": 2.5,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "as pretrained": {},
    "as version 0.2.0": {"mlp_out_bias": True, "gMLP_norm": None, "readout_norm": None},
    "normalised": {"conv_norm": "layer", "gMLP_norm": "batch", "angle_layer_hidden_dim": [6]},
    "averages": {
        "mlp_first": False,
        "final_mlp": "gated",
        "is_intensive": False,
        "composition_model": None,
    },
    "total energies": {"is_intensive": False, "composition_model": "MPF"},
    "without angles": {"update_bond": False},
    "one layer": {"n_conv": 1},
}


def make_small(dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    from labelwise.potentials.chgnet.potential import CHGNetPotential, build_model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(SMALL | settings)
    return CHGNetPotential(model.to(dtype), name="small")


def make_crystals() -> list[Atoms]:
    crystals = [
        bulk("NaCl", "rocksalt", a=5.6),
        bulk("NiO", "rocksalt", a=4.2),  # three atoms on a line
        bulk("Nb", "bcc", a=3.3, cubic=True),
        bulk("MgO", "rocksalt", a=4.3),
        fcc111("Cu", (1, 1, 2), vacuum=7.0, periodic=True),
    ]
    for seed, crystal in enumerate(crystals):
        if seed != 1:
            crystal.rattle(0.08, seed=seed)
    return crystals


def make_calculator(model: Any) -> Any:
    from chgnet.model.dynamics import CHGNetCalculator

    with contextlib.redirect_stdout(io.StringIO()):
        return CHGNetCalculator(model, use_device="cpu")


def assert_equal_to(calculator: Any, potential: Potential, structures: list[Atoms]) -> None:
    """Compare a batch with chgnet's own values, to which a box is a crystal."""
    batch = potential.collate([potential.prepare(s) for s in structures])
    found = potential.predict(batch, stress=True)
    assert found.forces is not None
    assert found.stresses is not None
    forces_of = found.forces.split([len(s) for s in structures])
    for atoms, energy, forces, stress in zip(
        structures, found.energies, forces_of, found.stresses, strict=True
    ):
        theirs = atoms.copy()
        if not atoms.pbc.any():
            theirs.center(vacuum=7.0)
            theirs.pbc = True
        theirs.calc = calculator
        assert float(energy) == pytest.approx(theirs.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(forces, theirs.get_forces(), atol=1e-4)
        if atoms.pbc.all():
            wanted = theirs.get_stress(voigt=False)
            np.testing.assert_allclose(stress, wanted, atol=2e-6)


def test_a_small_model_obeys_the_laws() -> None:
    check_potential(make_small())


@pytest.mark.thorough
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_architecture_obeys_the_laws(variant: str, dtype: torch.dtype) -> None:
    check_potential(make_small(dtype, **VARIANTS[variant]))


@pytest.mark.thorough
@pytest.mark.parametrize("name", NAMES)
def test_pretrained_models_obey_the_laws(name: str) -> None:
    check_potential(load_potential(name, device="cpu", dtype="float64"))


@pytest.mark.parametrize("name", NAMES)
def test_energies_and_forces_are_those_of_its_calculator(name: str) -> None:
    """Crystals, a slab, a molecule, and a pair too far apart for an angle."""
    from chgnet.model.model import CHGNet

    version = name.removeprefix("chgnet-")
    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet.load(model_name=version, use_device="cpu", verbose=False)
    pair = Atoms("CsI", positions=[[0, 0, 0], [0.3, 0.1, 3.4]])
    structures = [*make_crystals(), molecule("CH3OH"), pair]
    assert_equal_to(make_calculator(model), load_potential(name, device="cpu"), structures)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_architecture_is_evaluated_as_chgnet_does(variant: str) -> None:
    """Batches and double precision are ours; chgnet has single precision."""
    from chgnet.model.model import CHGNet

    potential = make_small(**VARIANTS[variant])
    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet(**SMALL | VARIANTS[variant])
    state = potential.model.state_dict()
    if model.composition_model is None:
        assert not state.pop("composition_model.fc.weight").any()
    model.load_state_dict(state)
    assert_equal_to(make_calculator(model), potential, make_crystals())


def test_bonds_and_angles_by_brute_force() -> None:
    from labelwise.potentials.chgnet.bonds import build_bond_graph

    potential = make_small()
    structures = [*make_crystals()[:3], Atoms("Cs")]
    batch = potential.collate([potential.prepare(atoms) for atoms in structures])
    sender, receiver = batch.edge_index
    vectors = batch.positions[receiver] - batch.positions[sender] + batch.shifts
    lengths = vectors.norm(dim=1)
    graph = build_bond_graph(batch, lengths, cutoff=2.9)
    n_edges = batch.n_edges
    assert len(graph.edge_of_bond) == n_edges // 2
    assert torch.equal(graph.bond_of_edge[graph.edge_of_bond], torch.arange(n_edges // 2))
    for edges in (torch.nonzero(graph.bond_of_edge == bond)[:, 0] for bond in range(n_edges // 2)):
        there, back = edges.tolist()
        assert sender[there] == receiver[back] and receiver[there] == sender[back]
        torch.testing.assert_close(vectors[there], -vectors[back])
    short = [edge for edge in range(n_edges) if lengths[edge] < 2.9]
    wanted = {(i, j) for i, j in permutations(short, 2) if sender[i] == sender[j]}
    found = list(zip(graph.first.tolist(), graph.second.tolist(), strict=True))
    assert len(found) == len(wanted) > 100 and set(found) == wanted
    for edges, places in ((graph.first, graph.first_short), (graph.second, graph.second_short)):
        assert torch.equal(graph.short_bonds[places], graph.bond_of_edge[edges])


def test_an_atom_alone_has_an_energy() -> None:
    """chgnet's converter refuses it; nothing reaches the atom, whose features stay."""
    potential = load_potential("chgnet-0.3.0", device="cpu", dtype="float64")
    structures = [Atoms("O"), Atoms("Fe", cell=[20, 20, 20], pbc=True)]
    batch = potential.collate([potential.prepare(atoms) for atoms in structures])
    found = potential.predict(batch)
    model: Any = potential.model
    atoms = model.mlp(model.readout_norm(model.atom_embedding.embedding.weight[[7, 25]]))[:, 0]
    wanted = atoms + torch.from_numpy(potential.reference_energies[[7, 25]])
    torch.testing.assert_close(found.energies, wanted)
    assert found.forces is not None and not found.forces.any()


def test_weights_that_no_energy_depends_on_are_in_no_block() -> None:
    potential = load_potential("chgnet-0.3.0", device="cpu", dtype="float64")
    assert potential.blocks == (
        *("embedding", "basis", "atom_conv", "bond_conv", "angle", "readout", "all"),
    )
    batch = potential.collate([potential.prepare(atoms) for atoms in make_crystals()[1:2]])
    energies = potential.energies(batch)
    names = dict(potential.model.named_parameters())
    with torch.enable_grad():
        for weight in names.values():
            weight.requires_grad_(True)
        energies = potential.energies(batch).sum()
        gradients = torch.autograd.grad(energies, list(names.values()), allow_unused=True)
    unused = {name for name, each in zip(names, gradients, strict=True) if each is None}
    assert unused == potential.absent_weights()
    assert {name.split(".")[0] for name in unused} == {
        *("composition_model", "site_wise", "angle_layers"),
    }


@pytest.mark.parametrize("ending", [".pth.tar", ".pt"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_file_holds_the_same_model(tmp_path: Path, ending: str, dtype: torch.dtype) -> None:
    """It needs no trust: weights and plain values, recognised by what is in them."""
    from chgnet.model.model import CHGNet

    potential = make_small(dtype, **VARIANTS["averages"])
    potential.set_reference_energies(np.linspace(-3.0, 1.0, 94))
    path = tmp_path / f"small{ending}"
    save_potential(potential, path)
    torch.load(path, weights_only=True)
    again = load_potential(path, device="cpu")
    assert type(again) is type(potential)
    assert again.content_hash == potential.content_hash
    with contextlib.redirect_stdout(io.StringIO()):
        model = CHGNet.from_file(str(path))
    assert_equal_to(make_calculator(model), again, make_crystals()[:2])


@pytest.mark.parametrize("name", NAMES)
def test_its_own_files_are_recognised(name: str) -> None:
    """Those of the wheel, as a trainer wrote them; version 0.2.0 had biases that none tells of."""
    folder = Path(chgnet.__file__).parent / "pretrained" / name.removeprefix("chgnet-")
    (path,) = folder.glob("*.pth.tar")
    found = load_potential(path, device="cpu").content_hash
    assert found == load_potential(name, device="cpu").content_hash


def test_copies_are_whole() -> None:
    potential = make_small()
    for made in (pickle.loads(pickle.dumps(potential)), potential.copy()):
        assert made.content_hash == potential.content_hash
    drawn = potential.with_random_weights(3, scale=0.2)
    assert drawn.content_hash != potential.content_hash
    assert drawn.content_hash == potential.with_random_weights(3, scale=0.2).content_hash
    np.testing.assert_allclose(drawn.reference_energies, potential.reference_energies)
    batch = potential.collate([potential.prepare(make_crystals()[0])])
    energies = [
        each.without_references().predict(batch).energies
        for each in (drawn, potential.with_random_weights(3))
    ]
    torch.testing.assert_close(energies[0], 0.2 * energies[1])


def test_what_does_not_add_up_is_refused() -> None:
    """Energies of two cells that are not twice those of one."""
    with pytest.raises(ValueError, match="does not go with the reference energies 'MPtrj'"):
        make_small(is_intensive=False)
    with pytest.raises(ValueError, match="under which energies do not add up"):
        make_small(mlp_first=False, read_out="attn")


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "small.pth.tar"
    save_potential(make_small(), path)
    content = torch.load(path, weights_only=True)
    del content["model"]["state_dict"]["mlp.layers.0.weight"]
    torch.save(content, path)
    with pytest.raises(PotentialError, match="do not make a model with the installed chgnet"):
        load_potential(path, device="cpu")


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth.tar"
    save_potential(make_small(), path)
    content = torch.load(path, weights_only=True)
    torch.save(content | {"trainer_args": Path}, path)
    with pytest.raises(PotentialError, match="more than weights and numbers"):
        load_potential(path, device="cpu", trust=True)


@pytest.mark.parametrize("choice", list_choices("bond_conv"))
def test_it_selects(choice: tuple[str, str, str]) -> None:
    require_choice(make_small(torch.float32), make_crystals(), choice)


def test_it_is_fine_tuned() -> None:
    structures = [bulk("MgO", "rocksalt", a=4.2) for _ in range(12)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.15, seed=seed)
    require_learning(make_small(), make_small(), structures)
    require_parts(make_small(), structures)
