"""``study.yaml``: what is refused, what methods' names mean, which campaigns come of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from labelwise.errors import ArgumentError
from labelwise.studies.comparison.methods import METHODS, get_method, name_method
from labelwise.studies.comparison.study import (
    check_study,
    dump_study,
    list_cells,
    override_study,
    read_study,
)
from labelwise.studies.comparison.study_file import StudyError


def content(**changes: Any) -> dict[str, Any]:
    pool = {"pool": ["a.extxyz"], "valid": {"files": ["v.extxyz"]}, "test": {"files": ["t.extxyz"]}}
    study = {
        "model": {"path": "demo"},
        "pools": {"a": pool, "b": {**pool, "pool": ["/data/b.extxyz"]}},
        "methods": ["random", "ntk-pv", "committee-e-scratch"],
        "seeds": [0, 4],
        "selection": {"initial_size": 10, "batch_size": 2},
        "finetune": {"max_updates": 7},
        "rounds": 3,
    }
    return {**study, **changes}


def test_cells_are_all_methods_pools_and_seeds() -> None:
    cells = list_cells(check_study(content()), Path("out"), Path())
    assert len({cell.key for cell in cells}) == len(cells) == 3 * 2 * 2
    assert len({cell.directory for cell in cells}) == len(cells)
    for cell in cells:
        config = cell.config
        assert cell.n_rounds == 4
        assert config.seed == cell.key.seed
        assert config.labeller.kind == "replay"
        assert config.selection.batch_size == 2
        assert config.finetune.max_updates == 7
        is_scratch = cell.key.method == "committee-e-scratch"
        assert config.finetune.start == ("scratch" if is_scratch else "pretrained")
        assert (config.selection.diversity == "scratch") == is_scratch


def test_relative_paths_begin_at_the_study_and_stay_relative(tmp_path: Path) -> None:
    base, folder = tmp_path / "study", tmp_path / "runs"
    base.mkdir()
    (base / "my.model").touch()
    cells = list_cells(check_study(content(model={"path": "my.model"})), folder, base)
    first = next(cell for cell in cells if cell.key.pool == "a")
    (path,) = first.config.data.pool
    assert not Path(path).is_absolute()
    assert (first.directory / path).resolve() == (base / "a.extxyz").resolve()
    assert (first.directory / first.config.model.path).resolve() == (base / "my.model").resolve()
    other = next(cell for cell in cells if cell.key.pool == "b")
    assert other.config.data.pool == ["/data/b.extxyz"]


def test_a_study_survives_being_written_and_read(tmp_path: Path) -> None:
    study = check_study(content())
    path = tmp_path / "study.yaml"
    path.write_text(dump_study(study), encoding="utf-8")
    assert read_study(path) == study
    written = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert written["stop"] == {"rounds": 3}
    assert written["data"]["energy_key"] == "REF_energy"
    assert written["measure"] == {"fixed_forces": "count", "energy_errors": "total"}


def test_a_method_of_ones_own() -> None:
    own = {"rule": "k-center", "representation": "ntk-e", "finetune": {"ema_decay": None}}
    study = check_study(content(methods={"random": None, "mine": own}))
    cell = next(c for c in list_cells(study, Path("o"), Path()) if c.key.method == "mine")
    assert cell.config.selection.rule == "k-center"
    assert cell.config.finetune.ema_decay is None
    assert cell.config.finetune.max_updates == 7


def test_methods_that_differ_in_what_they_train() -> None:
    shared = {"rule": "lcmd", "representation": "ntk-e"}
    methods = {
        "all": shared,
        "readout": {**shared, "finetune": {"train_blocks": "readout", "anchor": "ewc"}},
        "lora": {**shared, "finetune": {"lora_rank": 4, "block_rates": {"readout": 0.1}}},
    }
    shared_recipe = {"weight_decay": 0.01}
    study = check_study(content(methods=methods, reference="all", finetune=shared_recipe))
    recipes = {
        cell.key.method: cell.config.finetune.recipe()
        for cell in list_cells(study, Path("o"), Path())
    }
    assert all(recipe.weight_decay == 0.01 for recipe in recipes.values())
    assert recipes["all"].trains_everything
    assert (recipes["readout"].train_blocks, recipes["readout"].anchor) == (("readout",), "ewc")
    assert (recipes["lora"].lora_rank, recipes["lora"].rates) == (4, {"readout": 0.1})


def test_methods_get_what_is_for_them() -> None:
    """A head for what is replayed is not for new weights, a target not for other rules."""
    methods = ["ntk-target", "ntk-pv", "ntk-pv-scratch"]
    changes = content(methods=methods, reference="ntk-pv")
    changes["finetune"] = {"replay_head": "pt_head"}
    changes["pools"] = {"a": {**changes["pools"]["a"], "target": ["t.extxyz"]}}
    cells = list_cells(check_study(changes), Path("o"), Path())
    configs = {cell.key.method: cell.config for cell in cells}
    heads = [configs[name].finetune.replay_head for name in methods]
    assert heads == ["pt_head", "pt_head", None]
    assert [bool(configs[name].data.target) for name in methods] == [True, False, False]


def test_methods_take_options_and_are_named_by_them() -> None:
    own = {"kernel": "ntk-ef", "rule": "lcmd", "energy_weight": 0.3, "n_probes": None}
    scratch = {"kernel": "tanimoto", "rule": "pv", "finetune": {"start": "scratch"}}
    study = check_study(content(methods=["random", own, scratch]))
    names = ["random", "ntk-ef-lcmd+energy_weight0.3+n_probesNone", "tanimoto-pv-scratch"]
    assert list(study.methods) == names
    configs = {cell.key.method: cell.config for cell in list_cells(study, Path("o"), Path())}
    selection = configs[names[1]].selection
    assert (selection.representation, selection.rule) == ("ntk-ef", "lcmd")
    assert (selection.energy_weight, selection.n_probes, selection.batch_size) == (0.3, None, 2)
    assert configs[names[2]].selection.representation == "morgan"
    assert configs[names[2]].finetune.start == "scratch"
    mine = check_study(content(methods={"random": None, "mine": own}))
    assert mine.methods["mine"] == study.methods[names[1]]
    assert name_method({"rule": "committee-f", "members": 5}) == "committee-f+members5"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ["random", {"kernel": "ntk", "rule": "pv", "weight": 1}]}, "weight"),
        ({"methods": ["random", {"kernel": "ntk", "representation": "ntk-e"}]}, "are the same"),
        ({"methods": ["random", "random"]}, "random is there twice"),
        ({"methods": ["random", {"kernel": ["ntk"], "rule": "lcmd"}]}, "kernel is .*one word"),
        ({"methods": [{"kernel": "ntk", "rule": "lcmd", "finetune": 3}]}, "finetune is 3; give"),
        ({"methods": 3}, "methods"),
        ({"methods": ["random", "ntk-pvv"]}, "did you mean 'ntk-pv'"),
        ({"methods": ["ntk-pv"]}, "reference is 'random'"),
        ({"methods": {"random": None, "x": {"rule": "nope"}}}, "rule is 'nope'"),
        ({"methods": {"random": None, "a/b": {"rule": "pv"}}}, "becomes a folder"),
        ({"seeds": [1, 1]}, "twice"),
        ({"seeds": [-1]}, ">= 0"),
        ({"rounds": 0}, "rounds"),
        ({"pools": {}}, "pools"),
        ({"finetune": {"max_update": 3}}, "max_update"),
        ({"selection": {"batchsize": 3}}, "batchsize"),
        ({"nonsense": 1}, "nonsense"),
    ],
)
def test_mistakes_are_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError, match=words):
        check_study(content(**changes))


def test_a_missing_or_broken_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="does not exist"):
        read_study(tmp_path / "study.yaml")
    path = tmp_path / "broken.yaml"
    path.write_text("methods: [a, b", encoding="utf-8")
    with pytest.raises(StudyError, match="cannot be read"):
        read_study(path)
    path.write_text("- 3", encoding="utf-8")
    with pytest.raises(StudyError, match="holds no settings"):
        read_study(path)


def test_every_named_method_makes_a_campaign() -> None:
    for name in METHODS:
        for ending in ("", "-scratch"):
            check_study(content(methods=list(dict.fromkeys(["random", f"{name}{ending}"]))))
    assert get_method("tanimoto-pv")["representation"] == "morgan"
    with pytest.raises(ArgumentError, match="unknown"):
        get_method("qqqq")


def test_a_study_takes_the_keys_of_a_campaign() -> None:
    flat = {
        "energy_key": "E",
        "forces_key": "F",
        "split_key": "set",
        "fixed_forces": "exclude",
        "energy_errors": "per-atom",
    }
    nested = {
        "data": {"energy_key": "E", "forces_key": "F", "test": {"split_key": "set"}},
        "measure": {"fixed_forces": "exclude", "energy_errors": "per-atom"},
        "stop": {"rounds": 3},
    }
    both = content(**flat)
    without = content()
    del without["rounds"]
    assert check_study({**without, **nested}) == check_study(both)
    with pytest.raises(StudyError, match=r"stop.rounds and rounds are the same"):
        check_study(content(stop={"rounds": 4}))
    with pytest.raises(StudyError, match="stop: unknown key"):
        check_study({**without, "stop": {"labels": 4}})


def test_settings_of_a_study_can_be_overridden() -> None:
    study = check_study(content())
    changes = {"stop.rounds": 5, "seeds": [3], "finetune.max_updates": 9, "model.device": "cpu"}
    changed = override_study(study, changes)
    assert (changed.rounds, changed.seeds, changed.model.device) == (5, [3], "cpu")
    assert all(
        cell.config.finetune.max_updates == 9 for cell in list_cells(changed, Path(), Path())
    )
    assert override_study(study, {}) == study
    with pytest.raises(StudyError, match="seed: unknown key; did you mean 'seeds'"):
        override_study(study, {"seed": 3})
