"""The road by way of a feature store chooses what the road in memory chooses."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

from labelwise.errors import ArgumentError, ReadError, ScreeningError, SelectionError
from labelwise.features.fill import Filler
from labelwise.features.store import FeatureStore
from labelwise.potentials import Potential
from labelwise.selection.acquire import acquire
from labelwise.selection.results import Acquisition
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import iter_frames, iter_unscreened, write_structures
from tests.runtime.engines.pickled import PickledEngine

SETTINGS = AcquisitionSettings(n_select=6, group_by="family")


@pytest.fixture
def files(tmp_path: Path, rattled_molecules: list[Atoms]) -> tuple[list[str], list[str]]:
    """Two files of a pool with structures to be set aside, and labelled ones."""
    train, pool = rattled_molecules[:4], rattled_molecules[4:]
    lonely, unknown = Atoms("H"), Atoms("XeH", positions=[[0, 0, 0], [0, 0, 1.5]])
    copy, label = pool[3].copy(), train[1].copy()
    copy.positions += 4e-7
    write_structures(tmp_path / "a.extxyz", [*pool[:12], lonely, copy, label])
    write_structures(tmp_path / "b.extxyz", [unknown, *pool[12:]])
    write_structures(tmp_path / "train.extxyz", train)
    return [str(tmp_path / "a.extxyz"), str(tmp_path / "b.extxyz")], [
        str(tmp_path / "train.extxyz")
    ]


@pytest.fixture
def choose(
    tmp_path: Path, files: tuple[list[str], list[str]], potential: Potential
) -> Callable[..., Acquisition]:
    def run(settings: AcquisitionSettings = SETTINGS, **changes: Any) -> Acquisition:
        given = {"pool": files[0], "train": files[1], "store": {}, **changes}
        said = {"say": given["say"]} if "say" in given else {}
        rows = open_store(tmp_path / "store", settings, potential, **given.pop("store"), **said)
        return acquire(
            given.pop("pool"),
            given.pop("train"),
            settings,
            potential=potential,
            rows=rows,
            **given,
        )

    return run


def in_memory(
    files: tuple[list[str], list[str]],
    settings: AcquisitionSettings,
    potential: Potential,
    **changes: Any,
) -> Acquisition:
    pool, train = files
    return acquire(
        iter_frames(pool),
        iter_frames(train) if train else (),
        settings,
        potential=potential,
        **changes,
    )


def assert_same(found: Acquisition, expected: Acquisition) -> None:
    assert [pick.pool_index for pick in found.picks] == [p.pool_index for p in expected.picks]
    for one, other in zip(found.picks, expected.picks, strict=True):
        assert (one.source, one.nearest_train) == (other.source, other.nearest_train)
        assert one.score == pytest.approx(other.score, rel=1e-4, abs=1e-7)
    assert found.screened == expected.screened
    assert found.groups == expected.groups
    assert (found.n_pool, found.n_train) == (expected.n_pool, expected.n_train)
    assert found.n_features == expected.n_features


@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "lcmd"},
        {"rule": "pv"},
        {"rule": "k-center"},
        {"rule": "top"},
        {"rule": "lcmd", "shortlist": 15},
        {"rule": "random", "shortlist": 12},
        {"rule": "pv", "normalise": "none"},
        {"rule": "lcmd", "representation": "ntk-ef", "n_probes": 2, "energy_weight": 0.3},
        {"rule": "lcmd", "representation": "activation"},
    ],
    ids=str,
)
@pytest.mark.parametrize("labelled", [True, False])
def test_picks_are_those_of_the_road_in_memory(
    changes: dict[str, Any],
    labelled: bool,
    files: tuple[list[str], list[str]],
    choose: Callable[..., Acquisition],
    potential: Potential,
) -> None:
    settings = replace(SETTINGS, **changes)
    given = (files[0], files[1] if labelled else [])
    assert_same(choose(settings, train=given[1]), in_memory(given, settings, potential))


def test_what_is_there_is_neither_computed_nor_read_again(
    choose: Callable[..., Acquisition],
) -> None:
    first, second = choose(), choose(replace(SETTINGS, rule="pv"))
    assert first.extraction is not None
    assert second.extraction is not None
    assert first.extraction.n_computed == 4 + 26 + 1  # the copy within 1e-6 Å has a row of its own
    assert second.extraction.n_computed == 0
    assert second.extraction.n_read == 4  # labelled structures are read for their labels
    assert first.screened == second.screened
    assert first.groups.keys() == second.groups.keys()


def test_a_pool_that_grows_costs_what_is_new(
    tmp_path: Path,
    files: tuple[list[str], list[str]],
    choose: Callable[..., Acquisition],
    potential: Potential,
    rattled_molecules: list[Atoms],
) -> None:
    choose()
    new = rattled_molecules[7].copy()
    new.rattle(0.1, seed=3)
    with Path(files[0][1]).open("a") as stream:
        write_structures(tmp_path / "new.extxyz", [new])
        stream.write((tmp_path / "new.extxyz").read_text())
    grown = choose()
    assert grown.extraction is not None
    assert grown.extraction.n_computed == 1
    assert_same(grown, in_memory(files, SETTINGS, potential))


def test_slices_of_a_file_are_told_apart(
    files: tuple[list[str], list[str]], choose: Callable[..., Acquisition], potential: Potential
) -> None:
    for ending in ("@::2", "@:9", "@-8:", ""):
        given = ([files[0][0] + ending], files[1])
        settings = replace(SETTINGS, n_select=2)
        assert_same(choose(settings, pool=given[0]), in_memory(given, settings, potential))


def damage(store: Path, number: int) -> None:
    path = store / f"c{number:06d}" / "features" / "c" / "0" / "0"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("shortlist", [None, 15])
def test_a_damaged_chunk_alone_is_computed_again(
    shortlist: int | None,
    tmp_path: Path,
    files: tuple[list[str], list[str]],
    choose: Callable[..., Acquisition],
    potential: Potential,
) -> None:
    settings = replace(SETTINGS, shortlist=shortlist)
    choose(settings, pool=files[0][:1])  # one chunk of labelled structures and one a file
    choose(settings)
    store = FeatureStore.open(tmp_path / "store")
    rows = {number: len(store.read_columns(number)) for number in store.chunk_numbers}
    number = max(rows)
    damage(tmp_path / "store", number)
    said: list[str] = []
    again = choose(settings, say=said.append)
    assert again.extraction is not None
    assert again.extraction.n_computed == rows[number] < sum(rows.values())
    assert len(said) == 1
    assert f"c{number:06d}" in said[0]
    assert_same(again, in_memory(files, settings, potential))
    assert choose(settings, say=said.append).extraction.n_computed == 0  # type: ignore[union-attr]
    assert len(said) == 1


def test_a_store_of_another_representation_is_refused(choose: Callable[..., Acquisition]) -> None:
    choose()
    with pytest.raises(ArgumentError, match="representation was ntk-e and is activation"):
        choose(replace(SETTINGS, representation="activation"))
    with pytest.raises(ArgumentError, match="float32 and is float16"):
        choose(store={"storage_dtype": "float16"})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_close(
    dtype: str,
    files: tuple[list[str], list[str]],
    choose: Callable[..., Acquisition],
    potential: Potential,
) -> None:
    found = choose(store={"storage_dtype": dtype})
    expected = in_memory(files, SETTINGS, potential)
    assert found.screened == expected.screened
    first, other = found.picks[0], expected.picks[0]
    assert first.score == pytest.approx(other.score, rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"representation": "soap"}, "soap"),
        ({"rule": "joint-pv"}, "joint-pv"),
        ({"rule": "random"}, "no features"),
    ],
)
def test_what_a_store_cannot_do_is_said(
    changes: dict[str, Any], message: str, choose: Callable[..., Acquisition]
) -> None:
    with pytest.raises(ArgumentError, match=message):
        choose(replace(SETTINGS, **changes))


def test_too_little_memory_is_said_with_what_would_do(choose: Callable[..., Acquisition]) -> None:
    with pytest.raises(SelectionError, match=r"the least is \d"):
        choose(memory_bytes=1_000_000)


def test_strictness_and_size_are_kept(choose: Callable[..., Acquisition]) -> None:
    with pytest.raises(ScreeningError, match="isolated-atom"):
        choose(replace(SETTINGS, strict=True))
    with pytest.raises(SelectionError, match="only 26 of the 30"):
        choose(replace(SETTINGS, n_select=27))


def test_processes_choose_the_same(
    tmp_path: Path,
    files: tuple[list[str], list[str]],
    choose: Callable[..., Acquisition],
    potential: Potential,
) -> None:
    here = in_memory(files, SETTINGS, potential)
    for run in (choose, partial(in_memory, files, SETTINGS, potential)):
        engine = PickledEngine()
        assert_same(run(engine=engine), here)
        assert engine.n_items > 0


KILLED = """
import sys
from pathlib import Path
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.features import fill
from labelwise.potentials import load_potential
if __name__ == "__main__":
    fill._FEWEST_FRAMES = fill._MOST_FRAMES = 4
    settings, potential = AcquisitionSettings(n_select=1), load_potential("demo", device="cpu")
    rows = open_store(Path(sys.argv[1]), settings, potential)
    fill.Filler(settings.make_recipe(), rows, potential).fill_from_files(sys.argv[2:], "pool")
