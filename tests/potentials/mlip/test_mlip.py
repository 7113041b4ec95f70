"""mlip's networks: the laws of every potential, mlip's own numbers, files, and what commands need.

Models are small and have random weights that mlip draws; what is compiled for one test serves
all others, and a folder for it (JAX_COMPILATION_CACHE_DIR) serves the next run.
"""

from __future__ import annotations

import copy
import importlib.util
import os
import pickle
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule
from ase.io import read

from labelwise import select
from labelwise.campaign.config import ModelSection
from labelwise.campaign.shared_cache import SharedCache
from labelwise.errors import ArgumentError, PotentialError
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.training import finetune
from labelwise.potentials import Batch, load_potential
from labelwise.potentials.batching import map_batches
from labelwise.potentials.mlip.archive import ModelArchive, read_archive
from labelwise.runtime.engines import process_start
from labelwise.runtime.engines.process_engine import ProcessEngine
from labelwise.structures.demo_data import write_demo_files
from labelwise.testing.potentials import check_potential, sample_structures, symmetry_copies

pytest.importorskip("mlip", reason="mlip is not installed (make test-families)")
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of mlip's and JAX's own
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

CONFIGS: dict[str, dict[str, Any]] = {
    "Mace": {
        "num_layers": 2,
        "num_channels": 2,
        "l_max": 1,
        "correlation": 2,
        "readout_irreps": ("2x0e", "0e"),
        "num_rbf": 4,
        "radial_mlp_hidden": [4],
    },
    "Nequip": {
        "num_layers": 2,
        "target_irreps": "4x0e + 2x0o + 2x1o + 2x1e",
        "l_max": 1,
        "num_rbf": 4,
        "radial_mlp_hidden": [4],
    },
    "Visnet": {"num_layers": 2, "num_channels": 4, "num_heads": 2, "num_rbf": 4},
    "Esen": {
        "num_layers": 2,
        "sphere_channels": 4,
        "hidden_channels": 4,
        "edge_channels": 4,
        "num_rbf": 8,
    },
}
INFO: dict[str, Any] = {
    "atomic_energies_map": {1: -3.0, 6: -7.0, 7: -6.0, 8: -5.0},
    "graph_cutoff_angstrom": 3.5,
    "avg_num_neighbors": 6.0,
    "avg_r_min_angstrom": 1.0,
    "scaling_stdev": 0.8,
}
OTHERS = [pytest.param(name, marks=pytest.mark.thorough) for name in ("Nequip", "Visnet", "Esen")]
ALL = ["Mace", *OTHERS]


@cache
def build_field(name: str) -> Any:
    """Build a force field with mlip, as it does, but compiled: that takes a tenth of the time."""
    import jax
    from mlip import models
    from mlip.data import DatasetInfo
    from mlip.data.helpers.dummy_init_graph import get_dummy_graph_for_model_init
    from mlip.models.predictors import ConservativePredictor
    from mlip.typing.properties import Properties

    kind = getattr(models, name)
    network = kind(kind.Config(**CONFIGS[name]), DatasetInfo(**INFO))
    predictor = ConservativePredictor(network, Properties())
    drawn = jax.jit(lambda key: network.init(key, get_dummy_graph_for_model_init()))
    weights = drawn(jax.random.key(0))["params"]
    return models.ForceField(predictor, {"params": {"mlip_network": weights}})


def save_field(name: str, folder: Path) -> Path:
    from mlip.models.model_io import save_model_to_zip

    path = folder / f"{name}.zip"
    save_model_to_zip(path, build_field(name))
    return path


def load_small(name: str, folder: Path, dtype: str | None = None) -> Any:
    return load_potential(save_field(name, folder), device="cpu", dtype=dtype)


def make_structures() -> list[Atoms]:
    rng = np.random.default_rng(0)
    structures = [molecule(name) for name in ("H2O", "CH4", "CH3OH", "CO2", "C2H4", "H2CO")]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return structures


