"""Every command sets the same structures of a pool aside, for the same reasons."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.cli import main
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import label, make_structures
from tests.potentials.models import VARIANTS, make_mace

N_SOUND = 12
#: In the order of the pool, behind the sound ones.
CONTENT = (
    "out-of-range", "bad-cell", "unknown-element", "atoms-too-close", "isolated-atom",
    "no-neighbours", "unknown-charge", "unknown-charge", "unknown-charge",
)  # fmt: skip
REPEATS = ("duplicate-of-train", "duplicate-of-pool", "")
BROKEN = ("non-finite-features", "non-finite-features")
MODEL = ["--model", "charged.model", "--trust-model", "--device", "cpu"]
KERNEL = ["-r", "activation"]


def make_pool(train: list[Atoms], sound: list[Atoms]) -> list[Atoms]:
    """Return sound structures, one or more for each reason, and copies of some."""
    far, flat = sound[0].copy(), sound[1].copy()
    far.positions[0] += 1e7
    flat.pbc = True
    lonely, apart = Atoms("C"), Atoms("CH", [[0, 0, 0], [0, 0, 9.0]])
    unknown, close = Atoms("CU", [[0, 0, 0], [0, 0, 1.1]]), Atoms("CH", [[0, 0, 0], [0, 0, 0.3]])
    charged, worded, odd = sound[2].copy(), sound[3].copy(), sound[4].copy()
    charged.rattle(0.1, seed=1)
    charged.info["charge"] = 7
    worded.rattle(0.1, seed=2)
    worded.info["total_charge"] = "many"
    odd.rattle(0.1, seed=3)
    odd.info["spin"] = 11
    neutral = charged.copy()  # what equals a structure that is set aside is not
    del neutral.info["charge"]
    oxygen = make_structures(1, seed=9)[0]
    twin = oxygen.copy()
    twin.rattle(0.01, seed=4)
    content = [far, flat, unknown, close, lonely, apart, charged, worded, odd]
    pool = [*sound, *content, train[0].copy(), sound[5].copy(), neutral, oxygen, twin]
    for atoms in pool:
        label_anything(atoms)
    return pool


def label_anything(atoms: Atoms) -> None:
    """Label a structure, whether it makes sense or not."""
    if "REF_energy" not in atoms.info:
        atoms.info["REF_energy"] = -30.0 * len(atoms)
        atoms.arrays["REF_forces"] = np.zeros((len(atoms), 3))


@pytest.fixture(autouse=True)
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = make_mace(**VARIANTS["charged"])
    with torch.no_grad():  # the model overflows on oxygen
        model.node_embedding.linear.weight.view(3, -1)[2] = 1e250
    torch.save(model, "charged.model")
    methane = [atoms for atoms in make_structures(88, seed=3) if len(atoms) == 5]
    for atoms in methane:
        label(atoms)
        atoms.info["family"] = str(int(atoms.info["number"]) % 3)
    write_structures("train.extxyz", methane[:3])
    write_structures("valid.extxyz", methane[15:18])
    write_structures("test.extxyz", methane[18:21])
    write_structures("pool.extxyz", make_pool(methane[:3], methane[3:15]))


def expected(*, repeats: bool, features: bool) -> dict[int, str]:
    """Return the reason at each place of the pool, as far as a command looks for them."""
    reasons = (
        *CONTENT,
        *(REPEATS if repeats else ("", "", "")),
        *(BROKEN if features else ("", "")),
    )
    return {N_SOUND + i: reason for i, reason in enumerate(reasons) if reason}


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[str, str]:
    assert main([*words, *MODEL]) == 0
    captured = capsys.readouterr()
    return captured.out, captured.err


def test_the_pool_is_what_it_says() -> None:
    n_more = len(CONTENT) + len(REPEATS) + len(BROKEN)
    assert len(read_structures("pool.extxyz")) == N_SOUND + n_more


@pytest.mark.parametrize(
    "road",
    [
        [],
        ["--store", "rows"],
        pytest.param(
            ["--store", "rows", "--ray", "local", "--ray-workers", "1"], marks=pytest.mark.thorough
        ),
    ],
)
def test_select(capsys: pytest.CaptureFixture[str], road: list[str]) -> None:
    words = ["--pool", "pool.extxyz", "--train", "train.extxyz", "-n", "3"]
    out, _ = run(capsys, "select", *words, *KERNEL, *road, "--json")
    record = json.loads(out)
    found = {item["index"]: item["reason"] for item in record["screened"]}
    assert found == expected(repeats=True, features=True)
    assert [item["index"] for item in record["screened"]] == sorted(found)
    stages = [stage["name"] for stage in record["stages"]]
    assert stages[-1] == "select" and {"represent train", "represent pool", "screen"} < {*stages}


@pytest.mark.parametrize("road", [["--out", "rows.npz"], ["--store", "rows"]])
def test_represent(capsys: pytest.CaptureFixture[str], road: list[str]) -> None:
    out, _ = run(capsys, "represent", "--pool", "pool.extxyz", *KERNEL, *road, "--json")
    pattern = re.compile(r"pool\.extxyz@(\d+): ([a-z-]+) \(")
    found = [pattern.match(line) for line in json.loads(out)["screened"]]
    assert {int(m[1]): m[2] for m in found if m} == expected(repeats=False, features=True)


@pytest.mark.parametrize(
    "words",
    [
        ["split", "--pool", "pool.extxyz", "--out-dir", "parts"],
        ["summarise", "--pool", "pool.extxyz", "-n", "3"],
        ["check-data", "--pool", "pool.extxyz"],
    ],
    ids=lambda words: words[0],
)
def test_data_sets(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    out, _ = run(capsys, *words, *KERNEL, "--json")
    found = {item["index"]: item["reason"] for item in json.loads(out)["set_aside"]}
    assert found == expected(repeats=False, features=True)


def test_plan(capsys: pytest.CaptureFixture[str]) -> None:
    """What is set aside is not tried out, however much of the pool there is time for."""
    out, _ = run(capsys, "plan", "pool.extxyz", "-n", "3", *KERNEL, "--seconds", "3", "--json")
    assert json.loads(out)["probe"]["structures_represented"] <= N_SOUND + 2


@pytest.mark.parametrize(
    "words",
    [
        ["geometry", "--pool", "pool.extxyz@:21", "--group-by", "family"],
        ["calibrate", "--pool", "pool.extxyz@:21", "--valid", "valid.extxyz", "--test",
         "test.extxyz", "--max-labels", "8", "--n-initial", "4", "--n-bins", "2"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_studies(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    _, err = run(capsys, *words, "--representations", "activation", "--out", "out")
    line = next(line for line in err.splitlines() if line.startswith("--pool: set aside"))
    counts = {name: int(n) for n, name in re.findall(r"(\d+) ([a-z-]+)", line)}
    assert counts == Counter(expected(repeats=False, features=False).values())