"""


@pytest.mark.thorough
def test_a_killed_extraction_goes_on(tmp_path: Path, files: tuple[list[str], list[str]]) -> None:
    store = tmp_path / "store"
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(store), *files[0]])
    try:
        deadline = time.monotonic() + 120
        while not (store / "c000000").exists() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.001)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    n_before = len(FeatureStore.open(store))
    assert n_before >= 4
    from labelwise.potentials import load_potential

    settings, potential = AcquisitionSettings(n_select=1), load_potential("demo", device="cpu")
    features = open_store(store, settings, potential)
    filler = Filler(settings.make_recipe(), features, potential)
    frames = filler.fill_from_files(files[0], "pool")
    assert filler.counts.n_computed == int(frames.usable().sum()) - n_before
    assert (features.find(frames.keys[frames.usable()]) >= 0).all()
    assert np.isfinite(features.read_chunk(0)).all()


@pytest.mark.parametrize("is_stored", [False, True])
def test_a_pool_that_was_replaced_is_not_read_again(
    choose: Callable[..., Acquisition],
    files: tuple[list[str], list[str]],
    potential: Potential,
    is_stored: bool,
) -> None:
    pool, train = files
    chosen = (
        choose()
        if is_stored
        else acquire(iter_frames(pool), iter_frames(train), SETTINGS, potential=potential)
    )
    assert len(chosen.read_again()) == 6
    write_structures(pool[1], [frame.atoms for frame in iter_frames(pool[1])][::-1])
    with pytest.raises(ReadError, match=r"b.extxyz@\d+ is no longer the structure"):
        chosen.read_again()


def test_symbols_that_are_no_element_are_set_aside_on_both_roads(
    tmp_path: Path,
    files: tuple[list[str], list[str]],
    choose: Callable[..., Acquisition],
    potential: Potential,
) -> None:
    pool, train = files
    for path in (pool[0], train[0]):
        head, comment, first, rest = Path(path).read_text().split("\n", 3)
        Path(path).write_text(f"{head}\n{comment}\nD {first.split(None, 1)[1]}\n{rest}")
    settings = replace(SETTINGS, required_labels=())
    expected = acquire(iter_unscreened(pool), iter_unscreened(train), settings, potential=potential)
    found = choose(settings)
    assert [(each.role, each.index) for each in found.screened if "'D'" in each.detail] == [
        ("train", 0),
        ("pool", 0),
    ]
    assert found.screened == expected.screened
    with pytest.raises(SelectionError, match=r"unknown-element \(.*'D'.* does not know Xe"):
        choose(replace(settings, n_select=30))