def make_batch(potential: Any) -> Batch:
    structures = sample_structures(potential)
    return potential.collate([potential.prepare(atoms) for atoms in structures])


@pytest.mark.thorough
@pytest.mark.parametrize("name", CONFIGS)
def test_small_models_obey_the_laws(name: str, tmp_path: Path) -> None:
    check_potential(load_small(name, tmp_path, "float64"))


def test_copies_of_a_molecule_are_the_same_to_it(tmp_path: Path) -> None:
    """The kit's symmetries, and forces as slopes, at one size: little is compiled."""
    potential = load_small("Mace", tmp_path, "float64")
    atoms = make_structures()[2]
    copies = symmetry_copies(atoms)
    batches = [potential.collate([potential.prepare(atoms)])]
    batches += [potential.collate([potential.prepare(each)]) for each, _ in copies.values()]
    first, *others = [potential.predict(batch) for batch in batches]
    for (law, (_, matrix)), found in zip(copies.items(), others, strict=True):
        wanted = first.forces @ torch.from_numpy(matrix).T
        wanted = wanted.flip(0) if law == "atom order" else wanted
        torch.testing.assert_close(found.energies, first.energies, rtol=1e-9, atol=0, msg=law)
        torch.testing.assert_close(found.forces, wanted, rtol=0, atol=1e-9, msg=law)
    for compute in (potential.energy_tangent, potential.activations):
        wanted = compute(batches[0]).expand(len(others), -1)
        found = torch.cat([compute(batch) for batch in batches[1:]])
        torch.testing.assert_close(found, wanted, rtol=1e-9, atol=1e-9)
    step = 1e-4 * np.random.default_rng(2).normal(size=atoms.positions.shape)
    energies = []
    for sign in (1, -1):
        moved_atoms = atoms.copy()
        moved_atoms.positions += sign * step
        batch = potential.collate([potential.prepare(moved_atoms)])
        energies.append(float(potential.predict(batch).energies[0]))
    slope = float((first.forces * torch.from_numpy(step)).sum())
    assert (energies[1] - energies[0]) / 2 == pytest.approx(slope, rel=1e-5)


@pytest.mark.thorough
def test_which_know_mirror_images(tmp_path: Path) -> None:
    """Of eSEN, mlip's own calculator gives them other energies; the kit holds the rest to it."""
    from mlip.simulation.ase.mlip_ase_calculator import MLIPForceFieldASECalculator

    atoms = make_structures()[2]
    calculator = MLIPForceFieldASECalculator(
        atoms, 1.0, build_field("Esen"), allow_nodes_to_change=True
    )
    turned, mirrored = (symmetry_copies(atoms)[law][0] for law in ("rotation", "reflection"))
    energies = []
    for seen in (atoms, turned, mirrored):
        seen.calc = calculator
        energies.append(float(seen.get_potential_energy()))
    assert energies[1] == pytest.approx(energies[0], abs=1e-5)
    assert abs(energies[2] - energies[0]) > 1e-4
    known = {name: load_small(name, tmp_path).parity for name in CONFIGS}
    assert known == {"Mace": True, "Nequip": True, "Visnet": True, "Esen": False}


@pytest.mark.thorough
def test_the_laws_hold_in_its_own_precision(tmp_path: Path) -> None:
    potential = load_small("Mace", tmp_path)
    assert potential.dtype == torch.float32
    check_potential(potential)


