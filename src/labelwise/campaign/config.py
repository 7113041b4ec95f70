"""``campaign.yaml``: what a user may set, checked before anything is computed."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Literal,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    create_model,
    model_validator,
)

from labelwise.campaign.errors import ConfigError
from labelwise.campaign.labelling.base import (
    MACHINE_KEYS,
    LabellerSettings,
    parse_settings,
    settings_keys,
)
from labelwise.campaign.yaml_files import CONFIG_FILE, override, read_campaign_settings
from labelwise.errors import check_name
from labelwise.finetuning.recipe import EnergyErrors, FixedForces, PretrainingLabels, Recipe
from labelwise.finetuning.weight_options import EVERYTHING, WeightOptions
from labelwise.potentials.spec import ModelSpec
from labelwise.runtime.settings import Setting, list_settings
from labelwise.selection.options import SelectionOptions
from labelwise.structures.labels import (
    DEFAULT_ENERGY_KEY,
    DEFAULT_FORCES_KEY,
    DEFAULT_STRESS_KEY,
)

if TYPE_CHECKING:
    from labelwise.selection.settings import AcquisitionSettings

#: So many mistakes of a configuration are listed.
MOST_MISTAKES = 20
#: Rules that look at the disagreement of fine-tuned models, not at a representation.
COMMITTEE_RULES = ("committee-e", "committee-f")
#: Context of a validation that asks no rule, which would load torch.
KEYS_ALONE = "keys alone"
#: What may change without another result: when to stop, whether a file may run code, and the
#: machine's side of it.
FREE_KEYS = (
    "stop",
    "model.trust",
    *(f"labeller.{key}" for key in MACHINE_KEYS),
    "measure.energy_errors",
)
#: Younger settings: a campaign that was begun before them did what these values say.
_FORMER: dict[str, Any] = {
    "data.test.split_key": None,
    "labeller.level": None,
    "measure.fixed_forces": "count",
    "finetune.loss_fixed_forces": "count",
    "finetune.replay_weight": 1.0,
    "finetune.replay_head": None,
    "data.replay.files": [],
    "data.replay.labels": "file",
    "data.retain.files": [],
    "data.retain.labels": "file",
    "data.target": [],
    **{f"finetune.{each.name}": each.default for each in fields(WeightOptions)},
    "finetune.train_blocks": [EVERYTHING],
    "data.stress_key": DEFAULT_STRESS_KEY,  # read by all that has a stress; nothing had it read
    "finetune.stress_weight": 100.0,
    "labeller.stress_key": DEFAULT_STRESS_KEY,
    "data.partial_labels": False,
}
ErrorName = Literal[
    "energy_mae",
    "energy_rmse",
    "energy_mae_per_atom",
    "energy_rmse_per_atom",
    "forces_mae",
    "forces_rmse",
    "stress_mae",
    "stress_rmse",
]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _section_of(group: type, *, without: tuple[str, ...] = ()) -> Any:
    """Return a section whose keys are the settings of a dataclass, so that none is listed twice."""
    declared = list_settings(group)
    hints = get_type_hints(group)
    usual = group()
    keys: dict[str, Any] = {}
    for field in [each for each in fields(group) if each.name not in without]:
        kind, setting = declared.get(field.name, (hints[field.name], None))
        if setting is not None:
            if setting.choices:
                words: Any = Literal.__getitem__(setting.choices)
                kind = words | None if type(None) in get_args(kind) else words
            kind = Annotated[kind, setting]
            if setting.parse is not None:
                kind = Annotated[kind, BeforeValidator(_read_words(setting.parse))]
        keys[field.name] = (kind, getattr(usual, field.name))
    return create_model(group.__name__, __base__=_Section, **keys)


def _read_words(parse: Callable[[str], Any]) -> Callable[[Any], Any]:
    """Let a setting be written as on the command line, too."""
    return lambda value: parse(value) if isinstance(value, str) else value


class ModelSection(_section_of(ModelSpec)):  # type: ignore[misc]
    """The pretrained model: a file, or a name from ``labelwise models``."""

    path: str


class HeldOut(_Section):
    """Structures that are never trained on.

    Attributes:
        files: Labelled structures, what ``--pool`` takes.
        fraction: This part of ``data.train`` instead, chosen at random.
        from_pool: So many structures of the pool instead, chosen at random and labelled in
            round 0.
    """

    files: list[str] = []
    fraction: float | None = Field(default=None, gt=0.0, lt=1.0)
    from_pool: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _only_one(self) -> HeldOut:
        given = [bool(self.files), self.fraction is not None, self.from_pool is not None]
        if sum(given) > 1:
            raise ValueError("give one of files, fraction and from_pool")
        return self


class TestSet(HeldOut):
    """The test set, and the splits that it is made of.

    Attributes:
        split_key: Info key that names the split of each test structure, such as ``val_id`` and
            ``val_ood_ads``; errors are then recorded of each split as well. None for one set.
    """

    split_key: str | None = None


class PretrainingFiles(_Section):
    """Structures like those that the model was pretrained on; none by default.

    Attributes:
        files: What ``--pool`` takes.
        labels: ``file`` takes the labels that they have, which must be of the level of theory of
            the pretraining; ``model`` lets the pretrained model label them.
    """

    files: list[str] = []
    labels: PretrainingLabels = "file"


class DataSection(_Section):
    """Structures and the keys of their labels.

    Attributes:
        target: The structures that matter, labelled or not, to a rule that takes a target.
        partial_labels: Whether structures of ``train`` may have energies alone or forces alone.
    """

    pool: list[str] = Field(min_length=1)
    train: list[str] = []
    valid: HeldOut = HeldOut()
    test: TestSet = TestSet()
    replay: PretrainingFiles = PretrainingFiles()
    retain: PretrainingFiles = PretrainingFiles()
    target: list[str] = []
    isolated_atoms: str | None = None
    energy_key: str = DEFAULT_ENERGY_KEY
    forces_key: str = DEFAULT_FORCES_KEY
    stress_key: str | None = DEFAULT_STRESS_KEY
    partial_labels: bool = False


class SelectionSection(_section_of(SelectionOptions, without=("seed",))):  # type: ignore[misc]
    """How a batch is chosen; most keys are those of ``labelwise select``.

    Attributes:
        batch_size: Structures a round.
        initial_size: Structures that round 0 chooses, for campaigns that begin with few
            labels or none.
        initial_rule: How round 0 chooses.
        n_reserve: Structures chosen beyond the batch, to take the place of failures.
        model: Whose features: those of the model as fine-tuned so far, or as pretrained.
        members, diversity, aggregate: The committee of ``committee-e`` and ``committee-f``.
    """

    batch_size: int = Field(default=5, ge=1)
    initial_size: int = Field(default=0, ge=0)
    initial_rule: str = "random"
    n_reserve: int = Field(default=5, ge=0)
    model: Literal["current", "pretrained"] = "current"
    members: int = Field(default=3, ge=2)
    diversity: Literal["shuffle", "bootstrap", "scratch"] = "shuffle"
    aggregate: Literal["mean", "max"] = "mean"

    @model_validator(mode="after")
    def _known_rules(self, info: Any) -> SelectionSection:
        if info.context == KEYS_ALONE:
            return self
        from labelwise.selection.rules import list_rules  # loads torch

        check_name("rule", self.rule, (*list_rules(), *COMMITTEE_RULES))
        check_name("initial_rule", self.initial_rule, list_rules())
        self.settings(self.batch_size, seed=0).check()
        return self

    @property
    def needs_committee(self) -> bool:
        """Whether several models have to be fine-tuned in each round."""
        return self.rule in COMMITTEE_RULES

    @property
    def takes_target(self) -> bool:
        """Whether the rule chooses for other structures than those of the pool."""
        from labelwise.selection.rules import get_rule  # loads torch

        return not self.needs_committee and get_rule(self.rule).takes_target

    def settings(self, n_select: int, *, seed: int, rule: str | None = None) -> AcquisitionSettings:
        """Return the settings of one selection.

        Args:
            n_select: Structures to choose.
            seed: Seeds the sketch and the random rule.
            rule: In place of the configured one. A committee's is ``top``.
        """
        from labelwise.selection.settings import AcquisitionSettings  # loads torch

        chosen = self.rule if rule is None else rule
        shared = {
            each.name: getattr(self, each.name)
            for each in fields(SelectionOptions)
            if each.name not in ("rule", "shortlist", "seed")
        }
        return AcquisitionSettings(
            **shared,
            n_select=n_select,
            rule="top" if chosen in COMMITTEE_RULES else chosen,
            shortlist=None if chosen == "random" else self.shortlist,
            seed=seed,
        )


class FinetuneSection(_section_of(Recipe)):  # type: ignore[misc]
    """How the model is fine-tuned in each round: the fields of ``Recipe``, by their names."""

    @model_validator(mode="after")
    def _possible(self) -> FinetuneSection:
        self.recipe()
        return self

    def recipe(self) -> Recipe:
        """Return the settings as the fine-tuning takes them.

        Raises:
            ArgumentError: A number is out of range.
        """
        return Recipe(**{each.name: getattr(self, each.name) for each in fields(Recipe)})


class MeasureSection(_Section):
    """How errors are counted and shown.

    Attributes:
        fixed_forces: ``exclude`` leaves the forces of fixed atoms (``FixAtoms``, ``move_mask``)
            out of the errors on the validation and test sets and of what a committee's
            deviation is held against; ``finetune.loss_fixed_forces`` is the loss's own setting.
        energy_errors: ``per-atom`` shows energy errors in meV/atom, for sets of structures of
            different sizes. Both are in ``rounds.jsonl`` whatever is shown.
    """

    fixed_forces: FixedForces = "count"
    energy_errors: EnergyErrors = "total"

    @property
    def energy_error(self) -> ErrorName:
        """The energy error that is shown."""
        return "energy_rmse" if self.energy_errors == "total" else "energy_rmse_per_atom"

    @property
    def energy_unit(self) -> str:
        """Its unit."""
        return "meV" if self.energy_errors == "total" else "meV/atom"


class Plateau(_Section):
    """Stop when an error has not fallen by a part of itself in so many rounds.

    Attributes:
        rounds: Rounds looked back.
        improvement: The part, dimensionless.
        error: Which error.
    """

    rounds: int = Field(default=3, ge=1)
    improvement: float = Field(default=0.02, ge=0.0)
    error: ErrorName = "forces_rmse"


class StopSection(_Section):
    """When to stop; whichever comes first.

    Attributes:
        rounds: Rounds after round 0.
        labels: Finished calculations, failed ones too: what is paid for.
        hours: Wall time of all finished stages.
        target: Error on the test set to the value at or below which it suffices, in meV,
            meV/atom and meV/Å; all of them must be met.
        plateau: No progress.
    """

    rounds: int | None = Field(default=10, ge=0)
    labels: int | None = Field(default=None, ge=1)
    hours: float | None = Field(default=None, gt=0.0)
    target: dict[ErrorName, float] = {}
    plateau: Plateau | None = None


class CampaignConfig(_Section):
    """All of ``campaign.yaml``."""

    seed: int = Field(default=0, ge=0)
    model: ModelSection
    data: DataSection
    selection: SelectionSection = Field(default_factory=dict, validate_default=True)
    labeller: Annotated[SerializeAsAny[LabellerSettings], BeforeValidator(parse_settings)]
    finetune: FinetuneSection = FinetuneSection()
    measure: MeasureSection = MeasureSection()
    stop: StopSection = StopSection()

    @model_validator(mode="after")
    def _possible(self, info: Any) -> CampaignConfig:
        for role in ("valid", "test"):
            if getattr(self.data, role).fraction is not None and not self.data.train:
                raise ValueError(f"data.{role}.fraction is a part of data.train, which is empty")
        if self.selection.needs_committee and self.selection.diversity == "scratch":
            replace(self.finetune.recipe(), start="scratch")  # as its members will be made
        if not self.data.train and self.selection.initial_size == 0:
            raise ValueError(
                "nothing to begin with: give data.train, or selection.initial_size above 0"
            )
        if self.data.target and info.context != KEYS_ALONE and not self.selection.takes_target:
            raise ValueError(
                f"data.target: the rule {self.selection.rule!r} takes none; choose the rule target"
            )
        return self

    def result_keys(self) -> dict[str, Any]:
        """Return the settings that shape the result, flat: dotted key to value.

        Settings that were added later are left out where they say what was done before, so that
        a campaign of an earlier version goes on.
        """
        flat = _flatten(self.model_dump(mode="json"))
        return {
            key: value
            for key, value in flat.items()
            if not is_free(key) and not (key in _FORMER and value == _FORMER[key])
        }


def is_free(key: str) -> bool:
    """Return whether a setting, as a dotted key, may change without another result."""
    return any(key == free or key.startswith(f"{free}.") for free in FREE_KEYS)


def read_config(
    directory: Path, changes: Mapping[str, Any] | None = None, *, keys_alone: bool = False
) -> CampaignConfig:
    """Read a campaign's configuration.

    Args:
        directory: The campaign.
        changes: Settings in place of those of its files, by dotted key.
        keys_alone: Whether to find in a moment what is wrong with keys and plain values; rules
            and what goes with them are not looked at.

    Raises:
        ConfigError: It is missing, not YAML, or has an unknown key or a wrong value; the
            message names every one.
    """
    content = override(read_campaign_settings(directory), changes or {})
    try:
        return CampaignConfig.model_validate(content, context=KEYS_ALONE if keys_alone else None)
    except ValidationError as error:
        raise ConfigError(
            describe_mistakes(error, CampaignConfig, str(directory / CONFIG_FILE))
        ) from error


def describe_mistakes(error: ValidationError, model: type[BaseModel], where: str) -> str:
    """Return what is wrong with a campaign's or a study's settings, a line for each mistake.

    Args:
        error: What pydantic found.
        model: What the settings were to be.
        where: Where they came from.
    """
    count = error.error_count()
    lines = "\n".join(f"  {_explain(item, model)}" for item in error.errors()[:MOST_MISTAKES])
    lines += f"\n  and {count - MOST_MISTAKES:,} more" if count > MOST_MISTAKES else ""
    mistakes = "1 mistake" if count == 1 else f"{count} mistakes"
    return f"{where} has {mistakes}:\n{lines}"


def _explain(item: Any, model: type[BaseModel]) -> str:
    """Turn one of pydantic's findings into a line."""
    path = [str(part) for part in item["loc"]]
    where = ".".join(path) or "settings"
    if item["type"] == "extra_forbidden":
        keys = _keys_at(path[:-1], model)
        close = difflib.get_close_matches(path[-1].lower().replace("-", "_"), keys, n=1)
        return f"{where}: unknown key" + (f"; did you mean {keys[close[0]]!r}?" if close else "")
    got = "" if item["type"] in ("missing", "value_error") else f" (got {item['input']!r:.60})"
    return f"{where}: {item['msg'].removeprefix('Value error, ')}{got}"


def _keys_at(path: list[str], model: Any) -> dict[str, str]:
    """Return the keys of a section, for suggestions; a key's flag, such as ``lr``, leads to it."""
    for part in path:
        if part == "labeller":
            return {key: key for key in settings_keys()}
        if get_origin(model) is dict:  # pools, by name
            model = get_args(model)[1]
        else:
            field = getattr(model, "model_fields", {}).get(part)
            model = None if field is None else field.annotation
    keys: dict[str, str] = {}
    for name, field in getattr(model, "model_fields", {}).items():
        settings = [each for each in field.metadata if isinstance(each, Setting)]
        flags = [flag for each in settings for flag in each.flags or ()]
        keys |= {flag.lstrip("-").replace("-", "_"): name for flag in flags} | {name: name}
    return keys


def _flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= _flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
