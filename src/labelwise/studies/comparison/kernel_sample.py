"""Measures the kernels of a study on a sample of its first pool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.errors import ArgumentError
from labelwise.features.fill import make_screen
from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.structures import Frame
from labelwise.studies.comparison.inputs import KernelChoice, StudyInputs, draw_frames
from labelwise.studies.comparison.page.kernels import GEOMETRY_NUMBERS
from labelwise.studies.diagnostics.geometry import mean_by_family
from labelwise.studies.diagnostics.geometry_study import (
    FamilySample,
    read_families,
    read_order,
    sample_families,
    study_geometry,
)

#: Structures of a heat map, and those that families are chosen among.
LARGEST_SAMPLE, LARGEST_DRAW = 144, 1200
MOST_FAMILIES = 12
_FAMILY_KEYS = ("reaction", "family", "config_type", "source", "split")
_ORDER_KEY = "frame"
_LEAST_FAMILIES, _LEAST_MEMBERS = 2, 3


def measure_kernels(
    inputs: StudyInputs, potential: Potential, store: PartStore, part: float
) -> dict[str, dict[str, Any]]:
    """Return each kernel's matrix on a sample, and its numbers.

    ``part``, 0 to 1, is that of ``LARGEST_SAMPLE`` structures to take.

    Returns:
        Name of the kernel to ``matrix``, ``by_family``, ``names``, ``family``, ``families``,
        ``grouped_by`` and ``numbers``, as plain data, which is kept in the store, too.

    Raises:
        ArgumentError: Too few structures.
        LabelwiseError: What keeps the kernels from being measured.
    """
    n_most = round(part * LARGEST_SAMPLE)
    screen = make_screen(potential)
    frames = draw_frames(inputs.files_of("pool"), screen, LARGEST_DRAW, seed=inputs.asked.seed)
    if len(frames) < _LEAST_MEMBERS:
        raise ArgumentError(f"the pool {inputs.pool} has fewer than {_LEAST_MEMBERS} structures")
    families, grouped_by = choose_families(frames, inputs.asked.group_by)
    kept = keep_largest(families, MOST_FAMILIES)
    frames, families = [frames[i] for i in kept], [families[i] for i in kept]
    order = _read_order(frames)
    sample = sample_families(families, order, max_structures=max(n_most, 2 * MOST_FAMILIES))
    structures = [frame.atoms for frame in frames]
    results: dict[str, dict[str, Any]] = {}
    for choice in inputs.kernels:
        result = _measure(choice, structures, sample, potential)
        result |= {
            "names": _name_structures(frames, sample, with_order=order is not None),
            "family": sample.family.tolist(),
            "families": list(sample.names),
            "grouped_by": grouped_by,
        }
        store.write(choice.kernel, result)
        results[choice.kernel] = result
    return results


def _measure(
    choice: KernelChoice, structures: Sequence[Atoms], sample: FamilySample, potential: Potential
) -> dict[str, Any]:
    study = study_geometry(
        structures,
        sample,
        [choice.kernel],
        potentials=[("pretrained", potential)],
        options=choice.settings.options,
    )
    entry = study.entries[0]
    geometry = asdict(entry.geometry)
    by_family = mean_by_family(np.array(entry.K, dtype=np.float64), sample.family)
    return {
        "by_family": by_family.tolist(),
        "matrix": [[round(float(value), 6) for value in row] for row in entry.K],
        "numbers": {name: geometry[name] for name, _ in GEOMETRY_NUMBERS},
    }


def choose_families(frames: Sequence[Frame], asked: str | None) -> tuple[list[str], str]:
    """Say which family each structure is of, and by what.

    Args:
        frames: The structures.
        asked: An info key; if None or not on every structure, one of the usual keys with
            a few values is taken, else the chemical formula.

    Returns:
        The family of each, and the key or ``formula``.
    """
    for key in (() if asked is None else (asked,)) + _FAMILY_KEYS:
        if all(key in frame.atoms.info for frame in frames):
            families = read_families(frames, key)
            n_families = len(set(families))
            few = len(frames) // _LEAST_MEMBERS
            if key == asked or _LEAST_FAMILIES <= n_families <= few:
                return families, key
    return [frame.atoms.get_chemical_formula() for frame in frames], "formula"


def keep_largest(families: Sequence[str], n_most: int) -> list[int]:
    """Return the places of the members of the largest families, in order."""
    names, counts = np.unique(np.array(families), return_counts=True)
    order = np.lexsort((names, -counts))[:n_most]
    largest = {str(name) for name in names[order]}
    return [i for i, family in enumerate(families) if family in largest]


def _read_order(frames: Sequence[Frame]) -> Float64[np.ndarray, " n"] | None:
    try:
        return read_order(frames, _ORDER_KEY)
    except ArgumentError:
        return None  # structures that are on no path


def _name_structures(
    frames: Sequence[Frame], sample: FamilySample, *, with_order: bool
) -> list[str]:
    names = []
    for place, i in enumerate(sample.idx):
        family = sample.names[sample.family[place]]
        number = frames[i].atoms.info[_ORDER_KEY] if with_order else frames[i].source.frame
        names.append(f"{family} · {number}")
    return names