@pytest.mark.parametrize("name", ALL)
def test_energies_and_forces_are_those_of_its_calculator(name: str, tmp_path: Path) -> None:
    from mlip.simulation.ase.mlip_ase_calculator import MLIPForceFieldASECalculator

    potential, field = load_small(name, tmp_path), build_field(name)
    crystal = bulk("C", "diamond", a=3.6, cubic=True)
    crystal.rattle(0.1, seed=1)
    slab = crystal.copy()
    slab.set_pbc((True, True, False))
    structures = [crystal, slab, molecule("CH3OH"), Atoms("O", positions=[[1.0, 2.0, 3.0]])]
    calculator = MLIPForceFieldASECalculator(crystal, 1.0, field, allow_nodes_to_change=True)
    batch = potential.collate([potential.prepare(atoms) for atoms in structures])
    found = potential.predict(batch)
    wanted = []
    for atoms in structures:
        atoms.calc = calculator
        wanted.append(atoms.get_forces())
        energy = float(found.energies[len(wanted) - 1])
        assert energy == pytest.approx(float(atoms.get_potential_energy()), abs=1e-5)
    np.testing.assert_allclose(found.forces, np.concatenate(wanted), atol=1e-4)
    torch.testing.assert_close(potential.predict(batch, forces=False).energies, found.energies)


@pytest.mark.parametrize("name", ALL)
def test_activations_are_what_layers_leave(name: str, tmp_path: Path) -> None:
    """Against flax's own way to look into a network, on the graph that mlip makes."""
    import jax
    from mlip.data.chemical_system import ChemicalSystem
    from mlip.graph import Graph

    potential, field = load_small(name, tmp_path), build_field(name)
    kind = potential.evaluator.architecture
    atoms = molecule("CH3OH")
    graph = Graph.from_chemical_system(ChemicalSystem.from_ase_atoms(atoms), 3.5)
    weights = {"params": field.params["params"]["mlip_network"]}

    def look(graph: Any) -> list[Any]:
        _, seen = field.predictor.mlip_network.apply(
            weights,
            graph,
            capture_intermediates=lambda module, _: str(module.name).startswith(kind.layer),
        )
        return [
            kind.scalars(value["__call__"][0].nodes.features)
            for key, value in sorted(seen["intermediates"].items())
            if key.startswith(kind.layer)
        ]

    layers = jax.jit(look)(graph)
    wanted = np.concatenate([np.asarray(layer).mean(axis=0) for layer in layers])
    found = potential.activations(potential.collate([potential.prepare(atoms)]))
    assert len(layers) == 2
    np.testing.assert_allclose(found[0], wanted, rtol=1e-4, atol=1e-6)


def moved(potential: Any, parameters: str, direction: np.ndarray) -> Any:
    """Return a potential whose weights of a block lie in a direction from the given one's."""
    archive = potential._archive
    weights, start = dict(archive.weights), 0
    for name in potential._names[parameters]:
        weight = weights[name].astype(np.float64)
        weights[name] = weight + direction[start : start + weight.size].reshape(weight.shape)
        start += weight.size
    made = ModelArchive(archive.settings, weights)
    return type(potential)(made, name="moved", dtype=potential.dtype)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("parameters", ["embedding", "all"])
def test_rows_are_slopes_in_the_weights(name: str, parameters: str, tmp_path: Path) -> None:
    potential = load_small(name, tmp_path, "float64")
    batch, rng = make_batch(potential), np.random.default_rng(1)
    direction = rng.normal(size=potential.tangent_size(parameters))
    vectors = torch.from_numpy(rng.normal(size=(batch.n_atoms, 3)))
    step = 3e-7  # at 1e-4 the curvature of norms of small vectors is seen; it falls with step²
    ahead, behind = (
        moved(potential, parameters, sign * step * direction).predict(batch) for sign in (1, -1)
    )
    along = torch.from_numpy(direction)
    energies = (ahead.energies - behind.energies) / (2 * step)
    linear = potential.linearise(batch, parameters=parameters)
    torch.testing.assert_close(linear.energy_rows() @ along, energies, rtol=1e-5, atol=1e-6)
    work = ((ahead.forces - behind.forces) / (2 * step) * vectors).sum(dim=1)
    slopes = torch.zeros(batch.n_structures, dtype=torch.float64)
    slopes.index_add_(0, batch.structure_idx, work)
    rows = linear.force_rows(vectors)
    torch.testing.assert_close(rows @ along, slopes, rtol=1e-5, atol=1e-5)
    with pytest.raises(ArgumentError, match="one vector an atom"):
        linear.force_rows(vectors[1:])


