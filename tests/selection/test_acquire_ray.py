"""Extraction and selection on Ray: the picks of one process, whatever becomes of the workers."""

from __future__ import annotations

import os
import random
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from ase import Atoms

from labelwise.features import fill
from labelwise.features.store import FeatureStore
from labelwise.potentials import Potential
from labelwise.runtime.engines import RayEngine
from labelwise.selection import choosing
from labelwise.selection.acquire import acquire
from labelwise.selection.results import Acquisition
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import write_structures
from tests.selection.ray_extraction import NotedTangent, load_noted

LOT = 8
SETTINGS = AcquisitionSettings(
    n_select=12, representation=NotedTangent.name, rule="lcmd", shortlist=60
)


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[RayEngine]:
    with RayEngine(n_workers=3, object_store_bytes=100_000_000) as engine:
        yield engine


@pytest.fixture
def files(tmp_path: Path, rattled_molecules: list[Atoms]) -> tuple[str, str]:
    pool = [atoms.copy() for atoms in rattled_molecules[4:] * 6]
    for seed, atoms in enumerate(pool):
        atoms.rattle(0.05, seed=seed)
    write_structures(tmp_path / "pool.extxyz", pool)
    write_structures(tmp_path / "train.extxyz", rattled_molecules[:4])
    return str(tmp_path / "pool.extxyz"), str(tmp_path / "train.extxyz")


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "_MOST_FRAMES", LOT)
    monkeypatch.setattr(fill, "_FEWEST_FRAMES", LOT)
    monkeypatch.setattr(choosing, "PIECE_BYTES", 4096)


class Killer:
    """Kills a worker at two moments of the run, and remembers how often it did."""

    def __init__(self, ledger: Path, seed: int, stages: tuple[str, ...]) -> None:
        rng = random.Random(seed)
        self._ledger, self._rng = ledger, rng
        self._moments = {stage: rng.uniform(0.0, 0.9) for stage in stages}
        self.killed: list[str] = []

    def __call__(self, stage: str, n_done: int, n_total: int | None) -> None:
        total = 26 * 6 if n_total is None else n_total
        if stage in self._moments and n_done >= self._moments[stage] * total:
            del self._moments[stage]
            pids = sorted({int(line.split()[0]) for line in self._ledger.read_text().splitlines()})
            alive = [pid for pid in pids if pid != os.getpid() and Path(f"/proc/{pid}").exists()]
            with suppress(ProcessLookupError):
                os.kill(self._rng.choice(alive), signal.SIGKILL)
                self.killed.append(stage)


def run(
    folder: Path, files: tuple[str, str], engine: RayEngine | None, progress: object = None
) -> Acquisition:
    load = partial(load_noted, folder.with_suffix(".ledger"))
    potential: Potential = load()
    return acquire(
        [files[0]],
        [files[1]],
        SETTINGS,
        potential=potential,
        rows=open_store(folder, SETTINGS, potential),
        engine=engine,
        load=load,
        **({} if progress is None else {"progress": progress}),  # type: ignore[arg-type]
    )


def count_computed(folder: Path) -> Counter[str]:
    lines = folder.with_suffix(".ledger").read_text().splitlines()
    return Counter(line.split()[1] for line in lines)


def assert_same(found: Acquisition, expected: Acquisition) -> None:
    assert found.picks == expected.picks  # scores and distances, too, to the last bit
    assert found.screened == expected.screened


@pytest.mark.thorough
def test_workers_choose_what_one_process_chooses(
    tmp_path: Path, files: tuple[str, str], ray_engine: RayEngine
) -> None:
    expected = run(tmp_path / "here", files, None)
    found = run(tmp_path / "there", files, ray_engine)
    assert_same(found, expected)
    assert set(count_computed(tmp_path / "there").values()) == {1}
    assert len(FeatureStore.open(tmp_path / "there")) == 26 * 6 + 4


def kill_and_compare(tmp_path: Path, files: tuple[str, str], engine: RayEngine, seed: int) -> None:
    folder = tmp_path / f"killed_{seed}"
    killer = Killer(folder.with_suffix(".ledger"), seed, ("represent pool", "select"))
    found = run(folder, files, engine, killer)
    assert_same(found, run(tmp_path / "here", files, None))
    assert killer.killed == ["represent pool", "select"]
    assert found.extraction is not None
    again = [name for name, n in count_computed(folder).items() if n > 1]
    assert len(again) <= LOT * found.extraction.n_lost <= LOT * 2
    assert max(count_computed(folder).values()) <= 2
    assert len(FeatureStore.open(folder)) == 26 * 6 + 4


def test_killed_workers_change_nothing(
    tmp_path: Path, files: tuple[str, str], ray_engine: RayEngine
) -> None:
    kill_and_compare(tmp_path, files, ray_engine, seed=1)


@pytest.mark.slow
def test_twenty_killed_workers_change_nothing(
    tmp_path: Path, files: tuple[str, str], ray_engine: RayEngine
) -> None:
    for seed in range(20):
        kill_and_compare(tmp_path, files, ray_engine, seed=100 + seed)


@pytest.mark.thorough
def test_other_rules_agree_as_well(
    tmp_path: Path, files: tuple[str, str], ray_engine: RayEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    for rule, normalise in (("pv", "none"), ("k-center", "cosine")):
        changed = replace(SETTINGS, rule=rule, normalise=normalise)
        monkeypatch.setattr("tests.selection.test_acquire_ray.SETTINGS", changed)
        assert_same(run(tmp_path / "there", files, ray_engine), run(tmp_path / "here", files, None))
