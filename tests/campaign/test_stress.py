"""Campaigns of crystals: stress comes with the labels, is learnt, measured and shown."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ase import Atoms
from ase.build import bulk, fcc111
from ase.calculators.emt import EMT

from labelwise.campaign.curves import write_curves
from labelwise.campaign.labelling import LabelsPending
from labelwise.campaign.loop import run_campaign
from labelwise.campaign.page.costs import make_round_table
from labelwise.campaign.page.curves import make_learning_curves
from labelwise.campaign.page.facts import make_facts
from labelwise.campaign.saved import read_saved
from labelwise.campaign.state import read_state
from labelwise.cli import main
from labelwise.structures import hash_structure, read_structures, write_structures
from tests.campaign.building import write_campaign
from tests.campaign.test_crashes import check_moments, run_undisturbed
from tests.campaign.zygote import Zygote
from tests.models import build_mace

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def make_crystal(number: int) -> Atoms:
    """Return a strained and rattled crystal or, every fourth, a slab."""
    rng = np.random.default_rng(number)
    if number % 4 == 3:
        atoms = fcc111("Cu", (1, 1, 3), vacuum=5.0)
    else:
        atoms = bulk("Cu", a=3.6, cubic=number % 2 == 0)
    atoms.set_cell(atoms.cell.array @ (np.eye(3) + rng.normal(scale=0.02, size=(3, 3))), True)
    atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
    atoms.info = {"number": number}
    return atoms


def label(atoms: Atoms) -> Atoms:
    copy = atoms.copy()
    copy.calc = EMT()
    atoms.info["REF_energy"] = float(copy.get_potential_energy())
    atoms.arrays["REF_forces"] = copy.get_forces()
    if atoms.pbc.all():
        atoms.info["REF_stress"] = copy.get_stress(voigt=False)
    return atoms


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("crystals")
    make_files(folder)
    return folder


def make_files(folder: Path) -> None:
    """Write labelled sets of copper, three of four structures with stress, and a model."""
    for name, numbers in (
        ("train", range(4)),
        ("valid", range(4, 8)),
        ("test", range(8, 12)),
        ("pool", range(12, 20)),
        ("replay", range(20, 24)),
        ("retain", range(24, 28)),
    ):
        write_structures(folder / f"{name}.extxyz", [label(make_crystal(n)) for n in numbers])
    model = build_mace(channels=4, elements=(29,), cutoff=4.0, dtype=torch.float64)
    torch.save(model, folder / "small.model")


def begin(tmp_path: Path, files: Path, **sections: Any) -> Path:
    return write_campaign(tmp_path / "c", files, **{"stop": {"rounds": 1}, **sections})


def test_replayed_stress_is_learnt_measured_and_shown(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    directory = begin(tmp_path, files)
    assert main(["campaign", "run", str(directory)]) == 0
    assert "S RMSE" in capsys.readouterr().out
    pool = {hash_structure(atoms): atoms for atoms in read_structures(files / "pool.extxyz")}
    batch = read_structures(directory / "round_001" / "batch.extxyz")
    assert any(atoms.pbc.all() for atoms in batch)
    for atoms in batch:
        own = pool[hash_structure(atoms)].info.get("REF_stress")
        assert (own is None) == ("REF_stress" not in atoms.info)
        assert own is None or np.allclose(
            np.reshape(atoms.info["REF_stress"], (3, 3)), own, atol=1e-7
        )
    state = read_state(directory)
    for record in state.rounds:
        for role in ("valid", "test"):
            assert record.errors[role]["n_stresses"] == 3
            assert record.error("stress_rmse", role) >= record.error("stress_mae", role) > 0
    saved = read_saved(state)
    assert [choice.name for choice in make_learning_curves(saved)][2:] == ["learning-stress"]
    assert any(fact.label == "stress RMSE" for fact in make_facts(saved))
    table = make_round_table(saved)
    assert table is not None
    assert "stress RMSE / meV/Å³" in [column.name for column in table.columns]
    write_curves(tmp_path / "curves.png", state.rounds)


def test_a_calculator_s_stress_is_kept_and_that_of_the_pool_is_not(
    files: Path, tmp_path: Path
) -> None:
    stale = read_structures(files / "pool.extxyz")
    for atoms in stale:
        atoms.info["REF_stress"] = np.eye(3)
    write_structures(tmp_path / "pool.extxyz", stale)
    labeller = {"kind": "calculator", "calculator": "emt"}
    data = {"pool": [str(tmp_path / "pool.extxyz")]}
    directory = begin(tmp_path, files, labeller=labeller, data=data)
    run_campaign(directory)
    batch = read_structures(directory / "round_001" / "batch.extxyz")
    assert {bool(atoms.pbc.all()) for atoms in batch} == {True, False}
    for atoms in batch:
        copy = atoms.copy()
        copy.calc = EMT()
        assert ("REF_stress" in atoms.info) == atoms.pbc.all()
        if atoms.pbc.all():
            wanted = copy.get_stress(voigt=False)
            np.testing.assert_allclose(
                np.reshape(atoms.info["REF_stress"], (3, 3)), wanted, atol=1e-7
            )


def test_returned_files_bring_their_stress(files: Path, tmp_path: Path) -> None:
    labeller = {"kind": "files", "stress_key": "virials"}
    directory = begin(tmp_path, files, labeller=labeller, data={"stress_key": "my_stress"})
    with pytest.raises(LabelsPending):
        run_campaign(directory)
    returned = read_structures(directory / "round_001" / "to_label.extxyz")
    for atoms in returned:
        stress = label(atoms).info.pop("REF_stress", None)
        if stress is not None:
            atoms.info["virials"] = -stress * atoms.get_volume()
    write_structures(directory / "round_001" / "labelled.extxyz", returned)
    run_campaign(directory)
    for atoms in read_structures(directory / "round_001" / "batch.extxyz"):
        if atoms.pbc.all():
            wanted = label(atoms.copy()).info["REF_stress"]
            np.testing.assert_allclose(
                np.reshape(atoms.info["my_stress"], (3, 3)), wanted, atol=1e-7
            )
    assert "stress_rmse" not in read_state(directory).rounds[0].errors["valid"]


@pytest.mark.slow
def test_killed_at_ten_moments_with_stress_and_replay(
    zygote: Zygote, files: Path, tmp_path: Path
) -> None:
    known = {
        role: {"files": [str(files / f"{role}.extxyz")], "labels": labels}
        for role, labels in (("replay", "model"), ("retain", "file"))
    }
    sections = {"data": known, "finetune": {"max_updates": 12, "batch_size": 2}}
    undisturbed = run_undisturbed(zygote, write_campaign(tmp_path / "whole", files, **sections))
    last = json.loads(undisturbed[0]["rounds.jsonl"])[-1]
    assert last["errors"]["test"]["stress_rmse"] > 0
    assert last["split_errors"]["retained"]["stress_rmse"] > 0
    check_moments(zygote, files, tmp_path, undisturbed, 10, **sections)


def test_stress_may_be_left_unread(files: Path, tmp_path: Path) -> None:
    directory = begin(tmp_path, files, data={"stress_key": None})
    run_campaign(directory)
    assert "stress_rmse" not in read_state(directory).rounds[-1].errors["test"]
