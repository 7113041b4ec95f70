"""What scoring a pool with a method takes: passes as counted, time and memory as measured."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase import Atoms

from labelwise.campaign.atomic_io import read_json, write_json
from labelwise.campaign.config import SelectionSection
from labelwise.errors import StructureError
from labelwise.features.fill import make_screen
from labelwise.features.representations import (
    Representation,
    RepresentationOptions,
    iter_features,
    make_representation,
)
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.store.memory import MemoryRows
from labelwise.finetuning.committee import predict_committee
from labelwise.kernels.building import open_kernels
from labelwise.potentials import Potential, load_potential
from labelwise.potentials.passes import count_passes
from labelwise.potentials.spec import find_model
from labelwise.selection.rules import JOINT_RULE
from labelwise.studies.comparison.inputs import draw_frames
from labelwise.studies.comparison.presets import count_structures
from labelwise.studies.comparison.results import MethodCost
from labelwise.studies.comparison.study import Cell, StudyConfig

_log = logging.getLogger(__name__)

COSTS = "costs.json"
_N_SAMPLE = 32

_MIB = 2.0**20


@dataclass(frozen=True)
class _Features:
    """What representing a sample leaves in memory: bytes, and the length of a row (0: none)."""

    n_bytes: int = 0
    dim: int = 0


class StudySample:
    """A study's pretrained model and some structures of each pool, read when first needed.

    Args:
        study: The study.
        base: Where its relative paths begin.
    """

    def __init__(self, study: StudyConfig, base: Path) -> None:
        self._study, self._base = study, base
        self._drawn: dict[str, list[Atoms]] = {}

    @cached_property
    def potential(self) -> Potential:
        """The pretrained model."""
        model = self._study.model
        return load_potential(
            find_model(self._base, model.path),
            device=model.device,
            dtype=model.dtype,
            head=model.head,
            trust=model.trust,
        )

    def structures(self, pool: str) -> list[Atoms]:
        """Return structures spread over a pool, those of its files that the model can take.

        Raises:
            ReadError: A file cannot be read.
            StructureError: There are none.
        """
        if pool not in self._drawn:
            screen = make_screen(self.potential)
            specs = [str(self._base / spec) for spec in self._study.pools[pool].pool]
            drawn = [frame.atoms for frame in draw_frames(specs, screen, _N_SAMPLE, seed=0)]
            if not drawn:
                raise StructureError(f"the pool {pool} has no structure that the model can take")
            self._drawn[pool] = drawn
        return self._drawn[pool]

    def count(self, pool: str) -> int:
        """Return how many structures a pool has."""
        return count_structures(self._study.pools[pool].pool, self._base)


def find_costs(
    cells: Sequence[Cell], folder: Path, sample: StudySample, *, measures: bool = True
) -> list[MethodCost]:
    """Return what scoring costs with each method, measured once and kept in ``costs.json``.

    Args:
        cells: Campaigns; a method is measured on the pool of its first one.
        folder: The study's.
        sample: What to measure on.
        measures: Whether those that are not known are measured; else they are left out.
    """
    path = folder / COSTS
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    first = {cell.key.method: cell for cell in reversed(cells)}
    settings = {name: _settings(cell) for name, cell in first.items()}
    missing = [name for name in first if known.get(name, {}).get("settings") != settings[name]]
    if missing and not measures:
        names = ", ".join(missing)
        _log.info("the costs of %s are not known: --tables-only measures nothing", names)
    elif missing:
        _log.info("measuring what each method costs")
        for name in missing:
            pool, selection = first[name].key.pool, first[name].config.selection
            structures, n_pool = sample.structures(pool), sample.count(pool)
            cost = measure_costs(name, selection, structures, sample.potential, n_pool=n_pool)
            known[name] = {"settings": settings[name], "cost": asdict(cost)}
        folder.mkdir(parents=True, exist_ok=True)
        write_json(path, known)
    order = dict.fromkeys(cell.key.method for cell in cells)
    return [MethodCost(**known[name]["cost"]) for name in order if measures or name not in missing]


def _settings(cell: Cell) -> Mapping[str, Any]:
    """Return what a method's cost depends on, as it is in JSON."""
    content = {
        "model": cell.config.model.model_dump(mode="json"),
        "selection": cell.config.selection.model_dump(mode="json"),
        "pool": cell.config.data.pool,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain


def measure_costs(
    method: str,
    selection: SelectionSection,
    structures: Sequence[Atoms],
    potential: Potential | None = None,
    *,
    n_pool: int,
) -> MethodCost:
    """Represent a sample of structures as a method does, and count and measure.

    Graphs are built here too, as selecting does. One structure goes through before the clock
    starts, so that what happens once is not in the time. Memory is that of the sample's kernel
    as it is held, rows or packed bits, scaled to the pool; no rule makes an n × n matrix. Of
    sparse rows the columns in use are those of the sample.

    Args:
        method: Its name.
        selection: How it scores; every member of a committee counts as the same model.
        structures: The sample, at least one; not modified.
        potential: The model; None where none is needed.
        n_pool: Structures of the pool that ``feature_mib`` is for.

    Raises:
        ArgumentError: A representation needs a model, or see ``iter_features``.
        StructureError: See ``iter_features``.
    """
    run = _choose_run(selection, potential)
    run(structures[:1])
    with count_passes() as passes:
        began = time.process_time()
        features = run(structures)
        seconds = time.process_time() - began
    n = len(structures)
    return MethodCost(
        method=method,
        n_forward=passes.n_forward / n,
        n_backward=passes.n_backward / n,
        n_models=selection.members if selection.needs_committee else 1,
        dim=features.dim,
        seconds_per_structure=0.0 if selection.rule == "random" else seconds / n,
        feature_mib=features.n_bytes / n * n_pool / _MIB,
    )


def _choose_run(
    selection: SelectionSection, potential: Potential | None
) -> Callable[[Sequence[Atoms]], _Features]:
    """Return what scores structures."""
    options = selection.settings(selection.batch_size, seed=0).options
    batch_atoms = selection.batch_atoms
    if selection.rule == "random":
        return lambda _: _Features()
    if potential is not None and selection.needs_committee:
        members = [potential] * selection.members
        return lambda some: _predict(members, some, batch_atoms)
    if potential is not None and selection.rule == JOINT_RULE:
        return lambda some: _take_joint_rows(potential, some, options, batch_atoms)
    # Made once: random weights are drawn on first use, which is no part of scoring.
    chosen = make_representation(selection.representation, options)
    return lambda some: _take_rows(potential, some, chosen, batch_atoms)


def _predict(
    members: Sequence[Potential], structures: Sequence[Atoms], batch_atoms: int | None
) -> _Features:
    predict_committee(members, structures, batch_atoms=batch_atoms)
    return _Features()


def _take_rows(
    potential: Potential | None,
    structures: Sequence[Atoms],
    representation: Representation,
    batch_atoms: int | None,
) -> _Features:
    rows = MemoryRows(representation, potential)
    for chunk in iter_features(structures, potential, representation, batch_atoms=batch_atoms):
        rows.extend(chunk)
    (kernel,) = open_kernels(rows, [np.arange(len(rows))])
    return _Features(_count_bytes(kernel), rows.n_features)


def _count_bytes(value: object) -> int:
    """Return the bytes of all arrays that an object holds, at any depth."""
    if isinstance(value, (np.ndarray, torch.Tensor)):
        return value.nbytes
    if isinstance(value, Mapping):
        return sum(map(_count_bytes, value.values()))
    return sum(map(_count_bytes, vars(value).values())) if hasattr(value, "__dict__") else 0


def _take_joint_rows(
    potential: Potential,
    structures: Sequence[Atoms],
    options: RepresentationOptions,
    batch_atoms: int | None,
) -> _Features:
    n_bytes = dim = 0
    for block in iter_row_sets(structures, potential, options, batch_atoms=batch_atoms):
        n_bytes += block.rows.nbytes
        dim = block.rows.shape[1]
    return _Features(n_bytes, dim)
