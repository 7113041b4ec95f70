"""Compiled updates train the same weights, reproducibly, and refuse what they do not cover."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from ase import Atoms

from labelwise.errors import PotentialError
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.finetuning.training import finetune
from labelwise.potentials import Potential
from labelwise.potentials.mace.training.compiled import (
    CACHE_VARIABLE,
    _key,
    cache_folder,
    require_compilable,
)
from tests.finetuning.conftest import make_potential_of

RECIPE = Recipe(batch_size=3, learning_rate=0.01, max_updates=9, max_validations=2)


@pytest.mark.thorough
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
def test_compiled_updates_train_the_same_weights(
    student: Potential,
    train: list[Atoms],
    valid: list[Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    recipe = replace(RECIPE, compiled=True)
    train = train[:10]  # the last batch of an epoch is one structure
    compiled = finetune(student, train, valid, recipe, seed=0)
    code = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = finetune(student, train, valid, recipe, seed=0)
    eager = finetune(student, train, valid, RECIPE, seed=0)

    assert sorted(path.name.split("-")[0] for path in code) == ["prediction", "update"]
    assert code == {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    models = [require_trainable(fitted.potential).model for fitted in (compiled, again, eager)]
    ours, twice, theirs = (model.state_dict() for model in models)
    for name, weight in ours.items():
        assert torch.equal(weight, twice[name])
        torch.testing.assert_close(weight, theirs[name], rtol=1e-7, atol=1e-9)
    for a, b in zip(compiled.history, eager.history, strict=True):
        assert a.valid_loss is not None
        assert b.valid_loss is not None
        np.testing.assert_allclose(a.valid_loss, b.valid_loss, rtol=1e-8)


def test_a_cache_that_cannot_be_written_is_reported(
    student: Potential,
    train: list[Atoms],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "no folder").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "no folder"))
    with pytest.raises(PotentialError, match="set compiled to False"):
        finetune(student, train, [], replace(RECIPE, compiled=True), seed=0)


def test_vectors_are_refused() -> None:
    potential = require_trainable(make_potential_of(hidden_irreps="4x0e+4x1o"))
    with pytest.raises(PotentialError, match="set compiled to False"):
        require_compilable(potential)


def test_code_belongs_to_an_architecture_not_to_weights(student: Potential) -> None:
    own = require_trainable(student)
    other = require_trainable(student).copy().with_random_weights(5, scale=3.0)
    other.set_reference_energies(np.arange(3.0))
    assert _key(own) == _key(other)
    bigger = require_trainable(make_potential_of(correlation=3))
    single = require_trainable(make_potential_of(dtype=torch.float32))
    assert len({_key(own), _key(bigger), _key(single)}) == 3


def test_the_folder_of_compiled_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "labelwise"
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "elsewhere"))
    assert cache_folder() == tmp_path / "elsewhere"
