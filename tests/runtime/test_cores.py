from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from labelwise.errors import ArgumentError
from labelwise.runtime import cores
from labelwise.runtime.cores import resolve_workers, torch_threads, usable_cores


@pytest.fixture(autouse=True)
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    monkeypatch.delenv("SLURM_CPUS_PER_TASK", raising=False)


@pytest.mark.parametrize(
    ("texts", "n_cores"),
    [
        ([], 16),
        (["max 100000"], 16),
        (["400000 100000", "max 100000"], 4),
        (["250000 100000"], 3),
        (["50000 100000"], 1),
        (["9900000 100000"], 16),
        (["-1"], 16),
        (["200000"], 2),
    ],
)
def test_quotas_of_control_groups_count(
    monkeypatch: pytest.MonkeyPatch, texts: list[str], n_cores: int
) -> None:
    monkeypatch.setattr(cores, "iter_limits", lambda *_: iter(texts))
    assert usable_cores() == n_cores


def test_the_files_of_a_group_are_read(tmp_path: Path) -> None:
    (tmp_path / "cgroup").write_text("0::/job\n")
    mount = tmp_path / "mounted"
    (mount / "job").mkdir(parents=True)
    (tmp_path / "mountinfo").write_text(f"30 22 0:26 / {mount} rw shared:4 - cgroup2 cgroup2 rw\n")
    (mount / "job" / "cpu.max").write_text("max 100000\n")
    (mount / "cpu.max").write_text("300000 100000\n")
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(("promised", "n_cores"), [("8", 8), ("64", 16), ("", 16), ("x", 16)])
def test_what_slurm_promises_counts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, promised: str, n_cores: int
) -> None:
    monkeypatch.setenv("SLURM_CPUS_PER_TASK", promised)
    assert usable_cores(tmp_path) == n_cores


def test_a_number_of_workers_is_read() -> None:
    assert resolve_workers("auto") is None
    assert resolve_workers("12") == 12


@pytest.mark.parametrize("text", ["0", "-1", "two", "", "1.5"])
def test_other_numbers_of_workers_are_refused(text: str) -> None:
    with pytest.raises(ArgumentError, match="allowed are auto and whole numbers from 1"):
        resolve_workers(text)


def test_threads_are_as_they_were_afterwards() -> None:
    before = torch.get_num_threads()
    with torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
