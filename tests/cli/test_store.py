"""The feature store from the command line: chosen from, filled, looked at, repaired."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk

from labelwise.cli import main
from labelwise.cli.app import fill_in_values
from labelwise.features.store import FeatureStore
from labelwise.structures import read_structures, write_structures

COMMAND = "import sys; from labelwise.cli import main; sys.exit(main())"
SELECT = ["select", "--model", "demo", "--pool", "pool.extxyz", "--train", "train.extxyz"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    write_structures(tmp_path / "train.extxyz", rattled_molecules[:5])
    write_structures(tmp_path / "pool.extxyz", rattled_molecules[5:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def damage(store: Path) -> None:
    path = store / "c000000" / "features" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[40] ^= 4
    path.write_bytes(content)


def picks_of(path: str) -> list[int]:
    return [atoms.info["labelwise_pool_index"] for atoms in read_structures(path)]


def test_the_batch_is_that_of_a_selection_in_memory(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SELECT, "-n", "6", "--shortlist", "12", "--out", "here.extxyz"]) == 0
    words = [*SELECT, "-n", "6", "--shortlist", "12", "--store", "rows", "--memory", "4GB"]
    assert main([*words, "--out", "there.extxyz"]) == 0
    assert picks_of("here.extxyz") == picks_of("there.extxyz")
    assert "rows (30 rows computed)" in capsys.readouterr().out
    assert main([*words, "--out", "again.extxyz"]) == 0
    assert "rows (0 rows computed)" in capsys.readouterr().out
    summary = json.loads(Path("again.json").read_text())
    assert summary["extraction"]["rows_computed"] == 0
    assert summary["stages"][-1]["name"] == "select"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memory", "4GB"], "--memory needs a folder for features: give --store"),
        (["--ray"], "--ray needs a folder"),
        (["--workers", "0"], "workers is '0'; allowed are auto and whole numbers from 1"),
        (["--store-dtype", "float16"], "--store-dtype needs a folder"),
        (["--store", "rows", "--memory", "plenty"], "'plenty' is no amount of memory"),
        (["--store", "rows", "--memory", "1MB"], "memory=1.0 MB is too little"),
        (["--store", "rows", "--ray-workers", "2"], "--ray-workers needs --ray"),
        (["--store", "rows", "-r", "soap"], "'soap' cannot be chosen from a feature store"),
        (["--store", "rows", "--rule", "random"], "looks at no features"),
        (["--store", "pool.extxyz"], "pool.extxyz"),
    ],
    ids=str,
)
def test_wrong_words_are_answered(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SELECT, "-n", "3", *words]) == 1
    assert message in capsys.readouterr().err.replace("\n", " ")
    assert not Path("batch.extxyz").exists()


def test_a_folder_of_something_else_is_left_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "mine").mkdir()
    (folder / "mine" / "notes.txt").write_text("mine")
    assert main([*SELECT, "-n", "3", "--store", "mine"]) == 1
    assert "mine" in capsys.readouterr().err
    assert [path.name for path in (folder / "mine").iterdir()] == ["notes.txt"]


def test_represent_fills_and_store_shows_and_repairs(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fill = ["represent", "--model", "demo", "--pool", "pool.extxyz", "--store", "rows"]
    assert main(fill) == 0
    assert "25 rows in rows, 25 of them computed now" in capsys.readouterr().out
    assert main(["store", "rows", "--verify"]) == 0
    shown = capsys.readouterr().out
    assert "25 of 256 features, float32" in shown
    assert "ntk-e (parameters embedding)" in shown
    damage(folder / "rows")
    assert main(["store", "rows"]) == 0
    assert main(["store", "rows", "--verify"]) == 1
    assert (
        "c000000 is damaged: ValueError: features/c/0/0 does not agree" in capsys.readouterr().err
    )
    assert main(["store", "rows", "--repair"]) == 0
    assert "c000000: it was set aside" in capsys.readouterr().err
    assert main([*fill, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["rows_computed"], record["frames"]) == (25, 25, 25)
    assert record["damaged"]
    assert np.isfinite(FeatureStore.open(folder / "rows").read_chunk(1)).all()


def test_represent_goes_to_a_file_or_a_store(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["represent", "--model", "demo", "--pool", "pool.extxyz", "--store", "rows"]
    assert main([*words, "--out", "rows.npz"]) == 1
    assert "leave one of them out" in capsys.readouterr().err
    assert main(["store", "nowhere"]) == 1
    assert "no feature store at nowhere" in capsys.readouterr().err


def test_ray_takes_an_address_or_none() -> None:
    assert fill_in_values(["--ray"]) == ["--ray", "local"]
    assert fill_in_values(["--ray", "--quiet", "x"]) == ["--ray", "local", "--quiet", "x"]
    assert fill_in_values(["--ray", "auto", "-n", "3"]) == ["--ray", "auto", "-n", "3"]
    assert fill_in_values(["--ray=auto"]) == ["--ray=auto"]


def test_a_killed_command_goes_on_and_gives_the_same(folder: Path) -> None:
    pool = [atoms for atoms in read_structures("pool.extxyz") for _ in range(8)]
    for seed, atoms in enumerate(pool):
        atoms.rattle(0.02, seed=seed)
    write_structures("pool.extxyz", pool)
    words = [*SELECT, "-n", "5", "--store", "rows", "--out", "killed.extxyz"]
    process = subprocess.Popen([sys.executable, "-c", COMMAND, *words])
    deadline = time.monotonic() + 200
    while not (folder / "rows" / "c000000").exists() and process.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert main(words) == 0
    assert main([*SELECT, "-n", "5", "--out", "whole.extxyz"]) == 0
    assert picks_of("killed.extxyz") == picks_of("whole.extxyz")
    assert main(["store", "rows", "--verify"]) == 0


def test_a_structure_that_was_too_large_is_taken_when_it_is_not(
    folder: Path, rattled_molecules: list[Atoms], capsys: pytest.CaptureFixture[str]
) -> None:
    largest = max(len(atoms) for atoms in rattled_molecules[5:])
    n_large = sum(len(atoms) == largest for atoms in rattled_molecules[5:])
    words = [*SELECT, "-n", "3", "--store", "rows", "--force"]
    assert main([*words, "--max-atoms", str(largest - 1)]) == 0
    aside = json.loads(Path("batch.json").read_text())["screened"]
    assert [item["reason"] for item in aside] == ["too-large"] * n_large
    assert main(words) == 0
    assert json.loads(Path("batch.json").read_text())["screened"] == []


def test_what_the_process_may_occupy_bounds_a_structure(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    crystal = bulk("C", "diamond", a=3.57, cubic=True).repeat(8)
    crystal.rattle(0.05, seed=0)
    write_structures(folder / "pool.extxyz", [*read_structures("pool.extxyz"), crystal])
    assert main([*SELECT, "-n", "3", "--store", "rows", "--memory", "2GB"]) == 0
    (aside,) = json.loads(Path("batch.json").read_text())["screened"]
    assert aside["reason"] == "too-large"
    assert "4,096 atoms need about" in aside["detail"]
