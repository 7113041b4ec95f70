"""The papers' protocols as studies."""

from __future__ import annotations

from pathlib import Path

import pytest

from labelwise.campaign.inputs import describe_inputs
from labelwise.errors import ArgumentError
from labelwise.potentials.spec import find_model
from labelwise.structures import DuplicateIndex, read_structures
from labelwise.studies.comparison.presets import make_preset
from labelwise.studies.comparison.protocols import PRESETS
from labelwise.studies.comparison.study import (
    StudyConfig,
    dump_study,
    list_cells,
    read_study,
)
from labelwise.studies.comparison.study_file import StudyError
from tests.studies.comparison.pool_building import write_folder, write_reactions

DEMO = {"path": "demo"}
FOR_ANYONE = [name for name, preset in PRESETS.items() if preset.build is None]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[StudyConfig, Path]]:
    """Every preset that needs no published files with the embedded reactions, and its folder."""
    folders = {name: tmp_path_factory.mktemp(name) for name in FOR_ANYONE}
    return {name: (make_preset(name, home, model=DEMO), home) for name, home in folders.items()}


Made = dict[str, tuple[StudyConfig, Path]]


@pytest.mark.parametrize("name", FOR_ANYONE)
def test_every_preset_runs_for_anyone(name: str, made: Made) -> None:
    study, home = made[name]
    assert study.origin["preset"] == name
    assert study.reference == "random"
    (home / "study.yaml").write_text(dump_study(study))
    assert read_study(home / "study.yaml") == study
    cells = list_cells(study, home, home)
    assert len(cells) == len(study.methods) * len(study.pools) * len(study.seeds)


@pytest.mark.parametrize("name", ["reaction-natural", "pool-bias"])
def test_the_sets_of_a_preset_are_disjoint(name: str, made: Made) -> None:
    study, home = made[name]
    for section in list(study.pools.values())[:2]:
        index = DuplicateIndex()
        for spec in (*section.valid.files, *section.test.files):
            for atoms in read_structures(home / spec):
                assert index.find(atoms) is None
                index.add(atoms, 0)
        pool = read_structures(home / section.pool[0])
        assert len(pool) > 50
        assert all(index.find(atoms) is None for atoms in pool)


def test_the_papers_settings(made: Made) -> None:
    natural, home = made["reaction-natural"]
    assert len(natural.methods) == 18
    first = list_cells(natural, home, home)[0].config
    assert (first.selection.initial_size, first.selection.batch_size) == (10, 5)
    assert (natural.rounds, natural.seeds) == (40, [0, 1])
    mixed, home = made["reaction-mixed"]
    first = list_cells(mixed, home, home)[0].config
    assert (first.selection.initial_size, first.selection.batch_size) == (50, 150)
    assert first.finetune.schedule == "fixed"
    assert any("is used up" in change for change in mixed.changes)
    scratch, _ = made["scratch"]
    committee = scratch.methods["committee-e-scratch"]
    assert (committee["diversity"], committee["finetune"]) == ("scratch", {"start": "scratch"})
    assert len(scratch.methods) == 12


def test_the_same_arguments_give_the_same_study(tmp_path: Path) -> None:
    write_reactions(tmp_path / "all.extxyz", {f"r{i}": 60 for i in range(6)})
    studies, files = [], []
    for folder, seed in (("a", 0), ("b", 0), ("c", 1)):
        home = tmp_path / folder
        data = [str(tmp_path / "all.extxyz")]
        studies.append(make_preset("pool-bias", home, data=data, model=DEMO, seed=seed))
        found = sorted(path for path in home.rglob("*.*") if path.is_file())
        files.append({str(path.relative_to(home)): path.read_bytes() for path in found})
    assert studies[0] == studies[1]
    assert files[0] == files[1]
    assert files[0] != files[2]


def test_choices_of_the_user(tmp_path: Path) -> None:
    source = str(write_folder(tmp_path / "set"))
    study = make_preset(
        "pool-bias",
        tmp_path,
        data=[source],
        model=DEMO,
        methods=["ntk-lcmd", "activation-pv"],
        seeds=[7],
        rounds=3,
        shift="path",
        strength=[2.0, 5.5],
    )
    assert list(study.pools) == ["set-s0", "set-path-s2", "set-path-s5.5"]
    assert (study.reference, study.seeds, study.rounds) == ("ntk-lcmd", [7], 3)
    assert study.origin["strength"] == [2, 5.5]


def test_structures_of_no_families_are_held_out_at_random(tmp_path: Path) -> None:
    write_reactions(tmp_path / "all.extxyz", {"r": 60})
    text = (tmp_path / "all.extxyz").read_text().replace("reaction=r", "")
    (tmp_path / "all.extxyz").write_text(text)
    data = [str(tmp_path / "all.extxyz")]
    study = make_preset("energy-weight", tmp_path / "a", data=data, model=DEMO)
    section = study.pools["random"]
    sizes = [
        len(read_structures(tmp_path / "a" / spec))
        for spec in (*section.pool, *section.valid.files, *section.test.files)
    ]
    assert sizes == [42, 6, 12]
    weights = [each.get("energy_weight") for each in study.methods.values()]
    assert weights == [None, *[0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0] * 2]
    some = ["ntk-ef-pv+energy_weight0.9", "joint-pv"]
    study = make_preset("energy-weight", tmp_path / "a", data=data, model=DEMO, methods=some)
    assert list(study.methods) == some and study.reference == some[0]
    assert study.methods[some[0]]["energy_weight"] == 0.9


def test_given_labels_begin_the_campaigns(tmp_path: Path) -> None:
    source = str(write_folder(tmp_path / "set", n_train=6))
    study = make_preset("reaction-natural", tmp_path, data=[source], model=DEMO)
    assert study.selection["initial_size"] == 0
    assert study.rounds == 120 // 5
    other = str(write_folder(tmp_path / "other"))
    with pytest.raises(ArgumentError, match=r"other has no train\.extxyz"):
        make_preset("reaction-natural", tmp_path, data=[source, other], model=DEMO)


def test_mistakes_are_named(tmp_path: Path) -> None:
    source = str(write_folder(tmp_path / "set"))
    with pytest.raises(ArgumentError, match="allowed are reaction-natural"):
        make_preset("natural", tmp_path, model=DEMO)
    with pytest.raises(ArgumentError, match="did you mean 'ntk-lcmd'"):
        make_preset("scratch", tmp_path, data=[source], model=DEMO, methods=["ntk-lcdm"])
    with pytest.raises(StudyError, match="device"):
        make_preset("scratch", tmp_path, data=[source], model={"path": "demo", "device": 3})
    with pytest.raises(ArgumentError, match="give a larger one"):
        make_preset("reaction-mixed", tmp_path, data=[source], model=DEMO)
    with pytest.raises(ArgumentError, match="methods is empty"):
        make_preset("scratch", tmp_path, data=[source], model=DEMO, methods=[])


def test_a_folder_of_a_models_name_is_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``labelwise demo`` makes a folder called demo, and the model is called so, too."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()
    study = make_preset("reaction-natural", tmp_path, model=DEMO, methods=["random"])
    assert study.model.path == "demo"
    cell = list_cells(study, tmp_path, tmp_path)[0]
    assert cell.config.model.path == "demo"
    assert find_model(tmp_path, "demo") == "demo"
    cell.directory.mkdir(parents=True)
    assert "model: demo" not in describe_inputs(cell.directory, cell.config)["files"]
