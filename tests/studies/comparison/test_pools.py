"""Pools taken from folders and made of files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from labelwise.errors import ArgumentError, LabelError
from labelwise.structures import DuplicateIndex, read_structures, write_structures
from labelwise.studies.comparison.pools import DataKeys, prepare_pools, read_labelled
from tests.studies.comparison.pool_building import write_folder, write_reactions

SIZES = {f"rxn{i}": 20 + 10 * i for i in range(5)}


def test_a_folder_is_taken_as_it_is(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "given", n_train=3)
    found = prepare_pools([str(source)], tmp_path / "study", layout="natural", seed=0)
    section = found.pools["given"]
    assert section.pool == [str(source / "pool.extxyz")]
    assert section.train == [str(source / "train.extxyz")]
    assert section.test.files == [str(source / "test.extxyz")]
    assert section.isolated_atoms is None
    assert not (tmp_path / "study").exists()


def test_folders_of_one_name_stay_apart(tmp_path: Path) -> None:
    folders = [str(write_folder(tmp_path / parent / "set 1")) for parent in "ab"]
    found = prepare_pools(folders, tmp_path, layout="natural", seed=0)
    assert list(found.pools) == ["set_1", "set_1-2"]


def test_frames_are_copied_exactly(tmp_path: Path) -> None:
    structures = write_reactions(tmp_path / "all.extxyz", SIZES)
    prepare_pools([str(tmp_path / "all.extxyz")], tmp_path, layout="natural", seed=0)
    home = tmp_path / "data" / "natural_0"
    source = (tmp_path / "all.extxyz").read_text()
    n_seen = 0
    for role in ("pool", "valid", "test"):
        for frame in read_labelled([str(home / f"{role}.extxyz")], DataKeys()):
            assert frame.text in source
            n_seen += 1
    manifest = json.loads((home / "manifest.json").read_text())
    assert n_seen == len(structures)
    assert sum(sum(counts.values()) for counts in manifest["counts"].values()) == n_seen
    assert manifest["counts"]["test"]["rxn0"] == 6


def test_the_sets_have_no_structure_in_common(tmp_path: Path) -> None:
    structures = write_reactions(tmp_path / "all.extxyz", SIZES)
    write_structures(tmp_path / "more.extxyz", structures[::3])
    files = [str(tmp_path / name) for name in ("all.extxyz", "more.extxyz")]
    prepare_pools(files, tmp_path, layout="mixed", seed=0)
    home = tmp_path / "data" / "mixed"
    index = DuplicateIndex()
    held = [atoms for r in ("valid", "test") for atoms in read_structures(home / f"{r}.extxyz")]
    for atoms in held:
        assert index.find(atoms) is None
        index.add(atoms, 0)
    pool = read_structures(home / "pool.extxyz")
    assert all(index.find(atoms) is None for atoms in pool)
    left_out = json.loads((home / "manifest.json").read_text())["n_copies_left_out"]
    assert 0 < left_out < len(structures[::3])
    assert len(pool) + len(held) + left_out == len(structures) + len(structures[::3])


def test_the_same_seed_writes_nothing_anew(tmp_path: Path) -> None:
    write_reactions(tmp_path / "all.extxyz", SIZES)

    def make(seed: int) -> dict[str, tuple[int, bytes]]:
        prepare_pools([str(tmp_path / "all.extxyz")], tmp_path, layout="natural", seed=seed)
        paths = sorted((tmp_path / "data").rglob("*.*"))
        return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}

    first = make(0)
    assert make(0) == first
    assert make(1) != first


def test_nothing_given_is_the_embedded_reactions(tmp_path: Path) -> None:
    found = prepare_pools([], tmp_path, layout="natural", seed=0)
    assert list(found.pools) == ["natural_0", "natural_1"]
    for section in found.pools.values():
        assert (tmp_path / section.pool[0]).is_file()
        assert section.isolated_atoms is not None
        assert (tmp_path / section.isolated_atoms).is_file()
    assert any("→ 2 of 5" in change for change in found.changes)


def test_mistakes_are_named(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "given")
    structures = write_reactions(tmp_path / "all.extxyz", SIZES)
    file = str(tmp_path / "all.extxyz")
    with pytest.raises(ArgumentError, match="holds folders"):
        prepare_pools([str(folder), file], tmp_path, layout="natural", seed=0)
    with pytest.raises(ArgumentError, match=r"which .*@0 does not have"):
        prepare_pools([file], tmp_path, layout="natural", seed=0, keys=DataKeys(family="rxn"))
    (folder / "test.extxyz").unlink()
    with pytest.raises(ArgumentError, match=r"no test\.extxyz"):
        prepare_pools([str(folder)], tmp_path, layout="natural", seed=0)
    del structures[4].arrays["REF_forces"]
    write_structures(file, structures)
    with pytest.raises(LabelError, match=r"all\.extxyz@4"):
        prepare_pools([file], tmp_path, layout="natural", seed=0)
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(ArgumentError, match="not extended XYZ"):
        prepare_pools([str(tmp_path / "x.npy")], tmp_path, layout="natural", seed=0)


def test_isolated_atoms_are_in_no_pool(tmp_path: Path) -> None:
    source = tmp_path / "all.extxyz"
    write_reactions(source, SIZES)
    lone = "".join(
        f"1\nProperties=species:S:1:pos:R:3 config_type=IsolatedAtom REF_energy={e}\n{z} 0 0 0\n"
        for z, e in (("H", -13.6), ("C", -1030.0))
    )
    expected = prepare_pools([str(source)], tmp_path / "without", layout="natural", seed=0)
    source.write_text(lone + source.read_text())
    found = prepare_pools([str(source)], tmp_path / "with", layout="natural", seed=0)
    assert found.changes[0] == "pools: 2 isolated atoms are reference energies, not in them"
    for name, section in found.pools.items():
        assert section.isolated_atoms is not None
        assert (tmp_path / "with" / section.isolated_atoms).read_text() == lone
        for role in ("pool", "valid", "test"):
            file = f"data/{name}/{role}.extxyz"
            assert (tmp_path / "with" / file).read_bytes() == (
                tmp_path / "without" / file
            ).read_bytes()
    assert len(found.pools) == len(expected.pools)
