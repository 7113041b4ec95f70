"""The labellers by kind, and what the section ``labeller`` of ``campaign.yaml`` may say of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from labelwise.campaign.labelling.base import Labeller, Task
from labelwise.campaign.labelling.checks import MAX_ENERGY_DEVIATION, MAX_FORCE
from labelwise.errors import ArgumentError, check_name
from labelwise.runtime.plugins import load_plugins


class LabellerSettings(BaseModel):
    """What every labeller has: when a label is not believed. Others add fields of their own.

    Attributes:
        kind: Which labeller.
        max_force: Largest force component, eV/Å.
        max_energy_deviation: Largest deviation from what the composition lets expect,
            eV/atom.
        max_failures_in_a_row: So many failures without a label between them stop the run,
            because the calculation as such must be wrong; None for max(20, 2 batches).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str
    max_force: float = Field(default=MAX_FORCE, gt=0.0)
    max_energy_deviation: float = Field(default=MAX_ENERGY_DEVIATION, gt=0.0)
    max_failures_in_a_row: int | None = Field(default=None, ge=1)


@dataclass(frozen=True)
class LabellingRound:
    """What a labeller is made for.

    Attributes:
        directory: The campaign's folder.
        folder: That of the round under way.
        done: Structures of the round that have their outcome already.
        energy_key: Info key of the pool's total energies, eV.
        forces_key: Array key of the pool's forces, eV/Å.
    """

    directory: Path
    folder: Path
    done: list[Task]
    energy_key: str
    forces_key: str


MakeLabeller: TypeAlias = Callable[[Any, LabellingRound], Labeller]

_KINDS: dict[str, tuple[type[LabellerSettings], MakeLabeller]] = {}


def register_labeller(
    kind: str, make: MakeLabeller, settings: type[LabellerSettings] = LabellerSettings
) -> None:
    """Offer a labeller to campaigns under ``labeller: {kind: ...}``.

    Args:
        kind: A name that is not taken.
        make: ``make(settings, round) -> Labeller``, called once a round.
        settings: What ``campaign.yaml`` may say of it.

    Raises:
        ArgumentError: The name is taken.
    """
    if kind in _KINDS:
        raise ArgumentError(f"the labeller {kind!r} exists already: choose another name")
    _KINDS[kind] = (settings, make)


def parse_settings(section: LabellerSettings | Mapping[str, Any]) -> LabellerSettings:
    """Return the settings that a section of ``campaign.yaml`` holds.

    Raises:
        ArgumentError: Its kind is missing or unknown.
        pydantic.ValidationError: A key or a value is not one of that kind.
    """
    if isinstance(section, LabellerSettings):
        return section
    kind = section.get("kind") if isinstance(section, Mapping) else None
    if kind not in _KINDS:
        check_name("kind", str(kind), list_labellers())
    return _KINDS[str(kind)][0].model_validate(section)


def list_labellers() -> list[str]:
    """Return the kinds of labellers, sorted, those of plugins too."""
    load_plugins()
    return sorted(_KINDS)


def settings_keys() -> set[str]:
    """Return all keys that a labeller of any kind may have in ``campaign.yaml``."""
    return {key for settings, _ in _KINDS.values() for key in settings.model_fields}


def make_labeller(settings: LabellerSettings, where: LabellingRound) -> Labeller:
    """Make the labeller that settings describe, for one round.

    Raises:
        ArgumentError: A setting is out of range.
    """
    return _KINDS[settings.kind][1](settings, where)
