"""The kernels of a sample of structures, before and after fine-tuning, and what they tell apart."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from ase import Atoms
from jaxtyping import Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.features.representations import (
    RepresentationOptions,
    make_representation,
)
from labelwise.kernels.building import build_kernels
from labelwise.potentials.base import Potential
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import Frame
from labelwise.studies.diagnostics.geometry import (
    KernelGeometry,
    centred_alignment,
    measure_geometry,
)
from labelwise.studies.diagnostics.settings import DEFAULT_MAX_STRUCTURES

#: Matrices are n × n float64, and their spectra take n³ operations.
LARGEST_SAMPLE = 4000
#: Random weights beside the kernel of trained ones that they are compared with.
_TRAINED = {"activation-random": "activation", "ntk-random": "ntk-e"}


@dataclass(frozen=True)
class FamilySample:
    """Structures sorted by family and by place along the path.

    Attributes:
        idx: Which of the offered structures, (n,).
        family: Number of the family of each, (n,), not descending.
        order: Place along the path, (n,), ascending within families; None if not known.
        names: Names of the families.
        n_offered: Structures that the sample was drawn from, a family.
    """

    idx: Int64[np.ndarray, " n"]
    family: Int64[np.ndarray, " n"]
    order: Float64[np.ndarray, " n"] | None
    names: tuple[str, ...]
    n_offered: tuple[int, ...]


@dataclass(frozen=True)
class KernelEntry:
    """One kernel of one model.

    Attributes:
        kernel: Name of the representation.
        model: Name of the model; None where weights do not matter.
        geometry: The numbers.
        similarity: Centred alignment with the kernel of the same representation and the first
            model; for random weights, with the trained ones of the first model. NaN for that
            kernel itself and where there is none.
        seconds: Time for features and matrix.
        K: The matrix, (n, n), dimensionless.
    """

    kernel: str
    model: str | None
    geometry: KernelGeometry
    similarity: float
    seconds: float
    K: Float64[np.ndarray, "n n"] = field(repr=False)


@dataclass(frozen=True)
class GeometryStudy:
    """Kernels of the same structures.

    Attributes:
        sample: The structures.
        entries: Kernels that depend on a model's weights first, model after model for each,
            then the others.
        models: Names of the models, the one that others are compared with first.
    """

    sample: FamilySample
    entries: tuple[KernelEntry, ...]
    models: tuple[str, ...]


def read_families(frames: Sequence[Frame], key: str) -> list[str]:
    """Return the family of each structure from its ``info``.

    Args:
        frames: n structures.
        key: Which entry of ``info``.

    Returns:
        n names.

    Raises:
        ArgumentError: Structures without it; the message names the first and what all have.
    """
    lacking = [frame for frame in frames if key not in frame.atoms.info]
    if lacking:
        known = sorted(set.intersection(*(set(frame.atoms.info) for frame in frames)))
        raise ArgumentError(
            f"{len(lacking)} of {len(frames)} structures have no info key {key!r}, the first "
            f"{lacking[0].source}; group by a key that all have ({', '.join(known) or 'none'}), "
            "or leave those structures out"
        )
    return [str(frame.atoms.info[key]) for frame in frames]


def read_order(frames: Sequence[Frame], key: str) -> Float64[np.ndarray, " n"]:
    """Return the place of each structure along its path from its ``info``.

    Args:
        frames: n structures.
        key: Which entry of ``info``.

    Returns:
        n numbers, in the entry's unit.

    Raises:
        ArgumentError: An entry is missing or no finite number; the message names the first.
    """
    places = np.empty(len(frames))
    for i, frame in enumerate(frames):
        value = frame.atoms.info.get(key)
        is_number = isinstance(value, int | float | np.number) and not isinstance(value, bool)
        if value is None or not is_number or not np.isfinite(value):
            came = f"is {value!r}" if key in frame.atoms.info else "is missing"
            raise ArgumentError(
                f"the order key {key!r} {came} in {frame.source}; it must be a finite number in "
                "every structure"
            )
        places[i] = value
    return places


def sample_families(
    families: Sequence[str],
    order: Float64[np.ndarray, " n"] | None = None,
    *,
    max_structures: int = DEFAULT_MAX_STRUCTURES,
) -> FamilySample:
    """Choose structures evenly over families and along the order within each.

    Families get the same number as far as they have it; within a family the structures are
    evenly spaced in rank, its first and last among them. Nothing is random.

    Args:
        families: Name of the family of each of the offered structures.
        order: Their places along the path; None takes them as they come.
        max_structures: Structures to choose at most, 2 to 4,000.

    Returns:
        The sample, sorted by family, numbers in names in their natural order, then by place.

    Raises:
        ArgumentError: No structures, ``max_structures`` out of range, or less than two for each
            family that has two.
    """
    if not families:
        raise ArgumentError("there are no structures to compare; give some")
    if not 2 <= max_structures <= LARGEST_SAMPLE:
        raise ArgumentError(
            f"max_structures is {max_structures}; allowed are 2 to {LARGEST_SAMPLE}: matrices of "
            "n × n values are made"
        )
    names = sorted(set(families), key=_natural)
    number = {name: i for i, name in enumerate(names)}
    codes = np.array([number[name] for name in families], dtype=np.int64)
    offered = np.bincount(codes)
    if int(np.minimum(offered, 2).sum()) > max_structures:
        raise ArgumentError(
            f"max_structures is {max_structures}, less than two for each of {len(names)} families; "
            "raise it, or group by a key with fewer values"
        )
    places = np.arange(len(codes), dtype=np.float64) if order is None else order
    chosen = []
    for i, n_take in enumerate(_share(offered, max_structures)):
        own = np.flatnonzero(codes == i)
        own = own[np.argsort(places[own], kind="stable")]
        chosen.append(own[np.linspace(0, len(own) - 1, n_take).round().astype(np.int64)])
    idx = np.concatenate(chosen)
    return FamilySample(
        idx=idx,
        family=codes[idx],
        order=None if order is None else order[idx],
        names=tuple(names),
        n_offered=tuple(int(n) for n in offered),
    )


def study_geometry(
    structures: Sequence[Atoms],
    sample: FamilySample,
    kernels: Sequence[str],
    *,
    potentials: Iterable[tuple[str, Potential]] = (),
    options: RepresentationOptions | None = None,
    batch_atoms: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> GeometryStudy:
    """Make the kernels of a sample with one model after another, and measure them.

    Kernels are of cosines. Descriptors need no model, and random weights only the first one's
    architecture, so both are made once.

    Args:
        structures: What the sample was chosen from; not modified.
        sample: Which of them, their families and places.
        kernels: Names of representations.
        potentials: Models with their names, the one that others are compared with first; read
            one by one, so that a generator holds one model in memory at a time.
        options: Of the representations.
        batch_atoms: Atoms evaluated at once.
        progress: Called with a kernel's name, structures done and their total.

    Returns:
        The matrices and their numbers.

    Raises:
        ArgumentError: No kernel, an unknown one or one twice, two models of one name, or no
            model where one is needed.
        StructureError: A structure that a model cannot take.
    """
    check_kernels(kernels, options)
    chosen = [structures[i] for i in sample.idx]
    made: list[KernelEntry] = []
    models: list[str] = []

    def make(kernel: str, model: str | None, potential: Potential | None) -> None:
        stage = kernel if model is None or len(models) == 1 else f"{kernel}, {model}"
        began = time.perf_counter()
        (built,) = build_kernels(
            [chosen],
            potential,
            kernel,
            options=options,
            batch_atoms=batch_atoms,
            progress=lambda n_done: progress(stage, n_done, len(chosen)),
        )
        K = built.block64(slice(None), built, slice(None)).cpu().numpy()
        seconds = time.perf_counter() - began
        geometry = measure_geometry(K, sample.family, order=sample.order, names=sample.names)
        made.append(KernelEntry(kernel, model, geometry, float("nan"), seconds, K))

    for name, potential in potentials:
        if name in models:
            raise ArgumentError(f"two models are called {name!r}; give each a name of its own")
        models.append(name)
        for kernel in kernels:
            weights_matter = depends_on_weights(kernel, options)
            if weights_matter or len(models) == 1:
                make(kernel, name if weights_matter else None, potential)
    if not models:
        for kernel in kernels:
            make(kernel, None, None)
    made.sort(key=lambda item: (item.model is None, kernels.index(item.kernel)))
    first = {item.kernel: item.K for item in made if models and item.model == models[0]}
    entries = [replace(item, similarity=_compare(item, first)) for item in made]
    return GeometryStudy(sample, tuple(entries), tuple(models))


def check_kernels(kernels: Sequence[str], options: RepresentationOptions | None = None) -> None:
    """See that kernels can be made, before anything is loaded.

    Args:
        kernels: Names of representations.
        options: Of the representations.

    Raises:
        ArgumentError: None, an unknown one, one twice, or an option out of range.
    """
    if not kernels:
        raise ArgumentError("kernels is empty; name one representation or several")
    for kernel in kernels:
        if kernels.count(kernel) > 1:
            raise ArgumentError(f"kernels names {kernel!r} twice; name each once")
        make_representation(kernel, options)


def depends_on_weights(kernel: str, options: RepresentationOptions | None = None) -> bool:
    """Tell whether a kernel changes as the model is trained: no descriptor, no random weights.

    Raises:
        ArgumentError: An unknown name, or an option out of range.
    """
    representation = make_representation(kernel, options)
    return representation.needs_model and kernel not in _TRAINED


def needs_model(kernel: str, options: RepresentationOptions | None = None) -> bool:
    """Tell whether a kernel needs a model, if only for its architecture.

    Raises:
        ArgumentError: An unknown name, or an option out of range.
    """
    return make_representation(kernel, options).needs_model


def _compare(item: KernelEntry, first: Mapping[str, Float64[np.ndarray, "n n"]]) -> float:
    """Return how alike a kernel and that of the first model are; NaN for that kernel itself."""
    reference = first.get(_TRAINED.get(item.kernel, item.kernel))
    if reference is None or reference is item.K:
        return float("nan")
    return centred_alignment(reference, item.K)


def _share(offered: Int64[np.ndarray, " c"], n_total: int) -> Int64[np.ndarray, " c"]:
    """Give each family the same number as far as it has it, the largest what is left over."""
    given = np.zeros_like(offered)
    left = n_total
    for place, i in enumerate(np.argsort(offered, kind="stable")):
        given[i] = min(int(offered[i]), left // (len(offered) - place))
        left -= int(given[i])
    return given


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts numbers in names by value."""
    parts = re.split(r"(\d+)", name)
    return [(part.isdigit(), int(part) if part.isdecimal() else 0, part) for part in parts]
