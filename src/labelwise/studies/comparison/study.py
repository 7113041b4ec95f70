"""``study.yaml``: methods × pools × seeds, and the campaigns that they come to."""

from __future__ import annotations

import copy
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from labelwise.campaign.config import (
    COMMITTEE_RULES,
    CampaignConfig,
    HeldOut,
    ModelSection,
    PretrainingFiles,
    describe_mistakes,
)
from labelwise.campaign.yaml_files import override
from labelwise.errors import LabelwiseError
from labelwise.finetuning.recipe import EnergyErrors, FixedForces
from labelwise.potentials.spec import split_family
from labelwise.selection.rules import get_rule, list_rules
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
)
from labelwise.studies.comparison.methods import spell_out
from labelwise.studies.comparison.results import CellKey
from labelwise.studies.comparison.study_file import StudyError, read_study_settings

CELLS = "cells"
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
#: Keys of a method that are not those of a campaign's ``selection``.
_NOT_SELECTION = ("finetune",)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


#: Keys as in ``campaign.yaml``, and the shorter names that a study has for them and takes, too.
CAMPAIGN_KEYS = {
    "data.energy_key": "energy_key",
    "data.forces_key": "forces_key",
    "data.stress_key": "stress_key",
    "data.partial_labels": "partial_labels",
    "data.test.split_key": "split_key",
    "measure.fixed_forces": "fixed_forces",
    "measure.energy_errors": "energy_errors",
    "stop.rounds": "rounds",
}


class PoolSection(_Section):
    """One pool and its held-out sets; the keys are those of a campaign's ``data``.

    Attributes:
        target: The structures that matter, for methods whose rule takes a target.
    """

    pool: list[str] = Field(min_length=1)
    train: list[str] = []
    valid: HeldOut = HeldOut()
    test: HeldOut = HeldOut()
    replay: PretrainingFiles = PretrainingFiles()
    retain: PretrainingFiles = PretrainingFiles()
    target: list[str] = []
    isolated_atoms: str | None = None


class StudyConfig(_Section):
    """All of ``study.yaml``.

    Attributes:
        title: Heading of the results.
        model: The pretrained model, as in ``campaign.yaml``.
        pools: Name to files. Relative paths begin at the study's folder.
        methods: Names that ``METHODS`` knows, or settings: ``kernel``, ``rule`` and any other
            keys of ``selection``, under ``finetune`` those of fine-tuning; see ``spell_out``.
        seeds: A campaign of each method and pool is run with each of them.
        reference: The method that others are held against.
        energy_key, forces_key, stress_key: Keys of the labels.
        partial_labels: Whether training files may have energies alone or forces alone.
        split_key: Info key that names the split of each test structure; tables then hold each
            split on its own, too. None for one test set.
        fixed_forces: ``exclude`` leaves the forces of fixed atoms out of all errors.
        energy_errors: ``per-atom`` makes tables and pictures of energy errors in meV/atom, for
            structures of different sizes; ``total``, the papers' way, in meV.
        selection: What all methods share: ``batch_size``, ``initial_size`` and so on.
        finetune: What all campaigns share, as in ``campaign.yaml``.
        rounds: Rounds after round 0.
        origin: What a preset made this study from; a record that nothing is computed from.
        changes: What ``--budget`` changed, in words.
    """

    title: str = "Comparison"
    model: ModelSection
    pools: dict[str, PoolSection] = Field(min_length=1)
    methods: dict[str, dict[str, Any]] = Field(min_length=1)
    seeds: list[int] = Field(default=[0, 1], min_length=1)
    reference: str = "random"
    energy_key: str = DEFAULT_ENERGY_KEY
    forces_key: str = DEFAULT_FORCES_KEY
    stress_key: str | None = DEFAULT_STRESS_KEY
    partial_labels: bool = False
    split_key: str | None = None
    fixed_forces: FixedForces = "count"
    energy_errors: EnergyErrors = "total"
    selection: dict[str, Any] = {}
    finetune: dict[str, Any] = {}
    rounds: int = Field(default=10, ge=1)
    origin: dict[str, Any] = {}
    changes: list[str] = []

    @model_validator(mode="before")
    @classmethod
    def _take_campaign_keys(cls, content: Any) -> Any:
        """Take the keys of a campaign for those of a study."""
        if not isinstance(content, dict):
            return content
        content = copy.deepcopy(content)
        for key, name in CAMPAIGN_KEYS.items():
            *above, last = key.split(".")
            sections = [content]
            for part in above:
                below = sections[-1].get(part)
                sections.append(below if isinstance(below, dict) else {})
            if last in sections[-1]:
                if name in content:
                    raise ValueError(f"{key} and {name} are the same: leave one of them out")
                content[name] = sections[-1].pop(last)
            for part, section in zip(reversed(above), reversed(sections[:-1]), strict=True):
                if section.get(part) == {}:
                    del section[part]
        return content

    @model_validator(mode="before")
    @classmethod
    def _spell_out_methods(cls, content: Any) -> Any:
        """Give every method a name and its settings."""
        if not isinstance(content, dict) or "methods" not in content:
            return content
        return {**content, "methods": spell_out(content["methods"])}

    @model_validator(mode="after")
    def _possible(self) -> StudyConfig:
        for kind, names in (("pool", self.pools), ("method", self.methods)):
            for name in names:
                if not _NAME.fullmatch(name):
                    raise ValueError(
                        f"the {kind} {name!r} becomes a folder: use letters, digits and ._+-"
                    )
        if len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds are {self.seeds}: one is there twice")
        if any(seed < 0 for seed in self.seeds):
            raise ValueError(f"seeds are {self.seeds}; allowed are integers >= 0")
        if self.reference not in self.methods:
            raise ValueError(
                f"reference is {self.reference!r}, which is none of the methods "
                f"({', '.join(self.methods)})"
            )
        return self


