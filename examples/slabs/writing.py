"""The example as files: pool, labelled beginning, validation and the four test sets."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import ase
import numpy as np

from examples.slabs.building import build_system
from examples.slabs.systems import (
    ADSORBATES,
    CATALYSTS,
    UNSEEN_ADSORBATES,
    UNSEEN_CATALYSTS,
    SlabSystem,
    draw_system,
)
from examples.slabs.trajectories import iter_trajectory
from labelwise.errors import ArgumentError, WriteError
from labelwise.runtime.files import write_text
from labelwise.structures.datasets.base import Entry, LabelledStructure, make_structure
from labelwise.structures.datasets.frame_text import format_frame

#: The splits of the test file, named as OC20 names them.
TEST_SPLITS = ("val_id", "val_ood_ads", "val_ood_cat", "val_ood_both")
SLAB_FILES = ("train.extxyz", "valid.extxyz", "test.extxyz", "pool.extxyz")
MANIFEST = "manifest.json"
LEVEL = "EMT as ASE has it (effective medium theory; H, C, N and O are crude)"
_MOST_TRAIN, _MOST_VALID, _MOST_TEST = 200, 100, 200
_LEAST_POOL = 20
#: Frames of one system in validation and test sets: neighbours along a path say little.
_HELD_OUT_EACH = 5
_VALID, _POOL = 4, 5  # after the test splits, as seeds


def write_slab_example(
    folder: Path,
    *,
    n_pool: int = 20_000,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
    replace: bool = False,
) -> list[Path]:
    """Generate adsorbates on metal slabs, label them with EMT, and write pool and held-out sets.

    ``pool.extxyz`` and ``train.extxyz`` (up to 200 random frames that are not in the pool)
    come from the same systems, ``valid.extxyz`` (up to 100) and the split ``val_id`` of
    ``test.extxyz`` from others of the same metals and adsorbates; ``val_ood_ads``,
    ``val_ood_cat`` and ``val_ood_both`` have adsorbates, slabs, or both, that no other file
    has. The four splits are of equal size (up to 200). Pools below 2,000 get smaller sets.
    Labels are ``REF_energy`` (eV) and ``REF_forces`` (eV/Å). The seed decides everything.

    Args:
        folder: Where the files go; made if missing.
        n_pool: Structures of the pool, >= 20.
        seed: >= 0.
        progress: Called as each system of the pool begins, and at the end, with the structures of
            the pool that are written and wanted.
        replace: Overwrite files that are there.

    Returns:
        The paths of train, valid, test and pool, and of the manifest with all counts.

    Raises:
        ArgumentError: n_pool or seed out of range.
        WriteError: A file is there already, or cannot be written.
    """
    if n_pool < _LEAST_POOL or seed < 0:
        raise ArgumentError(
            f"n_pool is {n_pool} and seed is {seed}; allowed are n_pool >= {_LEAST_POOL} and "
            "seed >= 0"
        )
    paths = [folder / name for name in (*SLAB_FILES, MANIFEST)]
    present = [path for path in paths if path.exists()]
    if present and not replace:
        raise WriteError(f"{present[0]} exists; choose another folder, or replace the files")
    paths[-1].unlink(missing_ok=True)  # it stands for a set that is complete
    plan = _Plan.of_pool(n_pool, seed)
    counts: dict[str, _Counts] = {}
    train, valid, test, pool, manifest = paths
    with _whole_file(test) as stream:
        for number, split in enumerate(TEST_SPLITS):
            frames = _iter_held_out(plan, split, number, plan.n_test)
            counts[split] = _write(stream, frames)
    with _whole_file(valid) as stream:
        counts["valid"] = _write(stream, _iter_held_out(plan, "valid", _VALID, plan.n_valid))
    with _whole_file(train) as train_stream, _whole_file(pool) as pool_stream:
        streams = {"train": train_stream, "pool": pool_stream}
        counts |= _write_pool(plan, streams, progress)
    write_text(manifest, _describe(plan, counts))
    return paths


@dataclass
class _Plan:
    """Sizes, the seed, and the combinations that are held out so far."""

    seed: int
    n_pool: int
    n_train: int
    n_valid: int
    n_test: int
    held_out: set[str] = field(default_factory=set)

    @classmethod
    def of_pool(cls, n_pool: int, seed: int) -> _Plan:
        n_train = min(_MOST_TRAIN, max(4, n_pool // 10))
        n_valid = min(_MOST_VALID, max(4, n_pool // 20))
        return cls(seed, n_pool, n_train, n_valid, min(_MOST_TEST, n_train))


@dataclass
class _Counts:
    """What a split holds."""

    structures: int = 0
    atoms: int = 0
    systems: set[str] = field(default_factory=set)
    by: dict[str, Counter[str]] = field(default_factory=dict)

    def add(self, structure: LabelledStructure) -> None:
        self.structures += 1
        self.atoms += len(structure.atoms)
        self.systems.add(str(structure.entry.family))
        for key in ("metal", "facet", "adsorbate", "kind"):
            self.by.setdefault(key, Counter())[structure.atoms.info[key]] += 1

    def as_json(self) -> dict[str, Any]:
        by = {key: dict(sorted(count.items())) for key, count in self.by.items()}
        sizes = {"structures": self.structures, "systems": len(self.systems)}
        return {**sizes, "mean_atoms": round(self.atoms / max(1, self.structures), 2), **by}


def _iter_held_out(
    plan: _Plan, split: str, number: int, n_wanted: int
) -> Iterator[LabelledStructure]:
    """Yield a few random frames each of systems that are in no other split."""
    catalysts = UNSEEN_CATALYSTS if split in ("val_ood_cat", "val_ood_both") else CATALYSTS
    adsorbates = UNSEEN_ADSORBATES if split in ("val_ood_ads", "val_ood_both") else ADSORBATES
    n_made = attempt = 0
    while n_made < n_wanted:
        rng = np.random.default_rng([plan.seed, number, attempt])
        attempt += 1
        system = draw_system(rng, catalysts, adsorbates)
        if system.name in plan.held_out:
            continue
        plan.held_out.add(system.name)
        frames = list(_iter_system(system, f"{split}-{attempt}", rng))
        n_each = min(_HELD_OUT_EACH, n_wanted - n_made, len(frames))
        for i in sorted(rng.choice(len(frames), n_each, replace=False).tolist()):
            yield _make(frames[i], split, n_made)
            n_made += 1


@dataclass(frozen=True, slots=True)
class _Made:
    """A frame before it has a place in a file: what goes to ``make_structure``."""

    name: str
    order: int
    arguments: dict[str, Any]


def _iter_system(system: SlabSystem, number: str, rng: np.random.Generator) -> Iterator[_Made]:
    """Yield the frames of a system, drawn anew with each number."""
    start = build_system(system, rng)
    fixed = np.zeros(len(start), dtype=bool)
    fixed[start.constraints[0].index] = True
    info = {
        "metal": system.metal,
        "facet": system.facet,
        "adsorbate": system.adsorbate,
        "site": system.site,
    }
    shared = {
        "numbers": start.numbers,
        "cell": start.cell.array,
        "pbc": (True, True, True),
        "tags": start.get_tags(),
        "fixed": fixed,
    }
    for order, frame in enumerate(iter_trajectory(start, rng)):
        labels = {"positions": frame.positions, "energy": frame.energy, "forces": frame.forces}
        arguments = {**shared, **labels, "info": {**info, "kind": frame.kind}}
        yield _Made(f"{system.name}-{number}", order, arguments)


def _make(made: _Made, split: str, position: int) -> LabelledStructure:
    entry = Entry(
        position=position,
        name=f"{made.name}/{made.order}",
        family=made.name,
        order=made.order,
        split=split,
    )
    where = f"generated structure {entry.name}"
    return make_structure(entry, where, **made.arguments)


def _write(stream: TextIO, structures: Iterator[LabelledStructure]) -> _Counts:
    counts = _Counts()
    for structure in structures:
        stream.write(format_frame(structure))
        counts.add(structure)
    return counts


def _write_pool(
    plan: _Plan, streams: dict[str, TextIO], progress: Callable[[int, int], None] | None
) -> dict[str, _Counts]:
    """Write frames of system after system; random ones of all are the labelled beginning."""
    rng = np.random.default_rng([plan.seed, _POOL])
    n_all = plan.n_pool + plan.n_train
    is_train = np.zeros(n_all, dtype=bool)
    is_train[rng.choice(n_all, plan.n_train, replace=False)] = True
    counts = {"train": _Counts(), "pool": _Counts()}
    for number, made in enumerate(_iter_pool(plan, n_all)):
        split = "train" if is_train[number] else "pool"
        structure = _make(made, split, counts[split].structures)
        if progress is not None and made.order == 0:
            progress(counts["pool"].structures, plan.n_pool)
        streams[split].write(format_frame(structure))
        counts[split].add(structure)
    if progress is not None:
        progress(counts["pool"].structures, plan.n_pool)
    return counts


def _iter_pool(plan: _Plan, n_wanted: int) -> Iterator[_Made]:
    """Yield as many frames as wanted, of systems that are not held out."""
    n_made = attempt = 0
    while n_made < n_wanted:
        rng = np.random.default_rng([plan.seed, _POOL, attempt])
        attempt += 1
        system = draw_system(rng)
        if system.name in plan.held_out:
            continue
        for made in _iter_system(system, str(attempt), rng):
            if n_made == n_wanted:
                return
            yield made
            n_made += 1


def _describe(plan: _Plan, counts: dict[str, _Counts]) -> str:
    content: dict[str, Any] = {
        "title": "Adsorbates on metal slabs, in the manner of OC20",
        "level_of_theory": LEVEL,
        "seed": plan.seed,
        "versions": {"ase": ase.__version__, "numpy": np.__version__},
        "splits": {name: each.as_json() for name, each in sorted(counts.items())},
    }
    return json.dumps(content, indent=1) + "\n"


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that is there under its name only when it is whole."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("w", encoding="utf-8") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    except OSError as error:
        raise WriteError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        partial.unlink(missing_ok=True)
