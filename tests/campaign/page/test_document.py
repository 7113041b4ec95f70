from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.labelling import LabelsPending
from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.page import gather_campaign
from labelwise.campaign.state import read_state, verify_files
from labelwise.pages.blob import encode_document
from labelwise.pages.document import Document, Kind, Role
from labelwise.pages.options import ReportOptions
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import result_of, write_campaign, write_data
from tests.campaign.page.conftest import run_quietly
from tests.campaign.page.reading import fact, iter_panels, panel
from tests.campaign.slabs import slab_sections, write_slabs

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")
HOSTILE = "</script><img src=x onerror=alert(1)> ‮\x07"


def test_all_sections_are_there(document: Document) -> None:
    assert document.kind is Kind.CAMPAIGN
    names = [section.name for section in document.sections]
    assert names == ["progress", "map", "choices", "parity", "errors", "trust", "cost"]
    assert document.structures is not None
    assert not any(note.startswith("Without") for note in document.notes)
    assert encode_document(document)
    assert fact(document, "labels").value == "8"
    assert fact(document, "state").note == "2 rounds are done"


def test_parity_points_give_the_errors_that_were_recorded(
    document: Document, finished: Path
) -> None:
    """Nothing is drawn by lot here, so the points are the whole test set."""
    for n_round in (0, 1, 2):
        recorded = read_json(finished / f"round_{n_round:03d}" / "measure.json")["errors"]["test"]
        for name, key in (("energy", "energy_rmse_per_atom"), ("forces", "forces_rmse")):
            (points,) = panel(document, f"parity-{name}-{n_round}").series
            errors = 1000.0 * (np.asarray(points.x, dtype=np.float64) - points.y)
            rmse = float(np.sqrt(np.mean(errors**2)))
            assert rmse == pytest.approx(recorded[key], rel=1e-4), (name, n_round)


def test_every_structure_that_is_linked_is_the_right_one(document: Document) -> None:
    assert document.structures is not None
    (points,) = panel(document, "parity-energy-2").series
    assert points.structure is not None
    names = [document.structures.names[i] for i in points.structure.tolist()]
    assert [int(name.rpartition("@")[2]) for name in names] == list(range(20))
    assert all("test.extxyz" in name for name in names)
    pool_map = panel(document, "campaign-map")
    for point, place in enumerate(pool_map.structure.tolist()):
        name = f"{pool_map.files[pool_map.file[point]]}@{pool_map.frame[point]}"
        assert document.structures.names[place] == name


def test_a_page_needs_no_model_and_changes_nothing(
    copied: Callable[[], Path], document: Document
) -> None:
    directory = copied()
    for n_round in (0, 1, 2):  # whoever computed anything would need them
        (directory / f"round_00{n_round}" / "model.pt").unlink()
    text = (directory / "campaign.yaml").read_text().replace("small.model", "gone.model")
    (directory / "campaign.yaml").write_text(text)
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    found = gather_campaign(directory)
    after = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    assert after == before
    assert [section.name for section in found.sections] == [s.name for s in document.sections]
    assert encode_document(replace(found, title="", subtitle="", notes=())) == encode_document(
        replace(document, title="", subtitle="", notes=())
    )


