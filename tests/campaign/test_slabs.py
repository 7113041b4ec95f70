"""Campaigns of slabs and crystals: fixed atoms, splits, energies per atom."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.errors import ChangedInputsError
from labelwise.campaign.labelling import LabelsPending
from labelwise.campaign.loop import run_campaign
from labelwise.campaign.saved import read_saved
from labelwise.campaign.state import read_state
from labelwise.cli import main
from labelwise.errors import LabelError
from labelwise.finetuning.evaluation import evaluate
from labelwise.potentials import load_potential
from labelwise.structures import hash_structure, read_structures, write_structures
from labelwise.structures.fixed_atoms import free_atoms
from tests.campaign.building import make_config, result_of, write_campaign
from tests.campaign.slabs import label, slab_sections, write_slabs

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")

EMT = {"kind": "calculator", "calculator": "emt"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slabs")
    write_slabs(folder)
    return folder


def test_a_campaign_of_slabs_from_beginning_to_end(files: Path, tmp_path: Path, capsys) -> None:
    bare = [atoms.copy() for atoms in read_structures(files / "pool.extxyz")]
    for atoms in bare:
        del atoms.info["REF_energy"], atoms.arrays["REF_forces"]
    write_structures(tmp_path / "bare.extxyz", bare)
    sections = slab_sections(files, labeller=EMT, finetune={"loss_fixed_forces": "exclude"})
    sections["data"]["pool"] = [str(tmp_path / "bare.extxyz")]
    directory = write_campaign(tmp_path / "c", files, **sections)
    assert main(["campaign", "run", str(directory)]) == 0
    shown = capsys.readouterr()
    said = " ".join(shown.out.split())
    assert "meV/atom and" in " ".join(shown.err.split())
    assert "errors in meV/atom and meV/Å" in said
    assert "val_id: 4 structures, energy RMSE" in said
    assert "val_ood: 2 structures, energy RMSE" in said
    assert (directory / "curves.png").exists()

    pool = {hash_structure(atoms): atoms for atoms in read_structures(files / "pool.extxyz")}
    batch = read_structures(directory / "round_001" / "batch.extxyz")
    assert len(batch) == 3
    for atoms in batch:
        own = pool[hash_structure(atoms)]
        assert [c.todict() for c in atoms.constraints] == [c.todict() for c in own.constraints]
        free = free_atoms(atoms)
        assert free.any() and not free.all()
        assert np.array_equal(atoms.get_tags(), own.get_tags())
        assert np.allclose(atoms.info["virial"], own.info["virial"])
        assert np.allclose(atoms.arrays["REF_forces"], own.arrays["REF_forces"], atol=1e-6)
        assert np.abs(atoms.arrays["REF_forces"][~free]).max(axis=1).min() > 1e-6

    test = read_structures(files / "test.extxyz")
    state = read_state(directory)
    for record in state.rounds:
        path = state.round_folder(record.n_round) / "model.pt"
        potential = load_potential(path, device="cpu", trust=True)
        found = evaluate(potential, test)  # counts all forces
        kept = np.concatenate([free_atoms(atoms) for atoms in test])
        forces = np.concatenate([atoms.arrays["REF_forces"] for atoms in test])
        difference = 1e3 * (np.concatenate(found.forces) - forces)[kept]
        errors = record.errors["test"]
        assert (errors["n_atoms"], errors["n_force_atoms"]) == (len(kept), kept.sum())
        assert errors["forces_mae"] == pytest.approx(np.abs(difference).mean())
        assert errors["forces_mae"] != pytest.approx(found.errors.forces_mae, rel=1e-3)
        for name, table in record.split_errors.items():
            own = [atoms for atoms in test if atoms.info["split"] == name]
            alone = evaluate(potential, own, fixed_forces="exclude").errors
            assert table["n_structures"] == alone.n_structures
            assert table["forces_rmse"] == pytest.approx(alone.forces_rmse)
            assert table["energy_rmse_per_atom"] == pytest.approx(alone.energy_rmse_per_atom)
    assert {*state.rounds[-1].split_errors} == {"val_id", "val_ood"}
    history = read_json(directory / "round_001" / "finetune.json")["history"]
    valid = history[0]["valid"]
    assert 0 < valid["n_force_atoms"] < valid["n_atoms"]
    assert set(read_saved(state).auc) == {"energy_rmse_per_atom", "forces_rmse"}


def test_a_stress_is_carried_and_never_used(files: Path, tmp_path: Path) -> None:
    """Two campaigns whose files differ in stress and virial alone give the same models."""
    results = []
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        for name in ("pool", "train", "valid", "test"):
            structures = read_structures(files / f"{name}.extxyz")
            for atoms in structures:
                atoms.info["virial"] = np.full((3, 3), float(number))
                atoms.info["stress"] = np.full(6, float(number))
            write_structures(folder / f"{name}.extxyz", structures)
        (folder / "small.model").write_bytes((files / "small.model").read_bytes())
        sections = slab_sections(folder)
        sections["data"]["valid"] = {"files": []}  # the last weights, whether better or not
        directory = write_campaign(folder / "c", folder, **sections)
        run_campaign(directory)
        for atoms in read_structures(directory / "round_001" / "batch.extxyz"):
            assert (atoms.info["virial"] == number).all()
            assert (atoms.calc.results["stress"] == number).all()
            assert atoms.calc.results.keys() == {"stress"}
        results.append([(r.weights, r.errors) for r in read_state(directory).rounds])
    assert results[0] == results[1]
    assert results[0][0] != results[0][1]  # weights are trained


def test_hand_over_keeps_fixed_atoms(files: Path, tmp_path: Path) -> None:
    labeller = {"kind": "files"}
    directory = write_campaign(tmp_path / "c", files, **slab_sections(files, labeller=labeller))
    with pytest.raises(LabelsPending):
        run_campaign(directory)
    asked = read_structures(directory / "round_001" / "to_label.extxyz")
    pool = {hash_structure(atoms): atoms for atoms in read_structures(files / "pool.extxyz")}
    returned = []
    for atoms in asked:
        own = pool[hash_structure(atoms)]
        assert np.array_equal(free_atoms(atoms), free_atoms(own))
        assert np.array_equal(atoms.get_tags(), own.get_tags())
        assert "REF_forces" not in atoms.arrays
        bare = label(atoms.copy())
        bare.set_constraint()  # a code that calculates forces knows nothing of constraints
        returned.append(bare)
    write_structures(directory / "round_001" / "labelled.extxyz", returned)
    run_campaign(directory)
    for atoms in read_structures(directory / "round_001" / "batch.extxyz"):
        own = pool[hash_structure(atoms)]
        assert np.array_equal(free_atoms(atoms), free_atoms(own))
        assert np.allclose(atoms.arrays["REF_forces"], own.arrays["REF_forces"], atol=1e-6)


@pytest.mark.parametrize("place", ["file", "pool"])
def test_a_test_structure_without_a_split_is_named(files: Path, tmp_path: Path, place: str) -> None:
    source = files / ("test.extxyz" if place == "file" else "pool.extxyz")
    structures = read_structures(source)
    for atoms in structures[2:]:
        del atoms.info["split"]
    spoilt = tmp_path / "spoilt.extxyz"
    write_structures(spoilt, structures)
    sections = slab_sections(files)
    if place == "file":
        sections["data"]["test"]["files"] = [str(spoilt)]
    else:
        sections["data"] |= {"pool": [str(spoilt)]}
        sections["data"]["test"] = {"from_pool": 3, "split_key": "split"}
    directory = write_campaign(tmp_path / "c", files, **sections)
    frame = "@2" if place == "file" else r"@\d+"
    with pytest.raises(LabelError, match=rf"spoilt\.extxyz{frame}: the info key 'split'"):
        run_campaign(directory)
    assert not (directory / "labels.jsonl").exists()


def test_splits_of_a_test_set_from_the_pool(files: Path, tmp_path: Path) -> None:
    sections = slab_sections(files)
    sections["data"]["test"] = {"from_pool": 6, "split_key": "split"}
    directory = write_campaign(tmp_path / "c", files, **sections)
    run_campaign(directory)
    record = read_state(directory).rounds[-1]
    tables = record.split_errors
    assert sum(table["n_structures"] for table in tables.values()) == 6
    assert record.errors["test"]["n_structures"] == 6


def test_committees_are_held_against_free_atoms_if_asked(files: Path, tmp_path: Path) -> None:
    """Wrong forces of fixed atoms do not change the correlation; counted, they do."""
    structures = read_structures(files / "pool.extxyz")
    rng = np.random.default_rng(0)
    for atoms in structures:
        forces = atoms.arrays["REF_forces"]
        forces[~free_atoms(atoms)] = rng.normal(scale=20.0, size=(1, 3))
    write_structures(tmp_path / "spoilt.extxyz", structures)
    found = {}
    unvalidated = {"valid": {"files": []}}  # the last weights, so that members differ
    good, spoilt = files / "pool.extxyz", tmp_path / "spoilt.extxyz"
    for pool, how in ((good, "exclude"), (spoilt, "exclude"), (spoilt, "count")):
        sections = slab_sections(
            files,
            measure={"fixed_forces": how},
            selection={"rule": "committee-f", "members": 2, "batch_size": 2},
        )
        sections["data"] |= {"pool": [str(pool)], **unvalidated}
        directory = write_campaign(tmp_path / f"{pool.stem}-{how}", files, **sections)
        run_campaign(directory)
        picks = read_json(directory / "round_001" / "picks.json")
        found[pool.stem, how] = picks["rank_correlation"]["forces"]
    assert found["pool", "exclude"] is not None
    assert found["pool", "exclude"] == found["spoilt", "exclude"]
    assert found["spoilt", "count"] != found["spoilt", "exclude"]


def test_how_energies_are_shown_may_change_at_any_time(files: Path, tmp_path: Path) -> None:
    directory = write_campaign(tmp_path / "c", files, **slab_sections(files))
    run_campaign(directory)
    before = result_of(directory)
    shown = {"fixed_forces": "exclude", "energy_errors": "total"}
    write_campaign(directory, files, **slab_sections(files, measure=shown))
    run_campaign(directory)
    assert result_of(directory) == before
    counted = slab_sections(files, measure={"fixed_forces": "count"}, stop={"rounds": 2})
    write_campaign(directory, files, **counted)
    with pytest.raises(ChangedInputsError, match=r'measure\.fixed_forces: "exclude" → null'):
        run_campaign(directory)


def test_campaigns_that_were_begun_before_these_settings_go_on(data: Path, tmp_path: Path) -> None:
    """Their ``inputs.json`` does not name them, and what they say is what was done."""
    keys = CampaignConfig.model_validate(make_config(data)).result_keys()
    younger = ("data.test.split_key", "finetune.loss_fixed_forces", "finetune.replay_weight")
    groups = ("measure.", "data.replay", "data.retain")
    assert not [key for key in keys if key in younger or key.startswith(groups)]
    directory = write_campaign(tmp_path / "c", data, stop={"rounds": 1})
    run_campaign(directory)
    record = json.loads((directory / "rounds.jsonl").read_text().splitlines()[-1])
    assert "split_errors" not in record
