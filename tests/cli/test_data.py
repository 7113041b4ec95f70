"""Published data sets from the command line: listed, inspected, built, converted, compared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from labelwise.cli import main
from labelwise.structures import read_structures
from labelwise.structures.datasets.base import LabelledStructure
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz, write_labelled
from labelwise.structures.datasets.registry import load_formats
from tests.structures.datasets.making import make_paths
from tests.structures.datasets.transition1x_files import write_transition1x

SIZES = {f"rxn{number:04}": 10 + number for number in range(16)}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_labelled(tmp_path / "paths.extxyz", make_paths(SIZES, split="train"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def export(to: str, out: str, *more: str) -> int:
    return main(["data", "export", "paths.extxyz", "--to", to, "--out", out, "-q", *more])


def test_formats_and_pools_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "list"]) == 0
    text = capsys.readouterr().out
    assert main(["data", "list", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    for each in record["formats"]:
        assert each["name"] in text
        assert each["citation"]
        assert each["licence"]
    assert [each["name"] for each in record["builds"]] == [
        "t1x-natural",
        "t1x-mixed",
        "omol-rgd",
        "omol-pmechdb",
        "oc20",
    ]


@pytest.mark.parametrize(
    "to", [name for name, each in load_formats().items() if each.write is not None]
)
def test_every_writable_format_gives_back_what_went_in(
    to: str, capsys: pytest.CaptureFixture[str]
) -> None:
    suffix = load_formats()[to].suffixes[0]
    assert export(to, f"there{suffix}") == 0
    assert main(["data", "export", f"there{suffix}", "--to", "mace-extxyz", "-o", "b.xyz"]) == 0
    capsys.readouterr()
    before = {(e.entry.family, e.entry.order): e.atoms for e in read_labelled("paths.extxyz")}
    after = list(read_labelled("b.xyz"))
    assert len(after) == len(before)
    for number, structure in enumerate(after):
        family = structure.entry.family
        key = (family, structure.entry.order)
        original = before[key] if key in before else list(before.values())[number]
        assert np.array_equal(structure.atoms.positions, original.positions)
        forces = original.arrays["REF_forces"]
        assert np.array_equal(structure.atoms.arrays["REF_forces"], forces)
        energy = original.info["REF_energy"]
        assert structure.atoms.info["REF_energy"] == pytest.approx(energy, rel=1e-14, abs=0)


def read_labelled(path: str) -> Iterator[LabelledStructure]:
    return MaceExtxyz(Path(path)).iter_structures()


def test_a_file_is_inspected(capsys: pytest.CaptureFixture[str]) -> None:
    write_transition1x(Path("t1x.h5"), read_labelled("paths.extxyz"))
    assert main(["data", "inspect", "t1x.h5", "--read", "50", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    n = sum(SIZES.values())
    assert (record["n_structures"], record["n_read"], record["families"]) == (n, 50, 16)
    assert record["splits"] == {"train": n}
    assert sum(record["elements"].values()) > n
    low, high = record["numbers"]["energy"]
    assert low < high < -1000
    assert main(["data", "inspect", "t1x.h5", "--all"]) == 0
    text = capsys.readouterr().out
    assert f"{n} structures, 16 families; {n} read and checked" in text
    assert "cite: " in text
    assert "licence: " in text


def test_pools_are_built(capsys: pytest.CaptureFixture[str]) -> None:
    write_transition1x(Path("t1x.h5"), read_labelled("paths.extxyz"))
    for source, out in (("t1x.h5", "a"), ("paths.extxyz", "b")):
        words = ["data", "build", "t1x-natural", source, "--out", out, "--seed", "3"]
        assert main(words) == 0
        assert main(words) == 0  # the same again is no mistake
    assert "natural_2: " in capsys.readouterr().out
    assert main(["data", "build", "t1x-natural", "t1x.h5", "--out", "a", "--seed", "4"]) == 1
    assert "--force" in capsys.readouterr().err
    for pool in ("natural_0", "natural_1", "natural_2"):
        for role in ("pool", "valid", "test"):
            one = read_structures(f"a/{pool}/{role}.extxyz")
            other = read_structures(f"b/{pool}/{role}.extxyz")
            assert len(one) == len(other) > 0
            for left, right in zip(one, other, strict=True):
                assert np.array_equal(left.positions, right.positions)
                assert left.info["REF_energy"] == right.info["REF_energy"]
                assert np.array_equal(left.arrays["REF_forces"], right.arrays["REF_forces"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "gone.h5"], "no such file: gone.h5"),
        (["inspect", "notes.txt"], "none of the formats"),
        (["build", "oc20", "paths.extxyz", "-o", "x"], "needs structures of val_id"),
        (["build", "omol-rgd", "paths.extxyz", "-o", "x"], "none of"),
        (["build", "t1x-mixed", "paths.extxyz", "-o", "x", "--adsorption"], "reference energy"),
        (["export", "paths.extxyz", "--to", "mace-extxyz", "-o", "notes.txt"], "notes.txt exists"),
        (
            ["export", "paths.extxyz", "--to", "mace-extxyz", "-o", "x", "--elements", "H,Q"],
            "'Q' is no element",
        ),
        (
            ["export", "paths.extxyz", "--to", "mace-extxyz", "-o", "x", "--charge", "7"],
            "none of 280 structures",
        ),
    ],
)
def test_mistakes_are_said(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("dear diary")
    assert main(["data", *words, "-q"]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert not Path("x").is_file()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["inspect", "paths.extxyz", "--format", "cif"], "allowed are transition1x"),
        (["build", "t2x", "paths.extxyz", "-o", "x"], "allowed are t1x-natural"),
        (["export", "paths.extxyz", "--to", "pdf", "-o", "x"], "--to is 'pdf'; allowed are"),
    ],
)
def test_wrong_words_are_wrong_flags(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", *words, "-q"]) == 2
    assert message in capsys.readouterr().err
    assert not Path("x").exists()


def test_parts_are_exported() -> None:
    words = ["--elements", "C,H,N", "--max-atoms", "4", "--split", "train"]
    assert export("mace-extxyz", "part.xyz", *words) == 0
    structures = read_structures("part.xyz")
    assert {str(atoms.symbols) for atoms in structures} == {"NH3", "CNH"}
    assert all(len(atoms) <= 4 for atoms in structures)
