"""Presets of published data sets, from files of their formats to the tables."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ase.build import add_adsorbate, fcc111, molecule
from ase.calculators.singlepoint import SinglePointCalculator
from ase.db import connect

from labelwise.cli import main
from labelwise.errors import ArgumentError
from labelwise.structures.datasets.builds import OOD_SPLITS
from labelwise.studies.comparison.presets import make_preset
from labelwise.studies.comparison.protocols import PRESETS
from tests.models import build_mace
from tests.structures.datasets import oc20_files
from tests.structures.datasets.making import energy_of, make_paths
from tests.structures.datasets.transition1x_files import write_transition1x

PUBLISHED = [name for name, preset in PRESETS.items() if preset.build is not None]
#: A representation, a committee and the reference: every kind of campaign, in little time.
METHODS = "random,ntk-lcmd,committee-e"


def write_reactions(folder: Path) -> list[Path]:
    sizes = {f"rxn{number:04}": 26 for number in range(15)}
    return [write_transition1x(folder / "Transition1x.h5", make_paths(sizes))]


def write_omol(folder: Path) -> list[Path]:
    """Write rows as the publishers' library does."""
    rng = np.random.default_rng(0)
    path = folder / "data.aselmdb"
    with connect(path, type="aselmdb") as database:
        for number in range(60):
            atoms = molecule("CH3OH" if number % 2 else "NH3")
            atoms.positions += rng.normal(scale=0.05, size=atoms.positions.shape)
            forces = rng.normal(size=(len(atoms), 3))
            energy = energy_of(atoms.numbers) + rng.normal()
            atoms.calc = SinglePointCalculator(atoms, energy=energy, forces=forces)
            source = "rgd_uks/MR_{0}_{1}_0_1" if number < 30 else "pmechdb/r_{0}_step{1}_0_1"
            facts = {
                "source": f"{source.format(number // 5, number % 5)}/orca.tar.zst",
                "data_id": "rgd" if number < 30 else "reactivity",
                "charge": 0,
                "spin": 1,
            }
            database.write(atoms, data=facts)
    return [path]


def make_slab(metal: str, split: str, number: int) -> oc20_files.Frame:
    rng = np.random.default_rng([number, len(split), ord(metal[0])])
    slab = fcc111(metal, (1, 1, 3), vacuum=6.0, periodic=True)
    add_adsorbate(slab, "O", 1.5 + 0.1 * rng.random(), "ontop")
    slab.positions += rng.normal(scale=0.05, size=slab.positions.shape)
    return oc20_files.Frame(
        numbers=slab.numbers,
        positions=slab.positions,
        energy=float(-20.0 + rng.normal()),
        forces=rng.normal(size=(len(slab), 3)),
        cell=slab.cell.array,
        tags=np.minimum(slab.get_tags(), 2),
        fixed=slab.get_tags() > 2,
        sid=number // 3,
        fid=number % 3,
        reference=-18.0,
    )


def write_oc20(folder: Path) -> list[Path]:
    made = {"train": [make_slab("Cu", "train", number) for number in range(70)]}
    for split in OOD_SPLITS:
        metal = "Pt" if split in ("val_ood_cat", "val_ood_both") else "Cu"
        made[split] = [make_slab(metal, split, number) for number in range(3)]
    path = folder / "s2ef"
    for split, frames in made.items():
        oc20_files.write_raw(path / f"s2ef_{split}" / f"s2ef_{split}", frames)
    return [path]


WRITERS: dict[str, tuple[Callable[[Path], list[Path]], list[str]]] = {
    "t1x-natural": (write_reactions, []),
    "t1x-mixed": (write_reactions, []),
    "rgd": (write_omol, ["--size", "30"]),
    "pmechdb": (write_omol, ["--size", "30"]),
    "oc20": (write_oc20, ["--size", "60"]),
}


@pytest.mark.thorough
@pytest.mark.parametrize("name", PUBLISHED)
def test_from_published_files_to_the_tables(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    write, more = WRITERS[name]
    torch.save(build_mace(elements=(1, 6, 7, 8, 29, 78)), "small.model")
    words = ["compare", "--preset", name, "--data", *map(str, write(tmp_path))]
    words += ["--model", "small.model", "--trust-model", "--methods", METHODS, "--seeds", "0"]
    words += ["--rounds", "1", "--max-updates", "2", "-j", "1", "--out", "study", *more]
    assert main(words) == 0
    said = capsys.readouterr()
    assert str(Path("study") / "results.md") in said.out
    with Path("study/errors.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert {row["method"] for row in rows} == set(METHODS.split(","))
    page = Path("study/results.md").read_text()
    record = json.loads(Path("study/results.json").read_text())
    assert PRESETS[name].study["title"] in page
    for manifest in Path("study/data").glob("*/manifest.json"):
        content = json.loads(manifest.read_text())
        assert content["build"] == PRESETS[name].build
        assert content["sources"][0]["sha256"]
    if name == "oc20":
        assert "By split" in page
        assert set(record["cells"][0]["splits"]) == set(OOD_SPLITS)
        assert "labels to begin with: 2000 → 1, in proportion" in page
    assert main([*words, "--tables-only"]) == 0  # the same command again takes what is there


def test_built_pools_are_taken_as_they_are(tmp_path: Path) -> None:
    (path,) = write_reactions(tmp_path)
    home = tmp_path / "pools"
    assert main(["data", "build", "t1x-natural", str(path), "--out", str(home), "-q"]) == 0
    folders = [str(home / f"natural_{number}") for number in range(3)]
    study = make_preset("t1x-natural", tmp_path / "study", model={"path": "demo"}, data=folders)
    assert [section.pool for section in study.pools.values()] == [
        [f"{folder}/pool.extxyz"] for folder in folders
    ]
    assert not (tmp_path / "study").exists()


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=r"needs --data.*labelwise data build oc20"):
        make_preset("oc20", tmp_path, model={"path": "demo"})
    with pytest.raises(ArgumentError, match="takes all there is"):
        make_preset("t1x-mixed", tmp_path, model={"path": "demo"}, data=["x.h5"], size=50)
    with pytest.raises(ArgumentError, match="takes all there is"):
        make_preset("scratch", tmp_path, model={"path": "demo"}, size=50)
