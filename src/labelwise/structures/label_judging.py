"""Telling gradients and wrong units of labels from what a model predicts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms
from ase.units import Bohr, Hartree, Rydberg, kcal, kJ, mol
from jaxtyping import Bool, Float64, Int64

from labelwise.structures.fixed_atoms import free_atoms
from labelwise.structures.labels import Labels

#: Units that forces come in, as numbers for 1 eV/Å.
_FORCE_UNITS = {
    "hartree/bohr": Bohr / Hartree,
    "hartree/Å": 1 / Hartree,
    "Ry/bohr": Bohr / Rydberg,
    "Ry/Å": 1 / Rydberg,
    "eV/Å taken for kcal/mol/Å": kcal / mol,
    "kcal/mol/bohr": Bohr * mol / kcal,
    "kcal/mol/Å": mol / kcal,
    "eV/Å taken for hartree/Å": Hartree,
    "eV/Å taken for hartree/bohr": Hartree / Bohr,
    "kJ/mol/Å": mol / kJ,
    "meV/Å": 1000.0,
}
_CLOSE_UNITS = {"eV/bohr": Bohr, "eV/Å taken for eV/bohr": 1 / Bohr}
#: Units that energies come in, as numbers for 1 eV.
_ENERGY_UNITS = {
    "hartree": 1 / Hartree,
    "Ry": 1 / Rydberg,
    "kcal/mol": mol / kcal,
    "kJ/mol": mol / kJ,
    "meV": 1000.0,
    "eV taken for hartree": Hartree,
    "eV taken for Ry": Rydberg,
    "eV taken for kcal/mol": kcal / mol,
}
#: |cosine| of labels and predictions from which a structure is judged, and the same in standard
#: deviations of forces that have nothing to do with each other.
_CORRELATED, _SIGNIFICANT = 0.5, 1.5
#: Degrees of freedom of all structures together from which a set is judged.
_N_FREE = 30
#: |cosine| of energies, and degrees of freedom, from which they are judged.
_ENERGIES_CORRELATED, _N_FREE_ENERGIES = 0.7, 10
#: Ratio of sizes that no model of the labels' own unit has; between the two is its error.
_OUT_OF_SCALE = 8.0
#: The same for single structures against the others, which scatter near minima.
_OUT_OF_LINE = 10.0
#: Part of a set from which structures that differ from the others are worth a word.
_NOTABLE = 0.02
#: Part of the structures whose directions are known from which it is said of all.
_NEARLY_ALL = 0.75
_NEAR_UNIT = 1.6
_N_NAMED = 3


@dataclass(frozen=True)
class Judgement:
    """What labels that were held against a model's predictions look like.

    Attributes:
        reversed_idx: Places of structures whose forces point against the model's.
        scaled_idx: Places of those whose forces are far too large or too small.
        messages: The same in words; empty if nothing is the matter.
    """

    reversed_idx: tuple[int, ...] = ()
    scaled_idx: tuple[int, ...] = ()
    messages: tuple[str, ...] = ()


def judge_labels(
    structures: Sequence[Atoms],
    labels: Sequence[Labels],
    energies: Float64[np.ndarray, " n"],
    forces: Sequence[Float64[np.ndarray, "_ 3"]],
    sources: Sequence[object],
) -> Judgement:
    """Hold labels against predictions; see ``judge_energies`` and ``judge_forces``.

    Forces of fixed atoms, which some programs set to zero, do not count.

    Args:
        structures: n structures.
        labels: (n,) eV and eV/Å if they are right.
        energies: (n,) predicted, eV.
        forces: (n_atoms_i, 3) each, predicted, eV/Å.
        sources: Where each structure came from, (n,), for messages.

    Returns:
        What was found, places as in the arguments.
    """
    free = [free_atoms(atoms) for atoms in structures]
    found = judge_forces(
        [label.forces[mask] for label, mask in zip(labels, free, strict=True)],
        [force[mask] for force, mask in zip(forces, free, strict=True)],
        sources,
    )
    words = judge_energies(
        np.array([label.energy for label in labels], dtype=np.float64),
        energies,
        [atoms.numbers for atoms in structures],
    )
    return found if words is None else replace(found, messages=(words, *found.messages))


def judge_forces(
    labels: Sequence[Float64[np.ndarray, "_ 3"]],
    predicted: Sequence[Float64[np.ndarray, "_ 3"]],
    sources: Sequence[object],
) -> Judgement:
    """Tell gradients and wrong units by the directions and sizes of forces.

    Nothing is said where the model knows too little: at least half of the structures must have
    forces along its own, or against them, by a cosine of 0.5 or more.

    Args:
        labels: (n_atoms_i, 3) each, in eV/Å if they are right.
        predicted: (n_atoms_i, 3) each, eV/Å.
        sources: Where each structure came from, (n,), for messages.

    Returns:
        What was found, places as in the arguments.
    """
    cosine, ratio, n_free = _compare(labels, predicted)
    judged = np.isfinite(cosine)
    if not _is_known(cosine[judged], n_free[judged]):
        return Judgement()
    strong = judged & (np.abs(cosine) > _CORRELATED)
    typical = float(np.median(ratio[strong]))
    units = _name_units(typical, cosine[strong], ratio[strong])
    backward, is_nearly_all = _find_backward(cosine, ratio / typical, strong)
    scaled = strong & (_is_aside(ratio / typical) if units is None else ~_is_aside(ratio / typical))
    messages = []
    for places, words in (
        (backward, _say_backward(is_nearly_all)),
        (scaled, _say_scaled(units, typical, ratio[scaled])),
    ):
        if _is_notable(places, judged):
            messages.append(_say(places, judged, sources, words))
        else:
            places[:] = False
    return Judgement(_places(backward), _places(scaled), tuple(messages))


def judge_energies(
    labels: Float64[np.ndarray, " n"],
    predicted: Float64[np.ndarray, " n"],
    numbers: Sequence[Int64[np.ndarray, " _"]],
) -> str | None:
    """Tell energies in another unit by how much they vary among structures of one composition.

    So sums over atoms do not count: neither core electrons nor the level of theory.

    Args:
        labels: (n,) in eV if they are right.
        predicted: (n,) eV.
        numbers: (n_atoms_i,) each, atomic numbers.

    Returns:
        What they look like, in words; None if nothing is the matter, or the model's energies do
        not go with them.
    """
    groups: defaultdict[bytes, list[int]] = defaultdict(list)
    for i, each in enumerate(numbers):
        groups[np.sort(each).tobytes()].append(i)
    vectors = []
    for values in (labels, predicted):
        parts = [values[places] - values[places].mean() for places in groups.values()]
        vectors.append(np.concatenate([np.zeros(0), *parts]))
    size, of_model = (float(np.linalg.norm(vector)) for vector in vectors)
    if len(labels) - len(groups) < _N_FREE_ENERGIES or not min(size, of_model) > 0:
        return None
    cosine, ratio = float(vectors[0] @ vectors[1]) / (size * of_model), size / of_model
    is_in_scale = 1 / _OUT_OF_SCALE <= ratio <= _OUT_OF_SCALE
    if not abs(cosine) > _ENERGIES_CORRELATED or (is_in_scale and cosine > 0):
        return None
    near = "" if is_in_scale else _name_near(ratio, _ENERGY_UNITS)
    return (
        "The labelled energies of structures of one composition vary "
        + ("against those of the model, " if cosine < 0 else "")
        + f"{ratio:.3g} times as much as those of the model"
        + (f", as if in {near}" if near else "")
        + ": labels are total energies in eV."
    )


def _compare(
    labels: Sequence[Float64[np.ndarray, "_ 3"]], predicted: Sequence[Float64[np.ndarray, "_ 3"]]
) -> tuple[Float64[np.ndarray, " n"], Float64[np.ndarray, " n"], Float64[np.ndarray, " n"]]:
    """Return cosines and ratios of sizes, NaN where either vanishes, and degrees of freedom."""
    found = np.full((3, len(labels)), np.nan)
    for i, (label, guess) in enumerate(zip(labels, predicted, strict=True)):
        size, of_guess = float(np.linalg.norm(label)), float(np.linalg.norm(guess))
        if min(size, of_guess) > 0 and np.isfinite(size * of_guess):
            cosine = float((label * guess).sum()) / (size * of_guess)
            found[:, i] = cosine, size / of_guess, max(3 * len(label) - 6, 1)
    return found[0], found[1], found[2]


def _is_known(cosine: Float64[np.ndarray, " m"], n_free: Float64[np.ndarray, " m"]) -> bool:
    if n_free.sum() < _N_FREE:
        return False
    size = np.abs(cosine)
    return bool(np.median(size) > _CORRELATED and np.median(size * np.sqrt(n_free)) > _SIGNIFICANT)


def _is_aside(ratio: Float64[np.ndarray, " n"]) -> Bool[np.ndarray, " n"]:
    """Return which sizes, typically 1, are far from the others."""
    with np.errstate(invalid="ignore"):
        aside: np.ndarray = (ratio > _OUT_OF_LINE) | (ratio * _OUT_OF_LINE < 1)
    return aside


def _find_backward(
    cosine: Float64[np.ndarray, " n"],
    ratio: Float64[np.ndarray, " n"],
    strong: Bool[np.ndarray, " n"],
) -> tuple[Bool[np.ndarray, " n"], bool]:
    """Return which point against the model, and whether nearly all whose direction is known do.

    Few among many do so by chance near minima, where the model's own error is what is left of
    its forces: these must have the usual size, or one far from it.
    """
    backward = strong & (cosine < 0)
    is_nearly_all = bool(backward.sum() >= _NEARLY_ALL * strong.sum())
    if not is_nearly_all:
        backward &= ((ratio > 0.5) & (ratio < 2)) | _is_aside(ratio)
    return backward, is_nearly_all


def _name_units(
    typical: float, cosine: Float64[np.ndarray, " s"], ratio: Float64[np.ndarray, " s"]
) -> str | None:
    """Return the units that all forces may be in; None for eV/Å, "" for none that is known."""
    if 1 / _OUT_OF_SCALE <= typical <= _OUT_OF_SCALE:
        spread = np.ptp(np.percentile(np.log(ratio), (25, 75)))
        if np.median(np.abs(cosine)) < 0.97 or spread > 0.1:
            return None
        near = [unit for unit, size in _CLOSE_UNITS.items() if abs(np.log(typical / size)) < 0.1]
        return near[0] if near else None
    return _name_near(typical, _FORCE_UNITS)


def _name_near(factor: float, units: Mapping[str, float]) -> str:
    near = [unit for unit in units if abs(np.log(factor / units[unit])) < np.log(_NEAR_UNIT)]
    near.sort(key=lambda unit: ("taken for" in unit, abs(np.log(factor / units[unit]))))
    return " or ".join(near[:2])


def _is_notable(places: Bool[np.ndarray, " n"], judged: Bool[np.ndarray, " n"]) -> bool:
    return bool(places.any() and places.sum() >= _NOTABLE * judged.sum())


def _say_backward(is_nearly_all: bool) -> str:
    if is_nearly_all:
        return "point against those of the model, as gradients do: a force is −gradient"
    return "point against those of the model, unlike the others: they may be gradients"


def _say_scaled(units: str | None, typical: float, ratio: Float64[np.ndarray, " m"]) -> str:
    if units is None:
        factor = float(np.median(ratio)) / typical if ratio.size else 1.0
        near = _name_near(factor, _FORCE_UNITS)
        words = f"are about {factor:.3g} times as large as expected from the others"
    else:
        near = units
        words = f"are about {typical:.3g} times as large as those of the model"
    looks = f", as if in {near}" if near else ""
    return f"{words}{looks}: labels are in eV/Å"


def _say(
    places: Bool[np.ndarray, " n"],
    judged: Bool[np.ndarray, " n"],
    sources: Sequence[object],
    words: str,
) -> str:
    named = ", ".join(str(sources[i]) for i in _places(places)[:_N_NAMED])
    more = ", ..." if places.sum() > _N_NAMED else ""
    return (
        f"The labelled forces of {places.sum()} of {judged.sum()} structures that were held "
        f"against the model ({named}{more}) {words}."
    )


def _places(mask: Bool[np.ndarray, " n"]) -> tuple[int, ...]:
    return tuple(np.flatnonzero(mask).tolist())
