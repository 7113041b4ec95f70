"""Laws of the pipeline: wherever rows are kept and computed, the same structures are chosen.

Rows of one process and rows in memory come in other batches than those of lots, so that scores
agree up to rounding; whoever computes the same batches agrees to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ScreeningError, SelectionError
from labelwise.features.representations import represent
from labelwise.features.store.memory import RowCache
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from labelwise.runtime.engines import Engine, LocalEngine, RayEngine
from labelwise.selection.acquire import acquire
from labelwise.selection.results import Acquisition
from labelwise.selection.rules import select_batch
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import iter_unscreened, write_structures
from tests.selection.ray_extraction import load_charged

STAGES = ["read train", "read pool", "screen", "represent train", "represent pool", "select"]

Choose = Callable[..., Acquisition]


@pytest.fixture(scope="module")
def ray_engine() -> Any:
    with RayEngine(n_workers=2, object_store_bytes=100_000_000) as engine:
        yield engine


@pytest.fixture
def files(tmp_path: Path, rattled_molecules: list[Atoms]) -> tuple[str, str]:
    """A pool with what cannot be labelled, and labelled structures, of which one is no use."""
    train, pool = rattled_molecules[:4], rattled_molecules[4:]
    copy, label, ion = pool[3].copy(), train[1].copy(), pool[5].copy()
    copy.positions += 4e-7
    ion.info["charge"] = 5
    broken = Atoms("XeH", positions=[[0, 0, 0], [0, 0, 1.5]])
    write_structures(
        tmp_path / "pool.extxyz", [broken, *pool[:12], Atoms("H"), copy, label, ion, *pool[12:]]
    )
    write_structures(tmp_path / "train.extxyz", [*train, Atoms("H")])
    return str(tmp_path / "pool.extxyz"), str(tmp_path / "train.extxyz")


def in_memory(
    files: tuple[str, str], settings: AcquisitionSettings, potential: Potential, **given: Any
) -> Acquisition:
    return acquire(*([file] for file in files), settings, potential=potential, **given)


WAYS = ["frames", "cache", "lots", "store", "store of frames"]
RAY = [pytest.param(way, marks=pytest.mark.slow) for way in ("ray", "ray store")]


@pytest.fixture(scope="module")
def potential() -> Potential:
    """The model that workers load, too."""
    return load_charged()


@pytest.fixture(params=[*WAYS, *RAY])
def choose(
    request: pytest.FixtureRequest, files: tuple[str, str], tmp_path: Path, potential: Potential
) -> Choose:
    """Choose by one way of the pipeline."""
    way: str = request.param

    def run(settings: AcquisitionSettings) -> Acquisition:
        given: dict[str, Any] = {"potential": potential, "load": load_charged}
        pool, train = ([file] for file in files)
        if way == "cache":
            given["rows"] = RowCache()
            given["rows"].keep(potential)
            acquire(pool, train, settings, **given)  # what is known changes nothing
        if "store" in way:
            given["rows"] = open_store(tmp_path / "store", settings, potential)
        if "ray" in way:
            given["engine"] = request.getfixturevalue("ray_engine")
        if way == "lots":
            given["engine"] = LocalEngine()
        if "frames" in way:
            return acquire(iter_unscreened(pool), iter_unscreened(train), settings, **given)
        return acquire(pool, train, settings, **given)

    return run


def assert_same(found: Acquisition, expected: Acquisition) -> None:
    assert [pick.pool_index for pick in found.picks] == [p.pool_index for p in expected.picks]
    for one, other in zip(found.picks, expected.picks, strict=True):
        assert (one.source, one.nearest_train) == (other.source, other.nearest_train)
        assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-7)
        assert one.fingerprint is not None
        assert one.fingerprint.equals(other.fingerprint)
    assert found.screened == expected.screened
    assert found.groups == expected.groups
    assert (found.n_pool, found.n_train) == (expected.n_pool, expected.n_train)
    assert found.n_features == expected.n_features
    assert [s.name for s in found.stages] == [s.name for s in expected.stages] == STAGES
    counts = (
        [s.n_structures for s in each.stages if s.name != "screen"] for each in (found, expected)
    )
    assert len({tuple(each) for each in counts}) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "lcmd", "shortlist": 15},
        {"rule": "pv", "normalise": "none"},
        {"rule": "k-center", "representation": "activation"},
    ],
    ids=str,
)
def test_every_way_chooses_the_same(
    changes: dict[str, Any], choose: Choose, files: tuple[str, str], potential: Potential
) -> None:
    settings = AcquisitionSettings(n_select=6, group_by="family", **changes)
    assert_same(choose(settings), in_memory(files, settings, potential))


def test_every_way_gives_the_reasons(choose: Choose) -> None:
    found = choose(AcquisitionSettings(n_select=3))
    assert [(item.role, item.index, item.reason) for item in found.screened] == [
        ("train", 4, "isolated-atom"),
        ("pool", 0, "unknown-element"),
        ("pool", 13, "isolated-atom"),
        ("pool", 14, "duplicate-of-pool"),
        ("pool", 15, "duplicate-of-train"),
        ("pool", 16, "unknown-charge"),
    ]
    with pytest.raises(ScreeningError, match=r"train.extxyz@4: isolated-atom .*--strict"):
        choose(AcquisitionSettings(n_select=3, strict=True))
    with pytest.raises(SelectionError, match=r"only 26 of the 31 .* 5 were set aside"):
        choose(AcquisitionSettings(n_select=27))


def test_rows_that_are_kept_are_not_computed_again(
    files: tuple[str, str], potential: Potential, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, settings = RowCache(), AcquisitionSettings(n_select=6)
    cache.keep(potential)
    first = in_memory(files, settings, potential, rows=cache)
    assert cache.n_bytes == 4 * first.n_features * (4 + 26)
    monkeypatch.setattr(potential, "collate", None)
    assert in_memory(files, settings, potential, rows=cache).picks == first.picks


@pytest.mark.parametrize("road", ["frames", "files"])
def test_rows_in_memory_are_those_of_one_stream(
    road: str, files: tuple[str, str], potential: Potential
) -> None:
    """To the last bit: batches end where those of the whole stream do."""
    settings = AcquisitionSettings(n_select=5, rule="pv", batch_atoms=30)
    pool, train = ([frame.atoms for frame in iter_unscreened(file)] for file in files)
    kept = [atoms for i, atoms in enumerate(pool) if i not in (0, 13, 14, 15, 16)]
    rows = [represent(part, potential, batch_atoms=30) for part in (kept, train[:4])]
    expected = select_batch("pv", *map(LinearKernel, rows), 5)
    streams = (iter_unscreened(file) for file in files) if road == "frames" else files
    found = acquire(*streams, settings, potential=potential)
    np.testing.assert_array_equal([pick.score for pick in found.picks], expected.score)


def test_engines_that_make_the_same_lots_agree_to_the_last_bit(
    files: tuple[str, str], tmp_path: Path, potential: Potential
) -> None:
    settings = AcquisitionSettings(n_select=6)

    def choose_on(engine: Engine | None, name: str) -> Acquisition:
        rows = open_store(tmp_path / name, settings, potential)
        return in_memory(files, settings, potential, rows=rows, engine=engine, load=load_charged)

    assert choose_on(None, "one").picks == choose_on(LocalEngine(), "other").picks
