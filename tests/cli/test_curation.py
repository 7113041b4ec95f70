from __future__ import annotations

import json
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms

from labelwise.cli import main
from labelwise.runtime.files import hash_file
from labelwise.structures import read_structures, write_structures


@pytest.fixture
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A pool of 30 structures, a copy of one under another family, and a lone atom."""
    for atoms in rattled_molecules:
        atoms.info["REF_energy"] = -1.5
        atoms.arrays["REF_forces"] = np.full((len(atoms), 3), 0.25)
    copy = rattled_molecules[2].copy()
    copy.info["family"] = "CH4"
    lone = Atoms("H")
    lone.info["family"] = "atom"
    write_structures(tmp_path / "pool.extxyz", [*rattled_molecules, copy, lone])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, model_path: Path):
    def call(command: str, *words: str, model: bool = True) -> int:
        chosen = ["--model", str(model_path), "--trust-model"] if model else []
        return main([command, "--pool", "pool.extxyz", *chosen, *words])

    return call


def indices(folder: Path) -> dict[str, list[int]]:
    return json.loads((folder / "split.json").read_text())["indices"]


def test_summary_structures_say_what_they_stand_for(run, folder: Path) -> None:
    words = ["-n", "6", "-r", "activation", "--group-by", "family", "--out", "few.extxyz"]
    assert run("summarise", *words) == 0
    chosen = ase.io.read(folder / "few.extxyz", ":")
    pool = read_structures("pool.extxyz")
    assert [atoms.info["labelwise_rank"] for atoms in chosen] == list(range(6))
    assert sum(atoms.info["labelwise_weight"] for atoms in chosen) == pytest.approx(1.0)
    for atoms in chosen:
        assert atoms == pool[atoms.info["labelwise_pool_index"]]
        assert np.array_equal(atoms.arrays["REF_forces"], np.full((len(atoms), 3), 0.25))
    record = json.loads((folder / "few.json").read_text())
    assert record["counts"]["set_aside_by_reason"] == {"isolated-atom": 1}
    ranks = record["assignment"]["rank"]
    assert len(ranks) == 31 and ranks[2] == ranks[30]
    weights = [pick["weight"] for pick in record["picks"]]
    np.testing.assert_allclose(weights, np.bincount(ranks, minlength=6) / 31)
    assert record["figures"]["moment_mmd"] < record["random"]["moment_mmd"]["mean"]
    assert sum(count["chosen"] for count in record["groups"].values()) == 6


@pytest.mark.parametrize("rule", ["herding", "lcmd", "k-center", "pv", "random"])
def test_every_rule_summarises_and_says_so(run, rule: str, capsys) -> None:
    assert run("summarise", "-n", "4", "--rule", rule, "-r", "activation", "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert record["settings"]["rule"] == rule and len(record["picks"]) == 4


def test_summarise_tells_what_is_wrong(run, folder: Path, capsys) -> None:
    assert run("summarise", "-n", "4", "--rule", "top") == 2
    assert "allowed are herding" in capsys.readouterr().err
    assert run("summarise", "-n", "4", model=False) == 1
    assert "needs a model" in capsys.readouterr().err
    assert run("summarise", "-n", "32", "-r", "activation") == 1
    assert "1 to 30" in capsys.readouterr().err
    assert run("summarise", "-n", "2", "--out", "pool.extxyz") == 1
    assert "one of the inputs" in capsys.readouterr().err
    (folder / "mine.extxyz").write_text("mine\n")
    assert run("summarise", "-n", "2", "--out", "mine.extxyz") == 1
    assert "--force" in capsys.readouterr().err
    assert (folder / "mine.extxyz").read_text() == "mine\n"


@pytest.mark.parametrize("by", ["random", "family", "kernel", "cover"])
def test_split_is_a_partition_with_everything_kept(run, folder: Path, by: str) -> None:
    words = [
        "--valid-fraction",
        "0.2",
        "--test-fraction",
        "0.2",
        "-r",
        "activation",
        "--by",
        by,
        "-q",
    ]
    assert run("split", *words, "--out", "out") == 0
    pool = read_structures("pool.extxyz")
    found = indices(folder / "out")
    assert sorted(i for part in found.values() for i in part) == list(range(31))
    assert any({2, 30} <= set(part) for part in found.values())
    for name, part in found.items():
        written = read_structures(f"out/{name}.extxyz")
        expected = [pool[i] for i in part] + ([pool[31]] if name == "train" else [])
        assert len(written) == len(expected)
        for atoms, original in zip(written, expected, strict=True):
            assert atoms == original and atoms.info == original.info
    manifest = json.loads((folder / "out" / "split.json").read_text())
    assert all(leak["n_equal"] == 0 for leak in manifest["leakage"])
    assert manifest["inputs"][0]["sha256"] == hash_file(folder / "pool.extxyz")
    assert set(manifest["coverage"]) == {"valid", "test"}
    if by == "cover":
        entry = manifest["coverage"]["test"]
        assert entry["figures"]["moment_mmd"] < entry["random"]["moment_mmd"]
    if by == "family":
        assert all(leak["shared_groups"] == [] for leak in manifest["leakage"])
        families = [{pool[i].info["family"] for i in part} for part in found.values()]
        # CH3OH and CH4 share a structure, and so one part.
        assert not any(("CH3OH" in names) != ("CH4" in names) for names in families)
    if by == "kernel":
        least = min(leak["distance"]["least"] for leak in manifest["leakage"])
        assert least > manifest["split"]["kept_distance"] > 0


def test_split_is_the_same_for_a_seed_and_ours_to_replace(run, folder: Path) -> None:
    words = ["--test-fraction", "0.2", "--out", "out", "-q"]
    assert run("split", *words, model=False) == 0
    first = {path.name: path.read_bytes() for path in (folder / "out").iterdir()}
    assert run("split", *words, model=False) == 0
    assert {path.name: path.read_bytes() for path in (folder / "out").iterdir()} == first
    assert run("split", *words, "--seed", "1", model=False) == 0
    assert indices(folder / "out") != json.loads(first["split.json"])["indices"]
    (folder / "out" / "test.extxyz").write_text("mine\n")
    assert run("split", *words, model=False) == 1
    assert (folder / "out" / "test.extxyz").read_text() == "mine\n"
    assert run("split", *words, "--force", model=False) == 0


def test_split_tells_what_is_wrong(run, folder: Path, capsys) -> None:
    cases = [
        (["--by", "reaction"], "no info key 'reaction'"),
        (["--by", "kernel"], "needs a model"),
        (["--by", "family", "--distance", "0.1"], "--distance is for --by kernel"),
        (["--valid-fraction", "0.5", "--test-fraction", "0.5"], "allowed are fractions"),
        (["--valid-fraction", "0.01"], "would be empty"),
        (["--out", "pool.extxyz"], "is a file"),
    ]
    for words, message in cases:
        where = [] if "--out" in words else ["--out", "out"]
        assert run("split", *words, *where, model=False) == 1
        assert message in capsys.readouterr().err.replace("\n", " ")
        assert not (folder / "out").exists()


def test_split_does_not_replace_its_input(run, folder: Path, capsys) -> None:
    (folder / "pool.extxyz").rename(folder / "train.extxyz")
    assert main(["split", "--pool", "train.extxyz", "--out", ".", "--force"]) == 1
    assert "one of the inputs" in capsys.readouterr().err


def test_check_data_names_copies_and_writes_the_rest(run, folder: Path, capsys) -> None:
    words = ["--group-by", "family", "-r", "activation", "--out", "clean.extxyz"]
    assert run("check-data", *words, "--summary", "check.json") == 0
    shown = capsys.readouterr().out
    assert "groups CH3OH and CH4 share 1 structure exactly" in shown
    record = json.loads((folder / "check.json").read_text())
    ((first, second),) = record["exact_duplicates"]
    assert (first["frame"], second["frame"]) == (2, 30)
    assert record["groups_sharing_a_structure"] == [{"groups": ["CH3OH", "CH4"], "structures": 1}]
    pool = read_structures("pool.extxyz")
    assert read_structures("clean.extxyz") == [pool[i] for i in range(32) if i != 30]
    assert run("check-data", *words) == 1
    assert "--force" in capsys.readouterr().err


def test_check_data_writes_no_structure_whose_symbols_it_cannot_keep(
    run, folder: Path, capsys
) -> None:
    path = folder / "pool.extxyz"
    head, comment, rest = path.read_text().split("\n", 2)
    path.write_text(f"{head}\n{comment}\nD {rest.split(None, 1)[1]}")
    assert run("check-data", model=False) == 0
    assert "unknown-element (atom 0 has the symbol 'D'" in capsys.readouterr().out
    assert run("check-data", "--out", "clean.extxyz", model=False) == 1
    assert "pool.extxyz@0: atom 0 has the symbol 'D'" in capsys.readouterr().err
    assert not (folder / "clean.extxyz").exists()


def test_check_data_without_a_model_says_what_it_left_out(run, capsys) -> None:
    assert run("check-data", model=False) == 0
    shown = capsys.readouterr().out
    assert "not looked for" in shown and "give --model" in shown
    assert run("check-data", "--json", model=False) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["kernel"] is None and record["compared_under_kernel"] == 0


def test_check_data_does_not_count_labels_that_it_did_not_find(run, capsys) -> None:
    keys = ["--energy-key", "dft_energy", "--forces-key", "dft_forces"]
    assert run("check-data", *keys, model=False) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for kind in ("label conflicts", "bad labels", "energy outliers", "force outliers"):
        assert f"{kind} not looked for" in shown
    assert "32 structures, 0 of them labelled" in shown
    assert "Keys that are there: numbers: REF_energy; vectors of atoms: REF_forces" in shown
    assert run("check-data", *keys, "--json", model=False) == 0
    assert json.loads(capsys.readouterr().out)["label_keys"] is None


@pytest.mark.parametrize("command", ["summarise", "split", "check-data"])
def test_broken_input_is_told_and_nothing_is_written(command: str, folder: Path, capsys) -> None:
    words = {"summarise": ["-n", "2", "-r", "random"], "split": ["--out", "out"]}
    assert main([command, "--pool", "missing.extxyz", *words.get(command, [])]) == 1
    assert "missing.extxyz" in capsys.readouterr().err
    text = (folder / "pool.extxyz").read_text().splitlines()
    (folder / "cut.extxyz").write_text("\n".join(text[:20]) + "\n7\n")
    assert main([command, "--pool", "cut.extxyz", *words.get(command, [])]) == 1
    assert "cut.extxyz" in capsys.readouterr().err
    assert {path.name for path in folder.iterdir()} == {"pool.extxyz", "cut.extxyz"}
