"""What is double, what stands alone and which labels do not fit: a check of a data set."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64

from labelwise.errors import LabelError
from labelwise.kernels.base import Kernel
from labelwise.potentials import Potential
from labelwise.potentials.batching import predict_structures
from labelwise.runtime.settings import check_bounds
from labelwise.structures import Labels, get_labels
from labelwise.structures.annotations import get_head, say_several_heads
from labelwise.structures.atom_energies import robust_score
from labelwise.structures.convergence import find_unconverged_in
from labelwise.structures.energy_units import EnergyUnits
from labelwise.structures.label_judging import judge_labels
from labelwise.structures.labels import (
    choose_keys,
    has_any,
    is_placeholder,
    say_keys,
)
from labelwise.studies.curation.data_set import DataSet
from labelwise.studies.curation.neighbours import find_nearest_others
from labelwise.studies.curation.outliers import (
    composition_deviation,
    leave_one_out_variance,
)
from labelwise.studies.curation.settings import CheckSettings

#: A force component beyond this is a failed calculation, eV/Å.
MAX_FORCE = 100.0
#: Energies of equal structures that differ by more than this contradict each other, eV.
SAME_ENERGY = 1e-3


@dataclass(frozen=True)
class Finding:
    """One structure that something is the matter with.

    Attributes:
        kind: ``near-duplicate``, ``structure-outlier``, ``energy-outlier``, ``force-outlier``,
            ``bad-label``, ``label-conflict``, ``unconverged``, ``reversed-forces`` or
            ``force-scale``.
        position: Its position in the data set.
        detail: What was found, in words.
        value: Kernel distance; posterior variance; eV/atom; eV/Å; eV; NaN for none.
        score: Robust standard deviations from the median; NaN for none.
        other: Position of the structure that it was held against; None for none.
    """

    kind: str
    position: int
    detail: str
    value: float = math.nan
    score: float = math.nan
    other: int | None = None


@dataclass(frozen=True)
class DataReport:
    """What a check found.

    Attributes:
        equal_sets: Positions of the structures of each set of exact duplicates.
        shared_groups: Pairs of groups that have a structure in common, with the number of
            different structures that they share.
        nearest_groups: Pairs of groups whose nearest structures are near duplicates or equal,
            with their kernel distance, nearest first; () without a kernel or groups.
        findings: All else, by kind, the worst first.
        n_labelled: Structures with an energy and forces.
        n_checked: Different structures that were compared under the kernel; 0 without one.
        label_keys: Keys of energy and forces that were found; None if no structure has either.
        messages: What concerns the labels as a whole, in plain words.
    """

    equal_sets: tuple[tuple[int, ...], ...]
    shared_groups: tuple[tuple[str, str, int], ...]
    nearest_groups: tuple[tuple[str, str, float], ...]
    findings: tuple[Finding, ...]
    n_labelled: int
    n_checked: int
    label_keys: tuple[str, str] | None
    messages: tuple[str, ...]

    def of_kind(self, kind: str) -> tuple[Finding, ...]:
        """Return the findings of one kind."""
        return tuple(found for found in self.findings if found.kind == kind)


def check_data(
    data: DataSet,
    kernel: Kernel | None = None,
    settings: CheckSettings | None = None,
    *,
    potential: Potential | None = None,
    batch_atoms: int | None = None,
) -> DataReport:
    """Look for duplicates and outliers.

    Exact duplicates agree in all coordinates. Near duplicates and structure outliers are
    looked for among what is left without them and need a kernel, which also sees copies that
    were moved, rotated or re-ordered. An outlier is a structure whose posterior variance given
    all others is, on a logarithmic scale, far above the median.

    Args:
        data: The data set, (n,) structures.
        kernel: Of all its structures, (n,); None for duplicates and labels only.
        settings: Thresholds; None for the defaults. Where no structure has labels under the
            default keys, ASE's own ``energy`` and ``forces`` are taken.
        potential: A model that the labels are held against; None for none.
        batch_atoms: Atoms that it predicts at once.

    Raises:
        ArgumentError: A setting is out of range, or no structure has ``group_by``.
        LabelError: The energies are in another unit than eV, as ``EnergyUnits`` tells it.
        SelectionError: A kernel value is not finite.
    """
    settings = CheckSettings() if settings is None else settings
    check_bounds(settings)
    unique = np.flatnonzero(~data.is_repeat)
    found: list[Finding] = []
    if kernel is not None:
        part = kernel.take(torch.from_numpy(unique).to(kernel.device))
        found += _find_near(part, unique, settings.near)
        found += _find_lonely(part, unique, settings)
    keys = choose_keys(data.structures, settings.energy_key, settings.forces_key)
    labels, bad = _read_labels(data, keys)
    found += bad
    found += _find_conflicts(data, labels)
    found += _find_energies(data, labels, settings)
    found += _find_forces(labels, settings)
    judged, messages = _judge_labels(data, labels, potential, batch_atoms)
    found += judged
    groups = None if settings.group_by is None else data.groups(settings.group_by)
    return DataReport(
        equal_sets=_equal_sets(data),
        shared_groups=() if groups is None else _shared_groups(data, groups),
        nearest_groups=_nearest_groups(kernel, groups, settings.near),
        findings=tuple(found),
        n_labelled=sum(label is not None for label in labels),
        n_checked=0 if kernel is None else len(unique),
        label_keys=keys,
        messages=(*_explain_keys(data, settings, keys), *_explain_heads(data), *messages),
    )


def _equal_sets(data: DataSet) -> tuple[tuple[int, ...], ...]:
    members: dict[int, list[int]] = {}
    for position, first in enumerate(data.first_equal.tolist()):
        members.setdefault(first, []).append(position)
    return tuple(tuple(places) for places in members.values() if len(places) > 1)


def _shared_groups(data: DataSet, groups: Sequence[str]) -> tuple[tuple[str, str, int], ...]:
    pairs: Counter[tuple[str, str]] = Counter()
    for places in _equal_sets(data):
        names = sorted({groups[i] for i in places})
        pairs.update((a, b) for i, a in enumerate(names) for b in names[i + 1 :])
    return tuple((a, b, n) for (a, b), n in sorted(pairs.items()))


def _nearest_groups(
    kernel: Kernel | None, groups: Sequence[str] | None, near: float
) -> tuple[tuple[str, str, float], ...]:
    if kernel is None or groups is None:
        return ()
    nearest, distance = find_nearest_others(kernel, groups=groups)
    least: dict[tuple[str, str], float] = {}
    for i in np.flatnonzero(distance <= near).tolist():
        first, second = sorted((groups[i], groups[nearest[i]]))
        pair = (first, second)
        least[pair] = min(least.get(pair, np.inf), float(distance[i]))
    found = sorted((value, *pair) for pair, value in least.items())
    return tuple((first, second, value) for value, first, second in found)


def _find_near(kernel: Kernel, unique: Int64[np.ndarray, " u"], near: float) -> list[Finding]:
    nearest, distance = find_nearest_others(kernel)
    close = np.flatnonzero(distance <= near)
    # A pair of mutual neighbours is told once, at its later member.
    told = [i for i in close.tolist() if not (nearest[nearest[i]] == i and nearest[i] > i)]
    return [
        Finding(
            "near-duplicate",
            int(unique[i]),
            f"kernel distance {distance[i]:.2g}",
            value=float(distance[i]),
            other=int(unique[nearest[i]]),
        )
        for i in sorted(told, key=lambda i: float(distance[i]))
    ]


def _find_lonely(
    kernel: Kernel, unique: Int64[np.ndarray, " u"], settings: CheckSettings
) -> list[Finding]:
    variance = leave_one_out_variance(kernel, regularisation=settings.regularisation)
    score = robust_score(np.log(np.maximum(variance, np.finfo(np.float64).tiny)))
    words = "posterior variance {:.3g} given all others"
    found = _list_outliers("structure-outlier", variance, score, score > settings.threshold, words)
    return [replace(each, position=int(unique[each.position])) for each in found]


def _list_outliers(
    kind: str,
    values: Float64[np.ndarray, " n"],
    score: Float64[np.ndarray, " n"],
    flagged: Bool[np.ndarray, " n"],
    words: str,
) -> list[Finding]:
    """Return the flagged structures, largest |value| first; the words have room for the value."""
    places = np.flatnonzero(flagged)
    return [
        Finding(kind, i, words.format(values[i]), float(values[i]), float(score[i]))
        for i in places[np.argsort(-np.abs(values[places]), kind="stable")].tolist()
    ]


def _explain_keys(
    data: DataSet, settings: CheckSettings, keys: tuple[str, str] | None
) -> tuple[str, ...]:
    given = (settings.energy_key, settings.forces_key)
    if keys == given:
        return ()
    nothing = f"No structure has {given[0]} or {given[1]}: "
    if keys is not None:
        return (f"{nothing}the labels are taken from {keys[0]} and {keys[1]}.",)
    message = (
        f"{nothing}labels were not looked for. Keys that are there: {say_keys(data.structures)}. "
        "Where labels are among them, name them (--energy-key and --forces-key)."
    )
    return (message,)


def _explain_heads(data: DataSet) -> tuple[str, ...]:
    several = say_several_heads(map(get_head, data.structures))
    if several is None:
        return ()
    return (f"The structures {several}: check, and fit, those of each alone.",)


def _read_labels(
    data: DataSet, keys: tuple[str, str] | None
) -> tuple[list[Labels | None], list[Finding]]:
    """Return each structure's labels, and findings where they are there but not usable.

    Structures without any label are not at fault; one of two, or NaN, is.
    """
    labels: list[Labels | None] = []
    bad: list[Finding] = []
    if keys is None:
        return [None] * len(data), bad
    for place, atoms in enumerate(data.structures):
        label = None
        if has_any(atoms, keys):
            try:
                label = get_labels(
                    atoms,
                    str(data.sources[place]),
                    energy_key=keys[0],
                    forces_key=keys[1],
                )
            except LabelError as error:
                detail = str(error).removeprefix(f"{data.sources[place]}: ")
                bad.append(Finding("bad-label", place, detail))
        if label is not None and is_placeholder(atoms, label):
            detail = "energy or all forces are exactly zero, as if never calculated"
            bad.append(Finding("bad-label", place, detail, value=0.0))
            label = None
        labels.append(label)
    return labels, bad


def _judge_labels(
    data: DataSet,
    labels: Sequence[Labels | None],
    potential: Potential | None,
    batch_atoms: int | None,
) -> tuple[list[Finding], tuple[str, ...]]:
    """Look at labels together, and beside a model.

    Raises:
        LabelError: The energies are in another unit than eV.
    """
    units = EnergyUnits("the energy")
    known = [(i, label) for i, label in enumerate(labels) if label is not None]
    for i, label in known:
        atoms = data.structures[i]
        units.add(atoms.numbers, label.energy, str(data.sources[i]), atoms.info)
    units.check()
    found = [
        Finding("unconverged", i, f"its calculation says {said}")
        for i, _ in known
        if (said := find_unconverged_in(data.structures[i]))
    ]
    if potential is None or not known:
        return found, ()
    structures = [data.structures[i] for i, _ in known]
    judged = judge_labels(
        structures,
        [label for _, label in known],
        *predict_structures(potential, structures, batch_atoms=batch_atoms),
        [data.sources[i] for i, _ in known],
    )
    for kind, places, words in (
        ("reversed-forces", judged.reversed_idx, "forces point against those of the model"),
        ("force-scale", judged.scaled_idx, "forces are of another size than those of the model"),
    ):
        found += [Finding(kind, known[i][0], words) for i in places]
    return found, judged.messages


def _find_conflicts(data: DataSet, labels: Sequence[Labels | None]) -> list[Finding]:
    found = []
    for places in _equal_sets(data):
        first, *others = [i for i in places if labels[i] is not None] or [-1]
        for place in others:
            gap = _energies(labels)[place] - _energies(labels)[first]
            if abs(gap) > SAME_ENERGY:
                detail = f"energy {gap:+.4g} eV from that of an equal structure"
                found.append(
                    Finding("label-conflict", place, detail, value=float(gap), other=first)
                )
    return sorted(found, key=lambda item: -abs(item.value))


def _find_energies(
    data: DataSet, labels: Sequence[Labels | None], settings: CheckSettings
) -> list[Finding]:
    deviation = composition_deviation(
        data.structures, _energies(labels), threshold=settings.threshold
    )
    score = robust_score(deviation)
    words = "energy {:+.4g} eV/atom from what the composition lets expect"
    flagged = np.abs(score) > settings.threshold
    return _list_outliers("energy-outlier", deviation, score, flagged, words)


def _find_forces(labels: Sequence[Labels | None], settings: CheckSettings) -> list[Finding]:
    """Judge the largest component of each structure, on a logarithmic scale."""
    largest = np.array(
        [np.nan if label is None else np.abs(label.forces).max(initial=0.0) for label in labels],
        dtype=np.float64,
    )
    with np.errstate(divide="ignore"):
        score = robust_score(np.log(largest))
    flagged = (score > settings.threshold) | (largest > MAX_FORCE)
    words = "a force component of {:.4g} eV/Å"
    return _list_outliers("force-outlier", largest, score, flagged, words)


def _energies(labels: Sequence[Labels | None]) -> Float64[np.ndarray, " n"]:
    return np.array([np.nan if label is None else label.energy for label in labels])
