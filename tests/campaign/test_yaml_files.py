from __future__ import annotations

import codecs
import time
from pathlib import Path

import pytest
import yaml

from labelwise.campaign.config import read_config
from labelwise.campaign.errors import ConfigError
from labelwise.campaign.yaml_files import override, read_overrides, read_yaml
from labelwise.errors import ArgumentError
from labelwise.studies.comparison.study import read_study
from labelwise.studies.comparison.study_file import StudyError

NINE = "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}' if i else 'x'] * 9)}]\n" for i in range(10))


def write(tmp_path: Path, content: str | bytes) -> Path:
    path = tmp_path / "campaign.yaml"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (NINE, "more than 100,000 values"),
        (f"{NINE}data: {{pool: *a9}}\n", "more than 100,000 values"),
        ("a: &a {x: 1}\nb: &b {<<: *a, y: *a}\nb: 2\n", "the key 'b' is there twice"),
        ("a: &a [1, *a]\n", "an alias stands for what contains it"),
        ("a: " + "[" * 60 + "]" * 60, "more than 50 deep"),
        ("[" * 5000, "more than 50 deep"),
        ("- " * 5000, "more than 50 deep"),
        ("\n".join(f"{' ' * i}a:" for i in range(500)), "more than 50 deep"),
        ("a: 1\n# " + "x" * (1 << 20), "larger than 1,048,576 bytes"),
        ("? {a: 1}\n: 2\n", "a key must be a word or a number"),
        ("? [1, 2]\n: 2\n", "a key must be a word or a number"),
        ("a: 2026-13-45\n", "month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
        (b"a: \xff\n", "invalid start byte"),
        ("a: 1\n---\nb: 2\n", "expected a single document"),
    ],
)
def test_what_no_configuration_needs_is_refused_at_once(
    tmp_path: Path, content: str | bytes, said: str
) -> None:
    path = write(tmp_path, content)
    began = time.perf_counter()
    with pytest.raises(yaml.YAMLError, match=said):
        read_yaml(path)
    with pytest.raises(ConfigError, match=r"campaign.yaml cannot be read: "):
        read_config(tmp_path)
    with pytest.raises(StudyError, match=r"campaign.yaml cannot be read: "):
        read_study(path)
    assert time.perf_counter() - began < 5.0


@pytest.mark.parametrize(
    "content",
    [
        codecs.BOM_UTF8 + "seed: 7\nname: Å\n".encode(),
        "seed: 7\nname: Å\n".encode("utf-16"),
        "seed: 7\r\nname: Å\r\n",
        "seed: &s 7\nname: Å\nother: *s\n",
        "all: &all {seed: 7}\nname: Å\n<<: *all\n",
    ],
)
def test_what_people_and_their_editors_write(tmp_path: Path, content: str | bytes) -> None:
    found = read_yaml(write(tmp_path, content))
    assert (found["seed"], found["name"]) == (7, "Å")
    assert read_yaml(write(tmp_path, "# nothing\n")) is None


def test_a_list_of_mistakes_ends(tmp_path: Path) -> None:
    pool = "\n".join("  - {a: 1}" for _ in range(500))
    path = write(tmp_path, f"data:\n  pool:\n{pool}\n")
    with pytest.raises(ConfigError) as refused:
        read_config(tmp_path)
    assert len(str(refused.value).splitlines()) == 22
    assert "  and 482 more" in str(refused.value)
    path.write_text("pools:\n  p:\n    pool:\n" + pool.replace("  -", "    -") + "\n")
    with pytest.raises(StudyError) as wrong:
        read_study(path)
    assert len(str(wrong.value).splitlines()) == 22


def test_words_are_settings_as_in_the_file() -> None:
    words = ["finetune.learning_rate=1e-3", "seeds=[0, 1]", "stop.plateau=", "model.path=a=b.pt"]
    assert read_overrides(words) == {
        "finetune.learning_rate": "1e-3",  # YAML takes it for a word; the setting is a number
        "seeds": [0, 1],
        "stop.plateau": None,
        "model.path": "a=b.pt",
    }
    for word in ("finetune.lr", "=3", "a..b=1", "a b=1", "seeds=[1", "a={b: 1, b: 2}"):
        with pytest.raises(ArgumentError, match=r"is not a setting|has no value"):
            read_overrides([word])


def test_settings_are_changed_in_a_copy() -> None:
    content = {"stop": {"rounds": 3, "hours": 1.0}, "seed": 0}
    changed = override(content, {"stop.rounds": 5, "measure.energy_errors": "total"})
    assert changed["stop"] == {"rounds": 5, "hours": 1.0}
    assert changed["measure"] == {"energy_errors": "total"}
    assert content == {"stop": {"rounds": 3, "hours": 1.0}, "seed": 0}
    with pytest.raises(ArgumentError, match="seed has a value of its own"):
        override(content, {"seed.more": 1})
