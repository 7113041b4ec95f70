"""SevenNet: the laws of every potential, sevenn's own numbers, files, and every command's needs.

Small models are built with sevenn itself; its pretrained models lie inside its wheel.
"""

from __future__ import annotations

import copy
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, molecule

from labelwise.errors import PotentialError
from labelwise.finetuning.export import save_potential
from labelwise.potentials import load_potential
from labelwise.testing.potentials import check_potential
from tests.potentials.families import (
    list_choices,
    require_choice,
    require_learning,
    require_parts,
)

sevenn = pytest.importorskip("sevenn", reason="sevenn is not installed (make test-families)")
pytestmark = pytest.mark.filterwarnings("ignore")  # of sevenn's and e3nn's own

PRETRAINED = [("7net-0", None), ("7net-l3i5", None), ("7net-mf-0", "PBE")]


def make_config(**settings: Any) -> dict[str, Any]:
    from sevenn import _const

    config = copy.deepcopy(_const.DEFAULT_E3_EQUIVARIANT_MODEL_CONFIG)
    config |= {
        "version": sevenn.__version__,
        "cutoff": 3.5,
        "is_parity": False,
        "channel": 4,
        "lmax": 1,
        "num_convolution_layer": 2,
        "conv_denominator": 5.0,
        "_type_map": {1: 0, 6: 1, 8: 2},
        "_number_of_species": 3,
        "shift": [-3.0, -7.0, -5.0],
        "scale": [1.5, 1.0, 0.7],
    }
    return config | settings


def make_small(dtype: torch.dtype = torch.float64, **settings: Any) -> Any:
    from labelwise.potentials.sevennet.potential import SevenNetPotential, build_model

    config = make_config(**settings)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model(config, dtype)
    return SevenNetPotential(model, config, name="small")


def make_structures() -> list[Atoms]:
    rng = np.random.default_rng(0)
    structures = [molecule(name) for name in ("H2O", "CH4", "CH3OH", "CO2", "C2H4", "H2CO")]
    for atoms in structures:
        atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    return structures


@pytest.mark.parametrize("settings", [{}, {"is_parity": True, "lmax": 2}, {"scale": 1.3}])
def test_small_models_obey_the_laws(settings: dict[str, Any]) -> None:
    potential = make_small(**settings)
    assert potential.parity == settings.get("is_parity", False)
    check_potential(potential)


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "head"), PRETRAINED)
def test_pretrained_models_obey_the_laws(name: str, head: str | None) -> None:
    check_potential(load_potential(name, device="cpu", dtype="float64", head=head))


@pytest.mark.parametrize(("name", "head"), PRETRAINED)
def test_energies_and_forces_are_those_of_its_calculator(name: str, head: str | None) -> None:
    from sevenn.calculator import SevenNetCalculator

    potential = load_potential(name, device="cpu", head=head)
    calculator = SevenNetCalculator(name, device="cpu", **({"modal": head} if head else {}))
    crystal = bulk("NaCl", "rocksalt", a=5.6)
    crystal.rattle(0.1, seed=1)
    for atoms in (crystal, molecule("CH3OH")):
        batch = potential.collate([potential.prepare(atoms)])
        found = potential.predict(batch)
        atoms.calc = calculator
        assert float(found.energies) == pytest.approx(atoms.get_potential_energy(), abs=1e-5)
        np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-4)


def test_a_model_of_several_levels_wants_one() -> None:
    with pytest.raises(PotentialError, match="the heads R2SCAN, PBE: choose one"):
        load_potential("7net-mf-0", device="cpu")


@pytest.mark.parametrize("ending", [".pth", ".pt"])
def test_a_file_holds_the_same_model(tmp_path: Path, ending: str) -> None:
    """It needs no trust: weights and plain values, recognised by what is in them."""
    from sevenn.calculator import SevenNetCalculator

    potential = make_small(torch.float32)
    path = tmp_path / f"small{ending}"
    save_potential(potential, path)
    torch.load(path, weights_only=True)
    again = load_potential(path, device="cpu")
    assert type(again) is type(potential)
    assert again.content_hash == potential.content_hash
    atoms = molecule("CH3OH")
    batch = potential.collate([potential.prepare(atoms)])
    found, wanted = again.predict(batch), potential.predict(batch)
    torch.testing.assert_close(found.energies, wanted.energies)
    torch.testing.assert_close(found.forces, wanted.forces)
    atoms.calc = SevenNetCalculator(str(path), device="cpu")
    assert float(wanted.energies) == pytest.approx(atoms.get_potential_energy(), abs=1e-5)


@pytest.mark.parametrize(("name", "head"), PRETRAINED)
def test_a_pretrained_model_is_written_as_it_is_now(
    name: str, head: str | None, tmp_path: Path
) -> None:
    """sevenn reorders weights that an older version wrote; ours have been reordered already."""
    from sevenn.calculator import SevenNetCalculator

    potential = load_potential(name, device="cpu", head=head)
    path = tmp_path / "pretrained.pth"
    save_potential(potential, path)
    assert load_potential(path, device="cpu", head=head).content_hash == potential.content_hash
    atoms = bulk("NaCl", "rocksalt", a=5.6)
    atoms.rattle(0.1, seed=1)
    found = potential.predict(potential.collate([potential.prepare(atoms)]), stress=True)
    atoms.calc = SevenNetCalculator(str(path), device="cpu", **({"modal": head} if head else {}))
    assert float(found.energies) == pytest.approx(atoms.get_potential_energy(), abs=2e-5)
    np.testing.assert_allclose(found.forces, atoms.get_forces(), atol=1e-4)
    assert found.stresses is not None
    np.testing.assert_allclose(found.stresses[0], atoms.get_stress(voigt=False), atol=1e-6)


def test_copies_are_whole() -> None:
    potential = make_small()
    for made in (pickle.loads(pickle.dumps(potential)), potential.copy()):
        assert made.content_hash == potential.content_hash
    drawn = potential.with_random_weights(3, scale=0.2)
    assert drawn.content_hash != potential.content_hash
    assert drawn.content_hash == potential.with_random_weights(3, scale=0.2).content_hash
    np.testing.assert_allclose(drawn.reference_energies, potential.reference_energies)


def test_a_damaged_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "small.pth"
    save_potential(make_small(), path)
    content = torch.load(path, weights_only=True)
    del content["model_state_dict"]["reduce_hidden_to_energy.linear.weight"]
    torch.save(content, path)
    with pytest.raises(PotentialError, match="do not make a model with the installed sevenn"):
        load_potential(path, device="cpu")


def test_code_in_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "hostile.pth"
    torch.save({"config": Path, "model_state_dict": {}, "optimizer_state_dict": {}}, path)
    with pytest.raises(PotentialError, match="more than weights and numbers"):
        load_potential(path, device="cpu", trust=True)


@pytest.mark.parametrize("choice", list_choices("radial"))
def test_it_selects(choice: tuple[str, str, str]) -> None:
    require_choice(make_small(torch.float32), make_structures(), choice)


def test_it_is_fine_tuned() -> None:
    structures = [atoms for _ in range(2) for atoms in make_structures()]
    require_learning(make_small(), make_small(), structures)
    require_parts(make_small(), structures)
