"""The family of examples/nequip_family.py, on models that nequip builds with random weights."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.build import molecule
from ase.io import write

from labelwise.errors import PotentialError
from labelwise.potentials import load_potential
from labelwise.potentials.torch_potential import default_dtype
from labelwise.testing.potentials import check_potential
from tests.potentials.families import list_choices, require_choice, require_learning

nequip = pytest.importorskip("nequip", reason="nequip is not installed (make test-families)")
pytestmark = pytest.mark.filterwarnings("ignore")  # of omegaconf's own

EXAMPLES = Path(__file__).parents[2] / "examples"
SOURCE = (EXAMPLES / "nequip_family.py").read_text()


@pytest.fixture(scope="module")
def load() -> Callable[[], Any]:
    exec(SOURCE, {"__name__": "nequip_family"})  # our own example
    potential = load_potential("nequip-random")
    return lambda: copy.deepcopy(potential)


def make_molecules(count: int) -> list[Atoms]:
    names = ("CH3OH", "CH3CN", "C2H6", "H2CO")
    structures = [molecule(names[i % len(names)]) for i in range(count)]
    for seed, atoms in enumerate(structures):
        atoms.rattle(0.1, seed=seed)
    return structures


def test_it_takes_sixty_lines() -> None:
    assert len([line for line in SOURCE.partition('"""\n\n')[2].splitlines() if line.strip()]) <= 60


def test_it_obeys_the_laws(load: Callable[[], Any]) -> None:
    check_potential(load())


def test_energies_are_those_of_nequip(load: Callable[[], Any]) -> None:
    from nequip.data import AtomicDataDict, from_ase
    from nequip.data.transforms import ChemicalSpeciesToAtomTypeMapper, NeighborListTransform

    potential = load()
    atoms = make_molecules(1)[0]
    name_types = ChemicalSpeciesToAtomTypeMapper(["H", "C", "N", "O"])
    with default_dtype(torch.float64):
        data = NeighborListTransform(r_max=4.0)(name_types(from_ase(atoms)))
    expected = potential.model(AtomicDataDict.batched_from_list([data]))
    found = potential.predict(potential.collate([potential.prepare(atoms)]))
    torch.testing.assert_close(found.energies, expected["total_energy"][:, 0].detach())
    torch.testing.assert_close(found.forces, expected["forces"].detach())


@pytest.mark.parametrize("choice", list_choices("radial")[:-1])
def test_it_selects(load: Callable[[], Any], choice: tuple[str, str, str]) -> None:
    require_choice(load(), make_molecules(6), choice)


def test_random_features_need_a_method_of_its_own(load: Callable[[], Any]) -> None:
    with pytest.raises(PotentialError, match="cannot be built with new weights"):
        require_choice(load(), make_molecules(6), list_choices("radial")[-1])


def test_it_is_fine_tuned(load: Callable[[], Any]) -> None:
    require_learning(load(), load(), make_molecules(12))


def test_the_command_line_finds_it(tmp_path: Path) -> None:
    write(tmp_path / "pool.extxyz", make_molecules(6))
    paths = os.pathsep.join([str(EXAMPLES), os.environ.get("PYTHONPATH", "")])
    run = subprocess.run(
        f"{sys.executable} -m labelwise select --model nequip-random --pool pool.extxyz -n 2 "
        "--representation ntk-f --out batch.extxyz",
        shell=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths, "LABELWISE_PLUGINS": "nequip_family"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads((tmp_path / "batch.json").read_text())["model"]["name"] == "nequip-random"
