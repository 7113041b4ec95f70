"""The summary of a selection, read back and held against the files that it names."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from labelwise.errors import LabelwiseError, ReadError
from labelwise.runtime.timing import Stage
from labelwise.selection.input_files import describe_files
from labelwise.selection.options import RuleFacts
from labelwise.selection.picks import Pick
from labelwise.structures import Source
from labelwise.structures.labels import DEFAULT_ENERGY_KEY
from labelwise.structures.reading import expand_specs
from labelwise.structures.screening import Screened

_KEYS = ("format_version", "inputs", "settings", "counts", "picks", "screened", "stages")


@dataclass(frozen=True)
class SavedSettings:
    """How a batch was chosen, as its summary says it; see ``AcquisitionSettings``."""

    rule: RuleFacts
    representation: str
    normalise: str
    regularisation: float
    seed: int
    shortlist: int | None
    group_by: str | None


@dataclass(frozen=True)
class SelectionRecord:
    """What ``labelwise select`` wrote down.

    Attributes:
        path: The summary.
        pool, train: Specs of the structures, which lead to files from where we are now.
        settings: How the batch was chosen.
        picks: The batch in order of choice.
        screened: Structures that were set aside.
        stages: Seconds by stage.
        n_pool, n_train: Structures as they were read.
        content: The whole summary.
    """

    path: Path
    pool: tuple[str, ...]
    train: tuple[str, ...]
    settings: SavedSettings
    picks: tuple[Pick, ...]
    screened: tuple[Screened, ...]
    stages: tuple[Stage, ...]
    n_pool: int
    n_train: int
    content: Mapping[str, Any]

    @property
    def energy_key(self) -> str:
        """Info key of the labelled energies."""
        return str(self.input("energy_key") or DEFAULT_ENERGY_KEY)

    def input(self, name: str) -> Any:
        """Return a word of the command that was given, None if it is not known."""
        return self.content["inputs"].get(name)

    def find_file(self, name: str) -> Path | None:
        """Return a file that the summary names, None if it is not found any more."""
        for base in _bases(self.path, self.content["inputs"]):
            if (base / name).exists():
                return base / name
        return None


def is_summary(path: Path) -> bool:
    """Tell whether a file is the summary of a selection."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and all(key in content for key in _KEYS)


def read_record(path: Path) -> SelectionRecord:
    """Read the summary of a selection and find the files that it names.

    Files are looked for where the summary says, seen from the working directory, from the
    folder in which the selection was made and from the summary's own folder.

    Args:
        path: The JSON file.

    Raises:
        ReadError: It cannot be read, is no such summary, or a file that it names is not found or
            is not what it was.
    """
    content = _read_content(path)
    try:
        settings = _read_settings(content["settings"], content.get("rule") or {})
        inputs = content["inputs"]
        bases = {
            role: _find_base(path, inputs, role, [str(spec) for spec in inputs.get(role) or ()])
            for role in ("pool", "train")
        }
        pool, train = (
            tuple(_join(bases[role], str(spec)) for spec in inputs.get(role) or ())
            for role in ("pool", "train")
        )
        record = SelectionRecord(
            path,
            pool,
            train,
            settings,
            tuple(_read_pick(item, bases["pool"]) for item in content["picks"]),
            tuple(_read_screened(item, bases) for item in content["screened"]),
            tuple(
                Stage(str(s["name"]), float(s["seconds"]), int(s["structures"]))
                for s in content["stages"]
            ),
            int(content["counts"]["pool"]),
            int(content["counts"]["train"]),
            content,
        )
    except LabelwiseError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ReadError(
            f"{path} has not the form of a summary of 'labelwise select' ({error!r}); run the "
            "selection again"
        ) from error
    _check_picks(record)
    _check_files(record)
    return record


