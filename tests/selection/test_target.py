"""A batch that is chosen for other structures than those of the pool."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms

import labelwise as lw
from labelwise.cli import main
from labelwise.errors import ArgumentError, ScreeningError
from labelwise.features.representations import represent
from labelwise.features.store.memory import RowCache
from labelwise.kernels.linear import LinearKernel
from labelwise.pages.options import ReportOptions
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.engines import LocalEngine
from labelwise.selection.acquire import acquire
from labelwise.selection.measures import read_measures
from labelwise.selection.page import gather_selection
from labelwise.selection.rules import posterior_variance, select_batch
from labelwise.selection.settings import AcquisitionSettings
from labelwise.selection.storage import open_store
from labelwise.structures import iter_unscreened, write_structures

SETTINGS = AcquisitionSettings(n_select=6, rule="target")


@pytest.fixture
def files(tmp_path: Path, rattled_molecules: list[Atoms]) -> tuple[str, str, str]:
    """A pool, labelled structures, and some that matter: one of the pool is among them."""
    parts = rattled_molecules[8:], rattled_molecules[:4], rattled_molecules[4:9]
    names = tuple(str(tmp_path / f"{name}.extxyz") for name in ("pool", "train", "target"))
    for name, part in zip(names, parts, strict=True):
        write_structures(Path(name), part)
    return names


def expect(
    files: tuple[str, ...], potential: Potential, **settings: Any
) -> tuple[list[int], LinearKernel, LinearKernel, LinearKernel]:
    rows = [
        represent([frame.atoms for frame in iter_unscreened([file])], potential) for file in files
    ]
    pool, train, target = (LinearKernel(each) for each in rows)
    found = select_batch("target", pool, train, 6, target=target, **settings)
    return found.pool_idx.tolist(), pool, train, target


@pytest.mark.parametrize("shortlist", [None, 10])
@pytest.mark.parametrize("way", ["frames", "cache", "lots", "store"])
def test_every_way_chooses_the_same(
    way: str,
    shortlist: int | None,
    files: tuple[str, str, str],
    potential: Potential,
    tmp_path: Path,
) -> None:
    settings = AcquisitionSettings(n_select=6, rule="target", shortlist=shortlist)
    given: dict[str, Any] = {"potential": potential}
    if way == "cache":
        given["rows"] = RowCache()
        given["rows"].keep(potential)
    if way == "store":
        given["rows"] = open_store(tmp_path / "store", settings, potential)
    if way == "lots":
        given["engine"] = LocalEngine()
    pool, train, target = ([file] for file in files)
    if way == "frames":
        pool, train, target = (iter_unscreened(each) for each in (pool, train, target))
    found = acquire(pool, train, settings, target=target, **given)
    picks, *_ = expect(files, potential, shortlist=shortlist)
    assert [pick.pool_index for pick in found.picks] == picks
    assert {"read target", "represent target"} <= {stage.name for stage in found.stages}


def test_from_python(files: tuple[str, str, str], potential: Potential) -> None:
    target = [frame.atoms for frame in iter_unscreened([files[2]])]
    batch = lw.select(
        files[0], 6, train=files[1], target=target, potential=potential, rule="target"
    )
    picks, *_ = expect(files, potential)
    assert [pick.pool_index for pick in batch.picks] == picks


def test_the_command_line_measures_the_target(files: tuple[str, str, str], tmp_path: Path) -> None:
    pool, train, target = files
    out = tmp_path / "batch.extxyz"
    words = ["select", "--pool", pool, "--train", train, "--target", target, "--rule", "target"]
    words += ["--model", "demo", "-n", "6", "--out", str(out), "--report", "--quiet"]
    assert main(words) == 0
    picks, of_pool, of_train, of_target = expect(files, load_potential("demo"))
    record = json.loads(out.with_suffix(".json").read_text())
    assert [pick["pool_index"] for pick in record["picks"]] == picks
    assert record["inputs"]["target"] == [target]
    measures = read_measures(out.with_suffix(".npz"), picks)
    assert measures is not None
    assert measures.target_variances is not None
    before = posterior_variance(of_target, of_train).numpy()
    np.testing.assert_allclose(measures.target_variances[0], before, rtol=1e-3, atol=1e-6)
    fall = sum(pick["score"] for pick in record["picks"])
    after = measures.target_variances[1]
    assert before.mean() - after.mean() == pytest.approx(fall, rel=1e-4)
    facts = gather_selection(out.with_suffix(".json"), ReportOptions()).facts
    assert "mean variance of the target" in [fact.label for fact in facts]
    assert len(of_pool) == record["counts"]["pool"]


def test_what_cannot_be_is_said(
    files: tuple[str, str, str], potential: Potential, tmp_path: Path, capsys: Any
) -> None:
    pool, train, target = ([file] for file in files)
    strange = tmp_path / "strange.extxyz"
    write_structures(strange, [Atoms("XeH", positions=[[0, 0, 0], [0, 0, 1.5]])])
    with pytest.raises(ScreeningError, match=r"strange.extxyz@0: unknown-element .* target"):
        acquire(pool, train, SETTINGS, potential=potential, target=[str(strange)])
    with pytest.raises(ArgumentError, match="the target holds no structures"):
        acquire(pool, train, SETTINGS, potential=potential, target=iter(()))
    with pytest.raises(ArgumentError, match=r"the rule .pv. takes no target"):
        acquire(
            pool,
            train,
            AcquisitionSettings(n_select=2, rule="pv"),
            potential=potential,
            target=target,
        )
    words = ["select", "--pool", files[0], "--model", "demo", "-n", "2", "--target", files[2]]
    assert main([*words, "--out", str(tmp_path / "batch.extxyz")]) == 1
    assert "the rule 'lcmd' takes no target" in capsys.readouterr().err
