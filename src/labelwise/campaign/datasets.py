"""Train, validation, test and pool: what they hold, and that they have nothing in common."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.errors import LeakageError
from labelwise.campaign.inputs import locate
from labelwise.campaign.seeds import derive_seed
from labelwise.errors import StructureError
from labelwise.potentials import Potential
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
from labelwise.structures.split_names import get_split

ReadFrames = Callable[[Sequence[str]], Iterator[Frame]]

_N_LISTED = 5


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
    given = _read_labelled(directory, data.train, config, lone)
    for frame, key in zip(given, _name_in_split(given, held), strict=True):
        role = next((role for role, keys in held.items() if key in keys), "train")
        sets[role].append(frame)
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


def take_inventory(
    directory: Path,
    config: CampaignConfig,
    given: GivenSets,
    potential: Potential,
    used: Iterable[Atoms],
    *,
    read: ReadFrames = iter_unscreened,
) -> dict[str, Any]:
    """Read everything once: count, screen, and see that the sets are disjoint.

    Args:
        directory: The campaign.
        config: Its configuration.
        given: The labelled structures.
        potential: Decides which structures can be taken.
        used: Structures that the campaign has labelled or set aside; not counted.
        read: Reads files, patterns and slices.

    Returns:
        ``n_pool`` (as read), ``n_usable`` (that can be chosen), ``screened`` (count by
        reason), ``n_train``, ``n_valid`` and ``n_test``.

    Raises:
        LeakageError: A structure is in two sets.
        StructureError: The model cannot take a labelled structure.
        ReadError: A file cannot be read.
    """
    screen = config.selection.settings(1, seed=0).make_recipe().make_screen(potential)
    index = _check_disjoint(given)
    for role in ("train", "valid", "test"):
        for frame in getattr(given, role):
            found = screen.check_train(frame) if role == "train" else screen.check_content(frame)
            if found is not None and found.reason != "isolated-atom":
                raise StructureError(
                    f"data.{role}: {found.source}: {found.reason} ({found.detail})"
                )
    gone = DuplicateIndex()
    for atoms in used:
        gone.add(atoms, 0)
    reasons: Counter[str] = Counter()
    n_pool = n_usable = 0
    leaks = []
    for frame in iter_pool(directory, config, read=read):
        n_pool += 1
        found = screen.check_pool(frame)
        if found is not None:
            reasons[found.reason] += 1
            continue
        other = index.find(frame.atoms)
        if other is not None:
            leaks.append(f"{frame.source} equals {_held_out(given)[other].source}")
        elif gone.find(frame.atoms) is None:
            n_usable += 1
    _refuse(leaks, "the pool and the structures held out for validation or test")
    return {
        "n_pool": n_pool,
        "n_usable": n_usable,
        "screened": dict(sorted(reasons.items())),
        "n_train": len(given.train),
        "n_valid": len(given.valid),
        "n_test": len(given.test),
    }


def iter_pool(
    directory: Path,
    config: CampaignConfig,
    excluded: DuplicateIndex | None = None,
    *,
    read: ReadFrames = iter_unscreened,
) -> Iterator[Frame]:
    """Read the pool as a stream, without structures that were used or set aside.

    Raises:
        ReadError: A file cannot be read.
    """
    for frame in read([locate(directory, spec) for spec in config.data.pool]):
        if excluded is None or not _is_in(excluded, frame.atoms):
            yield frame


def _is_in(index: DuplicateIndex, atoms: Atoms) -> bool:
    """Return whether a structure is in an index; one that is not finite is in none."""
    is_finite = np.isfinite(atoms.positions).all() and np.isfinite(atoms.cell.array).all()
    return bool(is_finite) and index.find(atoms) is not None


def _held_out(given: GivenSets) -> tuple[Frame, ...]:
    return (*given.valid, *given.test)


def _check_disjoint(given: GivenSets) -> DuplicateIndex:
    """Return an index of what is held out; numbers count validation, then test.

    Raises:
        LeakageError: Train, validation and test have structures in common.
    """
    held = DuplicateIndex()
    leaks = []
    for number, frame in enumerate(_held_out(given)):
        other = held.find(frame.atoms)
        is_test = number >= len(given.valid)
        if is_test and other is not None and other < len(given.valid):
            leaks.append(f"{frame.source} (test) equals {given.valid[other].source} (validation)")
        if other is None:
            held.add(frame.atoms, number)
    for frame in given.train:
        other = held.find(frame.atoms)
        if other is not None:
            leaks.append(f"{frame.source} (train) equals {_held_out(given)[other].source}")
    _refuse(leaks, "train, validation and test")
    return held


def _refuse(leaks: list[str], sets: str) -> None:
    if leaks:
        shown = "; ".join(leaks[:_N_LISTED])
        more = f" and {len(leaks) - _N_LISTED} more" if len(leaks) > _N_LISTED else ""
        raise LeakageError(
            f"{sets} have {len(leaks)} structures in common, so that errors would look too "
            f"small: {shown}{more}. Take them out of one of the files"
        )


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
    directory: Path, specs: list[str], config: CampaignConfig, lone: list[Frame]
) -> list[Frame]:
    """Return the labelled structures of some files; isolated atoms are added to ``lone``."""
    frames = []
    for frame in _read(directory, specs) if specs else ():
        refuse_isolated_molecule(frame.atoms, str(frame.source))
        if is_isolated_atom(frame.atoms):
            lone.append(frame)
            continue
        _labels(frame, config)
        frames.append(frame)
    return frames


def _labels(frame: Frame, config: CampaignConfig) -> float:
    data = config.data
    labels = get_labels(
        frame.atoms,
        str(frame.source),
        energy_key=data.energy_key,
        forces_key=data.forces_key,
    )
    return labels.energy


def _read_isolated_atoms(directory: Path, config: CampaignConfig) -> dict[int, float] | None:
    """Return the energies of the configuration's file of isolated atoms, eV by atomic number."""
    if config.data.isolated_atoms is None:
        return None
    frames = _read(directory, [config.data.isolated_atoms])
    return read_isolated_energies(frames, energy_key=config.data.energy_key)
