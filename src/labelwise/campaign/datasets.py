"""Train, validation, test and pool: what the configuration's files and the labels make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.errors import LeakageError
from labelwise.campaign.inputs import locate
from labelwise.campaign.seeds import derive_seed
from labelwise.campaign.state import SPLIT, CampaignState
from labelwise.structures import (
    DuplicateIndex,
    Frame,
    get_labels,
    hash_structure,
    iter_frames,
    iter_unscreened,
)
from labelwise.structures.annotations import get_head, require_one_head
from labelwise.structures.identity import hash_geometry
from labelwise.structures.isolated_atoms import (
    collect_isolated_energies,
    is_isolated_atom,
    read_isolated_energies,
    refuse_isolated_molecule,
)
from labelwise.structures.labels import get_partial_labels
from labelwise.structures.split_names import get_split

ReadFrames = Callable[[Sequence[str]], Iterator[Frame]]


@dataclass(frozen=True)
class GivenSets:
    """The labelled structures of the configuration's files, each a ``Frame``.

    Attributes:
        train: What training begins with.
        valid: Held out to choose the epoch.
        test: Held out to measure.
        isolated_atoms: Atomic number to energy, eV; None if there are none.
        lone: The isolated atoms of the training and validation files, which are in no set.
    """

    train: tuple[Frame, ...]
    valid: tuple[Frame, ...]
    test: tuple[Frame, ...]
    isolated_atoms: dict[int, float] | None
    lone: tuple[Frame, ...] = ()

    def with_labels(self, state: CampaignState, role: str) -> list[Frame]:
        """Return a whole set: the given structures, then the batches in order.

        Args:
            state: The campaign.
            role: ``train``, ``valid`` or ``test``.
        """
        frames = [*getattr(self, role), *state.labelled_frames(state.batch_keys(role))]
        return [Frame(frame.atoms, frame.source, i) for i, frame in enumerate(frames)]


def open_given_sets(state: CampaignState) -> GivenSets:
    """Read the labelled structures as a run of the campaign does, but write nothing."""
    path = state.directory / SPLIT
    split = read_json(path) if path.exists() else choose_split(state.directory, state.config)
    return read_given_sets(state.directory, state.config, split)


def read_given_sets(
    directory: Path, config: CampaignConfig, split: Mapping[str, list[str]]
) -> GivenSets:
    """Read the labelled structures; labels are checked.

    Isolated atoms among them are in no set: those to train on and to validate with are taken as
    reference energies.

    Args:
        directory: The campaign.
        config: Its configuration.
        split: Content hashes of the structures of the training files that are held out,
            under ``valid`` and ``test``.

    Raises:
        LabelError: A label is missing or not finite, a test structure does not name its
            split, or isolated atoms contradict each other; names file and frame.
        ArgumentError: The structures of a set name several heads.
        ReadError: A file cannot be read.
    """
    data = config.data
    held = {role: set(split.get(role, ())) for role in ("valid", "test")}
    sets: dict[str, list[Frame]] = {"train": [], "valid": [], "test": []}
    lone: list[Frame] = []
    given = _read_labelled(directory, data.train, config, lone, partial=data.partial_labels)
    for frame, key in zip(given, _name_in_split(given, held), strict=True):
        role = next((role for role, keys in held.items() if key in keys), "train")
        sets[role].append(frame)
        if role != "train":
            get_labels(frame.atoms, str(frame.source), **_keys_of(config))
    sets["valid"] += _read_labelled(directory, data.valid.files, config, lone)
    known = _read_isolated_atoms(directory, config)
    sets["test"] += _read_labelled(directory, data.test.files, config, [])
    if data.test.split_key is not None:
        for frame in sets["test"]:
            get_split(frame.atoms, str(frame.source), data.test.split_key)
    heads = [get_head(frame.atoms) for frames in sets.values() for frame in frames]
    require_one_head(heads, "data.train, data.valid and data.test")
    found = collect_isolated_energies(
        [(frame.atoms, str(frame.source)) for frame in lone],
        known=known,
        energy_key=data.energy_key,
    )
    isolated = found if found else None
    return GivenSets(
        tuple(sets["train"]),
        tuple(sets["valid"]),
        tuple(sets["test"]),
        isolated,
        tuple(lone),
    )


def _name_in_split(frames: Sequence[Frame], held: Mapping[str, set[str]]) -> list[str]:
    """Return the content hashes by which a split names structures.

    Earlier versions named charged structures by their geometry alone: what a split names and no
    structure is called is looked for among geometries.
    """
    keys = [hash_structure(frame.atoms) for frame in frames]
    unknown = set().union(*held.values()).difference(keys)
    if not unknown:
        return keys
    geometries = [hash_geometry(frame.atoms) for frame in frames]
    return [old if old in unknown else key for key, old in zip(keys, geometries, strict=True)]


def choose_split(directory: Path, config: CampaignConfig) -> dict[str, list[str]]:
    """Choose which structures of the training files are held out.

    Copies of a structure go the same way.

    Returns:
        Content hashes under ``valid`` and ``test``.

    Raises:
        ReadError: A file cannot be read.
        LeakageError: The fractions leave nothing to train on.
    """
    wanted = {"valid": config.data.valid.fraction, "test": config.data.test.fraction}
    if wanted == {"valid": None, "test": None}:
        return {"valid": [], "test": []}
    frames = (
        frame for frame in _read(directory, config.data.train) if not is_isolated_atom(frame.atoms)
    )
    groups = _group_copies(frames)
    order = np.random.default_rng(derive_seed(config.seed, 0, "split")).permutation(len(groups))
    split: dict[str, list[str]] = {}
    begin = 0
    for role, fraction in wanted.items():
        n_held = 0 if fraction is None else max(1, round(fraction * len(groups)))
        chosen = order[begin : begin + n_held]
        split[role] = sorted(key for i in chosen.tolist() for key in groups[i])
        begin += n_held
    if begin >= len(groups):
        raise LeakageError(
            f"the fractions of data.valid and data.test take {begin} of the {len(groups)} "
            "different structures of data.train and leave nothing to train on"
        )
    return split


def iter_pool(
    state: CampaignState,
    excluded: DuplicateIndex | None = None,
    *,
    read: ReadFrames = iter_unscreened,
) -> Iterator[Frame]:
    """Read the pool as a stream, without some structures and their copies."""
    for frame in read([locate(state.directory, spec) for spec in state.config.data.pool]):
        if excluded is None or not _is_in(excluded, frame.atoms):
            yield frame


def _is_in(index: DuplicateIndex, atoms: Atoms) -> bool:
    """Return whether a structure is in an index; one that is not finite is in none."""
    is_finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
    return bool(is_finite) and index.find(atoms) is not None


def _group_copies(frames: Iterable[Frame]) -> list[list[str]]:
    """Return the content hashes of each structure and its copies."""
    index = DuplicateIndex()
    groups: list[list[str]] = []
    for frame in frames:
        number = index.find(frame.atoms)
        if number is None:
            number = len(groups)
            index.add(frame.atoms, number)
            groups.append([hash_structure(frame.atoms)])
        else:
            groups[number].append(hash_structure(frame.atoms))
    return groups


def _read(directory: Path, specs: list[str]) -> Iterator[Frame]:
    return iter_frames([locate(directory, spec) for spec in specs])


def _read_labelled(
    directory: Path,
    specs: list[str],
    config: CampaignConfig,
    lone: list[Frame],
    *,
    partial: bool = False,
) -> list[Frame]:
    """Return the labelled structures of some files; isolated atoms are added to ``lone``."""
    read = get_partial_labels if partial else get_labels
    frames = []
    for frame in _read(directory, specs) if specs else ():
        refuse_isolated_molecule(frame.atoms, str(frame.source))
        if is_isolated_atom(frame.atoms):
            lone.append(frame)
            continue
        read(frame.atoms, str(frame.source), **_keys_of(config))
        frames.append(frame)
    return frames


def _keys_of(config: CampaignConfig) -> dict[str, Any]:
    return {key: getattr(config.data, key) for key in ("energy_key", "forces_key", "stress_key")}


def _read_isolated_atoms(directory: Path, config: CampaignConfig) -> dict[int, float] | None:
    """Return the energies of the configuration's file of isolated atoms, eV by atomic number."""
    if config.data.isolated_atoms is None:
        return None
    frames = _read(directory, [config.data.isolated_atoms])
    return read_isolated_energies(frames, energy_key=config.data.energy_key)
