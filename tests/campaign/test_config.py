from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from labelwise.campaign.config import CampaignConfig, read_config
from labelwise.campaign.errors import ConfigError
from labelwise.campaign.inputs import describe_inputs, digest_inputs, list_differences
from labelwise.campaign.labelling import CalculatorSettings
from labelwise.campaign.template import TEMPLATE, write_template
from labelwise.errors import WriteError
from labelwise.finetuning.recipe import Recipe
from tests.campaign.building import make_config, write_campaign, write_data


def read(tmp_path: Path, content: Any) -> CampaignConfig:
    text = content if isinstance(content, str) else yaml.safe_dump(content)
    (tmp_path / "campaign.yaml").write_text(text)
    return read_config(tmp_path)


def test_template_is_valid_and_names_the_defaults(tmp_path: Path) -> None:
    write_template(tmp_path)
    config = read_config(tmp_path)
    least = {
        "model": {"path": "demo"},
        "data": {
            "pool": ["pool.extxyz"],
            "train": ["train.extxyz"],
            "valid": {"files": ["valid.extxyz"]},
            "test": {"files": ["test.extxyz"]},
        },
        "labeller": {"kind": "replay"},
    }
    assert config == CampaignConfig.model_validate(least)
    assert config.finetune.recipe() == Recipe()
    with pytest.raises(WriteError, match="exists"):
        write_template(tmp_path)


def test_selections_take_the_options_of_force_tangents(tmp_path: Path) -> None:
    section = {
        "representation": "ntk-ef", "reduction": "moments", "n_probes": 4,
        "energy_weight": 0.75, "normalise": "none",
    }  # fmt: skip
    selection = read(tmp_path, make_config(tmp_path, selection=section)).selection
    settings = selection.settings(3, seed=1)
    assert {key: getattr(settings, key) for key in section} == section


def test_trust_is_no_input_whatever_an_older_version_noted(tmp_path: Path) -> None:
    write_data(tmp_path / "data", n_pool=4)
    files = tmp_path / "data"
    described = {}
    for trust in (False, True):
        directory = write_campaign(tmp_path / "c", files, model={"trust": trust})
        described[trust] = describe_inputs(directory, read_config(directory))
    older = {**described[False], "settings": {**described[False]["settings"], "model.trust": False}}
    assert digest_inputs(older) == digest_inputs(described[True])
    assert list_differences(older, described[True]) == []


@pytest.mark.parametrize("kind", ["calculator", "files"])
def test_the_other_labellers_of_the_template_are_valid(tmp_path: Path, kind: str) -> None:
    lines = TEMPLATE.splitlines()
    begin = lines.index(next(line for line in lines if line.startswith(f"  # kind: {kind}")))
    section = ["labeller:"]
    for line in lines[begin:]:
        if not line.startswith("  # "):
            break
        section.append(line.replace("# ", "", 1))
    config = {**make_config(tmp_path), "labeller": yaml.safe_load("\n".join(section))["labeller"]}
    assert read(tmp_path, config).labeller.kind == kind


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("selection", "batchsize"), 5, r"selection.batchsize: unknown key.* mean 'batch_size'"),
        (("finetune", "ema"), 5, r"finetune.ema: unknown key"),
        (("labeller", "time_limit"), 5, r"labeller.time_limit: unknown key; did you mean"),
        (("data", "test", "file"), ["a"], r"data.test.file: unknown key; did you mean 'files'"),
        (("nonsense",), 1, "nonsense: unknown key"),
        (("selection", "rule"), "best", r"rule is 'best'; allowed are joint-pv, k-center"),
        (("selection", "representation"), "soup", "soup"),
        (("selection", "normalise"), "unit", "selection.normalise: .*'cosine' or 'none'"),
        (("selection", "n_probes"), 0, "selection.n_probes: .*greater than .* 1"),
        (("selection", "energy_weight"), 1.5, "selection.energy_weight: .*less than .* 1"),
        (("selection",), {"batch_size": 3, "representation": "ntk-f", "reduction": "mean"},
         "selection.reduction: Input should be 'rms', .* 'moments'"),
        (("selection", "batch_size"), 0, r"selection.batch_size: .*greater than .* 1.*got 0"),
        (("selection", "shortlist"), 1, "shortlist is 1, below the 3"),
        (("labeller", "kind"), "dft", "labeller"),
        (("data", "valid"), {"fraction": 0.1, "from_pool": 3}, "give one of files, fraction"),
        (("data", "train"), [], "nothing to begin with"),
        (("finetune", "learning_rate"), -1.0, "finetune.learning_rate: .*greater than 0"),
        (("finetune", "block_rates"), "readout", "finetune.block_rates: .*give BLOCK=NUMBER"),
        (("finetune", "lora_alpha"), 2.0, "lora_alpha is 2, but lora_rank is not given"),
        (("finetune", "lora_rank"), 0, "finetune.lora_rank: .*greater than .* 1"),
        (("finetune", "train_block"), "readout", "did you mean 'train_blocks'"),
        (("stop", "target"), {"force_rmse": 1.0}, r"stop.target"),
        (("seed",), "many", "seed: .*got 'many'"),
    ],
)  # fmt: skip
def test_mistakes_are_named(
    tmp_path: Path, path: tuple[str, ...], value: Any, message: str
) -> None:
    config = make_config(tmp_path)
    section = config
    for key in path[:-1]:
        section = section[key]
    section[path[-1]] = value
    with pytest.raises(ConfigError, match=message):
        read(tmp_path, config)


