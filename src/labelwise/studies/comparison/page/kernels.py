"""Heat maps of a study's kernels on a sample of its first pool."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.pages.document import Cell, Choice, HeatMap, Panel, Table, TableColumn
from labelwise.potentials import Potential
from labelwise.runtime.part_store import PartStore
from labelwise.structures import Frame, Screen
from labelwise.studies.comparison.page.inputs import KernelChoice, StudyInputs, draw_frames
from labelwise.studies.comparison.page.naming import Namer
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
_CLIPPED = 1.0
#: Numbers of a kernel's geometry that tables show, and their headings.
GEOMETRY_NUMBERS = (
    ("within", "within families"),
    ("between", "between families"),
    ("neighbour_accuracy", "nearest is of the family"),
    ("silhouette", "silhouette"),
    ("path_correlation", "ρ along the path"),
    ("effective_rank", "effective rank"),
)


def measure_kernels(
    inputs: StudyInputs, potential: Potential, store: PartStore, n_most: int
) -> dict[str, dict[str, Any]]:
    """Return each kernel's matrix on a sample and its numbers, computed or kept from before.

    Args:
        inputs: The study's data and kernels.
        potential: The pretrained model.
        store: Where results are kept.
        n_most: Structures of the sample at most.

    Returns:
        Name of the kernel to ``matrix``, ``names``, ``family``, ``families``, ``grouped_by`` and
        ``numbers``, as plain data.

    Raises:
        ArgumentError: Too few structures.
        ReadError: A file is missing or damaged.
        StructureError: A structure that the model cannot take.
        MissingDependencyError: A kernel needs a package that is not installed.
    """
    screen = Screen(potential.graph_builder)
    frames = draw_frames(inputs.files_of("pool"), screen, LARGEST_DRAW, seed=inputs.asked.seed)
    if len(frames) < _LEAST_MEMBERS:
        raise ArgumentError(f"the pool {inputs.pool} has fewer than {_LEAST_MEMBERS} structures")
    families, grouped_by = choose_families(frames, inputs.asked.colour_by)
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
        options=choice.options,
    )
    entry = study.entries[0]
    geometry = asdict(entry.geometry)
    return {
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


def draw_kernels(results: Mapping[str, Mapping[str, Any]], pool: str, namer: Namer) -> list[Panel]:
    """Return heat maps of kernels, of families and of structures, and a table of their numbers.

    Args:
        results: What ``measure_kernels`` returned.
        pool: Name of the pool.
        namer: Gives panels their names.
    """
    if not results:
        return []
    options = [*_draw_families(results, pool, namer), *_draw_structures(results, pool, namer)]
    choice = Choice(namer.name("kernels"), "kernel", tuple(options))
    return [choice if len(options) > 1 else options[0][1], _make_table(results, pool)]


def _draw_families(
    results: Mapping[str, Mapping[str, Any]], pool: str, namer: Namer
) -> Iterator[tuple[str, HeatMap]]:
    for kernel, result in results.items():
        families = tuple(str(name) for name in result["families"])
        if len(families) < _LEAST_FAMILIES:
            continue
        values = mean_by_family(_matrix_of(result), _family_of(result))
        yield (
            f"{kernel}, families",
            HeatMap(
                name=namer.name("kernel", kernel, "families"),
                title=f"Similarity under {kernel}: families of {pool}",
                values=values.astype(np.float32),
                rows=families,
                columns=families,
                label="mean similarity",
                caption=(
                    f"Mean kernel value of the pairs of two families ({result['grouped_by']}), a "
                    "structure with itself left out; features of the pretrained model. A bright "
                    "diagonal on a dark ground: the kernel tells families apart."
                ),
            ),
        )


def _draw_structures(
    results: Mapping[str, Mapping[str, Any]], pool: str, namer: Namer
) -> Iterator[tuple[str, HeatMap]]:
    for kernel, result in results.items():
        values = _matrix_of(result)
        names = tuple(str(name) for name in result["names"])
        yield (
            f"{kernel}, structures",
            HeatMap(
                name=namer.name("kernel", kernel, "structures"),
                title=f"Similarity under {kernel}: structures of {pool}",
                values=values.astype(np.float32),
                rows=names,
                columns=names,
                label="similarity",
                limits=_find_limits(values),
                caption=(
                    f"{len(names)} structures, families ({result['grouped_by']}) together and in "
                    "order of their frames; colours from the 1st to the 99th percentile."
                ),
            ),
        )


def _make_table(results: Mapping[str, Mapping[str, Any]], pool: str) -> Table:
    rows: list[tuple[Cell, ...]] = []
    for kernel, result in results.items():
        numbers: Mapping[str, Any] = result["numbers"]
        rows.append(
            (kernel, len(result["names"]), *(_known(numbers[name]) for name, _ in GEOMETRY_NUMBERS))
        )
    return Table(
        name="kernel-numbers",
        title=f"What kernels tell apart in {pool}",
        columns=(
            TableColumn("kernel"),
            TableColumn("structures"),
            *(TableColumn(heading, 3) for _, heading in GEOMETRY_NUMBERS),
        ),
        rows=tuple(rows),
        caption=(
            "Mean similarity of two structures of one family, of two; the part of the structures "
            "whose nearest other one is of their family; mean silhouette; Spearman correlation of "
            "kernel distance with distance along the path; effective rank of the centred matrix."
        ),
    )


def _matrix_of(result: Mapping[str, Any]) -> Float64[np.ndarray, "n n"]:
    return np.array(result["matrix"], dtype=np.float64)


def _family_of(result: Mapping[str, Any]) -> Int64[np.ndarray, " n"]:
    return np.array(result["family"], dtype=np.int64)


def _find_limits(values: Float64[np.ndarray, "n n"]) -> tuple[float, float] | None:
    pairs = values[np.triu_indices(len(values), k=1)]
    if not len(pairs):
        return None
    low, high = (float(x) for x in np.percentile(pairs, [_CLIPPED, 100.0 - _CLIPPED]))
    return (low, high) if high > low else None


def _known(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)
