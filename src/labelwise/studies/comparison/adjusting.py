"""A study changed by hand: smaller or faster."""

from __future__ import annotations

import re
from typing import Any

from labelwise.errors import ArgumentError
from labelwise.finetuning.recipe import Recipe
from labelwise.studies.comparison.study import StudyConfig, check_study

#: What follows the @ of a file or pattern.
_SLICE = re.compile(r"-?\d*(:-?\d*){0,2}")
_USUAL_UPDATES = 1000
_FEWEST_VALIDATIONS = 5


def adjust_study(
    study: StudyConfig,
    *,
    n_updates: int | None = None,
    stride: int = 1,
) -> StudyConfig:
    """Return a study with other costs.

    What changes its costs is written into it, under ``changes``.

    Args:
        study: The study.
        n_updates: Updates a round, >= 1; validations become fewer in proportion to the papers'
            thousand updates, down to five. None leaves both as they are.
        stride: Keep every so many-th structure of each pool, >= 1.

    Raises:
        ArgumentError: A number out of range, an unknown word, or pools that are sliced already.
    """
    if (n_updates is not None and n_updates < 1) or stride < 1:
        raise ArgumentError(
            f"updates a round are {n_updates} and the stride {stride}; allowed are >= 1"
        )
    content: dict[str, Any] = study.model_dump(mode="json")
    finetune, changes = content["finetune"], content["changes"]
    if n_updates is not None:
        part = n_updates / _USUAL_UPDATES
        most = int(finetune.get("max_validations", Recipe().max_validations))
        finetune["max_updates"] = n_updates
        finetune["max_validations"] = max(min(_FEWEST_VALIDATIONS, most), round(part * most))
        changes.append(
            f"updates a round: {n_updates} at most, validated {finetune['max_validations']} times"
        )
    if stride > 1:
        for name, pool in content["pools"].items():
            pool["pool"] = [_thin(spec, stride, name) for spec in pool["pool"]]
        changes.append(f"pools: one structure in {stride}")
    return check_study(content)


def _thin(spec: str, stride: int, pool: str) -> str:
    _, at, ending = spec.rpartition("@")
    if at and _SLICE.fullmatch(ending):
        raise ArgumentError(
            f"the pool {pool} is sliced already ({spec}): change the slice in the study itself"
        )
    return f"{spec}@::{stride}"
