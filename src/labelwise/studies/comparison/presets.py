"""The papers' protocols as studies: ``labelwise compare --preset``."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from labelwise.campaign.config import ModelSection
from labelwise.errors import ArgumentError, check_name
from labelwise.structures.datasets.builds import BUILDS
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY
from labelwise.structures.reading import expand_specs, frames_of
from labelwise.studies.comparison.methods import name_method, spell_out
from labelwise.studies.comparison.pool_bias import write_biased_pools
from labelwise.studies.comparison.pools import DataKeys, PoolFiles, prepare_built, prepare_pools
from labelwise.studies.comparison.protocols import PRESETS, SHIFTS, Preset
from labelwise.studies.comparison.study import PoolSection, StudyConfig, check_study

#: What follows the size of a pool that is smaller or larger than the protocol's, in words.
_IN_PROPORTION = {
    "batch_size": "structures a round",
    "initial_size": "labels to begin with",
    "shortlist": "shortlist",
}


def make_preset(
    name: str,
    folder: Path,
    *,
    model: ModelSection | Mapping[str, Any],
    data: Sequence[str] = (),
    seed: int = 0,
    methods: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
    rounds: int | None = None,
    group_by: str = "reaction",
    order_by: str = "frame",
    energy_key: str = DEFAULT_ENERGY_KEY,
    forces_key: str = DEFAULT_FORCES_KEY,
    shift: str | Sequence[str] = SHIFTS,
    strength: float | Sequence[float] = 3.0,
    size: int | None = None,
) -> StudyConfig:
    """Make a study of a protocol and of labelled structures, and write its data files.

    Args:
        name: A key of ``PRESETS``.
        folder: The study's folder, where relative paths of the study begin; data files go to
            ``data`` in it.
        model: The pretrained model. A file's path, as seen from the working directory, is
            made absolute; other names stay.
        data: Folders or files of labelled structures, see ``prepare_pools``; none for the
            embedded reactions. For presets of published data sets their files, or pools that
            ``labelwise data build`` has made of them.
        seed: Of the splits and of the bias, >= 0; not of the campaigns.
        methods: Names in place of the preset's.
        seeds: Of the campaigns, in place of the preset's.
        rounds: In place of the preset's.
        group_by: Info key of the reaction.
        order_by: Info key of the place along the path.
        energy_key: Info key of the total energy, eV.
        forces_key: Array key of the forces, eV/Å.
        shift: For ``pool-bias``, which of ``family``, ``path`` and ``energy``.
        strength: For ``pool-bias``, s > 0, one or several.
        size: For presets of published files, structures in place of the protocol's number.

    Returns:
        The study; ``changes`` says where it departs from the protocol.

    Raises:
        ArgumentError: An unknown preset, or a value out of range.
        StudyError: A method that is unknown or cannot be configured.
        LabelError: A structure without labels.
        ReadError: A file that cannot be read.
        WriteError: The folder cannot be written to.
    """
    check_name("preset", name, PRESETS)
    if seed < 0:
        raise ArgumentError(f"seed is {seed}; allowed are integers >= 0")
    preset = PRESETS[name]
    protocol, scaling = _scale(preset, size)
    keys = DataKeys(group_by, order_by, energy_key, forces_key)
    if preset.build is not None:
        files = prepare_built(data, folder, build=preset.build, seed=seed, size=size)
        files = replace(files, changes=(*files.changes, *scaling))
    else:
        files = prepare_pools(
            data, folder, layout=preset.layout, seed=seed, keys=keys, n_pools=preset.n_pools
        )
    shifts = [shift] if isinstance(shift, str) else list(shift)
    given = [strength] if isinstance(strength, int | float) else strength
    strengths = [float(each) for each in given]
    if preset.is_biased:
        files = write_biased_pools(
            files, folder, shifts=shifts, strengths=strengths, seed=seed, keys=keys
        )
    origin: dict[str, Any] = {
        "preset": name,
        "data": [str(Path(spec).absolute()) for spec in data] or "embedded reactions",
        "seed": seed,
    }
    if preset.is_biased:
        origin |= {"shift": shifts, "strength": strengths}
    content = _compose(preset, protocol, files, folder, methods, rounds)
    content |= {} if seeds is None else {"seeds": list(seeds)}
    content |= {"model": _describe_model(model), "origin": origin}
    content |= {"energy_key": energy_key, "forces_key": forces_key}
    return check_study(content, where=f"preset {name}")


def _scale(preset: Preset, size: int | None) -> tuple[dict[str, Any], list[str]]:
    """Return a preset's study for a pool of another size, and what that changes, in words."""
    study = copy.deepcopy(dict(preset.study))
    if size is None:
        return study, []
    usual = None if preset.build is None else BUILDS[preset.build].usual_size
    if usual is None:
        raise ArgumentError(
            f"size is {size}, but {study['title']} takes all there is; leave it out"
        )
    changes = []
    for key, words in _IN_PROPORTION.items():
        if key in study["selection"]:
            before = study["selection"][key]
            after = study["selection"][key] = max(1, round(size / usual * before))
            changes.append(f"{words}: {before} → {after}, in proportion")
    return study, changes


