"""What is told of a campaign: that its files are its own, that it is finished, what fits said."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.export import export_round
from labelwise.campaign.loop import run_campaign
from labelwise.campaign.page.document import gather_campaign
from labelwise.campaign.rounds import explain_undetermined
from labelwise.campaign.saved import read_saved
from labelwise.campaign.state import read_messages, read_state
from labelwise.cli import main
from labelwise.structures import write_structures
from tests.campaign.building import make_structures, write_campaign, write_data

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


@pytest.fixture
def copied(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "c"))


@pytest.fixture(scope="module")
def undetermined(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign that trains on water alone, of another level of theory than its model."""
    folder = tmp_path_factory.mktemp("water")
    write_data(folder)
    water = [atoms for atoms in make_structures(80, seed=5) if len(atoms) == 3][:30]
    pure = [atoms for atoms in water if atoms.get_chemical_formula() == "H2O"]
    write_structures(folder / "train.extxyz", pure[:4])
    write_structures(folder / "pool.extxyz", pure[4:10])
    directory = write_campaign(folder / "c", folder, stop={"rounds": 1})
    run_campaign(directory)
    return directory


@pytest.mark.parametrize(
    "file", ["round_002/model.pt", "round_000/model.pt", "round_001/batch.json", "labels.jsonl"]
)
def test_readers_notice_what_was_exchanged(copied: Path, capsys, file: str) -> None:
    path = copied / file
    if path.suffix == ".pt":
        shutil.copy(copied / "round_001" / "model.pt", path)
    else:
        path.write_bytes(path.read_bytes().replace(b"1", b"2", 1))
    out = copied.parent / "out"
    with pytest.raises(DamagedStateError, match=path.name):
        export_round(read_state(copied), 2, out)
    assert not out.exists()
    assert main(["campaign", "export", str(copied), "--round", "2"]) == 1
    assert path.name in capsys.readouterr().err
    assert main(["campaign", "status", str(copied)]) == 1
    shown = capsys.readouterr()
    assert "labelled" in shown.out
    assert "what the campaign wrote" in shown.err or "was changed" in shown.err
    if path.suffix == ".pt":
        notes = gather_campaign(copied).notes
        assert any(file in note and "not what the campaign wrote" in note for note in notes)


def test_models_that_were_deleted_are_no_damage(copied: Path, tmp_path: Path) -> None:
    (copied / "round_000" / "model.pt").unlink()
    assert read_saved(read_state(copied)).damage == ()
    export_round(read_state(copied), 2, tmp_path / "out")


def test_a_finished_campaign_says_how_to_go_on(copied: Path) -> None:
    found = read_saved(read_state(copied)).finished
    assert found.startswith("2 rounds are done; to go on: ")
    assert f"labelwise campaign run {copied} --rounds 3" in found
    text = (copied / "campaign.yaml").read_text()
    (copied / "campaign.yaml").write_text(text.replace("rounds: 2", "labels: 6"))
    found = read_saved(read_state(copied)).finished
    assert "the budget of 6 labels is spent" in found
    assert "change stop in campaign.yaml and labelwise campaign run" in found
    (copied / "campaign.yaml").write_text(text.replace("rounds: 2", "rounds: 3"))
    status = read_saved(read_state(copied))
    assert (status.next, status.finished) == ("round 3: select", "")
    inventory = read_json(copied / "inventory.json")
    (copied / "inventory.json").write_text(json.dumps({**inventory, "n_usable": 6, "n_used": 0}))
    found = read_saved(read_state(copied)).finished
    assert found.endswith("no structures left to choose; to go on, add to data.pool")


def test_energies_that_labels_do_not_determine_are_no_result(undetermined: Path, capsys) -> None:
    state = read_state(undetermined)
    assert [record.undetermined["test"] for record in state.rounds] == [3, 3]
    status = read_saved(state)
    assert status.auc.keys() == {"forces_rmse"}
    assert "round" in status.undetermined and "3 of 4 structures" in status.undetermined
    assert any("does not determine the reference energies" in m for m in status.messages[1])
    assert main(["campaign", "status", str(undetermined)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    energy = f"{state.rounds[1].errors['test']['energy_rmse']:.1f}"
    assert f"{energy}*" in shown
    assert "* The energy errors of rounds 0, 1 are no measure of the model" in shown
    assert "energies are not summed up, see *" in shown
    assert "round 1: The labelled set has 1 composition" in shown
    assert main(["campaign", "status", str(undetermined), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["messages"]["0"]
    page = gather_campaign(undetermined)
    fact = next(each for each in page.facts if each.label == "energy RMSE")
    assert "no measure of the model" in fact.note
    assert any(note.startswith("Fine-tuning of round 1: The labelled") for note in page.notes)
    assert any(note.endswith("They are not summed up.") for note in page.notes)
    folder = export_round(state, 1, undetermined / "out")
    record = read_json(folder / "export.json")
    assert record["undetermined"] == {"test": 3, "valid": 3}
    assert record["messages"] == status.messages[1]


def test_a_run_says_what_its_fits_say(undetermined: Path, tmp_path: Path, said: list[str]) -> None:
    directory = write_campaign(tmp_path / "c", undetermined.parent, stop={"rounds": 0})
    run_campaign(directory)
    assert any(line.startswith("round 0: The labelled set has 1 composition") for line in said)
    assert any("meV* and" in line and "no measure of the model" in line for line in said)


def test_energies_that_are_determined_are_summed_up(finished: Path) -> None:
    state = read_state(finished)
    assert explain_undetermined(state.rounds) == ""
    assert "energy_rmse" in read_saved(state).auc
    assert all(isinstance(each, list) for each in read_messages(finished, 3).values())
