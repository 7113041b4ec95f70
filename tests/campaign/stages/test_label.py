"""The stage ``label`` where calculations fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labelwise.campaign.atomic_io import read_json, read_log
from labelwise.campaign.errors import CampaignError
from labelwise.campaign.labelling import LabellingError, LabelsPending
from labelwise.campaign.loop import RunOptions, run_campaign
from labelwise.campaign.state import read_state
from labelwise.campaign.stopping import find_reason_to_stop
from labelwise.cli import main
from labelwise.structures import hash_structure, read_structures, write_structures
from tests.campaign.building import label, write_campaign, write_data

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unlabelled")
    write_data(folder, n_pool=60, labelled=False)
    return folder


@pytest.fixture
def begin(tmp_path: Path, files: Path) -> Callable[..., Path]:
    """Write a campaign whose calculator traces what it does into ``trace``."""

    def write(arguments: dict[str, Any], labeller: dict[str, Any], **sections: Any) -> Path:
        own = {
            "kind": "calculator",
            "calculator": "tests.campaign.calculators.Faulty",
            "arguments": {"trace": str(tmp_path / "trace"), **arguments},
            "n_retries": 0,
        }
        return write_campaign(tmp_path / "c", files, labeller={**own, **labeller}, **sections)

    return write


def count_calculations(directory: Path) -> int:
    return len((directory.parent / "trace").read_text())


@pytest.mark.parametrize(
    ("fault", "limit", "n_workers"),
    [
        pytest.param("raises", None, 1, marks=pytest.mark.thorough),
        ("raises", 12, 4),
        pytest.param("unconverged", 12, 1, marks=pytest.mark.thorough),
        pytest.param("other level", None, 3, marks=pytest.mark.thorough),
    ],
)
def test_failures_are_counted_over_all_lists(
    begin: Callable[..., Path], fault: str, limit: int | None, n_workers: int
) -> None:
    labeller = {"max_failures_in_a_row": limit, "n_workers": n_workers}
    directory = begin({"fault": fault}, labeller)
    n = 20 if limit is None else limit
    with pytest.raises(LabellingError, match=rf"{n} calculations in a row .*--retry-failed"):
        run_campaign(directory)
    assert len(read_state(directory).failures) == n
    assert count_calculations(directory) == n
    # The calculator is tried before time is spent on a fine-tuning.
    assert not (directory / "round_000" / "model.pt").exists()


def test_failures_are_counted_over_runs_and_rounds(begin: Callable[..., Path]) -> None:
    """Two labels come first; round 1 has three failures, the next run as many as are left."""
    arguments = {"n_good": 2}
    directory = begin(arguments, {"max_failures_in_a_row": 3})
    with pytest.raises(LabellingError, match="3 calculations in a row"):
        run_campaign(directory)
    assert len(read_state(directory).rounds) == 1
    begin(arguments, {"max_failures_in_a_row": 30})
    with pytest.raises(LabellingError, match="30 calculations in a row"):
        run_campaign(directory, RunOptions(accept_changes=True))
    # What was accepted is a reason to count anew; a mere repetition is none.
    assert len(read_state(directory).failures) == 33
    with pytest.raises(LabellingError, match="31 calculations in a row"):
        run_campaign(directory)
    assert count_calculations(directory) == 2 + 3 + 30 + 1


def test_an_interrupted_run_does_not_begin_to_count_anew(begin: Callable[..., Path]) -> None:
    directory = begin({}, {"max_failures_in_a_row": 9})

    def interrupt(stage: str, done: int, total: int | None) -> None:
        if stage == "label" and done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_campaign(directory, progress=interrupt)
    with pytest.raises(LabellingError, match="9 calculations in a row"):
        run_campaign(directory)
    assert count_calculations(directory) == 9


def test_a_corrected_argument_and_the_way_back(begin: Callable[..., Path], said: list[str]) -> None:
    directory = begin({}, {"max_failures_in_a_row": 4}, stop={"rounds": 1})
    with pytest.raises(LabellingError):
        run_campaign(directory)
    begin({"n_good": 1000}, {"max_failures_in_a_row": 4}, stop={"rounds": 1})
    run_campaign(directory, RunOptions(accept_changes=True))
    assert any("4 structures are set aside" in line and "--retry-failed" in line for line in said)
    state = read_state(directory)
    assert (len(state.labels), len(state.failures)) == (3, 4)
    run_campaign(directory, RunOptions(n_rounds=2, retry_failed=True))
    assert not read_state(directory).failures


def test_a_pool_of_failures_names_the_way_back(
    begin: Callable[..., Path], files: Path, said: list[str]
) -> None:
    data = {"pool": [f"{files / 'pool.extxyz'}@:7"]}
    directory = begin({}, {}, data=data)
    with pytest.raises(CampaignError, match=r"7 structures are set aside .*--retry-failed"):
        run_campaign(directory)
    begin({"n_good": 11}, {}, data=data)  # seven were made before
    with pytest.raises(CampaignError, match="--retry-failed"):
        run_campaign(directory, RunOptions(accept_changes=True))
    reason = run_campaign(directory, RunOptions(n_rounds=9, retry_failed=True))
    assert reason == "the pool has no structures left to choose"
    assert said[-1].startswith("3 structures are set aside")
    assert "--retry-failed" in said[-1]


def test_the_trial_is_paid_once_and_changes_no_choice(
    begin: Callable[..., Path], tmp_path: Path, files: Path
) -> None:
    pool = f"{files / 'pool.extxyz'}@:7"
    sections = {"data": {"pool": [pool]}, "stop": {"rounds": 3}}
    directory = begin({"n_good": 1000}, {}, **sections)
    assert run_campaign(directory, RunOptions(n_rounds=9)).startswith("the pool has no")
    assert count_calculations(directory) == 7
    state = read_state(directory)
    assert (len(state.labels), len(state.trials)) == (7, 0)
    assert [record.n_train for record in state.rounds] == [4, 7, 10, 11]
    assert [record.n_labels for record in state.rounds] == [0, 3, 6, 7]

    structures = read_structures(pool)
    for atoms in structures:
        label(atoms)
    write_structures(tmp_path / "labelled.extxyz", structures)
    sections["data"] = {"pool": [str(tmp_path / "labelled.extxyz")]}
    replayed = write_campaign(tmp_path / "d", files, **sections)
    run_campaign(replayed)
    for n_round in (1, 2, 3):
        name = f"round_{n_round:03d}/picks.json"
        picks, other = read_json(directory / name), read_json(replayed / name)
        assert [each["pool_index"] for each in picks["candidates"]["train"]] == [
            each["pool_index"] for each in other["candidates"]["train"]
        ]


def test_a_calculator_that_cannot_be_made_is_found_first(
    begin: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = begin({}, {"calculator": "tests.campaign.calculators.Faultty"})
    with pytest.raises(LabellingError, match="Faultty"):
        run_campaign(directory)
    assert not (directory / "round_000").exists()
    assert main(["campaign", "run", str(directory), "-q"]) == 1
    assert "Faultty" in capsys.readouterr().err


def test_returned_failures_are_all_taken_before_the_stop(tmp_path: Path, files: Path) -> None:
    labeller = {"kind": "files", "max_failures_in_a_row": 2}
    directory = write_campaign(
        tmp_path / "c", files, labeller=labeller, selection={"batch_size": 5, "n_reserve": 5}
    )
    with pytest.raises(LabelsPending, match="5 structures"):
        run_campaign(directory)
    folder = directory / "round_001"
    asked = read_structures(folder / "to_label.extxyz")
    for atoms in asked:
        atoms.info["labelwise_failed"] = "SCF"
    write_structures(folder / "labelled.extxyz", asked)
    with pytest.raises(LabellingError, match="5 calculations in a row failed"):
        run_campaign(directory)
    with pytest.raises(LabelsPending, match="5 structures"):  # mended: the next are asked for
        run_campaign(directory)
    keys = {hash_structure(atoms) for atoms in read_structures(folder / "to_label.extxyz")}
    assert not keys & {hash_structure(atoms) for atoms in asked}


def test_the_log_tells_how_many_failed_in_a_row(begin: Callable[..., Path]) -> None:
    directory = begin({"n_good": 2}, {"max_failures_in_a_row": 3})
    with pytest.raises(LabellingError):
        run_campaign(directory)
    state = read_state(directory)
    assert state.n_failed_in_a_row == 3
    assert [("energy" in each) for each in read_log(directory / "labels.jsonl")] == [
        True, True, False, False, False,
    ]  # fmt: skip
    assert find_reason_to_stop(state, n_left=1) is None