def test_every_mistake_is_listed(tmp_path: Path) -> None:
    config = make_config(tmp_path, selection={"batch_size": 0}, stop={"hours": -1})
    with pytest.raises(ConfigError, match=r"2 mistakes:\n  selection.batch_size.*\n  stop.hours"):
        read(tmp_path, config)


def test_files_that_are_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"does not exist.*init"):
        read_config(tmp_path)
    for text in ("a: [", "", "just words", "seed: 1\nseed: 2\n"):
        with pytest.raises(ConfigError, match=r"campaign.yaml (cannot be read|holds no settings)"):
            read(tmp_path, text)


def test_numbers_that_yaml_takes_for_words(tmp_path: Path) -> None:
    text = yaml.safe_dump(make_config(tmp_path)) + "\n"
    text = text.replace("finetune:", "finetune:\n  learning_rate: 1e-3")
    assert read(tmp_path, text).finetune.learning_rate == 1e-3


def test_what_may_change_freely(tmp_path: Path) -> None:
    labeller = {"kind": "calculator", "calculator": "emt", "n_workers": 2, "n_retries": 1}
    config = read(tmp_path, make_config(tmp_path, labeller=labeller))
    assert isinstance(config.labeller, CalculatorSettings)
    keys = config.result_keys()
    assert keys["labeller.calculator"] == "emt"
    assert keys["labeller.n_retries"] == 1
    assert not [key for key in keys if key.startswith("stop") or key.endswith("n_workers")]


def test_blocks_are_written_as_lists_or_as_on_the_command_line(tmp_path: Path) -> None:
    words = {"train_blocks": "products, readout", "block_rates": "readout=0.5"}
    listed = {"train_blocks": ["products", "readout"], "block_rates": {"readout": 0.5}}
    recipes = [
        read(tmp_path, make_config(tmp_path, finetune=section)).finetune.recipe()
        for section in (words, listed)
    ]
    assert recipes[0] == recipes[1]
    assert recipes[0].train_blocks == ("products", "readout")


def test_a_campaign_begun_before_blocks_could_be_chosen_goes_on(tmp_path: Path) -> None:
    """Settings that are at what was done before are not among what may not change."""
    keys = read(tmp_path, make_config(tmp_path)).result_keys()
    assert not [key for key in keys if any(each in key for each in ("block", "lora", "anchor"))]
    assert "finetune.weight_decay" not in keys
    changed = make_config(tmp_path, finetune={"lora_rank": 2, "train_blocks": "readout"})
    found = read(tmp_path, changed).result_keys()
    assert {key: found[key] for key in found.keys() - keys.keys()} == {
        "finetune.lora_rank": 2,
        "finetune.train_blocks": ["readout"],
    }


def test_members_from_scratch_have_no_low_rank_changes(tmp_path: Path) -> None:
    selection = {"rule": "committee-e", "diversity": "scratch"}
    config = make_config(tmp_path, selection=selection, finetune={"lora_rank": 2})
    with pytest.raises(ConfigError, match="lora_rank and anchor are for pretrained weights"):
        read(tmp_path, config)
