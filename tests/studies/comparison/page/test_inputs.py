from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import PotentialError, ReadError
from labelwise.structures import Screen, write_structures
from labelwise.studies.comparison.inputs import (
    SampleOptions,
    StudyInputs,
    draw_frames,
    find_inputs,
)
from labelwise.studies.comparison.record import read_record
from tests.campaign.building import make_structures

CPU = SampleOptions(device="cpu", trust_model=True)


@pytest.fixture
def inputs(with_data: Path) -> StudyInputs:
    return find_inputs(read_record(with_data), CPU)


def test_kernels_are_those_that_methods_choose_by(inputs: StudyInputs) -> None:
    assert [(choice.kernel, choice.style) for choice in inputs.kernels] == [
        ("ntk-e", 1),
        ("activation", 2),
    ]
    assert inputs.pool == "small"
    assert len(inputs.files_of("pool")) == 1
    assert inputs.files_of("valid") == []


def test_a_study_that_calls_its_model_trusted_is_not_believed(with_data: Path) -> None:
    inputs = find_inputs(read_record(with_data), SampleOptions(device="cpu"))
    assert inputs.config.model.trust
    with pytest.raises(PotentialError, match=r"small\.model is a pickle.*--trust-model"):
        inputs.load()


def test_results_depend_on_the_files(with_data: Path, inputs: StudyInputs) -> None:
    before = inputs.describe()
    assert before == inputs.describe()
    pool = with_data / "data" / "pool.extxyz"
    status = pool.stat()
    os.utime(pool, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    try:
        assert inputs.describe() != before
    finally:
        os.utime(pool, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_results_without_campaigns(study: Path) -> None:
    with pytest.raises(ReadError, match="no campaign of the pool natural-1 is in"):
        find_inputs(read_record(study), CPU)


def test_a_record_cannot_point_outside_its_study(with_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "study"
    folder.mkdir()
    shutil.copytree(with_data / "cells" / "small", tmp_path / "elsewhere")
    content = json.loads((with_data / "results.json").read_text(encoding="utf-8"))
    for cell in content["cells"]:
        cell["pool"] = "../../elsewhere"
    (folder / "results.json").write_text(json.dumps(content), encoding="utf-8")
    (folder / "cells").mkdir()
    with pytest.raises(ReadError, match="no campaign of the pool"):
        find_inputs(read_record(folder), CPU)


def test_samples_are_seeded_even_and_disjoint(tmp_path: Path) -> None:
    write_structures(tmp_path / "a.extxyz", make_structures(60))
    specs = [str(tmp_path / "a.extxyz")]
    first = draw_frames(specs, Screen(None), 20, seed=1)
    again = draw_frames(specs, Screen(None), 20, seed=1)
    assert [frame.index for frame in first] == [frame.index for frame in again]
    assert [frame.index for frame in first] == sorted({frame.index for frame in first})
    screen = Screen(None)
    one = draw_frames(specs, screen, 30, seed=1)
    other = draw_frames(specs, screen, 60, seed=2)
    assert {frame.index for frame in one} | {frame.index for frame in other} == set(range(60))
    assert len(one) + len(other) == 60
    counts = np.zeros(60)
    for seed in range(300):
        for frame in draw_frames(specs[:1], Screen(None), 6, seed=seed) if seed < 40 else ():
            counts[frame.index] += 1
    assert counts[30:].sum() == pytest.approx(120, abs=40)
