"""Campaigns that choose for structures that matter."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from labelwise.campaign.errors import ConfigError
from labelwise.campaign.loop import run_campaign
from labelwise.campaign.state import PICKS, read_state
from labelwise.errors import ArgumentError, ScreeningError
from labelwise.features.representations import represent
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import load_potential
from labelwise.selection.rules import select_batch
from labelwise.structures import iter_unscreened, write_structures
from labelwise.studies.comparison.methods import METHODS
from tests.campaign.building import make_structures, write_campaign


@pytest.fixture
def target(tmp_path: Path) -> Path:
    write_structures(tmp_path / "target.extxyz", make_structures(4, seed=9, labelled=False))
    return tmp_path / "target.extxyz"


def write(data: Path, target: Path, **selection: Any) -> Path:
    sections: dict[str, dict[str, Any]] = {
        "data": {"target": [str(target)]},
        "selection": {"rule": "target", "model": "pretrained", "n_reserve": 1, **selection},
        "stop": {"rounds": 1},
    }
    return write_campaign(target.parent / "campaign", data, **sections)


def test_the_batch_is_chosen_for_the_target(data: Path, target: Path) -> None:
    directory = write(data, target)
    run_campaign(directory)
    state = read_state(directory)
    picks = json.loads((state.round_folder(1) / PICKS).read_text())["candidates"]["train"]
    potential = load_potential(data / "small.model", trust=True)
    files = [str(data / "pool.extxyz"), str(data / "train.extxyz"), str(target)]
    pool, train, wanted = (
        LinearKernel(represent([frame.atoms for frame in iter_unscreened([file])], potential))
        for file in files
    )
    expected = select_batch("target", pool, train, 4, target=wanted).pool_idx.tolist()
    assert [pick["frame"] for pick in picks] == expected
    assert expected != select_batch("target", pool, train, 4).pool_idx.tolist()


def test_what_is_wrong_with_a_target_is_said_before_anything_is_paid(
    data: Path, target: Path
) -> None:
    with pytest.raises(ConfigError, match=r"data\.target: the rule 'lcmd' takes none"):
        run_campaign(write(data, target, rule="lcmd"))
    empty = write(data, Path(f"{target}@9:"))
    with pytest.raises(ArgumentError, match=r"data\.target holds no structures"):
        run_campaign(empty)
    strange = make_structures(1, labelled=False)[0]
    strange.numbers[0] = 54
    write_structures(target, [strange])
    with pytest.raises(ScreeningError, match=r"target.extxyz@0: unknown-element"):
        run_campaign(write(data, target))


def test_methods_of_comparisons_choose_for_the_target() -> None:
    assert METHODS["ntk-target"] == {"rule": "target", "representation": "ntk-e"}
