"""The pool under the kernel, and how what is labelled grows from round to round."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32, Int64

from labelwise.campaign.config import COMMITTEE_RULES
from labelwise.campaign.page.kept import KeptArrays, digest
from labelwise.campaign.page.landscape import Landscape
from labelwise.campaign.page.saved import Candidate, SavedCampaign
from labelwise.campaign.page.wording import write_error
from labelwise.pages.document import (
    Column,
    PointNote,
    PoolMap,
    Role,
)
from labelwise.selection.page.kernel_map import KernelMap, map_kernels
from labelwise.selection.page.options import ReportOptions
from labelwise.selection.page.pool_columns import (
    category_column,
    clean_text,
    make_columns,
    name_apart,
    number_column,
)
from labelwise.selection.rules import get_rule
from labelwise.selection.rules.nearest_labelled import find_nearest
from labelwise.structures import hash_structure

MAP_NAME = "campaign-map"
_ROLES = list(Role)
_NEVER = -1


@dataclass(frozen=True)
class PointFates:
    """What became of each point.

    Attributes:
        rounds: Round from which it counts as labelled, 0 for what was given; -1 if never, (n,).
        roles: Place in ``list(Role)``, (n,).
        words: The same in words, (n,).
        candidates: The choice of each chosen point.
    """

    rounds: Int32[np.ndarray, " n"]
    roles: np.ndarray
    words: tuple[str, ...]
    candidates: dict[int, Candidate]

    def labelled_before(self, n_round: int) -> Int64[np.ndarray, " k"]:
        """Return the points that were labelled when a round began."""
        is_labelled = (self.rounds >= 0) & (self.rounds < n_round) & self._counts
        found: Int64[np.ndarray, " k"] = np.flatnonzero(is_labelled).astype(np.int64)
        return found

    @property
    def _counts(self) -> np.ndarray:
        return np.array([word in ("given", "chosen") for word in self.words], dtype=bool)


def find_fates(saved: SavedCampaign, landscape: Landscape) -> PointFates:
    """Tell what became of each point.

    Args:
        saved: What the campaign's files say.
        landscape: The points.
    """
    n = landscape.n_points
    rounds = np.full(n, _NEVER, dtype=np.int32)
    roles = np.full(n, _ROLES.index(Role.POOL), dtype=np.uint8)
    words = ["pool"] * n
    rounds[: landscape.n_given] = 0
    roles[: landscape.n_given] = _ROLES.index(Role.LABELLED)
    words[: landscape.n_given] = ["given"] * landscape.n_given
    candidates: dict[int, Candidate] = {}
    for each in saved.candidates:
        point = landscape.place.get(each.source)
        if point is None or each.fate == "reserve":
            continue
        candidates[point] = each
        if each.fate == "failed":
            words[point], roles[point] = "failed", _ROLES.index(Role.SCREENED)
        elif each.role != "train":
            words[point], roles[point] = "held out", _ROLES.index(Role.SCREENED)
        else:
            words[point] = "chosen" if each.fate == "labelled" else "waiting"
            rounds[point], roles[point] = each.n_round, _ROLES.index(Role.CHOSEN)
    return PointFates(rounds, roles, tuple(words), candidates)


def find_neighbours(landscape: Landscape, fates: PointFates) -> Int32[np.ndarray, " n"]:
    """Return the nearest structure that was labelled when each point was chosen, (n,).

    Of points that were not chosen, the nearest of all that are labelled; -1 if there is none.

    Args:
        landscape: The points.
        fates: What became of them.
    """
    neighbour = np.full(landscape.n_points, -1, dtype=np.int32)
    is_given = np.array([word == "given" for word in fates.words], dtype=bool)
    for n_round in np.unique(fates.rounds).tolist():
        points = np.flatnonzero((fates.rounds == n_round) & ~is_given).astype(np.int64)
        last = int(fates.rounds.max(initial=0)) + 1
        labelled = fates.labelled_before(last if n_round == _NEVER else max(n_round, 0))
        if n_round == 0:
            labelled = np.flatnonzero(is_given).astype(np.int64)
        if len(points) and len(labelled):
            nearest, _ = find_nearest(landscape.kernel, landscape.part(labelled), points)
            neighbour[points] = labelled[nearest]
    return neighbour


def make_pool_map(
    saved: SavedCampaign,
    landscape: Landscape,
    fates: PointFates,
    errors: dict[int, tuple[float, float]],
    kept: KeptArrays,
    options: ReportOptions,
) -> PoolMap:
    """Return the map; its points have no structures yet.

    Args:
        saved: What the campaign's files say.
        landscape: The points.
        fates: What became of them.
        errors: Of chosen points, energy error in meV/atom and force RMSE in meV/Å of the model
            of the round before.
        kept: Where coordinates are kept, for they may take long.
        options: Method and first colour.

    Raises:
        MissingDependencyError: UMAP is asked for and not installed.
        ArgumentError: There are too few structures for UMAP.
    """
    mapped = _map_points(landscape, kept, options)
    columns = _make_columns(saved, landscape, fates, errors)
    files = sorted({frame.source.file for frame in landscape.points})
    number = {file: place for place, file in enumerate(files)}
    coordinates = mapped.coordinates[0]
    names = {column.name for column in columns}
    return PoolMap(
        MAP_NAME,
        "What is labelled, round by round",
        np.ascontiguousarray(coordinates[:, 0]),
        np.ascontiguousarray(coordinates[:, 1]),
        fates.roles,
        *mapped.label_axes(),
        tuple(clean_text(file, 200) for file in files),
        np.array([number[f.source.file] for f in landscape.points], dtype=np.int32),
        np.array([f.source.frame for f in landscape.points], dtype=np.int32),
        np.full(landscape.n_points, -1, dtype=np.int32),
        find_neighbours(landscape, fates),
        columns,
        rounds=fates.rounds,
        notes=_make_notes(saved, fates, errors),
        colour_by=options.colour_by if options.colour_by in names else None,
        caption=_write_caption(saved, landscape, fates),
    )


def _map_points(landscape: Landscape, kept: KeptArrays, options: ReportOptions) -> KernelMap:
    names = [hash_structure(frame.atoms) for frame in landscape.points]
    settings = replace(landscape.settings, batch_atoms=None)
    made_of = digest("map", names, str(settings), options.map_method, options.seed)
    points = landscape.part(np.arange(landscape.n_points, dtype=np.int64))
    if options.map_method == "pca":  # takes no longer than reading a file
        return map_kernels([points], method="pca", seed=options.seed)
    found = kept.load("map", made_of)
    if found is not None:
        return KernelMap((found["coordinates"].astype(np.float32),), None)
    mapped = map_kernels([points], method=options.map_method, seed=options.seed)
    kept.save("map", made_of, {"coordinates": mapped.coordinates[0]})
    return mapped


def _make_columns(
    saved: SavedCampaign,
    landscape: Landscape,
    fates: PointFates,
    errors: dict[int, tuple[float, float]],
) -> tuple[Column, ...]:
    n = landscape.n_points
    labelled = fates.labelled_before(saved.n_finished + 1)
    variances = landscape.variances(np.arange(n, dtype=np.int64), labelled)
    known = np.full((2, n), np.nan)
    for point, pair in errors.items():
        known[:, point] = pair
    rounds = np.where(fates.rounds < 0, np.nan, fates.rounds.astype(np.float64))
    own = [
        category_column("fate", list(fates.words)),
        number_column("round", rounds),
        number_column("posterior variance", variances),
        number_column("energy error when chosen", known[0], unit="meV/atom"),
        number_column("force RMSE when chosen", known[1], unit="meV/Å"),
    ]
    energy_key = saved.config.data.energy_key
    told = make_columns((frame.atoms for frame in landscape.points), energy_key=energy_key)
    return name_apart([column for column in (*own, *told) if column is not None])


def _make_notes(
    saved: SavedCampaign,
    fates: PointFates,
    errors: dict[int, tuple[float, float]],
) -> tuple[PointNote, ...]:
    """Say of each chosen point when and why it was chosen, and what came of it."""
    notes = []
    for point, each in sorted(fates.candidates.items()):
        lines = [("chosen", f"round {each.n_round}, rank {each.rank}, for {_role(each.role)}")]
        if each.role == "train" and saved.config.selection.rule != "random" and each.n_round:
            lines.append((name_score(saved), f"{each.score:.4g}"))
        if each.fate == "failed":
            record = saved.state.failures.get(each.key, {})
            reason = f"{record.get('failed', '')}: {record.get('detail', '')}"
            lines.append(("failed", clean_text(reason, 300)))
        elif each.fate == "waiting":
            lines.append(("label", "not there yet"))
        if point in errors:
            energy, forces = (write_error(abs(value)) for value in errors[point])
            text = f"energy {energy} meV/atom, forces {forces} meV/Å"
            lines.append((f"errors of the model of round {each.n_round - 1}", text))
        notes.append(PointNote(point, tuple(lines)))
    return tuple(notes)


def _role(role: str) -> str:
    return {"train": "training", "valid": "validation", "test": "the test"}.get(role, role)


def name_score(saved: SavedCampaign) -> str:
    """Return what the score of the campaign's rule is, with its unit if it has one.

    Args:
        saved: What the campaign's files say.
    """
    rule = saved.config.selection.rule
    if rule in COMMITTEE_RULES:
        return "deviation of the committee / " + ("eV" if rule == "committee-e" else "eV/Å")
    known = get_rule(rule)
    if known.has_clusters:
        return "squared kernel distance when chosen"
    if known.score_name == "score":  # of a plugin that does not say what it is
        return f"score of {rule} when chosen"
    return "posterior variance when chosen"


def _write_caption(saved: SavedCampaign, landscape: Landscape, fates: PointFates) -> str:
    config = saved.config.selection
    first = (
        f"{landscape.n_points:,} structures under the {landscape.settings.representation} kernel "
        "of the model that the campaign began with, so that nothing moves from round to round."
    )
    parts = [first]
    if config.rule in ("random", *COMMITTEE_RULES) or config.representation == "random":
        parts.append(f"The rule ({config.rule}) itself looks at no such kernel.")
    elif config.model == "current":
        parts.append("The rule looked at the kernel of each round's own model.")
    n_waiting = fates.words.count("waiting")
    if n_waiting:
        parts.append(f"{n_waiting:,} of the last round wait for their labels.")
    if "held out" in fates.words:
        parts.append("Structures held out for validation and test count as set aside.")
    if landscape.n_screened:
        parts.append(
            f"{landscape.n_screened:,} structures of the pool were set aside by the screen."
        )
    n_left_out = landscape.n_pool - landscape.n_screened - len(landscape.place)
    if n_left_out > 0:
        parts.append(f"{n_left_out:,} of the pool, drawn at random, are left out.")
    return " ".join(parts)
