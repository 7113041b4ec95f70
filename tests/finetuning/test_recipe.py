from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labelwise.errors import ArgumentError
from labelwise.finetuning.recipe import Recipe, resolve_schedule
from labelwise.finetuning.weight_options import parse_rates


@pytest.mark.parametrize(
    ("n", "batch_size", "learning_rate", "n_epochs"),
    [
        (1, 1, 1e-3, 1000),
        (10, 1, 1e-3, 100),
        (20, 1, 1e-3, 50),
        (21, 2, 5e-3, 96),
        (100, 2, 5e-3, 20),
        (101, 4, 5e-3, 40),
        (110, 4, 5e-3, 37),
        (5000, 4, 5e-3, 10),
    ],
)
def test_reaction_paths_is_the_papers_schedule(
    n: int, batch_size: int, learning_rate: float, n_epochs: int
) -> None:
    schedule = resolve_schedule(Recipe(), n)
    assert (schedule.batch_size, schedule.learning_rate) == (batch_size, learning_rate)
    assert schedule.n_epochs == n_epochs
    assert schedule.n_updates == n_epochs * math.ceil(n / batch_size)


def test_fixed_is_the_papers_other_schedule() -> None:
    schedule = resolve_schedule(Recipe(schedule="fixed"), 40)
    assert (schedule.batch_size, schedule.learning_rate, schedule.n_epochs) == (16, 0.01, 50)
    assert (schedule.updates_per_epoch, schedule.n_updates) == (3, 150)


@given(st.integers(1, 400))
def test_a_round_is_about_a_thousand_updates_up_to_400(n: int) -> None:
    schedule = resolve_schedule(Recipe(), n)
    per_epoch = n / schedule.batch_size
    assert 1000 <= schedule.n_updates < (1000 / per_epoch + 1) * (per_epoch + 1)


def test_settings_overrule_the_schedule() -> None:
    recipe = Recipe(batch_size=3, learning_rate=0.1, epochs=7, max_updates=10)
    schedule = resolve_schedule(recipe, 10)
    assert (schedule.batch_size, schedule.learning_rate) == (3, 0.1)
    assert (schedule.n_updates, schedule.updates_per_epoch, schedule.n_epochs) == (10, 4, 3)


def test_the_batch_size_given_counts_in_the_number_of_epochs() -> None:
    assert resolve_schedule(Recipe(batch_size=5), 50).n_epochs == 100


@pytest.mark.parametrize(
    "settings",
    [
        {"schedule": "fast"},
        {"start": "random"},
        {"annealing": "cosine"},
        {"reference_energies": "guess"},
        {"reference_energies": "given"},
        {"given_energies": {1: -1.0}},
        {"batch_size": 0},
        {"epochs": -1},
        {"learning_rate": 0.0},
        {"learning_rate": math.inf},
        {"huber_delta": -0.01},
        {"clip_norm": 0.0},
        {"energy_weight": -1.0},
        {"energy_weight": 0.0, "forces_weight": 0.0},
        {"ema_decay": 1.0},
        {"max_validations": 0},
        {"max_backoffs": -1},
        {"reference_regularisation": -1.0},
        {"early_stop_patience": 0},
        {"train_blocks": ()},
        {"train_blocks": "readout"},
        {"train_blocks": ("readout", "readout")},
        {"train_blocks": ("all", "readout")},
        {"block_rates": {"all": 0.5}},
        {"block_rates": {"readout": 0.0}},
        {"block_rates": {"readout": 1.0}, "train_blocks": ("products",)},
        {"lora_rank": 0},
        {"lora_rank": 2, "start": "scratch"},
        {"lora_alpha": 1.0},
        {"lora_alpha": 0.0, "lora_rank": 1},
        {"anchor": "l1"},
        {"anchor": "l2", "start": "scratch"},
        {"anchor_weight": 1.0},
        {"anchor_weight": 0.0, "anchor": "l2"},
        {"weight_decay": -1.0},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=next(iter(settings))):
        Recipe(**settings)


@pytest.mark.parametrize("text", ["readout", "readout=", "=1", "readout=x", "readout=1,readout=2"])
def test_rates_that_are_none(text: str) -> None:
    with pytest.raises(ArgumentError, match="give BLOCK=NUMBER"):
        parse_rates(text)


def test_no_structures_no_schedule() -> None:
    with pytest.raises(ArgumentError, match="n_train is 0"):
        resolve_schedule(Recipe(), 0)
