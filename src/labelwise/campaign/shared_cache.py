"""What the campaigns of one process share, so that it is not made again for each of them.

Everything in it can be made again: a campaign gives the same results with a cache of its
own, with one that others have used, and after any of it was lost.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labelwise.campaign.atomic_io import read_json, write_json
from labelwise.campaign.config import ModelSection
from labelwise.features.store.memory import RowCache
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.labelled import hash_labelled
from labelwise.finetuning.pretraining_set import PretrainingSet
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.engines import Engine
from labelwise.runtime.files import write_bytes
from labelwise.runtime.provenance import package_versions
from labelwise.structures import Frame, iter_unscreened
from labelwise.structures.annotations import ANNOTATIONS
from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.labels import get_partial_labels
from labelwise.structures.reading import expand_specs

#: Structures of a pool up to which they are kept in memory between rounds.
MAX_FRAMES = 50_000
_MAX_POOLS = 4


class SharedCache:
    """Models, structures, features and fits that several campaigns begin with.

    Args:
        folder: Where fits of round 0 are kept for campaigns in other processes; None keeps
            none.
        engine: Where rows of features are computed; None for this process.
    """

    def __init__(self, folder: Path | None = None, engine: Engine | None = None) -> None:
        self.folder, self.engine = folder, engine
        self.features = RowCache()
        self._models: dict[tuple[str, ...], Potential] = {}
        self._frames: dict[tuple[Any, ...], tuple[Frame, ...]] = {}

    def load_pretrained(self, path: str, model: ModelSection) -> Potential:
        """Load a model once; its features may be kept."""
        key = (path, _stamp(Path(path)), model.model_dump_json())
        if key not in self._models:
            potential = require_trainable(  # each round will; said before anything is computed
                load_potential(
                    path, device=model.device, dtype=model.dtype, head=model.head, trust=model.trust
                )
            )
            self.features.keep(potential)
            self._models[key] = potential
        return self._models[key]

    def iter_frames(self, specs: Sequence[str]) -> Iterator[Frame]:
        """Read structures, from memory if the same files were read before and are not large."""
        parts = expand_specs(list(specs))
        key = (*specs, *((str(part.path), _stamp(part.path)) for part in parts))
        if key in self._frames:
            yield from self._frames[key]
            return
        kept: list[Frame] | None = []
        for frame in iter_unscreened(list(specs)):
            if kept is not None:
                kept.append(frame)
                if len(kept) > MAX_FRAMES:
                    kept = None
            yield frame
        if kept is not None:
            self._frames[key] = tuple(kept)
            while len(self._frames) > _MAX_POOLS:
                del self._frames[next(iter(self._frames))]

    def find_fit(self, key: str, path: Path) -> dict[str, Any] | None:
        """Copy a fitted model that is known already.

        Returns:
            The record that was kept with it; None if there is none.
        """
        if self.folder is None or not (self.folder / f"{key}.json").exists():
            return None
        write_bytes(path, (self.folder / f"{key}.pt").read_bytes(), durable=True)
        return read_json(self.folder / f"{key}.json")

    def keep_fit(self, key: str, potential: Potential, record: Mapping[str, Any]) -> None:
        """Keep a fitted model for other campaigns."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # Two processes may make the same fit at once: each writes a file of its own first.
        own = self.folder / f"{key}.{os.getpid()}.pt"
        save_potential(potential, own)
        own.replace(self.folder / f"{key}.pt")
        write_json(self.folder / f"{key}.json", record)


def describe_fit(
    start: Potential,
    train: Sequence[Frame],
    valid: Sequence[Frame],
    recipe: Recipe,
    *,
    seed: int,
    isolated_atoms: Mapping[int, float] | None,
    label_keys: tuple[str, str],
    stress_key: str | None = None,
    fixed_forces: str = "count",
    replay: PretrainingSet | None = None,
) -> str:
    """Return one word for all that decides what a fine-tuning gives.

    Args:
        start: The model that it begins with.
        train: Labelled structures, in order.
        valid: Labelled structures that choose the epoch.
        recipe: The settings.
        seed: Of the order of structures.
        isolated_atoms: Atomic number to energy, eV.
        label_keys: Of energies and forces.
        stress_key: Of stress, where there is one.
        fixed_forces: Whether validation errors count the forces of fixed atoms.
        replay: What is replayed.
    """
    content = {
        "start": start.content_hash,
        "device": str(start.device),
        "train": [_digest(frame, label_keys, stress_key) for frame in train],
        "valid": [_digest(frame, label_keys, stress_key) for frame in valid],
        "recipe": asdict(recipe),
        "seed": seed,
        "isolated_atoms": isolated_atoms,
        "versions": package_versions(),
    }
    if fixed_forces == "exclude" or recipe.loss_fixed_forces == "exclude":
        masks = [free_atoms(frame.atoms).tolist() for frame in (*train, *valid)]
        content |= {"fixed_forces": fixed_forces, "free": masks}
    annotated = [
        {key: str(frame.atoms.info[key]) for key in ANNOTATIONS if key in frame.atoms.info}
        for frame in (*train, *valid)
    ]
    if any(annotated):
        content["annotations"] = annotated
    if replay is not None:
        content["replay"] = replay.content_hash
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _digest(frame: Frame, label_keys: tuple[str, str], stress_key: str | None) -> str:
    energy_key, forces_key = label_keys
    labels, known = get_partial_labels(
        frame.atoms,
        str(frame.source),
        energy_key=energy_key,
        forces_key=forces_key,
        stress_key=stress_key,
    )
    return hash_labelled(frame.atoms, labels) + ("" if all(known) else str(known))


def _stamp(path: Path) -> str:
    """Return size and time of a file; nothing for what is no file."""
    try:
        status = path.stat()
    except OSError:
        return ""
    return f"{status.st_size} {status.st_mtime_ns}"
