"""The command line comes to what it came to when the outcomes were recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelwise.cli import main
from tests.frozen import numbers
from tests.frozen.cases import GROUPS, QUICK, QUICK_GROUP
from tests.frozen.comparing import Verdict, compare
from tests.frozen.record import (
    describe,
    has_natural,
    installed_versions,
    list_cases,
    prepare,
    read_recorded,
    recorded_versions,
    run_case,
)

needs_equal_versions = pytest.mark.skipif(
    installed_versions() != recorded_versions(),
    reason="the outcomes were recorded with other versions of what computes them",
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where all cases run: the embedded reactions, and one thread."""
    n_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    path = tmp_path_factory.mktemp("frozen")
    prepare(path)
    yield path
    torch.set_num_threads(n_threads)


def find_differences(group: str, names: tuple[str, ...], folder: Path) -> list[str]:
    """Return a line for each case, of those named or of all, that differs from its record."""
    recorded = read_recorded(group)
    lines = []
    for case in list_cases(group):
        if case.name not in recorded or (names and case.name not in names):
            continue
        comparison = compare(recorded[case.name], run_case(case, folder))
        if comparison.verdict is Verdict.DIFFERENT:
            lines.append(describe(case.name, comparison))
    return lines


@needs_equal_versions
def test_a_few_selections_are_as_they_were(folder: Path) -> None:
    assert set(QUICK) <= set(read_recorded(QUICK_GROUP))
    assert find_differences(QUICK_GROUP, QUICK, folder) == []


@pytest.mark.slow
@needs_equal_versions
@pytest.mark.parametrize("group", GROUPS)
def test_all_is_as_it_was(group: str, folder: Path) -> None:
    if GROUPS[group].needs_natural and not has_natural():
        pytest.skip("the development data are not here")
    assert find_differences(group, (), folder) == []


@pytest.mark.parametrize("group", GROUPS)
def test_every_outcome_has_its_case(group: str) -> None:
    names = [case.name for case in GROUPS[group].list_cases()]
    assert sorted(set(names)) == sorted(names)
    assert set(read_recorded(group)) <= set(names)


@pytest.mark.parametrize(
    ("found", "verdict"),
    [
        ({"exit": 0, "score": [1.0, 2.0], "n": 3}, Verdict.EQUAL),
        ({"exit": 0, "score": [1.0, 2.0], "n": 3, "more": 1}, Verdict.EQUAL),
        ({"exit": 0, "score": [1.0, 2.000001], "n": 3}, Verdict.CLOSE),
        ({"exit": 0, "score": [1.0, 2.00001], "n": 3}, Verdict.DIFFERENT),
        ({"exit": 0, "score": [1.0, float("nan")], "n": 3}, Verdict.DIFFERENT),
        ({"exit": 0, "score": [1.0], "n": 3}, Verdict.DIFFERENT),
        ({"exit": 0, "score": [1.0, 2.0, 3.0], "n": 3}, Verdict.DIFFERENT),
        ({"exit": 0, "score": [1.0, 2.0]}, Verdict.DIFFERENT),
        ({"exit": 0, "score": [1.0, 2.0], "n": 4}, Verdict.DIFFERENT),
        ({"exit": 1}, Verdict.DIFFERENT),
    ],
)
def test_what_differs_is_seen(found: dict[str, Any], verdict: Verdict) -> None:
    recorded = {"exit": 0, "score": [1.0, 2.0], "n": 3}
    assert compare(recorded, found).verdict is verdict


def test_a_refusal_may_come_to_run_and_may_change_its_words() -> None:
    assert compare({"exit": 1, "why": "a"}, {"exit": 0, "n": 3}).verdict is Verdict.NOW_RUNS
    assert compare({"exit": 1, "why": "a"}, {"exit": 1, "why": "b"}).verdict is Verdict.EQUAL
    assert compare({"exit": 1, "why": "a"}, {"exit": 2, "why": "a"}).verdict is Verdict.DIFFERENT


def test_a_digest_says_only_whether_bits_are_equal() -> None:
    recorded = {"exit": 0, "bits_sha256": "a", "norms": [1.0]}
    assert compare(recorded, {**recorded, "bits_sha256": "b"}).verdict is Verdict.CLOSE
    moved = {"exit": 0, "bits_sha256": "b", "norms": [1.1]}
    assert compare(recorded, moved).verdict is Verdict.DIFFERENT


def test_rows_that_are_moved_or_exchanged_are_seen(tmp_path: Path) -> None:
    rows = np.arange(12, dtype=np.float32).reshape(3, 4)
    for name, content in (("a", rows), ("b", rows[::-1]), ("c", rows[:, ::-1])):
        np.savez(tmp_path / f"{name}.npz", features=content)
    found = [{"exit": 0, **numbers.read_features(tmp_path / f"{n}.npz")} for n in "abc"]
    assert compare(found[0], found[0]).verdict is Verdict.EQUAL
    assert compare(found[0], found[1]).verdict is Verdict.DIFFERENT
    assert compare(found[0], found[2]).verdict is Verdict.DIFFERENT


def test_another_choice_of_the_command_line_is_seen(folder: Path, tmp_path: Path) -> None:
    words = ["select", "--pool", str(folder / "pool.extxyz@::40"), "--rule", "random", "-q"]
    batches = []
    for seed in ("0", "1"):
        out = tmp_path / f"{seed}.extxyz"
        assert main([*words, "-n", "5", "--seed", seed, "-o", str(out)]) == 0
        batches.append({"exit": 0, **numbers.read_batch(out.with_suffix(".json"))})
    assert compare(*batches).verdict is Verdict.DIFFERENT
