"""Pools made of published files."""

from __future__ import annotations

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import ArgumentError, DataSetError, WriteError
from labelwise.structures import DuplicateIndex, read_structures
from labelwise.structures.datasets.base import (
    Entry,
    LabelledStructure,
    make_structure,
)
from labelwise.structures.datasets.building import build_pools, hash_source
from labelwise.structures.datasets.builds import BUILDS, OOD_SPLITS
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz, write_labelled
from labelwise.structures.datasets.survey import Query, open_data_set, survey
from tests.structures.datasets.making import make_path, make_paths

SIZES = {f"rxn{number:02}": 10 + number for number in range(17)}
LARGE = {f"rxn{number:02}": 107 + number for number in range(15)}


def names_of(path: Path) -> list[str]:
    return [str(atoms.info["name"]) for atoms in read_structures(path)]


def write_reactions(folder: Path, sizes: dict[str, int]) -> list[LabelledStructure]:
    made = make_paths(sizes)
    write_labelled(folder / "all.extxyz", made)
    return made


def test_natural_pools_of_the_paper(tmp_path: Path) -> None:
    made = write_reactions(tmp_path, LARGE)
    pools = build_pools("t1x-natural", [tmp_path / "all.extxyz"], tmp_path / "out", seed=4)
    assert [pool.folder.name for pool in pools] == ["natural_0", "natural_1", "natural_2"]
    seen: list[str] = []
    for pool in pools:
        assert pool.changes == ()
        sets = {role: names_of(pool.folder / f"{role}.extxyz") for role in pool.counts}
        families = Counter(name.split("/")[0] for name in sets["test"])
        assert sorted(families.values()) == [35] * 5
        assert len(sets["valid"]) == 50
        everything = [name for names in sets.values() for name in names]
        assert len(everything) == len(set(everything)) == sum(LARGE[f] for f in families)
        seen += families
        keys = [(name.split("/")[0], int(name.split("/")[1])) for name in sets["pool"]]
        assert keys == sorted(keys)
    assert len(set(seen)) == 15
    labels = {each.entry.name: each.atoms for each in made}
    for atoms in read_structures(pools[1].folder / "test.extxyz"):
        original = labels[atoms.info["name"]]
        assert atoms.info["REF_energy"] == original.info["REF_energy"]
        assert np.array_equal(atoms.arrays["REF_forces"], original.arrays["REF_forces"])


def test_the_order_of_files_does_not_matter(tmp_path: Path) -> None:
    made = make_paths(SIZES)
    parts = {"a": made[::3], "b": made[1::3], "c": made[2::3]}
    for name, part in parts.items():
        write_labelled(tmp_path / f"{name}.extxyz", part)
    for build in ("t1x-natural", "t1x-mixed"):
        contents = []
        for order in ("abc", "cab"):
            out = tmp_path / build / order
            paths = [tmp_path / f"{name}.extxyz" for name in order]
            pools = build_pools(build, paths, out, seed=1)
            contents.append(
                [
                    (pool.folder / f"{role}.extxyz").read_bytes()
                    for pool in pools
                    for role in pool.counts
                ]
            )
        assert contents[0] == contents[1]
        other = build_pools(build, paths, tmp_path / build / "other", seed=2)
        assert (other[0].folder / "test.extxyz").read_bytes() != contents[0][-1]


def test_samples_hold_out_a_fifth_and_a_tenth(tmp_path: Path) -> None:
    made = make_paths(SIZES, subset="pmechdb")
    made += make_path("elsewhere", 30, seed=3, start=len(made), subset="rgd")
    salt = make_structure(
        Entry(0, "salt", subset="pmechdb"),
        "salt",
        numbers=[11, 17],
        positions=[[0, 0, 0], [0, 0, 2.4]],
        energy=-16900.0,
        forces=np.zeros((2, 3)),
    )
    write_labelled(tmp_path / "all.extxyz", [*made, salt])
    (pool,) = build_pools("omol-pmechdb", [tmp_path / "all.extxyz"], tmp_path, seed=0, size=200)
    assert pool.counts == {"pool": 140, "valid": 20, "test": 40}
    names = [name for role in pool.counts for name in names_of(pool.folder / f"{role}.extxyz")]
    assert len(set(names)) == 200
    assert not any(name.startswith(("elsewhere", "salt")) for name in names)
    manifest = json.loads((pool.folder / "manifest.json").read_text())
    assert manifest["query"] == {"subsets": ["pmechdb"], "elements": [1, 6, 7, 8]}
    assert manifest["changes"] == ["structures: 10000 → 200, as asked"]
    assert manifest["n_seen"] == len(made) + 1
    assert manifest["sources"][0]["sha256"] == hash_source(tmp_path / "all.extxyz")