def _read_content(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ReadError(f"{path} is not JSON: {error}") from error
    missing = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if missing:
        raise ReadError(
            f"{path} is not the summary of a selection: it has no {missing[0]!r}; give the JSON "
            "file that 'labelwise select' wrote beside its batch"
        )
    return dict(content)


def _read_settings(content: Mapping[str, Any], rule: Mapping[str, Any]) -> SavedSettings:
    shortlist, group_by = content.get("shortlist"), content.get("group_by")
    return SavedSettings(
        rule=_read_rule(str(content["rule"]), rule),
        representation=str(content["representation"]),
        normalise=str(content["normalise"]),
        regularisation=float(content["regularisation"]),
        seed=int(content["seed"]),
        shortlist=None if shortlist is None else int(shortlist),
        group_by=None if group_by is None else str(group_by),
    )


def _read_rule(name: str, told: Mapping[str, Any]) -> RuleFacts:
    """Return what is told of a rule; older summaries have its name alone."""
    known = {field.name for field in fields(RuleFacts)} - {"name"}
    plain = RuleFacts(
        name, is_random=name == "random", takes="row-sets" if name == "joint-pv" else "kernel"
    )
    return replace(plain, **{key: value for key, value in told.items() if key in known})


def _read_pick(item: Mapping[str, Any], base: Path) -> Pick:
    distance = item.get("nearest_distance")
    return Pick(
        int(item["rank"]),
        int(item["pool_index"]),
        _read_source(item, base),
        float(item["score"]),
        nearest_distance=None if distance is None else float(distance),
    )


def _read_screened(item: Mapping[str, Any], bases: Mapping[str, Path]) -> Screened:
    role, reason, detail = (str(item[key]) for key in ("role", "reason", "detail"))
    return Screened(role, int(item["index"]), _read_source(item, bases[role]), reason, detail)


def _read_source(item: Mapping[str, Any], base: Path) -> Source:
    return Source(_join(base, str(item["file"])), int(item["frame"]))


def _join(base: Path, name: str) -> str:
    """Return a file or spec seen from a folder, as it is for the working directory."""
    return name if base == Path() else os.path.join(base, name)  # noqa: PTH118 - a spec is no path


def _bases(path: Path, inputs: Mapping[str, Any]) -> list[Path]:
    """Return the folders from which names in a summary are looked for."""
    known = inputs.get("folder")
    return [Path(), *([Path(str(known))] if known else []), path.parent]


def _find_base(path: Path, inputs: Mapping[str, Any], role: str, specs: Sequence[str]) -> Path:
    """Return the folder from which all specs lead to files."""
    for base in _bases(path, inputs):
        if not specs:
            return base
        try:
            expand_specs([_join(base, spec) for spec in specs])
        except LabelwiseError:
            continue
        return base
    raise ReadError(
        f"{path} names {role} files that are not found: {', '.join(specs[:3])}; run the command "
        "in the folder in which the selection was made, or put the files back"
    )


def _check_picks(record: SelectionRecord) -> None:
    aside = {item.index for item in record.screened if item.role == "pool"}
    places = [pick.pool_index for pick in record.picks]
    sound = len(set(places)) == len(places) > 0 and all(
        0 <= place < record.n_pool and place not in aside for place in places
    )
    if not sound or [pick.rank for pick in record.picks] != list(range(len(places))):
        raise ReadError(
            f"{record.path} contradicts itself: its picks are not different structures of its "
            "pool; run the selection again"
        )


def _check_files(record: SelectionRecord) -> None:
    """Compare the structures' files with what was noted of them.

    Raises:
        ReadError: A file is not what it was, or there are more or fewer.
    """
    noted = record.input("files")
    if not noted:
        return  # as older versions wrote it
    for role, specs in (("pool", record.pool), ("train", record.train)):
        former = noted.get(role) if isinstance(noted, dict) else None
        if former is None:
            continue
        now = describe_files(specs)
        if len(now) != len(former):
            raise ReadError(
                f"the {role} of {record.path} was {len(former)} files and is {len(now)} now; "
                "run the selection again"
            )
        for then, here in zip(former, now, strict=True):
            if (then["bytes"], then["blake2b"]) != (here["bytes"], here["blake2b"]):
                raise ReadError(
                    f"{here['file']} is not what it was when {record.path} was written; put "
                    "the file back, or run the selection again"
                )
