"""A campaign that is killed at any moment ends like one that was not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.campaign.building import result_of, write_campaign
from tests.campaign.zygote import Zygote


@pytest.fixture(scope="module")
def undisturbed(zygote: Zygote, data: Path, tmp_path_factory: pytest.TempPathFactory):
    return run_undisturbed(zygote, write_campaign(tmp_path_factory.mktemp("whole"), data))


def run_undisturbed(zygote: Zygote, directory: Path) -> tuple[dict[str, bytes], int, float]:
    """Return the result, the number of write boundaries and the seconds of an undisturbed run."""
    done = zygote.run(directory)
    assert done["code"] == 0
    return result_of(directory), done["n_boundaries"], done["seconds"]


def resume(zygote: Zygote, directory: Path) -> dict[str, bytes]:
    assert zygote.run(directory)["code"] == 0
    return result_of(directory)


def check_boundaries(zygote: Zygote, data: Path, tmp_path: Path, undisturbed, numbers) -> None:
    result, n_boundaries, _ = undisturbed
    for number in numbers:
        directory = write_campaign(tmp_path / f"at_{number}", data)
        # Every other time the write in progress is left half done.
        assert zygote.run(directory, kill_at=number, torn=number % 2 == 0)["killed"]
        assert resume(zygote, directory) == result, f"killed at write {number} of {n_boundaries}"


def check_moments(
    zygote: Zygote, data: Path, tmp_path: Path, undisturbed, n_kills: int, **sections: Any
) -> None:
    result, _, seconds = undisturbed
    rng = np.random.default_rng(7)
    n_killed = n_runs = 0
    while n_killed < n_kills:
        n_runs += 1
        assert n_runs <= 5 * n_kills, "the runs end before they can be killed"
        directory = write_campaign(tmp_path / f"moment_{n_runs}", data, **sections)
        moment = rng.uniform(0.0, seconds)
        run = zygote.run(directory, kill_after_s=moment)
        if not run["killed"]:  # the machine had less to do than before
            seconds = min(seconds, run["seconds"])
            continue
        n_killed += 1
        assert resume(zygote, directory) == result, f"killed after {moment:.2f} s"


def test_killed_at_some_writes(zygote, data, tmp_path, undisturbed) -> None:
    n_boundaries = undisturbed[1]
    assert n_boundaries > 60
    numbers = [2 * (n_boundaries // 6), n_boundaries // 2 + 1, n_boundaries - 9]
    check_boundaries(zygote, data, tmp_path, undisturbed, numbers)


def check_recipe(zygote: Zygote, data: Path, tmp_path: Path, parts, sections) -> None:
    whole = write_campaign(tmp_path / "whole", data, **sections)
    n_boundaries = zygote.run(whole)["n_boundaries"]
    result = result_of(whole)
    for part in parts:
        number = int(part * n_boundaries)
        directory = write_campaign(tmp_path / f"at_{number}", data, **sections)
        assert zygote.run(directory, kill_at=number, torn=number % 2 == 0)["killed"]
        assert resume(zygote, directory) == result, f"killed at write {number} of {n_boundaries}"


def test_killed_with_low_rank_changes(zygote, data, tmp_path) -> None:
    recipe = {"lora_rank": 2, "train_blocks": "products,readout", "anchor": "l2"}
    sections = {"finetune": {"max_updates": 4, **recipe}, "stop": {"rounds": 1}}
    check_recipe(zygote, data, tmp_path, (0.8,), sections)


@pytest.mark.thorough
def test_killed_with_an_anchor_and_a_committee(zygote, data, tmp_path) -> None:
    sections = {
        "finetune": {"lora_rank": 2, "block_rates": {"readout": 0.3}, "anchor": "ewc"},
        "selection": {"rule": "committee-e", "members": 2},
        "stop": {"rounds": 1},
    }
    check_recipe(zygote, data, tmp_path, (0.25, 0.5, 0.9), sections)


@pytest.mark.thorough
def test_killed_at_some_moments(zygote, data, tmp_path, undisturbed) -> None:
    check_moments(zygote, data, tmp_path, undisturbed, 3)


@pytest.mark.slow
def test_killed_at_every_write(zygote, data, tmp_path, undisturbed) -> None:
    check_boundaries(zygote, data, tmp_path, undisturbed, range(1, undisturbed[1] + 1))


@pytest.mark.slow
def test_killed_at_fifty_moments(zygote, data, tmp_path, undisturbed) -> None:
    check_moments(zygote, data, tmp_path, undisturbed, 50)


@pytest.mark.thorough
def test_killed_again_and_again(zygote, data, tmp_path, undisturbed) -> None:
    """Many short lives, each of which gets a little farther, or dies where the last one did."""
    directory = write_campaign(tmp_path / "lives", data)
    for life in range(6):
        zygote.run(directory, kill_at=12 + 9 * life)
    assert resume(zygote, directory) == undisturbed[0]


@pytest.mark.slow
def test_killed_with_calculations_under_way(zygote, data, tmp_path) -> None:
    """Two workers end in any order, so that the lines of the log may come in another one."""
    pytest.importorskip("tblite")
    labeller = {
        "kind": "calculator",
        "calculator": "tblite.ase.TBLite",
        "arguments": {"method": "GFN2-xTB", "verbosity": 0},
        "n_workers": 2,
    }
    sections = {
        "labeller": labeller,
        "data": {"train": [], "test": {"from_pool": 3}},
        "selection": {"initial_size": 4},
    }
    whole = write_campaign(tmp_path / "whole", data, **sections)
    run = zygote.run(whole)
    assert run["code"] == 0
    expected = sorted_labels(result_of(whole))
    rng = np.random.default_rng(3)
    for number in range(5):
        directory = write_campaign(tmp_path / str(number), data, **sections)
        zygote.run(directory, kill_after_s=rng.uniform(0.2, 0.8) * run["seconds"])
        n_before = (
            len((directory / "labels.jsonl").read_bytes().splitlines())
            if (directory / "labels.jsonl").exists()
            else 0
        )
        found = sorted_labels(resume(zygote, directory))
        assert found == expected, f"{n_before} labels at the kill"


def sorted_labels(result: dict[str, bytes]) -> dict[str, object]:
    """Return a result without what follows from the order in which calculations ended."""
    records = json.loads(result["rounds.jsonl"])
    for record in records:
        del record["labels"]
    lines = sorted(result["labels.jsonl"].splitlines())
    return {**result, "labels.jsonl": lines, "rounds.jsonl": records}