def write_surfaces(folder: Path, n_train: int, n_each: int) -> list[Path]:
    paths = []
    for number, split in enumerate(("train", *OOD_SPLITS)):
        n = n_train if split == "train" else n_each
        sizes = {f"{split}-{i}": n // 4 for i in range(4)}
        path = folder / f"{split}.extxyz"
        write_labelled(path, make_paths(sizes, first_seed=10 * number, split=split))
        paths.append(path)
    return paths


def test_surfaces_are_tested_on_four_splits(tmp_path: Path) -> None:
    paths = write_surfaces(tmp_path, 600, 40)
    (pool,) = build_pools("oc20", paths, tmp_path / "out", size=400)
    assert pool.counts == {"pool": 400, "train": 4, "valid": 2, "test": 40}
    tests = read_structures(pool.folder / "test.extxyz")
    assert Counter(atoms.info["split"] for atoms in tests) == dict.fromkeys(OOD_SPLITS, 10)
    others = [
        a for r in ("pool", "train", "valid") for a in read_structures(pool.folder / f"{r}.extxyz")
    ]
    assert {atoms.info["split"] for atoms in others} == {"train"}
    assert len({atoms.info["name"] for atoms in others}) == 406
    (whole,) = build_pools("oc20", paths, tmp_path / "whole")
    assert sum(whole.counts.values()) == 600 + 160
    assert len(whole.changes) == 2
    with pytest.raises(ArgumentError, match="needs structures of val_id"):
        build_pools("oc20", paths[:2], tmp_path / "less")


@pytest.mark.parametrize("build", ["t1x-mixed", "omol-rgd", "oc20"])
def test_copies_of_held_out_structures_are_left_out(tmp_path: Path, build: str) -> None:
    made = make_paths({f"a{i}": 20 for i in range(6)}, subset="rgd", split="train")
    ood = [
        each
        for number, split in enumerate(OOD_SPLITS)
        for each in make_path(split, 16, seed=100 + number, subset="rgd", split=split)
    ]
    twins = []
    for i, each in enumerate(made):
        atoms = each.atoms.copy()
        atoms.info |= {"name": f"twin-{each.entry.name}", "family": f"t{i % 5}"}
        twins.append(LabelledStructure(each.entry, atoms))
    write_labelled(tmp_path / "x.extxyz", [*made, *twins, *ood])
    (pool,) = build_pools(build, [tmp_path / "x.extxyz"], tmp_path / "out")
    held = DuplicateIndex()
    for role in ("valid", "test"):
        for atoms in read_structures(pool.folder / f"{role}.extxyz"):
            assert held.find(atoms) is None
            held.add(atoms, 0)
    assert all(held.find(a) is None for a in read_structures(pool.folder / "pool.extxyz"))
    manifest = json.loads((pool.folder / "manifest.json").read_text())
    n_drawn = len(made) + len(twins) + len(ood)
    assert manifest["n_copies_left_out"] == n_drawn - sum(pool.counts.values()) > 0


def test_the_same_again_and_something_else(tmp_path: Path) -> None:
    write_reactions(tmp_path, SIZES)
    paths, out = [tmp_path / "all.extxyz"], tmp_path / "out"
    first = build_pools("t1x-mixed", paths, out)
    again = build_pools("t1x-mixed", paths, out)
    assert first == again
    with pytest.raises(WriteError, match=r"holds something else.*--force"):
        build_pools("t1x-mixed", paths, out, seed=1)
    build_pools("t1x-mixed", paths, out, seed=1, replace=True)
    manifest = json.loads((out / "mixed" / "manifest.json").read_text())
    assert manifest["seed"] == 1
    assert sorted(path.name for path in out.iterdir()) == ["mixed"]
    for name, digest in manifest["files"].items():
        assert hash_source(out / "mixed" / name) == digest
    (out / "mixed" / "thesis.tex").touch()
    with pytest.raises(WriteError, match=r"no built pool \(thesis.tex\)"):
        build_pools("t1x-mixed", paths, out, replace=True)
    assert (out / "mixed" / "thesis.tex").exists()


@pytest.mark.parametrize("moment", ["reading", "writing"])
def test_an_interrupted_build_leaves_nothing_in_the_way(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_reactions(tmp_path, SIZES)
    paths, out = [tmp_path / "all.extxyz"], tmp_path / "out"

    def stop(_stage: str, _done: int, _total: int | None) -> None:
        if moment == "reading":
            raise KeyboardInterrupt

    if moment == "writing":
        monkeypatch.setattr("labelwise.structures.datasets.building.write_text", _interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_pools("t1x-mixed", paths, out, progress=stop)
    assert not (out / "mixed").exists()
    monkeypatch.undo()
    build_pools("t1x-mixed", paths, out)
    assert sorted(path.name for path in out.iterdir()) == ["mixed"]


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_what_cannot_be_built_is_said(tmp_path: Path) -> None:
    made = write_reactions(tmp_path, {"a": 30})
    path = tmp_path / "all.extxyz"
    with pytest.raises(ArgumentError, match="allowed are t1x-natural"):
        build_pools("t2x", [path], tmp_path / "out")
    with pytest.raises(ArgumentError, match="none of 30 structures"):
        build_pools("omol-rgd", [path], tmp_path / "out")
    with pytest.raises(ArgumentError, match="size does not apply"):
        build_pools("t1x-natural", [path], tmp_path / "out", size=20)
    with pytest.raises(ArgumentError, match="size is 3"):
        build_pools("omol-rgd", [path], tmp_path / "out", size=3)
    with pytest.raises(ArgumentError, match="seed is -1"):
        build_pools("omol-rgd", [path], tmp_path / "out", seed=-1)
    with pytest.raises(DataSetError, match="no reference energy"):
        build_pools("t1x-mixed", [path], tmp_path / "out", energies="adsorption")
    with pytest.raises(DataSetError, match="no such file"):
        build_pools("t1x-mixed", [tmp_path / "gone.h5"], tmp_path / "out")
    lone = [LabelledStructure(Entry(0, "x"), each.atoms) for each in made]
    for each in lone:
        each.atoms.info.pop("family")
    write_labelled(path, lone)
    with pytest.raises(ArgumentError, match="which reaction"):
        build_pools("t1x-natural", [path], tmp_path / "out")


def test_a_survey_of_several_files(tmp_path: Path) -> None:
    made = make_paths({"a": 5, "b": 4}, charge=1, spin=2)
    write_labelled(tmp_path / "1.extxyz", made[:6])
    write_labelled(tmp_path / "2.extxyz", made[6:])
    data = open_data_set([tmp_path / "1.extxyz", tmp_path / "2.extxyz"])
    found = survey(data, Query(), seed=0)
    assert found.positions.tolist() == list(range(9))
    assert found.family_names == ("a", "b")
    assert found.orders.tolist() == [0, 1, 2, 3, 4, 0, 1, 2, 3]
    picked = [each.entry.name for each in data.iter_structures([0, 5, 6, 8])]
    assert picked == ["a/0", "b/0", "b/1", "b/3"]
    assert [e.position for e in data.iter_entries()] == list(range(9))
    with pytest.raises(ArgumentError, match=r"position 9 is wanted .* holds 9 structures"):
        list(data.iter_structures([9]))
    for query, n in (
        (Query(charges=frozenset({0})), 0),
        (Query(spins=frozenset({2}), max_atoms=3), 5),
        (Query(elements=frozenset({1, 8})), 5),
        (Query(splits=frozenset({"x"})), 0),
    ):
        assert len(survey(data, query, seed=0)) == n


def test_every_build_says_what_it_is() -> None:
    for name, build in BUILDS.items():
        assert build.name == name
        assert build.source
        assert build.summary.endswith(".")


def test_positions_of_one_file(tmp_path: Path) -> None:
    write_labelled(tmp_path / "1.extxyz", make_paths({"a": 5}))
    with MaceExtxyz(tmp_path / "1.extxyz") as reader:
        assert [each.entry.position for each in reader.iter_structures([1, 3])] == [1, 3]


def test_files_that_change_while_they_are_read_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = write_reactions(tmp_path, SIZES)
    path = tmp_path / "all.extxyz"

    def exchange(text: str, *_: object) -> None:
        if "fit" in text:  # between the first and the second reading
            path.unlink()
            write_labelled(path, made[::-1])

    monkeypatch.setattr(logging.getLogger(build_pools.__module__), "info", exchange)
    with pytest.raises(DataSetError, match=r"all\.extxyz changed while it was read \(1 files"):
        build_pools("t1x-natural", [path], tmp_path / "out", seed=4)
    assert [each.name for each in (tmp_path / "out").glob("*/*")] == []
