"""The example's files: repeatable, disjoint, in the proportions that they promise."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.emt import EMT

from examples.slabs import write_slab_example
from examples.slabs.systems import (
    ADSORBATES,
    CATALYSTS,
    UNSEEN_ADSORBATES,
    UNSEEN_CATALYSTS,
)
from examples.slabs.writing import TEST_SPLITS
from labelwise.errors import ArgumentError, WriteError
from labelwise.structures import DuplicateIndex, iter_frames

N_POOL = 60


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("slabs")
    seen: list[tuple[int, int]] = []
    paths = write_slab_example(folder, n_pool=N_POOL, progress=lambda *n: seen.append(n))
    assert sorted(path.name for path in paths) == sorted(path.name for path in folder.iterdir())
    assert seen[0] == (0, N_POOL)
    assert seen[-1] == (N_POOL, N_POOL)
    return folder


@pytest.fixture(scope="module")
def sets(folder: Path) -> dict[str, list[Atoms]]:
    names = ("train", "valid", "test", "pool")
    return {
        name: [frame.atoms for frame in iter_frames([str(folder / f"{name}.extxyz")])]
        for name in names
    }


def test_sizes(sets: dict[str, list[Atoms]]) -> None:
    assert len(sets["pool"]) == N_POOL
    assert len(sets["train"]) == 6
    assert len(sets["valid"]) == 4
    splits = Counter(atoms.info["split"] for atoms in sets["test"])
    assert splits == dict.fromkeys(TEST_SPLITS, 6)


def test_labels_survive_the_file(sets: dict[str, list[Atoms]]) -> None:
    for atoms in (*sets["test"], *sets["pool"][::10]):
        bare = Atoms(atoms.numbers, atoms.positions, cell=atoms.cell, pbc=True, calculator=EMT())
        assert atoms.info["REF_energy"] == pytest.approx(bare.get_potential_energy(), abs=1e-9)
        np.testing.assert_allclose(atoms.arrays["REF_forces"], bare.get_forces(), atol=1e-8)
        assert atoms.pbc.all()
        assert sorted(atoms.constraints[0].index) == np.flatnonzero(atoms.get_tags() == 0).tolist()
        assert atoms.get_tags()[-1] == 2


def test_splits_keep_apart_what_they_promise(sets: dict[str, list[Atoms]]) -> None:
    adsorbates, unseen_adsorbates = (
        {name for name, _ in each} for each in (ADSORBATES, UNSEEN_ADSORBATES)
    )
    metals, unseen_metals = (
        {host + (dopant or "") for host, dopant, _ in each}
        for each in (CATALYSTS, UNSEEN_CATALYSTS)
    )
    allowed = dict.fromkeys(("train", "valid", "pool", "val_id"), (metals, adsorbates))
    allowed["val_ood_ads"] = (metals, unseen_adsorbates)
    allowed["val_ood_cat"] = (unseen_metals, adsorbates)
    allowed["val_ood_both"] = (unseen_metals, unseen_adsorbates)
    for atoms in (each for members in sets.values() for each in members):
        expected_metals, expected_adsorbates = allowed[atoms.info["split"]]
        assert atoms.info["metal"] in expected_metals
        assert atoms.info["adsorbate"] in expected_adsorbates


def test_held_out_systems_and_structures_are_nowhere_else(sets: dict[str, list[Atoms]]) -> None:
    def combinations(*names: str) -> set[str]:
        found = (atoms.info["family"] for name in names for atoms in sets[name])
        return {family.rsplit("-", 1)[0].removesuffix("-valid") for family in found}

    assert not combinations("pool", "train") & combinations("valid", "test")
    index = DuplicateIndex()
    for atoms in (*sets["valid"], *sets["test"], *sets["train"]):
        assert index.find(atoms) is None
        index.add(atoms, 0)
    assert all(index.find(atoms) is None for atoms in sets["pool"])


def test_frames_of_the_pool_are_trajectories(sets: dict[str, list[Atoms]]) -> None:
    places = [(a.info["family"], a.info["frame"]) for a in (*sets["pool"], *sets["train"])]
    assert len(set(places)) == len(places) == N_POOL + 6
    for family in {family for family, _ in places}:
        frames = sorted(frame for name, frame in places if name == family)
        assert frames == list(range(len(frames)))


def test_manifest_counts_what_is_there(folder: Path, sets: dict[str, list[Atoms]]) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    everything = [atoms for members in sets.values() for atoms in members]
    for name, counts in manifest["splits"].items():
        members = [atoms for atoms in everything if atoms.info["split"] == name]
        assert counts["structures"] == len(members)
        assert counts["metal"] == Counter(atoms.info["metal"] for atoms in members)
        assert counts["adsorbate"] == Counter(atoms.info["adsorbate"] for atoms in members)
        assert counts["systems"] == len({atoms.info["family"] for atoms in members})
    assert manifest["seed"] == 0


def test_the_seed_decides_everything(folder: Path, tmp_path: Path) -> None:
    for again in write_slab_example(tmp_path, n_pool=N_POOL):
        assert again.read_bytes() == (folder / again.name).read_bytes()
    before = (tmp_path / "pool.extxyz").read_bytes()
    write_slab_example(tmp_path, n_pool=20, seed=1, replace=True)
    assert (tmp_path / "pool.extxyz").read_bytes()[:3000] != before[:3000]


def test_existing_files_are_kept(folder: Path) -> None:
    before = (folder / "pool.extxyz").read_bytes()
    with pytest.raises(WriteError, match=r"train\.extxyz exists"):
        write_slab_example(folder, n_pool=N_POOL)
    assert (folder / "pool.extxyz").read_bytes() == before


def test_a_stop_leaves_no_half_file(tmp_path: Path) -> None:
    def stop(_n_done: int, _n_wanted: int) -> None:
        raise KeyboardInterrupt

    (tmp_path / "manifest.json").write_text("of an earlier set")
    with pytest.raises(KeyboardInterrupt):
        write_slab_example(tmp_path, n_pool=20, progress=stop, replace=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.extxyz", "valid.extxyz"]


@pytest.mark.parametrize(("n_pool", "seed"), [(19, 0), (20, -1)])
def test_sizes_out_of_range(tmp_path: Path, n_pool: int, seed: int) -> None:
    with pytest.raises(ArgumentError, match=f"n_pool is {n_pool} and seed is {seed}"):
        write_slab_example(tmp_path, n_pool=n_pool, seed=seed)
    assert not list(tmp_path.iterdir())
