from __future__ import annotations

import json
import subprocess
import warnings
from pathlib import Path

import ase.io
import numpy as np
import pytest

from labelwise.campaign.atomic_io import read_json, read_log
from labelwise.campaign.errors import (
    CampaignError,
    ChangedInputsError,
    DamagedStateError,
    LeakageError,
)
from labelwise.campaign.export import export_round
from labelwise.campaign.labelling import LabellingError, LabelsPending
from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.saved import find_best_round, read_saved
from labelwise.campaign.state import read_state
from labelwise.errors import ArgumentError, WriteError
from labelwise.potentials import load_potential
from labelwise.structures import DuplicateIndex, hash_structure, read_structures, write_structures
from tests.campaign.building import (
    label,
    make_structures,
    result_of,
    write_campaign,
    write_data,
)

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def test_a_campaign_from_beginning_to_end(finished: Path, data: Path) -> None:
    state = read_state(finished)
    assert [record.n_train for record in state.rounds] == [4, 7, 10]
    keys = state.batch_keys("train")
    assert len(keys) == len(set(keys)) == 6
    pool = {hash_structure(atoms): atoms for atoms in read_structures(data / "pool.extxyz")}
    for key in keys:
        assert state.labels[key]["energy"] == pool[key].info["REF_energy"]
        assert np.array_equal(state.labels[key]["forces"], pool[key].arrays["REF_forces"])
        assert np.array_equal(state.labelled_atoms(key).positions, pool[key].positions)
    for record in state.rounds:
        assert set(record.errors) == {"valid", "test"}
        assert record.errors["test"]["forces_rmse"] > 0
        assert {"select", "label", "finetune", "measure"} <= set(record.stages)
        assert all(stage["peak_mib"] > 0 for stage in record.stages.values())
    manifest = read_json(finished / "manifest.json")
    assert len(manifest["files"]) == sum(len(record.files) for record in state.rounds)
    assert not (finished / "lock.json").exists()
    batch = ase.io.read(finished / "round_001" / "batch.extxyz", ":")
    assert [hash_structure(atoms) in pool for atoms in batch]


def test_rounds_can_be_added_and_are_those_of_a_longer_campaign(
    finished: Path, data: Path, tmp_path: Path
) -> None:
    directory = write_campaign(tmp_path / "c", data)
    assert run_campaign(directory, RunOptions(n_rounds=0)) == "0 rounds are done"
    assert run_campaign(directory, RunOptions(n_rounds=1)) == "1 rounds are done"
    assert run_campaign(directory, RunOptions(n_rounds=1)) == "1 rounds are done"
    assert run_campaign(directory) == "2 rounds are done"
    assert result_of(directory) == result_of(finished)


def test_selection_looks_at_the_model_as_fine_tuned_so_far(data: Path, tmp_path: Path) -> None:
    """The features of round 2 are those of the model that round 1 has made."""
    scores = {}
    for model in ("current", "pretrained"):
        directory = write_campaign(
            tmp_path / model, data, selection={"rule": "pv", "model": model, "batch_size": 3}
        )
        run_campaign(directory)
        picks = read_json(directory / "round_002" / "picks.json")["candidates"]["train"]
        scores[model] = [pick["score"] for pick in picks]
    assert scores["current"] != scores["pretrained"]


def test_another_seed_gives_another_random_campaign(data: Path, tmp_path: Path) -> None:
    chosen = []
    for seed in (1, 2):
        directory = write_campaign(
            tmp_path / str(seed), data, selection={"rule": "random"}, stop={"rounds": 1}
        )
        text = (directory / "campaign.yaml").read_text().replace("seed: 3", f"seed: {seed}")
        (directory / "campaign.yaml").write_text(text)
        run_campaign(directory)
        chosen.append(read_state(directory).batch_keys("train"))
    assert chosen[0] != chosen[1]


def spoil(path: Path, indices: list[int]) -> None:
    """Take the labels of some structures of a file away."""
    structures = read_structures(path)
    for i in indices:
        structures[i].info["REF_energy"] = float("nan")
    write_structures(path, structures)


