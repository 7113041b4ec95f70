"""Fixed atoms from the command line: carried by selections, left out of errors if asked."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from labelwise.cli import main
from labelwise.structures import read_structures, write_structures

SELECT = ["select", "--model", "demo", "--pool", "pool.extxyz", "--train", "train.extxyz", "-q"]
FIT = ["--train", "train.extxyz", "--valid", "valid.extxyz", "--test", "test.extxyz"]
SHORT = ["--max-updates", "4", "--seed", "1", "-q"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for i, atoms in enumerate(rattled_molecules):
        atoms.info["REF_energy"] = -10.0 * len(atoms) + float(rng.normal())
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3)).round(8)
        atoms.set_tags(np.arange(len(atoms)) % 3)
        atoms.info.update(split="val_id" if i % 2 else "val_ood", virial=np.full((3, 3), 1.0 + i))
        atoms.set_constraint(FixAtoms([0, 1]))
    write_structures("train.extxyz", rattled_molecules[:8])
    write_structures("valid.extxyz", rattled_molecules[8:12])
    write_structures("test.extxyz", rattled_molecules[12:18])
    write_structures("pool.extxyz", rattled_molecules[18:])


@pytest.mark.parametrize("words", [[], ["--store", "rows"], ["--rule", "random"]], ids=str)
def test_picks_are_as_they_were_in_the_pool(words: list[str]) -> None:
    assert main([*SELECT, "-n", "3", *words, "--out", "batch.extxyz"]) == 0
    pool = read_structures("pool.extxyz")
    for atoms in read_structures("batch.extxyz"):
        own = pool[atoms.info["labelwise_pool_index"]]
        assert atoms.constraints[0].index.tolist() == [0, 1]
        for name in ("REF_forces", "tags"):
            assert np.array_equal(atoms.arrays[name], own.arrays[name])
        assert np.array_equal(atoms.info["virial"], own.info["virial"])
        assert (atoms.arrays["REF_forces"][:2] != 0).all()


def finetune(model_path: Path, *words: str) -> dict:  # type: ignore[type-arg]
    base = ["finetune", "--model", str(model_path), "--trust-model", *FIT, *SHORT]
    assert main([*base, *words, "--force"]) == 0
    return json.loads(Path("finetuned.json").read_text())  # type: ignore[no-any-return]


def test_finetune_leaves_them_out(model_path: Path) -> None:
    usual = finetune(model_path)
    found = finetune(model_path, "--fixed-forces", "exclude", "--split-key", "split")
    apart = finetune(model_path, "--loss-fixed-forces", "exclude")
    n_fixed = 2 * 6
    assert usual["test"]["n_force_atoms"] == usual["test"]["n_atoms"]
    assert found["test"]["n_force_atoms"] == found["test"]["n_atoms"] - n_fixed
    assert found["history"][0]["valid"]["n_force_atoms"] == (
        usual["history"][0]["valid"]["n_atoms"] - 2 * 4
    )
    assert found["model"]["content_hash"] == usual["model"]["content_hash"]
    assert found["test"]["forces_rmse"] != usual["test"]["forces_rmse"]
    assert found["test"]["energy_rmse"] == usual["test"]["energy_rmse"]
    tables = found["split_errors"]
    assert {name: table["n_structures"] for name, table in tables.items()} == {
        "val_id": 3, "val_ood": 3,
    }  # fmt: skip
    assert "split_errors" not in usual
    assert apart["history"][0]["valid_loss"] != usual["history"][0]["valid_loss"]
    assert apart["test"]["n_force_atoms"] == apart["test"]["n_atoms"]
    assert apart["recipe"]["loss_fixed_forces"] == "exclude"


def test_a_split_that_is_missing_is_named_before_anything_is_fitted(
    model_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = ["finetune", "--model", str(model_path), "--trust-model", *FIT, *SHORT]
    assert main([*base, "--split-key", "part"]) == 1
    assert "test.extxyz@0: the info key 'part'" in " ".join(capsys.readouterr().err.split())
    assert not Path("finetuned.model").exists()