def _compose(
    preset: Preset,
    study: dict[str, Any],
    files: PoolFiles,
    folder: Path,
    methods: Sequence[str] | None,
    rounds: int | None,
) -> dict[str, Any]:
    """Return the study on its pools."""
    own = {name_method(each): each for each in study["methods"] if not isinstance(each, str)}
    chosen = study["methods"] if methods is None else [own.get(name, name) for name in methods]
    if not chosen:
        raise ArgumentError("methods is empty; name at least one, or leave it to the preset")
    reference = study["methods"][0]
    changes = list(files.changes)
    selection = study["selection"]
    selection["initial_size"] = _initial_size(preset, selection, files.pools, changes)
    wanted = study["rounds"] if rounds is None else rounds
    return {
        **study,
        "pools": {name: section.model_dump() for name, section in files.pools.items()},
        "methods": list(chosen),
        "reference": reference if reference in chosen else next(iter(spell_out(list(chosen)))),
        "rounds": _limit_rounds(selection, files.pools, folder, wanted, changes),
        "changes": changes,
    }


def _initial_size(
    preset: Preset,
    selection: Mapping[str, Any],
    pools: Mapping[str, PoolSection],
    changes: list[str],
) -> int:
    """Return how many structures round 0 chooses; none if all pools give some to begin with."""
    wanted: int = selection["initial_size"]
    given = [bool(section.train) for section in pools.values()]
    if not any(given):
        return wanted
    if not all(given):
        lacking = next(name for name, section in pools.items() if not section.train)
        raise ArgumentError(
            f"data: the pool {lacking} has no train.extxyz, but others have; allowed are all or "
            "none: add or remove the file"
        )
    if not preset.has_labels:
        changes.append(
            f"labels to begin with: {wanted} at random → those of train.extxyz, the same for all "
            "seeds"
        )
    return 0


def _limit_rounds(
    selection: Mapping[str, Any],
    pools: Mapping[str, PoolSection],
    folder: Path,
    rounds: int,
    changes: list[str],
) -> int:
    """Return the rounds that the smallest pool suffices for, at most those wanted."""
    sizes = {name: count_structures(section.pool, folder) for name, section in pools.items()}
    smallest = min(sizes, key=lambda name: sizes[name])
    initial, batch = int(selection["initial_size"]), int(selection["batch_size"])
    most = (sizes[smallest] - initial) // batch
    if rounds <= most:
        return rounds
    if most < 1:
        raise ArgumentError(
            f"data: the pool {smallest} has {sizes[smallest]} structures; the preset takes "
            f"{initial} to begin with and {batch} a round: give a larger one"
        )
    changes.append(f"rounds: {rounds} → {most}, then {smallest} is used up")
    return most


def count_structures(specs: Sequence[str], base: Path) -> int:
    """Count the structures of files, patterns, or either with ``@slice``, below a folder."""
    if not specs:
        return 0
    parts = expand_specs([str(base / spec) for spec in specs])
    return sum(len(frames_of(part)) for part in parts)


def _describe_model(model: ModelSection | Mapping[str, Any]) -> dict[str, Any]:
    section = model.model_dump() if isinstance(model, ModelSection) else dict(model)
    path = section.get("path")
    is_file = isinstance(path, str) and Path(path).is_file()
    return {**section, "path": str(Path(str(path)).absolute())} if is_file else section