def test_failures_are_set_aside_and_replaced(tmp_path: Path, said: list[str]) -> None:
    write_data(tmp_path / "data")
    directory = write_campaign(tmp_path / "c", tmp_path / "data", selection={"rule": "random"})
    run_campaign(directory)
    order = read_json(directory / "round_001" / "picks.json")["candidates"]["train"]
    assert len(order) == 5  # the batch and two in reserve

    spoil(tmp_path / "data" / "pool.extxyz", [order[0]["pool_index"], order[2]["pool_index"]])
    directory = write_campaign(tmp_path / "d", tmp_path / "data", selection={"rule": "random"})
    run_campaign(directory)
    state = read_state(directory)
    batch = read_json(directory / "round_001" / "batch.json")
    assert batch["batch"]["train"] == [order[i]["key"] for i in (1, 3, 4)]
    assert batch["failed"] == [order[i]["key"] for i in (0, 2)]
    assert {record["failed"] for record in state.failures.values()} == {"no-label"}
    assert [record.n_train for record in state.rounds] == [4, 7, 10]
    later = read_json(directory / "round_002" / "picks.json")["candidates"]["train"]
    assert not {each["key"] for each in later} & {*batch["failed"]}
    assert sum(line.startswith("set aside") for line in said) == 2


def test_more_candidates_are_chosen_when_the_reserve_is_used_up(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    spoil(tmp_path / "data" / "pool.extxyz", list(range(0, 20, 2)))
    directory = write_campaign(
        tmp_path / "c",
        tmp_path / "data",
        selection={"rule": "random", "n_reserve": 0, "batch_size": 4},
    )
    run_campaign(directory)
    state = read_state(directory)
    assert [record.n_train for record in state.rounds] == [4, 8, 12]
    assert (directory / "round_001" / "picks_2.json").exists()
    # A third round takes what is left; a fourth has nothing to take.
    reason = run_campaign(directory, RunOptions(n_rounds=9))
    assert reason == "the pool has no structures left to choose"
    state = read_state(directory)
    assert len(state.labels) == 10
    assert len(state.failures) == 10
    assert state.rounds[-1].n_train == 14


def test_nothing_but_failures_stops_the_run_and_can_be_mended(tmp_path: Path) -> None:
    write_data(tmp_path / "data", labelled=False)
    directory = write_campaign(
        tmp_path / "c", tmp_path / "data", labeller={"kind": "replay", "max_failures_in_a_row": 4}
    )
    with pytest.raises(LabellingError, match="4 calculations in a row failed"):
        run_campaign(directory)
    assert len(read_state(directory).failures) == 4
    pool = read_structures(tmp_path / "data" / "pool.extxyz")
    for atoms in pool:
        label(atoms)
    write_structures(tmp_path / "data" / "pool.extxyz", pool)
    with pytest.raises(ChangedInputsError, match=r"pool: .*pool\.extxyz: other content"):
        run_campaign(directory, RunOptions(retry_failed=True))
    run_campaign(directory, RunOptions(retry_failed=True, accept_changes=True))
    state = read_state(directory)
    assert len(state.failures) == 0
    assert [record.n_train for record in state.rounds] == [4, 7, 10]


def test_leakage_is_an_error(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_data(data)
    pool = read_structures(data / "pool.extxyz")
    copies = read_structures(data / "test.extxyz")
    write_structures(data / "pool.extxyz", [*pool, copies[1]])
    directory = write_campaign(tmp_path / "c", data)
    with pytest.raises(LeakageError, match=r"pool\.extxyz@20 equals .*test\.extxyz@1"):
        run_campaign(directory)
    write_structures(data / "pool.extxyz", pool)
    write_structures(data / "train.extxyz", [*make_structures(4), copies[0]])
    with pytest.raises(LeakageError, match=r"train\.extxyz@4 \(train\) equals .*test\.extxyz@0"):
        run_campaign(directory)
    write_structures(data / "train.extxyz", make_structures(4))
    write_structures(data / "valid.extxyz", copies[:2])
    with pytest.raises(LeakageError, match=r"\(test\) equals .*valid\.extxyz@0 \(validation\)"):
        run_campaign(directory)


def test_fractions_keep_copies_together(tmp_path: Path, data: Path) -> None:
    structures = make_structures(12)
    write_structures(tmp_path / "train.extxyz", [*structures, *structures])
    directory = write_campaign(
        tmp_path / "c",
        data,
        data={
            "train": [str(tmp_path / "train.extxyz")],
            "valid": {"fraction": 0.25},
            "test": {"fraction": 0.25},
        },
        stop={"rounds": 0},
    )
    run_campaign(directory)
    inventory = read_json(directory / "inventory.json")
    assert (inventory["n_train"], inventory["n_valid"], inventory["n_test"]) == (12, 6, 6)


def test_unlabelled_beginning_with_held_out_structures_of_the_pool(
    tmp_path: Path, data: Path
) -> None:
    directory = write_campaign(
        tmp_path / "c",
        data,
        data={"train": [], "valid": {"from_pool": 3}, "test": {"from_pool": 4}},
        selection={"initial_size": 4, "batch_size": 2, "n_reserve": 1},
    )
    run_campaign(directory)
    state = read_state(directory)
    assert [record.n_train for record in state.rounds] == [4, 6, 8]
    assert state.rounds[0].errors["test"]["n_structures"] == 4
    roles = {role: state.batch_keys(role) for role in ("train", "valid", "test")}
    keys = [key for each in roles.values() for key in each]
    assert len(set(keys)) == len(keys) == 8 + 3 + 4
    index = DuplicateIndex()
    for key in keys:
        atoms = state.labelled_atoms(key)
        assert index.find(atoms) is None
        index.add(atoms, 0)


def test_a_pool_too_small_to_begin_with(tmp_path: Path, data: Path) -> None:
    directory = write_campaign(
        tmp_path / "c", data, data={"test": {"from_pool": 15}}, selection={"initial_size": 6}
    )
    with pytest.raises(CampaignError, match="the pool has 20 that can be chosen"):
        run_campaign(directory)


def test_changes_are_refused_with_the_difference(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    directory = write_campaign(tmp_path / "c", tmp_path / "data", stop={"rounds": 1})
    run_campaign(directory)
    before = result_of(directory)
    write_campaign(directory, tmp_path / "data", selection={"batch_size": 2})
    with pytest.raises(ChangedInputsError, match=r"selection.batch_size: 3 → 2"):
        run_campaign(directory)
    assert (
        run_campaign(directory, RunOptions(n_rounds=2, accept_changes=True)) == "2 rounds are done"
    )
    assert [r.n_train for r in read_state(directory).rounds] == [4, 7, 9]
    after = result_of(directory)
    kept = [name for name in before if name.startswith(("round_000", "round_001"))]
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    # Accepted once, it is the campaign's configuration; and stop rules are free to change.
    write_campaign(directory, tmp_path / "data", selection={"batch_size": 2}, stop={"rounds": 3})
    assert run_campaign(directory) == "3 rounds are done"
    events = [e for e in read_log(directory / "journal.jsonl") if e["event"] == "accepted changes"]
    assert events[0]["changes"] == ["selection.batch_size: 3 → 2"]


def test_another_model_file_is_a_change(tmp_path: Path) -> None:
    write_data(tmp_path / "data")
    directory = write_campaign(tmp_path / "c", tmp_path / "data", stop={"rounds": 0})
    run_campaign(directory)
    with (tmp_path / "data" / "small.model").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(ChangedInputsError, match=r"model: .*small.model: other content"):
        run_campaign(directory)


def test_before_the_first_pick_anything_may_change(tmp_path: Path, data: Path) -> None:
    directory = write_campaign(tmp_path / "c", data, selection={"initial_size": 50})
    with pytest.raises(CampaignError, match="round 0 has to choose 50"):
        run_campaign(directory)
    write_campaign(directory, data, selection={"initial_size": 1}, stop={"rounds": 0})
    assert run_campaign(directory) == "0 rounds are done"


@pytest.mark.parametrize("file", ["round_001/model.pt", "round_001/picks.json", "labels.jsonl"])
def test_damage_is_noticed(tmp_path: Path, data: Path, file: str) -> None:
    directory = write_campaign(tmp_path / "c", data, stop={"rounds": 1})
    run_campaign(directory)
    content = bytearray((directory / file).read_bytes())
    content[20] ^= 1
    (directory / file).write_bytes(bytes(content))
    with pytest.raises(DamagedStateError, match=Path(file).name):
        run_campaign(directory, RunOptions(n_rounds=2))


@pytest.mark.parametrize(
    ("rule", "diversity"),
    [("committee-e", "shuffle"), ("committee-f", "bootstrap"), ("committee-f", "scratch")],
)
def test_committees(tmp_path: Path, data: Path, rule: str, diversity: str) -> None:
    selection = {"rule": rule, "diversity": diversity, "members": 2}
    directory = write_campaign(tmp_path / "c", data, selection=selection, stop={"rounds": 1})
    run_campaign(directory)
    picks = read_json(directory / "round_001" / "picks.json")["candidates"]["train"]
    scores = [pick["score"] for pick in picks]
    assert scores == sorted(scores, reverse=True)
    assert scores[-1] > 0
    members = sorted(path.name for path in (directory / "round_000").glob("*.pt"))
    own = ["member_1.pt"] if diversity == "shuffle" else ["member_0.pt", "member_1.pt"]
    assert members == [*own, "model.pt"]


def test_an_unknown_block_is_told_before_anything_is_chosen(tmp_path: Path, data: Path) -> None:
    directory = write_campaign(tmp_path / "c", data, finetune={"train_blocks": ["readot"]})
    with pytest.raises(ArgumentError, match="did you mean 'readout'"):
        run_campaign(directory)
    assert not (directory / "round_000" / "picks.json").exists()


def test_joint_posterior(tmp_path: Path, data: Path) -> None:
    selection = {"rule": "joint-pv", "n_probes": 2, "shortlist": 8, "normalise": "none"}
    directory = write_campaign(tmp_path / "c", data, selection=selection, stop={"rounds": 1})
    run_campaign(directory)
    picks = read_json(directory / "round_001" / "picks.json")["candidates"]["train"]
    scores = [pick["score"] for pick in picks]
    assert scores == sorted(scores, reverse=True)
    assert len(read_state(directory).rounds) == 2


def test_export(finished: Path, tmp_path: Path) -> None:
    rounds = read_state(finished).rounds
    best = find_best_round(rounds)
    errors = [record.errors["valid"]["forces_rmse"] for record in rounds]
    assert errors[best] == min(errors)
    folder = export_round(read_state(finished), 1, tmp_path / "out")
    structures = read_structures(folder / "training_set.extxyz")
    assert len(structures) == 7
    assert all("REF_energy" in atoms.info for atoms in structures)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = load_potential(folder / "potential.model", trust=True)
    assert exported.content_hash == rounds[1].weights
    with pytest.raises(CampaignError, match="finished are 0 to 2"):
        export_round(read_state(finished), 3, tmp_path / "out")


def test_status(finished: Path) -> None:
    status = read_saved(read_state(finished))
    assert status.next == "round 3: select"
    assert status.as_dict()["n_labels"] == 6
    assert status.auc["forces_rmse"] == pytest.approx(
        sum(record.errors["test"]["forces_rmse"] for record in status.rounds)
    )
    assert status.forecast is not None
    assert status.holder == ""
    json.dumps(status.as_dict())


class TestFiles:
    def test_ask_and_tell_until_the_end(self, tmp_path: Path) -> None:
        """Partial returns, a failure and its replacement, over two rounds."""
        write_data(tmp_path / "data", labelled=False)
        directory = write_campaign(tmp_path / "c", tmp_path / "data", labeller={"kind": "files"})
        n_waits = 0
        for _ in range(12):
            try:
                reason = run_campaign(directory)
                break
            except LabelsPending as pending:
                n_waits += 1
                assert "to_label.extxyz" in str(pending)
                self.answer(read_state(directory).folder, fail=n_waits == 1)
        assert reason == "2 rounds are done"
        state = read_state(directory)
        assert [record.n_train for record in state.rounds] == [4, 7, 10]
        assert [record["failed"] for record in state.failures.values()] == ["reported"]
        assert n_waits > 2

    @staticmethod
    def answer(folder: Path, *, fail: bool) -> None:
        """Label at most two of the structures asked for, with the digits of a text file."""
        asked = read_structures(folder / "to_label.extxyz")[:2]
        for atoms in asked:
            label(atoms)
        if fail:
            asked[0].info["labelwise_failed"] = "SCF"
        n_files = len(list(folder.glob("labelled*")))
        write_structures(folder / f"labelled_{n_files}.extxyz", asked)

    def test_status_tells_what_waits(self, tmp_path: Path) -> None:
        write_data(tmp_path / "data", labelled=False)
        directory = write_campaign(tmp_path / "c", tmp_path / "data", labeller={"kind": "files"})
        with pytest.raises(LabelsPending):
            run_campaign(directory)
        status = read_saved(read_state(directory))
        assert status.n_waiting == 3
        assert status.next == "round 1: label"


def test_calculator_campaign_on_unlabelled_structures(tmp_path: Path) -> None:
    """Everything is labelled by real GFN2-xTB, two at a time: start, validation, test, rounds."""
    pytest.importorskip("tblite")
    write_data(tmp_path / "data", labelled=False)
    directory = write_campaign(
        tmp_path / "c",
        tmp_path / "data",
        data={"train": [], "valid": {"from_pool": 2}, "test": {"from_pool": 2}},
        selection={"initial_size": 4, "batch_size": 2, "n_reserve": 1},
        labeller={
            "kind": "calculator",
            "calculator": "tblite.ase.TBLite",
            "arguments": {"method": "GFN2-xTB", "verbosity": 0},
            "n_workers": 2,
            "time_limit_s": 120,
        },
    )
    assert run_campaign(directory) == "2 rounds are done"
    state = read_state(directory)
    assert len(state.labels) == 4 + 2 + 2 + 2 * 2
    assert not state.failures
    key = state.batch_keys("train")[-1]
    check_against_tblite(state.labelled_atoms(key))


def check_against_tblite(atoms) -> None:
    from tblite.ase import TBLite

    fresh = atoms.copy()
    fresh.calc = TBLite(method="GFN2-xTB", verbosity=0)
    assert fresh.get_potential_energy() == pytest.approx(atoms.info["REF_energy"], abs=1e-9)
    assert np.allclose(fresh.get_forces(), atoms.arrays["REF_forces"], atol=1e-8)


def test_read_only_directory(tmp_path: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may write anywhere, so that a file system mounted read-only is what is needed."""
    directory = write_campaign(tmp_path / "c", data, stop={"rounds": 0})
    run_campaign(directory)
    before = result_of(directory)
    mounted = subprocess.run(
        ["mount", "--bind", "-o", "ro", str(directory), str(directory)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a read-only mount is not to be had: {mounted.stderr.decode().strip()}")
    try:
        with pytest.raises(WriteError, match=r"cannot write to .*Read-only"):
            run_campaign(directory, RunOptions(n_rounds=1))
        assert read_saved(read_state(directory)).next == "round 1: select"
    finally:
        subprocess.run(["umount", str(directory)], check=True)
    assert result_of(directory) == before
    assert run_campaign(directory, RunOptions(n_rounds=1)) == "1 rounds are done"


def test_full_disk(tmp_path: Path, data: Path, finished: Path) -> None:
    """A tmpfs too small for the campaign; what fits is kept, and it goes on with more room."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=48k", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"a tmpfs is not to be had: {mounted.stderr.decode().strip()}")
    try:
        directory = write_campaign(disk / "c", data)
        n_full = 0
        n_labels = 0
        for size in (48, 128, 512, 1024, 1160, 1232, 1300, 1400, 1500, 1600, 2000, 4000):
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
            try:
                reason = run_campaign(directory)
                break
            except WriteError as error:
                n_full += 1
                assert "No space left" in str(error)
                n_now = len(read_state(directory).labels)
                assert n_now >= n_labels
                n_labels = n_now
        assert reason == "2 rounds are done"
        assert n_full > 1
        assert result_of(directory) == result_of(finished)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
