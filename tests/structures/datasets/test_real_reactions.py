"""Pools of real reactions are the same from extended XYZ and from a Transition1x file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from labelwise.structures import read_structures
from labelwise.structures.datasets.building import build_pools
from labelwise.structures.datasets.mace_extxyz import MaceExtxyz
from labelwise.studies.comparison.pools import prepare_pools
from tests.structures.datasets.transition1x_files import write_transition1x


@pytest.mark.slow
def test_natural_pools_are_the_same_by_either_road(tmp_path: Path, shared_data: Path) -> None:
    reactions = shared_data / "t1x_xtb"
    files = [reactions / "mixed" / f"{role}.extxyz" for role in ("pool", "valid", "test")]
    read = (each for file in files for each in MaceExtxyz(file).iter_structures())
    structures = sorted(read, key=lambda each: (each.entry.family, each.entry.order))
    assert len(structures) == 10_916
    write_transition1x(tmp_path / "Transition1x.h5", structures)
    direct = prepare_pools(list(map(str, files)), tmp_path / "direct", layout="natural", seed=0)
    built = build_pools("t1x-natural", [tmp_path / "Transition1x.h5"], tmp_path / "built", seed=0)
    assert list(direct.pools) == [pool.folder.name for pool in built]
    for pool in built:
        for role in ("pool", "valid", "test"):
            one = read_structures(
                tmp_path / "direct" / "data" / pool.folder.name / f"{role}.extxyz"
            )
            other = read_structures(pool.folder / f"{role}.extxyz")
            assert len(one) == len(other) == pool.counts[role]
            for left, right in zip(one, other, strict=True):
                assert left.info["reaction"] == right.info["reaction"]
                assert left.info["REF_energy"] == right.info["REF_energy"]
                assert np.array_equal(left.positions, right.positions)
                assert np.array_equal(left.arrays["REF_forces"], right.arrays["REF_forces"])
