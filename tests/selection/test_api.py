"""What people give from Python, and what they see."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ase import Atoms
from rich.console import Console

import labelwise as lw
from labelwise.errors import ArgumentError, ReadError
from labelwise.potentials import Potential
from labelwise.structures import write_structures
from labelwise.structures.given import frames_of


@pytest.fixture
def files(rattled_molecules: list[Atoms], tmp_path: Path) -> Path:
    write_structures(tmp_path / "train.extxyz", rattled_molecules[:3])
    write_structures(tmp_path / "pool.extxyz", rattled_molecules[3:12])
    write_structures(tmp_path / "more.extxyz", rattled_molecules[12:15])
    return tmp_path


WAYS: dict[str, Callable[[list[Atoms], Path], Any]] = {
    "a tuple": lambda pool, _: tuple(pool),
    "a generator": lambda pool, _: (atoms for atoms in pool),
    "a path": lambda _, folder: folder / "pool.extxyz",
    "text": lambda _, folder: str(folder / "pool.extxyz"),
    "slices": lambda _, folder: [f"{folder}/pool.extxyz@:4", f"{folder}/pool.extxyz@4:"],
    "both": lambda pool, folder: [*pool[:2], f"{folder}/pool.extxyz@2:"],
}


@pytest.mark.parametrize("way", WAYS)
def test_structures_may_be_given_in_any_way(
    way: str, rattled_molecules: list[Atoms], files: Path, potential: Potential
) -> None:
    train, pool = rattled_molecules[:3], rattled_molecules[3:12]
    wanted = lw.select(pool, 4, train=train, potential=potential)
    given = lw.select(WAYS[way](pool, files), 4, train=files / "train.extxyz", potential=potential)
    assert given.pool_idx == wanted.pool_idx
    for one, other in zip(given.structures, wanted.structures, strict=True):
        np.testing.assert_allclose(one.positions, other.positions, atol=1e-7)
    rows = lw.represent(WAYS[way](pool, files), potential, "activation")
    np.testing.assert_allclose(rows, lw.represent(pool, potential, "activation"), atol=1e-5)


@pytest.mark.parametrize("way", ["a tuple", "text", "slices", "both"])
def test_rows_may_be_kept_in_a_folder(
    way: str, rattled_molecules: list[Atoms], files: Path, potential: Potential
) -> None:
    pool, train = WAYS[way](rattled_molecules[3:12], files), rattled_molecules[:3]
    wanted = lw.select(pool, 4, train=train, potential=potential)
    for n_computed in (3 + 9, 0):
        found = lw.select(
            pool, 4, train=train, potential=potential, store=files / "rows", memory="8GB"
        )
        assert found.pool_idx == wanted.pool_idx
        assert [a.info["labelwise_source"] for a in found.structures] == [
            a.info["labelwise_source"] for a in wanted.structures
        ]
        assert found.acquisition.extraction is not None
        assert found.acquisition.extraction.n_computed == n_computed
    with pytest.raises(ArgumentError, match="needs a folder"):
        lw.select(pool, 4, potential=potential, memory="8GB")


def test_one_structure_is_enough(water: Atoms, potential: Potential) -> None:
    batch = lw.select(water, 1, potential=potential)
    assert batch.pool_idx == [0]
    assert batch.structures[0].info["labelwise_source"] == "pool@0"
    assert lw.represent(water, potential, "activation").shape[0] == 1


def test_sources_of_files_name_file_and_frame(files: Path) -> None:
    frames = frames_of([f"{files}/pool.extxyz@3:5", files / "more.extxyz"], "pool")
    assert [frame.index for frame in frames] == [0, 1, 2, 3, 4]
    assert str(frames[1].source) == f"{files}/pool.extxyz@4"
    assert str(frames[2].source) == f"{files}/more.extxyz@0"


def test_a_potential_may_be_given_by_name(rattled_molecules: list[Atoms]) -> None:
    potential = lw.load_potential("demo")
    wanted = lw.select(rattled_molecules, 3, potential=potential)
    assert lw.select(rattled_molecules, 3, potential="demo").pool_idx == wanted.pool_idx
    rows = lw.represent(rattled_molecules[:2], "demo", "activation")
    assert rows.shape == lw.represent(rattled_molecules[:2], potential, "activation").shape


def test_force_errors_are_predicted_of_files(
    rattled_molecules: list[Atoms], tmp_path: Path, potential: Potential
) -> None:
    rng = np.random.default_rng(0)
    for atoms in rattled_molecules:
        atoms.arrays["REF_forces"] = rng.normal(size=(len(atoms), 3))
    write_structures(tmp_path / "train.extxyz", rattled_molecules[:4])
    wanted = lw.predict_force_uncertainty(
        rattled_molecules[4:5], potential, train=rattled_molecules[:4]
    )
    found = lw.predict_force_uncertainty(
        rattled_molecules[4], potential, train=str(tmp_path / "train.extxyz")
    )
    np.testing.assert_allclose(found.structure_std, wanted.structure_std, rtol=1e-4)


_MISTAKES = """
import numpy as np
import labelwise as lw
from ase import Atoms
for pool in (3, None, {"a": 1}, b"pool.extxyz", [Atoms("H2"), 7], np.zeros((3, 3))):
    for call in (
        lambda: lw.select(pool, 1, rule="random"),
        lambda: lw.represent(pool, representation="random"),
    ):
        try:
            call()
        except lw.LabelwiseError as error:
            print(type(error).__name__, str(error).replace("\\n", " "))