def test_blocks_share_all_weights(tmp_path: Path) -> None:
    potential = load_small("Mace", tmp_path)
    parts = [potential.tangent_size(block) for block in potential.blocks if block != "all"]
    assert potential.blocks[0] == "embedding"
    assert sum(parts) == potential.tangent_size("all")


def test_a_pool_is_compiled_for_a_few_times(tmp_path: Path) -> None:
    """Rows of a pool of any composition take one function for each size of batch."""
    write_demo_files(tmp_path)
    pool = read(tmp_path / "pool.extxyz", ":600:2")
    potential = load_small("Mace", tmp_path)
    before = potential.evaluator.n_compiled
    parts = list(map_batches(potential, pool, potential.energy_tangent))
    assert len(parts) >= 9
    assert potential.evaluator.n_compiled - before <= 5
    assert len(torch.cat(parts)) == 300
    again = load_small("Mace", tmp_path)
    assert again.evaluator is potential.evaluator


def test_settings_of_jax_stay_as_they_were(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp

    potential = load_small("Mace", tmp_path, "float64")
    assert potential.predict(make_batch(potential)).energies.dtype == torch.float64
    assert not jax.config.jax_enable_x64
    assert jnp.ones(2).dtype == np.float32


def test_a_file_holds_the_same_model(tmp_path: Path) -> None:
    potential = load_small("Mace", tmp_path)
    path = tmp_path / "again.zip"
    save_potential(potential, path)
    again = load_potential(path, device="cpu")
    assert again.content_hash == potential.content_hash
    assert read_archive(path).weights.keys() == read_archive(tmp_path / "Mace.zip").weights.keys()
    with pytest.raises(ArgumentError, match=r"ending in \.zip"):
        save_potential(potential, tmp_path / "model.pt")


@pytest.mark.thorough
def test_mlip_reads_what_is_written(tmp_path: Path) -> None:
    from mlip.models import Mace
    from mlip.models.model_io import load_model_from_zip

    save_potential(load_small("Mace", tmp_path), tmp_path / "again.zip")
    found = load_model_from_zip(Mace, tmp_path / "again.zip")
    assert found.dataset_info == build_field("Mace").dataset_info
    assert found.config == build_field("Mace").config


def test_copies_are_whole(tmp_path: Path) -> None:
    potential = load_small("Mace", tmp_path)
    for made in (pickle.loads(pickle.dumps(potential)), copy.deepcopy(potential)):
        assert made.content_hash == potential.content_hash
    batch = make_batch(potential)
    drawn = potential.with_random_weights(3)
    assert drawn.content_hash == potential.with_random_weights(3).content_hash
    assert drawn.content_hash != potential.content_hash
    assert drawn.tangent_size("all") == potential.tangent_size("all")
    assert not torch.allclose(drawn.activations(batch), potential.activations(batch))


def test_weights_that_do_not_fit_are_told(tmp_path: Path) -> None:
    from labelwise.potentials.mlip.loading import make_potential

    archive = read_archive(save_field("Mace", tmp_path))
    fewer = {name: w for name, w in archive.weights.items() if "radial_mlp" not in name}
    with pytest.raises(PotentialError, match="do not make a model with the installed mlip"):
        make_potential(ModelArchive(archive.settings, fewer), name="cut")


def test_fine_tuning_is_mlip_s_own(tmp_path: Path) -> None:
    potential = load_small("Mace", tmp_path)
    with pytest.raises(PotentialError, match=r"MlipPotential.*mlip's own TrainingLoop.*select"):
        finetune(potential, make_structures(), [], Recipe(), seed=0)


def test_a_campaign_says_so_before_it_begins(tmp_path: Path) -> None:
    model = ModelSection(path=str(save_field("Mace", tmp_path)))
    with pytest.raises(PotentialError, match="mlip's own TrainingLoop"):
        SharedCache().load_pretrained(str(model.path), model)


@pytest.mark.parametrize(
    ("representation", "rule", "parameters"),
    [
        ("activation", "lcmd", "embedding"),
        ("ntk-e", "lcmd", "embedding"),
        ("ntk-e", "pv", "readout"),
        pytest.param("ntk-f", "lcmd", "embedding", marks=pytest.mark.thorough),
        pytest.param("ntk-ef", "lcmd", "readout", marks=pytest.mark.thorough),
        pytest.param("ntk-e", "joint-pv", "embedding", marks=pytest.mark.thorough),
        pytest.param("activation-random", "lcmd", "embedding", marks=pytest.mark.thorough),
    ],
)
def test_it_selects(representation: str, rule: str, parameters: str, tmp_path: Path) -> None:
    structures = make_structures()
    chosen = select(
        structures[1:],
        2,
        train=structures[:1],
        potential=load_small("Mace", tmp_path),
        representation=representation,
        rule=rule,
        parameters=parameters,
    )
    assert len(set(chosen.pool_idx)) == 2


class TellWho:
    """Computes rows, and says in which process; the home process waits for another's first."""

    def __init__(self, potential: Any, told: Path) -> None:
        self.potential, self.told, self.home = potential, told, os.getpid()

    def __call__(self, batch: Batch) -> torch.Tensor:
        deadline = time.monotonic() + 300
        while os.getpid() == self.home and not self.told.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        rows = self.potential.energy_tangent(batch)
        if os.getpid() != self.home:
            self.told.touch()
        return torch.cat([rows, rows.new_full((len(rows), 1), os.getpid())], dim=1)


def test_workers_are_no_copies(tmp_path: Path) -> None:
    """JAX waits for its threads in a copied process, for ever."""
    load_small("Mace", tmp_path)
    assert not process_start._can_fork()


@pytest.mark.thorough
def test_workers_compute_the_same(tmp_path: Path) -> None:
    potential, structures = load_small("Mace", tmp_path, "float64"), make_structures() * 3
    here = torch.cat(
        list(map_batches(potential, structures, potential.energy_tangent, batch_atoms=16))
    )
    tell = TellWho(potential, tmp_path / "told")
    with ProcessEngine(2) as engine:
        there = torch.cat(
            list(map_batches(potential, structures, tell, batch_atoms=16, engine=engine))
        )
    torch.testing.assert_close(there[:, :-1], here)
    pids = set(there[:, -1].tolist())
    assert len(pids) == 2
    assert os.getpid() in pids


@pytest.mark.thorough
def test_a_model_trained_with_mlip_selects(tmp_path: Path) -> None:
    """The papers' own way, as ``benchmarks/mlip_mace.py`` goes it at length."""
    place = Path(__file__).parents[3] / "benchmarks" / "mlip_mace.py"
    spec = importlib.util.spec_from_file_location("mlip_mace", place)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    write_demo_files(tmp_path)
    frames, pool = read(tmp_path / "test.extxyz", ":"), read(tmp_path / "pool.extxyz", ":48")
    train, valid = frames[::5], frames[2::20]  # of all reactions, which follow each other
    config = {**script.CONFIG, "l_max": 1, "radial_mlp_hidden": [16]}
    script.train(train, valid, tmp_path / "m.zip", n_epochs=20, config=config, peak=0.02)
    potential = load_potential(tmp_path / "m.zip", device="cpu")
    untrained = potential.with_random_weights(42)
    errors = [script.force_errors(each, valid).mean() for each in (potential, untrained)]
    none = np.mean([np.sqrt((atoms.arrays["REF_forces"] ** 2).mean()) for atoms in valid])
    assert errors[0] < 0.85 * min(errors[1], none)
    for representation in ("ntk-e", "activation"):
        chosen = select(pool, 3, potential=potential, representation=representation, rule="lcmd")
        assert len(set(chosen.pool_idx)) == 3
