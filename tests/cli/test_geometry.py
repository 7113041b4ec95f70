"""``labelwise geometry`` as a user calls it."""

from __future__ import annotations

import csv
import json
import warnings
from pathlib import Path

import pytest
from ase import Atoms

from labelwise.campaign.loop import run_campaign
from labelwise.cli import main
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import write_campaign, write_data

FILES = {
    "geometry.md", "geometry.csv", "families.csv", "geometry.json", "kernels.png", "kernels.svg",
    "distances.png", "distances.svg", "frames.png", "frames.svg",
}  # fmt: skip
FAMILIES = ("H2O", "CH4", "CH3OH")


@pytest.fixture
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    structures = [atoms for atoms in rattled_molecules if atoms.info["family"] in FAMILIES]
    for i, atoms in enumerate(structures):
        atoms.info["place"] = i
        atoms.info["label"] = f"no {i}"
    write_structures(tmp_path / "pool.extxyz", structures)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, model_path: Path):
    def call(*words: str, model: str | None = str(model_path), group_by: str = "family") -> int:
        chosen = [] if model is None else ["--model", model, "--trust-model"]
        files = ["--pool", "pool.extxyz", "--group-by", group_by, "--out", "out"]
        return main(["geometry", *files, *chosen, *words])

    return call


def lines_of(path: Path) -> list[dict[str, str]]:
    with path.open() as stream:
        return list(csv.DictReader(stream))


def test_everything_is_written_and_shown(run, folder: Path, capsys) -> None:
    words = ["--representations", "activation,ntk-e,ntk-random", "--order-by", "place"]
    assert run(*words, "--max-structures", "12") == 0
    assert {path.name for path in (folder / "out").iterdir()} == FILES
    shown = capsys.readouterr().out
    assert "12 of 15 structures, 3 families (family), in order of place." in shown
    table = shown.split("\n12 of")[0].splitlines()
    assert [line.split()[0] for line in table[2:]] == ["activation", "ntk-e", "ntk-random"]
    assert max(len(line) for line in table) <= 80

    first = {name: (folder / "out" / name).read_bytes() for name in FILES}
    assert run(*words, "--max-structures", "12", "--json") == 0
    summary = json.loads(capsys.readouterr().out)
    assert summary == json.loads((folder / "out" / "geometry.json").read_text())
    assert len(summary["sources"]) == len(summary["idx"]) == 12
    assert summary["sources"][0] == f"pool.extxyz@{summary['idx'][0]}"
    same = FILES - {"geometry.csv", "geometry.json"}  # they have seconds
    assert all((folder / "out" / name).read_bytes() == first[name] for name in same)


def test_models_are_compared_with_the_first(run, folder: Path, model_path: Path, capsys) -> None:
    words = [
        "--representations",
        "activation,activation-random",
        "--model",
        f"again={model_path}",
        "--seed",
        "7",
    ]
    assert run(*words, "--quiet") == 0
    assert capsys.readouterr().out == ""
    lines = lines_of(folder / "out" / "geometry.csv")
    assert [(line["kernel"], line["model"]) for line in lines] == [
        ("activation", "small"), ("activation", "again"), ("activation-random", ""),
    ]  # fmt: skip
    assert lines[0]["similarity"] == ""
    assert float(lines[1]["similarity"]) == pytest.approx(1.0)
    assert lines[0]["alignment"] == lines[1]["alignment"]
    assert float(lines[2]["similarity"]) < 0.999


def test_models_of_a_campaign(folder: Path, capsys) -> None:
    write_data(folder / "data")
    directory = write_campaign(folder / "campaign", folder / "data", stop={"rounds": 1})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run_campaign(directory)
    words = [
        "geometry",
        "--pool",
        "pool.extxyz",
        "--group-by",
        "family",
        "--representations",
        "ntk-e",
    ]
    words += ["--campaign", str(directory), "--trust-model", "--out", "out"]
    assert main([*words, "--rounds", "0,1"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert [line.split("  0.")[0].strip() for line in table[2:6]] == [
        "ntk-e", "pretrained", "round 0", "round 1",
    ]  # fmt: skip
    similarity = [line["similarity"] for line in lines_of(folder / "out" / "geometry.csv")]
    assert similarity[0] == ""
    assert all(0.5 < float(value) < 1.0 for value in similarity[1:])

    assert main([*words, "--rounds", "1,2"]) == 1
    assert "finished rounds, 0 to 1" in capsys.readouterr().err
    (directory / "round_000" / "model.pt").unlink()
    assert main([*words, "--rounds", "0"]) == 1
    assert "model.pt is missing; choose other --rounds" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--representations", "ntk-e,ntk-e"], "names 'ntk-e' twice"),
        (["--max-structures", "5"], "less than two for each of 3 families"),
        (["--rounds", "1"], "--rounds needs --campaign"),
        (["--model", "small.model"], "two models are called 'small'; name them"),
        (["--model", "=x.model"], "--model is '=x.model'; give a model, or name=model"),
        (["--campaign", "nowhere"], "nowhere"),
        (["--out", "pool.extxyz"], "which is a file; name a folder"),
    ],
)
def test_mistakes_are_named(run, folder: Path, capsys, words: list[str], message: str) -> None:
    assert run("--representations", "activation", *words) == 1
    assert message in capsys.readouterr().err
    assert not (folder / "out").exists()


def test_model_is_needed_for_kernels_that_have_one(run, capsys) -> None:
    assert run("--representations", "random,activation", model=None) == 1
    assert "needs a model; give --model or --campaign" in capsys.readouterr().err
    assert run("--representations", "random", model=None) == 0


def test_family_key_that_some_lack(run, folder: Path, capsys) -> None:
    structures = read_structures("pool.extxyz")
    for atoms in structures[3:5]:
        del atoms.info["family"]
    write_structures("pool.extxyz", [Atoms("H"), *structures])  # a single atom is no structure
    assert run("--representations", "activation") == 1
    shown = capsys.readouterr().err
    assert "--pool: set aside 1: 1 isolated-atom" in shown
    assert "2 of 15 structures have no info key 'family', the first pool.extxyz@4" in shown
    assert "a key that all have (label, place)" in shown


@pytest.mark.parametrize(
    ("key", "message"), [("label", "'label' is 'no 0'"), ("frame", "'frame' is missing")]
)
def test_order_that_cannot_be_used_is_left_out(run, folder: Path, capsys, key, message) -> None:
    assert run("--representations", "activation", "--order-by", key) == 0
    shown = capsys.readouterr()
    assert f"warning: the order key {message} in pool.extxyz@0" in shown.err
    assert "3 families (family).\n" in shown.out
    assert {line["path_correlation"] for line in lines_of(folder / "out" / "geometry.csv")} == {""}


def test_one_family(run, folder: Path, capsys) -> None:
    write_structures("pool.extxyz", read_structures("pool.extxyz")[::3])
    assert run("--representations", "activation", "--order-by", "place") == 0
    shown = capsys.readouterr()
    assert "warning: all structures have family = H2O" in shown.err
    (line,) = lines_of(folder / "out" / "geometry.csv")
    assert line["between"] == line["alignment"] == line["silhouette"] == ""
    assert line["path_correlation"] and line["effective_rank"]
    assert {path.name for path in (folder / "out").iterdir()} == {
        name for name in FILES if "distances" not in name
    }