try:
    lw.select(Atoms("H2"), 1, potential=3.0)
except lw.LabelwiseError as error:
    print(type(error).__name__, error)
"""


def test_what_is_neither_structures_nor_potential_is_told() -> None:
    """In a process of its own, where types are not checked before our code sees them."""
    done = subprocess.run(
        [sys.executable, "-c", _MISTAKES], capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 13
    came = ["3 (int)", "None (NoneType)", "{'a': 1} (dict)", "b'pool.extxyz' (bytes)"]
    wanted = [f" is {each}: give structures (ase.Atoms), a path such as" for each in came]
    wanted += ["[1] is 7 (int)", "[0] is "]
    for line, words in zip(lines[:12], np.repeat(wanted, 2), strict=True):
        assert line.startswith("ArgumentError ")
        assert words in line
    assert "pool is" in lines[0] and "structures is" in lines[1]
    assert "potential is a float: give what load_potential returns" in lines[12]


def test_a_path_that_is_not_there_is_told() -> None:
    with pytest.raises(ReadError, match=r"no such file: gone\.xyz"):
        lw.select("gone.xyz", 1, rule="random")


def test_results_show_themselves_in_a_line(
    rattled_molecules: list[Atoms], potential: Potential
) -> None:
    pool = [*rattled_molecules, rattled_molecules[0]]
    batch = lw.select(pool, 12, train=rattled_molecules[1:2], potential=potential)
    words = "12 of 31 structures, 1 labelled already; set aside: 1 duplicate-of-train, 1 dup"
    assert repr(batch).startswith(f"SelectedBatch({words}")
    assert repr(batch.acquisition).startswith(f"Acquisition({words}")
    assert "\n" not in repr(batch)
    shown = batch._repr_html_()
    assert shown.count("<tr>") == 11 and "and 2 more" in shown
    assert "Potential(" in repr(potential) and "elements (H, C, N, O)" in repr(potential)
    assert "cutoff" in repr(potential) and "on cpu" in repr(potential)


def test_texts_of_files_are_texts_on_a_page(rattled_molecules: list[Atoms], tmp_path: Path) -> None:
    path = tmp_path / "<script>alert(1)<&>.xyz".replace("/", "")
    write_structures(path, rattled_molecules[:3])
    shown = lw.select(str(path), 2, rule="random")._repr_html_()
    assert "<script>" not in shown
    assert "&lt;script&gt;alert(1)&lt;&amp;&gt;.xyz@" in shown


@pytest.mark.parametrize("is_terminal", [False, True])
def test_bars_are_drawn_in_terminals(
    is_terminal: bool,
    rattled_molecules: list[Atoms],
    potential: Potential,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=is_terminal, width=100)
    monkeypatch.setattr("rich.console.Console", lambda **_: console)
    lw.select(rattled_molecules, 2, potential=potential, progress=True)
    assert ("represent pool" in written.getvalue()) == is_terminal
    written.truncate(0)
    lw.select(rattled_molecules, 2, potential=potential)
    assert "represent pool" not in written.getvalue()


def test_a_callback_is_called(rattled_molecules: list[Atoms], potential: Potential) -> None:
    stages: list[str] = []
    lw.select(
        rattled_molecules,
        2,
        potential=potential,
        progress=lambda stage, _done, _total: stages.append(stage),
    )
    assert {"represent pool", "select"} <= set(stages)