@dataclass(frozen=True)
class Cell:
    """One campaign of a study.

    Attributes:
        key: Pool, method and seed.
        directory: Of the campaign.
        config: Its ``campaign.yaml``.
    """

    key: CellKey
    directory: Path
    config: CampaignConfig

    @property
    def n_rounds(self) -> int:
        """Rounds that it comes to, round 0 included."""
        return (self.config.stop.rounds or 0) + 1


def read_study(path: Path) -> StudyConfig:
    """Read a study's configuration.

    Args:
        path: The file.

    Raises:
        StudyError: It is missing, not YAML, or has an unknown key or a wrong value; the
            message names every one.
    """
    content = read_study_settings(path)
    return check_study(content, where=str(path))


def check_study(content: dict[str, Any], *, where: str = "the study") -> StudyConfig:
    """Make a study of plain data.

    Raises:
        StudyError: An unknown key or a wrong value; the message names every one.
    """
    try:
        study = StudyConfig.model_validate(content)
    except ValidationError as error:
        raise StudyError(describe_mistakes(error, StudyConfig, where)) from error
    except LabelwiseError as error:
        raise StudyError(f"{where}: {error}") from error
    for cell in list_cells(study, Path(), Path()):  # a wrong method shows before any is run
        del cell
    return study


def override_study(study: StudyConfig, changes: Mapping[str, Any]) -> StudyConfig:
    """Return a study with some settings changed, by dotted key of a study or of a campaign.

    Raises:
        StudyError: An unknown key or a wrong value.
    """
    if not changes:
        return study
    own = {CAMPAIGN_KEYS.get(key, key): value for key, value in changes.items()}
    return check_study(override(study.model_dump(mode="json"), own))


def dump_study(study: StudyConfig) -> str:
    """Return a study as YAML with the keys of ``campaign.yaml``, everything spelt out."""
    content = study.model_dump(mode="json")
    nested = {key: content.pop(name) for key, name in CAMPAIGN_KEYS.items()}
    return yaml.safe_dump(override(content, nested), sort_keys=False, allow_unicode=True)


def list_cells(study: StudyConfig, folder: Path, base: Path) -> list[Cell]:
    """Return the campaigns of a study, those of one method together, pools and seeds within.

    Args:
        study: The study.
        folder: Where ``cells`` goes.
        base: Where relative paths of the study begin.

    Raises:
        StudyError: The settings of a method do not make a campaign.
    """
    return list(_iter_cells(study, folder, base))


def _iter_cells(study: StudyConfig, folder: Path, base: Path) -> Iterator[Cell]:
    for method in study.methods:
        for pool in study.pools:
            for seed in study.seeds:
                key = CellKey(pool, method, seed)
                directory = folder / CELLS / pool / method / f"seed_{seed}"
                yield Cell(key, directory, _configure(study, key, directory, base))


def _configure(study: StudyConfig, key: CellKey, directory: Path, base: Path) -> CampaignConfig:
    method = study.methods[key.method]
    selection = {name: value for name, value in method.items() if name not in _NOT_SELECTION}
    data = _move_paths(study.pools[key.pool].model_dump(), base, directory)
    model = study.model.model_dump()
    family, path = split_family(study.model.path)
    if (base / path).is_file():
        moved = _move(path, base, directory)
        model["path"] = moved if family is None else f"{family}:{moved}"
    data["test"]["split_key"] = study.split_key
    rule = str(selection.get("rule", study.selection.get("rule")))
    if rule in COMMITTEE_RULES or rule not in list_rules() or not get_rule(rule).takes_target:
        data["target"] = []
    finetune = {**study.finetune, **method.get("finetune", {})}
    if finetune.get("start") == "scratch":  # which has nothing to replay
        finetune.pop("replay_head", None)
    content = {
        "seed": key.seed,
        "model": model,
        "data": {
            **data,
            "energy_key": study.energy_key,
            "forces_key": study.forces_key,
            "stress_key": study.stress_key,
            "partial_labels": study.partial_labels,
        },
        "selection": {**study.selection, **selection},
        "labeller": {"kind": "replay"},
        "finetune": finetune,
        "measure": {"fixed_forces": study.fixed_forces, "energy_errors": study.energy_errors},
        "stop": {"rounds": study.rounds},
    }
    try:
        return CampaignConfig.model_validate(content)
    except ValidationError as error:
        where = f"method {key.method!r}"
        raise StudyError(describe_mistakes(error, CampaignConfig, where)) from error


def _move_paths(data: dict[str, Any], base: Path, directory: Path) -> dict[str, Any]:
    """Return a pool's section with paths that begin at the campaign."""
    moved = dict(data)
    for role in ("pool", "train", "target"):
        moved[role] = [_move(spec, base, directory) for spec in data[role]]
    for role in ("valid", "test", "replay", "retain"):
        files = [_move(spec, base, directory) for spec in data[role]["files"]]
        moved[role] = {**data[role], "files": files}
    if data["isolated_atoms"] is not None:
        moved["isolated_atoms"] = _move(data["isolated_atoms"], base, directory)
    return moved


def _move(spec: str, base: Path, directory: Path) -> str:
    """Return a path as seen from a campaign: relative if it was, so that the whole may move."""
    if Path(spec).is_absolute():
        return spec
    return os.path.relpath(base / spec, directory)