def test_what_is_not_kept_is_named_and_a_run_makes_it_again(
    copied: Callable[[], Path], finished: Path
) -> None:
    """As of a campaign that an earlier version ran, or whose folder ``report`` was removed."""
    directory = copied()
    first = gather_campaign(directory)
    shutil.rmtree(directory / "report")
    for n_round in (0, 1, 2):
        (directory / f"round_00{n_round}" / "predictions.npz").unlink()
    lines = [json.loads(line) for line in (directory / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        del line["files"]["predictions.npz"]
    (directory / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bare = gather_campaign(directory)
    assert [section.name for section in bare.sections] == ["progress", "choices", "cost"]
    command = f"labelwise campaign run {directory}"
    assert [note for note in bare.notes if command in note] == [
        f"Without what some rounds predicted, which is not kept; to have it: {command}.",
        f"Without the map, which is not kept; to have it: {command}.",
    ]
    run_quietly(directory)
    again = gather_campaign(directory)
    assert [section.name for section in again.sections] == [s.name for s in first.sections]
    for name in ("parity-forces-2", "predicted-error-1", "score-against-error"):
        for one, other in zip(panel(first, name).series, panel(again, name).series, strict=True):
            np.testing.assert_allclose(one.y, other.y, rtol=1e-4, atol=1e-5)
    assert result_of(directory).keys() == result_of(finished).keys()


def test_a_map_that_is_older_than_the_campaign_says_so(copied: Callable[[], Path]) -> None:
    directory = copied()
    run_campaign(directory, RunOptions(n_rounds=3))
    found = gather_campaign(directory)
    assert any(note.startswith("The map is older than the campaign") for note in found.notes)
    run_quietly(directory, n_rounds=3)
    found = gather_campaign(directory)
    assert not any(note.startswith("The map is older") for note in found.notes)
    assert "report/" not in (directory / "manifest.json").read_text()


def test_damaged_predictions_are_told_of(copied: Callable[[], Path]) -> None:
    directory = copied()
    (directory / "round_001" / "predictions.npz").write_bytes(b"nothing")
    found = gather_campaign(directory)
    assert any("Without predictions of the test set" in note for note in found.notes)
    assert any("round_001/predictions.npz is not what the campaign" in n for n in found.notes)


def test_a_run_goes_on_beside_its_page(copied: Callable[[], Path]) -> None:
    directory = copied()
    run_quietly(directory, n_rounds=3)
    verify_files(read_state(directory))
    assert fact(gather_campaign(directory), "rounds").value == "3"


def test_a_model_that_was_exchanged_is_told_of(copied: Callable[[], Path]) -> None:
    directory = copied()
    (directory / "round_001" / "model.pt").write_bytes(
        (directory / "round_002" / "model.pt").read_bytes()
    )
    found = gather_campaign(directory)
    assert any("round_001/model.pt is not what the campaign" in note for note in found.notes)


def test_without_the_pool_what_the_campaign_knows_is_shown(
    copied: Callable[[], Path], tmp_path: Path
) -> None:
    directory = copied()
    text = (directory / "campaign.yaml").read_text().replace("pool.extxyz", "gone.extxyz")
    (directory / "campaign.yaml").write_text(text)
    found = gather_campaign(directory)
    assert any("pool cannot be read any more" in note for note in found.notes)
    pool_map = panel(found, "campaign-map")
    state = read_state(directory)
    assert len(pool_map.x) == 4 + len(state.labels) + len(state.failures)
    assert (pool_map.roles == list(Role).index(Role.POOL)).sum() == 0


def test_without_the_given_structures_what_the_files_say_is_shown(
    copied: Callable[[], Path],
) -> None:
    directory = copied()
    text = (directory / "campaign.yaml").read_text().replace("test.extxyz", "gone.extxyz")
    (directory / "campaign.yaml").write_text(text)
    found = gather_campaign(directory)
    assert any(note.startswith("Without given structures") for note in found.notes)
    assert {"rounds", "learning-forces", "choices", "failures", "training"} <= set(
        iter_panels(found)
    )


def test_a_campaign_that_has_not_begun(files: Path, tmp_path: Path) -> None:
    found = gather_campaign(write_campaign(tmp_path / "c", files))
    assert fact(found, "state").value == "not begun"
    assert found.sections == ()
    assert any("labelwise campaign run" in note for note in found.notes)
    assert encode_document(found)
    assert not (tmp_path / "c" / "inputs.json").exists()
    assert not (tmp_path / "c" / "split.json").exists()


def test_a_campaign_that_waits_for_labels(tmp_path: Path) -> None:
    write_data(tmp_path / "data", labelled=False)
    directory = write_campaign(tmp_path / "c", tmp_path / "data", labeller={"kind": "files"})
    with pytest.raises(LabelsPending):
        run_quietly(directory)
    found = gather_campaign(directory)
    assert fact(found, "state").value == "waiting for labels"
    assert fact(found, "state").note == "3 structures"
    pool_map = panel(found, "campaign-map")
    waiting = pool_map.rounds == 1
    assert waiting.sum() == 3
    assert (pool_map.roles[waiting] == list(Role).index(Role.CHOSEN)).all()
    fates = [row[-1] for row in panel(found, "choices-1").rows]
    assert fates == ["waits for its label"] * 3
    assert "wait" in pool_map.caption


def test_random_choice_and_no_test_set(files: Path, tmp_path: Path) -> None:
    directory = write_campaign(
        tmp_path / "c", files, selection={"rule": "random", "representation": "random"},
        data={"test": {}}, stop={"rounds": 1},
    )  # fmt: skip
    run_quietly(directory)
    found = gather_campaign(directory)
    panels = iter_panels(found)
    assert "score-against-error" not in panels
    assert "for want of others" in panels["predicted-error-1"].caption
    assert "Validation set" in panels["parity-energy-1"].caption
    assert "There is no test set" in panels["learning-forces-rmse"].caption
    assert "score" not in [column.name for column in panels["choices-1"].columns]
    assert "ntk-e" in panels["campaign-map"].caption


def test_neither_test_nor_validation_set(files: Path, tmp_path: Path) -> None:
    directory = write_campaign(
        tmp_path / "c", files, data={"test": {}, "valid": {}}, stop={"rounds": 1}
    )
    run_quietly(directory)
    found = gather_campaign(directory)
    panels = iter_panels(found)
    assert not any(name.startswith(("parity", "learning", "error-by")) for name in panels)
    assert "Nothing was measured" in panels["rounds"].caption
    assert "score-against-error" in panels
    assert encode_document(found)


def test_everything_chosen_from_the_pool(files: Path, tmp_path: Path) -> None:
    held = {"train": [], "valid": {"from_pool": 3}, "test": {"from_pool": 4}}
    directory = write_campaign(
        tmp_path / "c", files, data=held, stop={"rounds": 1},
        selection={"rule": "k-center", "initial_size": 3, "batch_size": 2, "n_reserve": 1},
    )  # fmt: skip
    run_quietly(directory)
    found = gather_campaign(directory)
    pool_map = panel(found, "campaign-map")
    assert (pool_map.rounds == 0).sum() == 3
    assert (pool_map.rounds == 1).sum() == 2
    words = next(column for column in pool_map.columns if column.name == "fate")
    held_out = words.categories.index("held out")
    assert (words.codes == held_out).sum() == 7
    assert len(panel(found, "parity-energy-1").series[0].x) == 4
    roles = {row[1] for row in panel(found, "choices-0").rows}
    assert roles == {"train", "valid", "test"}


def test_slabs_with_fixed_atoms_and_splits(tmp_path: Path) -> None:
    write_slabs(tmp_path / "data")
    directory = write_campaign(
        tmp_path / "c", tmp_path / "data", **slab_sections(tmp_path / "data")
    )
    run_quietly(directory)
    found = gather_campaign(directory)
    recorded = read_json(directory / "round_001" / "measure.json")
    energy, forces = (panel(found, f"parity-{name}-1").series for name in ("energy", "forces"))
    assert {each.name for each in energy} == {"val_id", "val_ood"}
    for each in forces:
        errors = 1000.0 * (np.asarray(each.x, dtype=np.float64) - each.y)
        expected = recorded["split_errors"][each.name]["forces_rmse"]
        assert float(np.sqrt(np.mean(errors**2))) == pytest.approx(expected, rel=1e-4)
    curves = {each.name for each in panel(found, "learning-energy-rmse").series}
    assert {"test", "validation", "test, val_id", "test, val_ood"} <= curves
    assert fact(found, "energy RMSE").value.endswith("meV/atom")
    assert found.structures is not None
    assert found.structures.fixed is not None
    assert any("fixed atoms" in note for note in found.notes)


def test_a_committee(files: Path, tmp_path: Path) -> None:
    directory = write_campaign(
        tmp_path / "c", files, selection={"rule": "committee-f", "members": 2}, stop={"rounds": 1}
    )
    run_quietly(directory)
    found = gather_campaign(directory)
    chart = panel(found, "score-against-error")
    assert chart.diagonal
    picks = read_json(directory / "round_001" / "picks.json")
    batch = read_json(directory / "round_001" / "batch.json")["batch"]["train"]
    scores = [1000.0 * p["score"] for p in picks["candidates"]["train"] if p["key"] in batch]
    assert np.asarray(chart.series[0].x) == pytest.approx(scores, rel=1e-5)


def test_a_campaign_of_an_earlier_version(copied: Callable[[], Path]) -> None:
    """Lines of rounds.jsonl that lack what came later, and labels that carry nothing."""
    directory = copied()
    lines = [json.loads(line) for line in (directory / "rounds.jsonl").read_text().splitlines()]
    for line in lines:
        for name in ("versions", "best_epoch", "weights", "n_failed"):
            del line[name]
        for table in line["errors"].values():
            for name in ("n_force_atoms", "energy_mae_per_atom", "energy_rmse_per_atom"):
                del table[name]
    (directory / "rounds.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (directory / "inventory.json").unlink()
    (directory / "journal.jsonl").unlink()
    found = gather_campaign(directory)
    assert fact(found, "rounds").value == "2"
    assert "parity-forces-2" in iter_panels(found)
    assert encode_document(found)


def test_hostile_words(tmp_path: Path) -> None:
    write_data(tmp_path / "data", n_pool=12)
    for name in ("pool", "test"):
        path = tmp_path / "data" / f"{name}.extxyz"
        structures = read_structures(path)
        for i, atoms in enumerate(structures):
            atoms.info["family"] = f"{HOSTILE}{i % 2}"
            atoms.info["<key onclick=x>"] = "constructor" if i % 2 else "__proto__"
        write_structures(path, structures)
    directory = write_campaign(
        tmp_path / "<i>&amp;", tmp_path / "data", stop={"rounds": 1},
        data={"test": {"files": [str(tmp_path / "data" / "test.extxyz")], "split_key": "family"}},
    )  # fmt: skip
    run_quietly(directory)
    found = gather_campaign(directory)
    assert found.title == "Campaign <i>&amp;"
    assert encode_document(found)
    for name in iter_panels(found):
        assert name.replace("-", "").isalnum(), name


def test_options(copied: Callable[[], Path]) -> None:
    directory = copied()
    found = gather_campaign(directory, ReportOptions(colour_by="round"))
    assert panel(found, "campaign-map").colour_by == "round"
    small = gather_campaign(directory, ReportOptions(max_megabytes=0.003))
    assert small.structures is not None
    assert found.structures is not None
    assert len(small.structures.names) < len(found.structures.names)
    chosen = panel(small, "campaign-map").rounds > 0
    assert (panel(small, "campaign-map").structure[chosen] >= 0).any()


@pytest.mark.slow
def test_umap_is_made_of_what_is_kept(copied: Callable[[], Path]) -> None:
    pytest.importorskip("umap")
    directory = copied()
    options = ReportOptions(map_method="umap")
    first, again = (panel(gather_campaign(directory, options), "campaign-map") for _ in range(2))
    assert np.array_equal(first.x, again.x)


def test_a_page_needs_no_torch(copied: Callable[[], Path]) -> None:
    program = """
import sys
from labelwise.cli import main
code = main(["report", sys.argv[1], "--quiet"])
assert "torch" not in sys.modules
sys.exit(code)
"""
    directory = copied()
    subprocess.run([sys.executable, "-c", program, str(directory)], check=True)
    assert (directory / "report.html").exists()
