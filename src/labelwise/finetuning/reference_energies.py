"""Whether known atomic reference energies explain a labelled set, and what to say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from ase.data import chemical_symbols
from jaxtyping import Bool, Float64, Int64

from labelwise.errors import ArgumentError
from labelwise.finetuning.metrics import root_mean_square
from labelwise.structures.atom_energies import (
    AtomEnergyFit,
    find_far_off,
    in_row_space,
    predict_left_out,
)

#: What reference energies of the labels' own level may leave of a set that cannot decide on
#: better ones, eV/atom. A pretrained model of the same level leaves 0.03 to 0.05 of the demo's
#: structures, energies of another level mostly more than 0.3: see ``judge_references``.
_SAME_LEVEL = 0.15
#: A fit has to leave less than this share of what the known energies leave, ...
_CLEARLY_LESS = 0.5
#: ... or than this one, of compositions that were kept from it, where these are at least twice
#: as many as the combinations that are fitted.
_LESS = 0.8
#: A standard error of a fitted energy that is worth a word, eV.
_NOTABLE_UNCERTAINTY = 0.1
# What held-out energies are off by if they and the model do not belong together, eV/atom.
_MISFIT = 1.0
_N_NAMED = 3


@dataclass(frozen=True)
class Judgement:
    """How well known reference energies explain a labelled set, beside energies fitted to it.

    Attributes:
        left: Root mean square of what they leave, eV/atom.
        noise: What the fit leaves, corrected for the combinations it could choose, eV/atom; NaN
            where there are no more structures than combinations.
        left_out: What fits leave of compositions that were kept from them, eV/atom; NaN if no
            composition is a combination of the others.
        left_there: What the known energies leave of those, eV/atom.
        share: The fit had to leave less than this share of ``left_there``.
        is_refuted: Whether the fitted energies are to be taken in their place.
        far_off: (n,) bool, structures that they do not explain, and the fit does not either.
    """

    left: float
    noise: float
    left_out: float
    left_there: float
    share: float
    is_refuted: bool
    far_off: Bool[np.ndarray, " n"]


def judge_references(
    counts: Int64[np.ndarray, "n E"],
    energies: Float64[np.ndarray, " n"],
    references: Float64[np.ndarray, " E"],
    fit: AtomEnergyFit,
) -> Judgement:
    """Decide whether known reference energies are to be replaced by fitted ones.

    A fit always leaves less than what it did not choose, but what it chose for few compositions
    is wrong for others. It is taken if it leaves clearly less of compositions that were kept
    from it: less than 80 % where the compositions are at least twice as many as the combinations
    fitted, else less than half. Compositions too few for that decide if the known energies leave
    more than 0.15 eV/atom, which is beyond what a model of the same level does, and the fit less
    than half of that.

    Tried with the demo's 2,972 structures and subsets of 3 to 200 of them, and energies shifted
    by element: unshifted, energies were kept in all but 0 to 2 % of the subsets (the error of
    other structures is 53 meV/atom then, and was 55 to 89 with fitted energies); shifted by 1 eV
    and more, 90 to 100 % were fitted.

    Args:
        counts: (n, E) int64, atoms of each element in each structure.
        energies: (n,) float64, eV, label minus interaction energy of the model.
        references: (E,) float64, eV, the known energies.
        fit: Of the same energies.

    Returns:
        The judgement.
    """
    offset = (energies - counts @ references) / counts.sum(axis=1)
    is_explained = np.abs(fit.deviation) < _CLEARLY_LESS * np.abs(offset)
    far_off = find_far_off(offset) & ~is_explained
    judged = fit.used & ~far_off
    left_out = predict_left_out(counts[judged], offset[judged])
    reached = np.isfinite(left_out)
    left, left_there = root_mean_square(offset[judged]), root_mean_square(offset[judged][reached])
    is_plenty = count_compositions(counts[judged]) >= 2 * fit.n_determined
    share = _LESS if is_plenty else _CLEARLY_LESS
    is_better = root_mean_square(left_out[reached]) < share * left_there
    is_other_level = left > _SAME_LEVEL and not fit.noise >= _CLEARLY_LESS * left
    return Judgement(
        left=left,
        noise=fit.noise,
        left_out=root_mean_square(left_out[reached]),
        left_there=left_there,
        share=share,
        is_refuted=is_better or is_other_level,
        far_off=far_off,
    )


def prior_energies(
    elements: Sequence[int],
    checkpoint: Float64[np.ndarray, " E"],
    energies: Mapping[int, float] | None,
    *,
    required: Sequence[int] = (),
    name: str = "isolated_atoms",
) -> Float64[np.ndarray, " E"]:
    """Overwrite the checkpoint's energies with known ones.

    Args:
        elements: (E,) atomic numbers.
        checkpoint: (E,) float64, eV.
        energies: eV by atomic number; None keeps all.
        required: Atomic numbers that must be among them.
        name: What to call the argument in a message.

    Returns:
        (E,) float64, eV.

    Raises:
        ArgumentError: a required element is missing, or an energy is not finite.
    """
    known = dict(energies) if energies is not None else {}
    missing = sorted(set(required) - set(known))
    if missing:
        raise ArgumentError(
            f"{name} lacks the energies of {list_symbols(missing)}, which the labelled set "
            "contains; add them, or set reference_energies to 'refit'"
        )
    if not np.isfinite(list(known.values())).all():
        raise ArgumentError(f"{name} holds energies that are not finite: {known}")
    merged = checkpoint.copy()
    for place, z in enumerate(elements):
        if z in known:
            merged[place] = known[z]
    return merged


def explain_undetermined(
    fit: AtomEnergyFit, n_compositions: int, elements: Sequence[int], prior_name: str
) -> tuple[str, ...]:
    """Say in plain words what the labelled set could not determine, or only poorly; () if nothing.

    Args:
        fit: The fit.
        n_compositions: Different compositions that it was made of.
        elements: (E,) atomic numbers.
        prior_name: Where the rest comes from: ``the checkpoint``.
    """
    noun = "composition" if n_compositions == 1 else "different compositions"
    numbers = np.asarray(elements)
    if fit.undetermined.any():
        undetermined = list_symbols(numbers[fit.undetermined].tolist())
        message = (
            f"The labelled set has {n_compositions} {noun}: it does not determine the reference "
            f"energies of {undetermined} one by one, only {fit.n_determined} "
            f"combination{'s' if fit.n_determined > 1 else ''} of them. The rest was taken from "
            f"{prior_name}. Energies of structures with the labelled compositions are not "
            f"affected; those of other compositions rest on {prior_name}, whose energies are "
            f"{write_size(fit.prior_rms)} off the labels here, and may be off by as much. Label "
            "structures of other compositions, or give isolated atoms of the same level of theory."
        )
        return (message,)
    poor = np.flatnonzero(fit.uncertainty > _NOTABLE_UNCERTAINTY)
    if len(poor) == 0:
        return ()
    listed = ", ".join(
        f"{chemical_symbols[numbers[i]]} ±{fit.uncertainty[i]:.2g} eV" for i in poor.tolist()
    )
    message = (
        f"The labelled set's {n_compositions} {noun} determine the fitted reference energies "
        f"poorly ({listed}): total energies of other compositions may be off by as much for each "
        "such atom. Label structures of other compositions, or give isolated atoms of the same "
        "level of theory."
    )
    return (message,)


def explain_unreached(
    train: Int64[np.ndarray, "n E"],
    others: Int64[np.ndarray, "m E"],
    errors: Float64[np.ndarray, " m"],
    *,
    elements: Sequence[int],
    prior_name: str,
) -> tuple[str, ...]:
    """Say which validation structures have a composition that the training set cannot reach.

    Args:
        train: (n, E) int64, atoms of each element in each labelled structure.
        others: (m, E) int64, the same for the validation structures.
        errors: (m,) float64, eV, label minus energy of the model with the fitted references.
        elements: (E,) atomic numbers.
        prior_name: What their energies rest on.
    """
    outside = ~in_row_space(train, others)
    if not outside.any():
        return ()
    absent = others[outside].any(axis=0) & ~train.any(axis=0)
    new = list_symbols(np.asarray(elements)[absent].tolist())
    why = f" ({new} not in the training set)" if absent.any() else ""
    message = (
        f"{int(outside.sum())} of {len(others)} validation structures have a composition that is "
        f"no combination of the labelled ones{why}: their total energies rest on {prior_name} and "
        f"are off by {write_number(root_mean_square(errors[outside]))} eV (root mean square) "
        "before training."
    )
    return (message,)


def explain_far_off(
    names: Sequence[str], offset: Float64[np.ndarray, " n"], far_off: Bool[np.ndarray, " n"]
) -> tuple[str, ...]:
    """Name the structures whose energies lie far off the others'; () if there are none.

    Args:
        names: (n,) what to call each structure.
        offset: (n,) float64, eV/atom, how far off each is.
        far_off: (n,) bool.
    """
    if not far_off.any():
        return ()
    verb = "lies" if far_off.sum() == 1 else "lie"
    message = (
        f"{far_off.sum()} of {len(names)} labelled energies {verb} far off what the others let "
        f"expect: {_list_offsets(names, offset, far_off)}. The reference energies were chosen "
        "without; the structures are trained on as they are. Look at them with 'labelwise "
        "check-data', and correct them or take them out."
    )
    return (message,)


def explain_far_from_model(
    names: Sequence[str], offset: Float64[np.ndarray, " n"]
) -> tuple[str, ...]:
    """Say that held-out energies lie far off the model's: all, or some, unlike the others.

    Args:
        names: (n,) what to call each structure.
        offset: (n,) float64, eV/atom, how far off each is.

    Returns:
        One message, or () if there are none.
    """
    typical = float(np.median(np.abs(offset))) if len(offset) else 0.0
    if typical > _MISFIT:
        message = (
            f"The {len(names)} labelled energies are typically {write_size(typical)} from the "
            "model's: of another level of theory than the training set's, in another unit, or of "
            "compositions of which the model knows too little."
        )
        return (message,)
    far_off = find_far_off(offset)
    if not far_off.any():
        return ()
    verb = "is" if far_off.sum() == 1 else "are"
    message = (
        f"{far_off.sum()} of {len(names)} labelled energies {verb} far from the model's, unlike "
        f"the others: {_list_offsets(names, offset, far_off)}. Wrong labels, or compositions of "
        "which the model knows too little; they count in the errors as they are. Look at them "
        "with 'labelwise check-data'."
    )
    return (message,)


def _list_offsets(
    names: Sequence[str], offset: Float64[np.ndarray, " n"], far_off: Bool[np.ndarray, " n"]
) -> str:
    """Name the structures that are farthest off."""
    places = np.flatnonzero(far_off)
    first = places[np.argsort(-np.abs(offset[places]), kind="stable")][:_N_NAMED]
    named = "; ".join(f"{names[i]}, {_write_signed(offset[i])} eV/atom" for i in first.tolist())
    more = f" and {len(places) - _N_NAMED} more" if len(places) > _N_NAMED else ""
    return f"{named}{more}"


def count_compositions(counts: Int64[np.ndarray, "n E"]) -> int:
    """Count the different compositions, multiples of each other being the same."""
    parts = counts / counts.sum(axis=1, keepdims=True)
    return len(np.unique(parts.round(9), axis=0))


def write_size(value: float) -> str:
    """Write a size in eV/atom in words, in meV/atom if it is small."""
    return f"{write_number(value)} eV/atom" if value >= 1 else f"{1000 * value:.0f} meV/atom"


def _write_signed(value: float) -> str:
    return f"{'-' if value < 0 else '+'}{write_number(abs(value))}"


def write_number(value: float) -> str:
    """Write a number to three digits, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def list_symbols(numbers: Sequence[int]) -> str:
    """Write atomic numbers as symbols: ``H, C and O``."""
    symbols = [chemical_symbols[z] for z in sorted(numbers)]
    if len(symbols) < 2:
        return "".join(symbols)
    return f"{', '.join(symbols[:-1])} and {symbols[-1]}"
