"""Saved models of mlip's are read without mlip, and without running what is in them."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labelwise.errors import PotentialError
from labelwise.potentials.mlip.architectures import ARCHITECTURES, find_architecture
from labelwise.potentials.mlip.archive import ModelArchive, is_archive, read_archive, write_archive

SETTINGS = {"config": {"correlation": 2, "add_atomic_energies": True}, "dataset_info": {}}


def write(path: Path, settings: Any, **arrays: Any) -> Path:
    content = io.BytesIO()
    np.savez(content, **arrays)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("hyperparams.json", json.dumps(settings))
        archive.writestr("params.npz", content.getvalue())
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    weights = {"layers_0/a/kernel": np.arange(6.0).reshape(2, 3), "b/w0_0_-1": np.zeros((0, 4))}
    path = tmp_path / "model.anything"
    with path.open("wb") as stream:
        write_archive(stream, ModelArchive(SETTINGS, weights))
    found = read_archive(path)
    assert is_archive(path)
    assert found.settings == SETTINGS
    assert found.weights.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(found.weights[name], weight)


def test_other_files_are_none(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(2)}, tmp_path / "torch.zip")
    (tmp_path / "text.zip").write_text("no archive")
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and nothing")
    for name in ("torch.zip", "text.zip", "cut.zip", "missing.zip"):
        assert not is_archive(tmp_path / name)


class Hostile:
    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (Path("was_run"),))


def test_objects_among_the_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path / "m.zip", SETTINGS, a=np.array([Hostile()], dtype=object))
    with pytest.raises(PotentialError, match="more than weights and plain values"):
        read_archive(path)
    assert not (tmp_path / "was_run").exists()


@pytest.mark.parametrize("settings", [[], {"config": {}}, {"config": 3, "dataset_info": {}}])
def test_settings_of_another_kind_are_refused(tmp_path: Path, settings: Any) -> None:
    with pytest.raises(PotentialError, match="is damaged"):
        read_archive(write(tmp_path / "m.zip", settings, a=np.zeros(2)))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"correlation": 2}, "saved by mlip 0.1"),
        ({"add_atomic_energies": True}, "settings of none of mlip's"),
        ({**SETTINGS["config"], "use_coulomb_term": True}, "second list of neighbours"),
        ({**SETTINGS["config"], "moe": {"num_experts": 2}}, "experts"),
    ],
)
def test_what_cannot_be_evaluated_is_told(config: dict[str, Any], message: str) -> None:
    with pytest.raises(PotentialError, match=message):
        find_architecture({"config": config})


@pytest.mark.parametrize("kind", ARCHITECTURES, ids=lambda kind: kind.name)
def test_networks_are_told_by_their_settings(kind: Any) -> None:
    assert find_architecture({"config": {kind.mark: 1, "add_atomic_energies": True}}) is kind
    table = f"{kind.table}/embedding"
    names = ["z/last", table, "a/first"]
    assert kind.list_weights("embedding", names) == [table]
    assert kind.list_weights("all", names) == sorted(names)
