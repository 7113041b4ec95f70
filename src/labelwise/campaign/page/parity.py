"""Predicted against reference energies and forces."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.campaign.page.scored import LabelledFrames, ScoredSet
from labelwise.campaign.page.wording import as_float32, write_error
from labelwise.finetuning.metrics import mean_absolute, root_mean_square
from labelwise.pages.document import Axis, Chart, Choice, Mark, Series
from labelwise.structures.atom_energies import count_elements, fit_atom_energies

#: Force components that are drawn.
MOST_COMPONENTS = 3_000
#: Structures whose energies are drawn.
MOST_ENERGIES = 3_000
_MEV = 1000.0


def make_parity(scored: ScoredSet, groups: Sequence[str], *, seed: int) -> tuple[Choice, ...]:
    """Return parity charts of energies and of forces, by round.

    Args:
        scored: A held-out set and its predictions.
        groups: What the points of each structure belong to, (n,); one series each.
        seed: Of the components and structures that are drawn.
    """
    generator = np.random.default_rng(seed)
    drawn = _draw(len(scored.labelled), MOST_ENERGIES, generator)
    owner, component = _list_components(scored.labelled)
    chosen = _draw(len(owner), MOST_COMPONENTS, generator)
    owner, component = owner[chosen], component[chosen]
    shift = shift_energies(scored.labelled)
    energies, forces = [], []
    for place, n_round in enumerate(scored.rounds):
        name = f"round {n_round}"
        energies.append((name, _energy_chart(scored, place, drawn, shift, groups)))
        forces.append((name, _force_chart(scored, place, owner, component, groups)))
    last = len(scored.rounds) - 1
    choices = [Choice("parity-energy", "round", tuple(energies), first=last)]
    if len(owner):
        choices.append(Choice("parity-forces", "round", tuple(forces), first=last))
    return tuple(choices)


def _draw(n: int, most: int, generator: np.random.Generator) -> Int64[np.ndarray, " k"]:
    """Return at most so many of 0..n-1, ascending."""
    if n <= most:
        return np.arange(n, dtype=np.int64)
    drawn: Int64[np.ndarray, " k"] = np.sort(generator.choice(n, most, replace=False))
    return drawn


def _list_components(
    labelled: LabelledFrames,
) -> tuple[Int64[np.ndarray, " c"], Int64[np.ndarray, " c"]]:
    """Return structure, and place among its 3N components, of each component that counts."""
    owners, components = [np.zeros(0, dtype=np.int64)], [np.zeros(0, dtype=np.int64)]
    for place, counted in enumerate(labelled.counted):
        found = np.flatnonzero(np.repeat(counted, 3)).astype(np.int64)
        owners.append(np.full(len(found), place, dtype=np.int64))
        components.append(found)
    return np.concatenate(owners), np.concatenate(components)


def shift_energies(labelled: LabelledFrames) -> Float64[np.ndarray, " n"]:
    """Return what composition alone makes of the labelled energies, (n,), eV.

    One energy an element is fitted by least squares, without labels that lie far off the
    others; where elements always come in the same proportion, the smallest ones that do.
    """
    numbers = [frame.atoms.numbers for frame in labelled.frames]
    counts = count_elements(numbers, np.unique(np.concatenate(numbers)).tolist())
    fit = fit_atom_energies(counts, labelled.energies, prior=np.zeros(counts.shape[1]))
    shift: Float64[np.ndarray, " n"] = counts @ fit.energies
    return shift


def _energy_chart(
    scored: ScoredSet,
    place: int,
    drawn: Int64[np.ndarray, " k"],
    shift: Float64[np.ndarray, " n"],
    groups: Sequence[str],
) -> Chart:
    labelled, errors = scored.labelled, scored.errors[place]
    true = (labelled.energies - shift) / labelled.atom_counts
    predicted = (scored.predictions[place].energies - shift) / labelled.atom_counts
    shown = "" if len(drawn) == len(labelled) else f"{len(drawn):,} structures drawn. "
    caption = (
        f"{scored.title[:1].upper()}{scored.title[1:]}: RMSE "
        f"{write_error(root_mean_square(errors.energy_per_atom))} meV/atom "
        f"({write_error(root_mean_square(errors.energy))} meV), MAE "
        f"{write_error(mean_absolute(errors.energy_per_atom))} meV/atom. {shown}"
        "From both energies, one energy an element is subtracted, fitted to the reference."
    )
    series = _split(scored, drawn, true[drawn], predicted[drawn], groups)
    n_round = scored.rounds[place]
    name, title = f"parity-energy-{n_round}", f"Energies after round {n_round}"
    return _chart(name, title, "energy / eV atom⁻¹", series, caption)


def _force_chart(
    scored: ScoredSet,
    place: int,
    owner: Int64[np.ndarray, " k"],
    component: Int64[np.ndarray, " k"],
    groups: Sequence[str],
) -> Chart:
    labelled, found = scored.labelled, scored.predictions[place].forces
    true, predicted = (_pick(forces, owner, component) for forces in (labelled.forces, found))
    counted = np.concatenate(labelled.counted)
    errors = (np.concatenate(found) - np.concatenate(labelled.forces))[counted].ravel()
    sample = "" if len(owner) == len(errors) else f"{len(owner):,} components drawn. "
    caption = (
        f"RMSE {write_error(root_mean_square(errors) * _MEV)} meV/Å, MAE "
        f"{write_error(mean_absolute(errors) * _MEV)} meV/Å over all {len(errors):,} "
        f"components. {sample}A point opens its structure."
    )
    series = _split(scored, owner, true, predicted, groups)
    n_round = scored.rounds[place]
    name, title = f"parity-forces-{n_round}", f"Force components after round {n_round}"
    return _chart(name, title, "force / eV Å⁻¹", series, caption)


def _chart(name: str, title: str, axis: str, series: tuple[Series, ...], caption: str) -> Chart:
    """Return predicted values against those of reference."""
    x, y = Axis(f"reference {axis}"), Axis(f"predicted {axis}")
    return Chart(name, title, Mark.POINTS, x, y, series, diagonal=True, caption=caption)


def _pick(
    forces: Sequence[np.ndarray],
    owner: Int64[np.ndarray, " k"],
    component: Int64[np.ndarray, " k"],
) -> Float64[np.ndarray, " k"]:
    return np.array(
        [forces[i].ravel()[c] for i, c in zip(owner.tolist(), component.tolist(), strict=True)],
        dtype=np.float64,
    )


def _split(
    scored: ScoredSet,
    owner: Int64[np.ndarray, " k"],
    x: Float64[np.ndarray, " k"],
    y: Float64[np.ndarray, " k"],
    groups: Sequence[str],
) -> tuple[Series, ...]:
    """Return a series for each group, the largest first."""
    member = np.array(groups, dtype=object)[owner]
    names = sorted(set(member.tolist()), key=lambda name: (-int((member == name).sum()), name))
    series = []
    for style, name in enumerate(names):
        own = member == name
        places = scored.structure[owner[own]]
        series.append(
            Series(str(name), as_float32(x[own]), as_float32(y[own]), style=style, structure=places)
        )
    return tuple(series)
