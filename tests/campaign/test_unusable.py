"""Structures of a pool that the model cannot take are counted and passed over by every rule."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.config import COMMITTEE_RULES
from labelwise.campaign.loop import run_campaign
from labelwise.campaign.state import INVENTORY, read_state
from labelwise.errors import ArgumentError, StructureError
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import make_structures, write_campaign
from tests.potentials.models import VARIANTS, make_mace

RULES = ("random", "lcmd", "pv", *COMMITTEE_RULES)
EMPTIED = "the pool has no structures left to choose"

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def write_files(folder: Path, model: torch.nn.Module, names: tuple[str, ...]) -> None:
    """Write sets of molecules of some names; the pool has all of them."""
    folder.mkdir()
    structures = make_structures(48, seed=2)
    chosen = [atoms for atoms in structures if atoms.get_chemical_formula() in names]
    for role, some in (("train", slice(0, 4)), ("valid", slice(4, 7)), ("test", slice(7, 10))):
        write_structures(folder / f"{role}.extxyz", chosen[some])
    pool = make_structures(8, seed=5)
    write_structures(folder / "pool.extxyz", pool)
    torch.save(model, folder / "small.model")


def run(directory: Path, files: Path, rule: str) -> str:
    selection = {"rule": rule, "batch_size": 3, "n_reserve": 2}
    if rule in COMMITTEE_RULES:
        selection |= {"members": 2}
    return run_campaign(
        write_campaign(directory, files, selection=selection, stop={"rounds": 9}),
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_pool_with_unknown_charges_is_used_up(tmp_path: Path, rule: str) -> None:
    files = tmp_path / "files"
    write_files(files, make_mace(**VARIANTS["charged"]), ("H2O", "CH4", "CO2", "CH4O"))
    pool = read_structures(files / "pool.extxyz")
    for i, (key, value) in {1: ("charge", 9), 4: ("total_charge", "x"), 6: ("spin", 40)}.items():
        pool[i].info[key] = value
    write_structures(files / "pool.extxyz", pool)
    assert run(tmp_path / "campaign", files, rule) == EMPTIED
    inventory = read_json(tmp_path / "campaign" / INVENTORY)
    assert (inventory["n_pool"], inventory["n_usable"]) == (8, 5)
    assert inventory["screened"] == {"unknown-charge": 3}
    assert len(read_state(tmp_path / "campaign").labels) == 5


@pytest.mark.parametrize("role", ["train", "valid", "test"])
def test_a_labelled_structure_of_unknown_charge_is_refused_at_once(
    tmp_path: Path, role: str
) -> None:
    files = tmp_path / "files"
    write_files(files, make_mace(**VARIANTS["charged"]), ("H2O", "CH4", "CO2", "CH4O"))
    given = read_structures(files / f"{role}.extxyz")
    given[1].info["charge"] = 9
    write_structures(files / f"{role}.extxyz", given)
    with pytest.raises(StructureError, match=rf"data.{role}: .*@1: unknown-charge"):
        run(tmp_path / "campaign", files, "lcmd")
    assert not (tmp_path / "campaign" / "round_000" / "batch.json").exists()


@pytest.mark.parametrize("rule", ["lcmd", "pv", "joint-pv", *COMMITTEE_RULES])
def test_a_pool_with_features_that_are_not_finite_is_used_up(tmp_path: Path, rule: str) -> None:
    """Half of the pool holds oxygen, on which the model overflows."""
    model = make_mace()
    with torch.no_grad():
        model.node_embedding.linear.weight.view(3, -1)[2] = 1e250
    files = tmp_path / "files"
    write_files(files, model, ("CH4",))
    assert run(tmp_path / "campaign", files, rule) == EMPTIED
    inventory = read_json(tmp_path / "campaign" / INVENTORY)
    assert (inventory["n_pool"], inventory["n_usable"]) == (8, 2)
    assert inventory["screened"] == {"non-finite-features": 6}
    labelled = read_state(tmp_path / "campaign").labels.values()
    assert {tuple(record["structure"]["numbers"]) for record in labelled} == {(6, 1, 1, 1, 1)}


def test_a_block_that_the_model_lacks_is_told_at_once(tmp_path: Path) -> None:
    files = tmp_path / "files"
    write_files(files, make_mace(), ("H2O", "CH4", "CO2", "CH4O"))
    selection = {"rule": "lcmd", "batch_size": 3, "parameters": "radial"}
    directory = write_campaign(tmp_path / "campaign", files, selection=selection)
    with pytest.raises(
        ArgumentError, match="allowed are embedding, readout, products, interaction, all"
    ):
        run_campaign(directory)
    assert not list(directory.glob("round_*/*"))
