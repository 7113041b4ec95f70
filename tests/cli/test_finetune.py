from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from ase.io import read

from labelwise.cli import main
from labelwise.potentials import load_potential
from labelwise.structures import write_structures


@pytest.fixture
def files(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(1)
    for atoms in rattled_molecules:
        atoms.info["REF_energy"] = -10.0 * len(atoms) + float(rng.normal())
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
    write_structures("train.extxyz", rattled_molecules[:12])
    write_structures("valid.extxyz", rattled_molecules[12:18])
    write_structures("test.extxyz", rattled_molecules[18:])
    return tmp_path


@pytest.fixture
def run(files: Path, model_path: Path):
    def call(*words: str) -> int:
        base = ["--model", str(model_path), "--trust-model", "--train", "train.extxyz"]
        return main(["finetune", *base, "--max-updates", "20", *words])

    return call


def test_writes_a_model_and_a_record(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--valid", "valid.extxyz", "--test", "test.extxyz") == 0
    assert "20 updates" in capsys.readouterr().out
    record = json.loads(Path("finetuned.json").read_text())
    assert record["updates"] == 20
    assert record["test"]["forces_rmse"] > 0
    assert set(record["reference_energies_ev"]) == {"H", "C", "N", "O"}
    fitted = load_potential("finetuned.model", trust=True)
    assert fitted.content_hash == record["model"]["content_hash"]
    assert fitted.content_hash != record["start"]["content_hash"]


def test_what_is_forgotten_is_told(run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--replay", "valid.extxyz", "--retain", "test.extxyz", "--replay-labels", "model"]
    assert run(*words, "--replay-weight", "2") == 0
    out = capsys.readouterr().out
    assert "retained, before: n_structures" in out
    assert "retained, after: n_structures" in out
    record = json.loads(Path("finetuned.json").read_text())
    assert record["retained"]["before"]["forces_rmse"] < 0.1
    assert record["retained"]["after"]["forces_rmse"] > 1.0
    assert record["recipe"]["replay_weight"] == 2.0


def test_what_is_replayed_has_a_head_of_its_own(run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--replay", "valid.extxyz", "--replay-labels", "model", "--replay-head", "pt_head"]
    assert run(*words) == 0
    assert "Default is of the new labels, pt_head of what was replayed" in capsys.readouterr().err
    assert load_potential("finetuned.model", trust=True).head == "Default"
    old = load_potential("finetuned.model", trust=True, head="pt_head")
    assert old.heads == ("pt_head", "Default")


def test_the_same_seed_gives_the_same_weights(run) -> None:
    for name, seed in (("a", "3"), ("b", "3"), ("c", "4")):
        assert run("--out", f"{name}.pt", "--seed", seed, "-q") == 0
    hashes = [load_potential(f"{name}.pt").content_hash for name in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]


@pytest.mark.parametrize(
    "words,message",
    [
        (["--energy-key", "dft"], "train.extxyz@0: label 'dft' is missing"),
        (["--lr", "-1"], "learning_rate"),
        (["--out", "model.txt"], "names ending in .model or .pt"),
        (["--out", "train.extxyz"], "exists"),
        (["--valid", "absent.xyz"], "no such file"),
        (["--isolated-atoms", "train.extxyz"], "expected to have one atom a frame"),
    ],
)
def test_mistakes(run, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) == 1
    assert message in capsys.readouterr().err
    assert not Path("finetuned.model").exists()


def add(file: str, *more: Atoms) -> None:
    write_structures(file, [*more, *read(file, ":")])


def test_isolated_atoms_are_told_and_in_no_error(run, capsys: pytest.CaptureFixture[str]) -> None:
    energies = {"H": -11.0, "C": -9.0, "N": -8.0, "O": -12.0}
    lone = [
        Atoms(z, info={"REF_energy": e, "config_type": "IsolatedAtom"}) for z, e in energies.items()
    ]
    write_structures("lone.extxyz", lone)
    words = ["--test", "test.extxyz", "--reference-energies", "isolated"]
    assert run(*words, "--isolated-atoms", "lone.extxyz") == 0
    expected = json.loads(Path("finetuned.json").read_text())
    add("train.extxyz", *lone)
    add("test.extxyz", *lone)
    capsys.readouterr()
    assert run(*words, "--force") == 0
    found = json.loads(Path("finetuned.json").read_text())
    for key in ("reference_energies_ev", "test", "updates"):
        assert found[key] == expected[key]
    assert found["model"]["content_hash"] == expected["model"]["content_hash"]
    said = " ".join(capsys.readouterr().err.split())
    assert "4 labelled isolated atoms are no sample to fit (H, C, N and O; the first is" in said
    assert "4 isolated atoms of the test set are in no error" in said


def test_structures_of_several_heads(run, capsys: pytest.CaptureFixture[str]) -> None:
    structures = read("train.extxyz", ":")
    for i, atoms in enumerate(structures):
        atoms.info["head"] = "pbe" if i % 2 else "wb97x"
    write_structures("train.extxyz", structures)
    assert run() == 1
    said = " ".join(capsys.readouterr().err.split())
    assert (
        "labelled structures name 2 heads under the info key 'head': 'wb97x' (6), 'pbe' (6)" in said
    )


def test_a_test_set_of_another_head_is_refused_before_the_fit(
    run, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, head in (("train", "pbe"), ("test", "wb97x")):
        structures = read(f"{name}.extxyz", ":")
        for atoms in structures:
            atoms.info["head"] = head
        write_structures(f"{name}.extxyz", structures)
    assert run("--test", "test.extxyz") == 1
    assert "name 2 heads" in capsys.readouterr().err
    assert not Path("finetuned.model").exists()


def test_what_is_wrong_with_a_test_set_is_told(run, capsys: pytest.CaptureFixture[str]) -> None:
    structures = read("test.extxyz", ":")
    structures[2].info["REF_energy"] -= 3000.0
    structures[3].info["converged"] = False
    write_structures("test.extxyz", structures)
    assert run("--test", "test.extxyz") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "test: 1 of 12 labelled energies is far from the model's" in said
    assert "from test.extxyz@2, -" in said
    assert "the first is test.extxyz@3 (converged = False)" in said


def test_labels_where_ase_keeps_them_are_found_and_said(
    run, rattled_molecules: list[Atoms], capsys: pytest.CaptureFixture[str]
) -> None:
    for atoms in rattled_molecules[:12]:
        results = {"energy": atoms.info.pop("REF_energy"), "forces": atoms.arrays.pop("REF_forces")}
        atoms.calc = SinglePointCalculator(atoms, **results)
    write_structures("train.extxyz", rattled_molecules[:12])
    assert run("--max-updates", "2") == 0
    said = " ".join(capsys.readouterr().err.split())
    assert "no training structure has REF_energy or REF_forces: labels are taken" in said
    assert run("--max-updates", "2", "--energy-key", "dft", "--out", "b.model") == 1


def test_blocks_low_rank_changes_and_anchors(run, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--train-blocks", "products,readout", "--block-rates", "readout=0.1"]
    words += ["--lora-rank", "2", "--anchor", "l2", "--weight-decay", "0.01"]
    words += ["--ema-decay", "none", "--no-amsgrad", "--huber-delta", "0.02", "--clip-norm", "5"]
    assert run(*words) == 0
    said = " ".join(capsys.readouterr().err.split())
    record = json.loads(Path("finetuned.json").read_text())
    trained, recipe = record["trained"], record["recipe"]
    assert trained["blocks"] == ["products", "readout"]
    assert trained["n_coordinates"] < trained["n_weights"] < trained["n_all"]
    assert (
        f"Trained: products and readout, {trained['n_weights']:,} of {trained['n_all']:,}" in said
    )
    assert "readout at 0.1 of the learning rate; held to the start by l2" in said
    assert recipe["block_rates"] == {"readout": 0.1}
    assert (recipe["ema_decay"], recipe["amsgrad"], recipe["clip_norm"]) == (None, False, 5.0)
    assert (recipe["huber_delta"], recipe["weight_decay"]) == (0.02, 0.01)
    fitted = load_potential("finetuned.model", trust=True)
    assert fitted.content_hash == record["model"]["content_hash"] != record["start"]["content_hash"]


@pytest.mark.parametrize(
    "words,message",
    [
        (["--train-blocks", "readot"], "did you mean 'readout'?"),
        (["--block-rates", "readout"], "give BLOCK=NUMBER"),
        (["--lora-rank", "2", "--start", "scratch"], "lora_rank and anchor are for pretrained"),
        (["--anchor-weight", "2"], "choose l2 or ewc"),
        (["--replay-head", "pt_head"], "nothing is replayed"),
        (["--replay-head", "pt_head", "--start", "scratch"], "is for pretrained weights"),
        (["--clip-norm", "short"], "--clip-norm is 'short'; give a number, or 'none'"),
    ],
)
def test_options_at_odds(run, words, message, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*words) in (1, 2)
    assert message in " ".join(capsys.readouterr().err.split())
    assert not Path("finetuned.model").exists()
