"""Why each structure was picked: in a table, and in words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
from ase import Atoms
from jaxtyping import Float64

from labelwise.pages.document import Cell, PointNote, Table, TableColumn
from labelwise.selection.page.picked import Picked
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.pool_map import MAP_NAME
from labelwise.selection.picks import FORCE_STD_KEY

_MEV = 1000.0
_MOST_ATOMS = 3


def make_pick_table(picked: Picked) -> Table:
    """Return one row for each pick, in order of choice, linked to the map if there is one."""
    columns = _list_columns(picked)
    n_picks = len(picked.rows)
    points: tuple[int, ...] = ()
    if picked.shown is not None:
        points = tuple(picked.shown.points_of_pool(picked.rows).tolist())
    return Table(
        name="picks",
        title="What was chosen",
        columns=tuple(column for column, _ in columns),
        rows=tuple(tuple(cells[rank] for _, cells in columns) for rank in range(n_picks)),
        points=points,
        map_name=MAP_NAME if points else "",
        caption=_describe_table(picked),
    )


def make_notes(picked: Picked) -> tuple[PointNote, ...]:
    """Say of each pick in words why it was chosen."""
    if picked.shown is None:
        return ()
    points = picked.shown.points_of_pool(picked.rows).tolist()
    return tuple(PointNote(point, tuple(_tell(picked, rank))) for rank, point in enumerate(points))


def atom_stds(atoms: Atoms) -> Float64[np.ndarray, " atoms"] | None:
    """Return the predicted standard deviations of force errors, meV/Å; None if there are none."""
    found = atoms.arrays.get(FORCE_STD_KEY)
    if found is None or np.shape(found) != (len(atoms),):
        return None
    stds: Float64[np.ndarray, " atoms"] = _MEV * np.asarray(found, dtype=np.float64)
    return stds


def _list_columns(picked: Picked) -> list[tuple[TableColumn, list[Cell]]]:
    """Return the columns of the table with their cells."""
    ranks = range(len(picked.rows))
    picks = picked.record.picks
    columns: list[tuple[TableColumn, list[Cell]]] = [
        (TableColumn("rank"), list(ranks)),
        (TableColumn("structure"), [picked.name(rank) for rank in ranks]),
        (TableColumn("composition"), [atoms.get_chemical_formula() for atoms in picked.chosen]),
    ]
    name = picked.record.settings.rule.score_name
    if name is not None:
        columns.append((TableColumn(name, 4), [pick.score for pick in picks]))
    columns += _measured_columns(picked)
    if any(picked.clusters):
        columns += _cluster_columns(picked)
    stds = [atoms.info.get(FORCE_STD_KEY) for atoms in picked.chosen]
    if all(isinstance(std, float | np.floating) for std in stds):
        cells: list[Cell] = [_MEV * float(std) for std in stds if std is not None]
        columns.append((TableColumn("predicted force error / meV Å⁻¹", 3), cells))
    if picked.record.settings.group_by is not None:
        key = clean_text(picked.record.settings.group_by)
        columns.append((TableColumn(key), [picked.group(rank) for rank in ranks]))
    return columns


def _measured_columns(picked: Picked) -> list[tuple[TableColumn, list[Cell]]]:
    measures = picked.measures
    if measures is None:
        return []
    variance: list[Cell] = [float(v) for v in measures.variance_before[picked.rows]]
    columns: list[tuple[TableColumn, list[Cell]]] = [
        (TableColumn("posterior variance before", 3), variance)
    ]
    if len(picked.train):
        nearest = [picked.names.of(picked.train, int(measures.nearest[r])) for r in picked.rows]
        distance: list[Cell] = [float(d) for d in measures.distance_before[picked.rows]]
        columns += [
            (TableColumn("nearest labelled"), list(nearest)),
            (TableColumn("distance to it", 3), distance),
        ]
    stands_for: list[Cell] = [int(n) for n in measures.stands_for]
    return [*columns, (TableColumn("stands for"), stands_for)]


def _cluster_columns(picked: Picked) -> list[tuple[TableColumn, list[Cell]]]:
    found = picked.clusters
    return [
        (
            TableColumn("taken from the cluster around"),
            [None if c is None else picked.centre_name(c.centre) for c in found],
        ),
        (TableColumn("its structures"), [None if c is None else c.n_members for c in found]),
        (
            TableColumn("its part of the mass / %", 3),
            [None if c is None else 100.0 * c.mass_share for c in found],
        ),
    ]


def _describe_table(picked: Picked) -> str:
    text = "In order of choice; rank 0 was chosen first, as labelwise_rank says in the batch."
    if picked.shown is not None:
        text += " A row opens its structure beside the nearest labelled one."
    if picked.measures is not None:
        text += (
            " A pick stands for the structures of the pool that are nearer to it than to any other "
            "pick or labelled structure."
        )
    if any(picked.clusters):
        text += (
            " Squared distances are those to the nearest centre when a structure was chosen; "
            "centres are labelled structures and earlier picks. A cluster's mass is the sum of the "
            "squared distances of its structures."
        )
    return text


def _tell(picked: Picked, rank: int) -> list[tuple[str, str]]:
    """Return what there is to say of a pick: label and text of each line."""
    last = len(picked.rows) - 1
    lines = [("chosen", f"rank {rank} of 0 to {last}"), ("why", _why(picked, rank))]
    measures, row = picked.measures, int(picked.rows[rank])
    if measures is not None:
        if len(picked.train):
            name = picked.names.of(picked.train, int(measures.nearest[row]))
            distance = float(measures.distance_before[row])
            lines.append(("nearest labelled", f"{name}, kernel distance {distance:.3g}"))
        before, after = measures.variance_before[row], measures.variance_after[row]
        lines.append(
            ("posterior variance", f"{before:.3g}; {after:.3g} once the batch is labelled")
        )
        lines.append(("stands for", count(int(measures.stands_for[rank]), "structure")))
    forces = _tell_forces(picked.chosen[rank])
    if forces is not None:
        lines.append(("force error", forces))
    return lines


def _why(picked: Picked, rank: int) -> str:
    """Say why the rule chose a structure."""
    rule, score = picked.record.settings.rule, picked.record.picks[rank].score
    of_what = "of the shortlist" if picked.record.settings.shortlist is not None else "of the pool"
    first_of_all = rank == 0 and picked.record.n_train == 0
    if first_of_all and not rule.is_random and rule.takes == "kernel":
        return f"Nothing was labelled yet: it is the structure most like the rest {of_what}."
    if rule.has_clusters and not (picked.clusters and picked.clusters[rank]):
        return f"Its squared distance to the nearest centre was {score:.3g} when it was chosen."
    words = {
        "score": score,
        "of_what": of_what,
        "given": _given(picked, rank),
        "n_picks": len(picked.rows),
        **_cluster_words(picked, rank),
    }
    # The sentence comes from a file that somebody may have edited.
    with suppress(LookupError, ValueError, AttributeError):
        if rule.why:
            return rule.why.format(**words)
    return f"The rule {rule.name} gave it the score {score:.4g}."


def _cluster_words(picked: Picked, rank: int) -> dict[str, str]:
    """Return what may be said of the cluster that a pick came from, if it came from one."""
    cluster = picked.clusters[rank] if picked.clusters else None
    if cluster is None:
        return {}
    return {
        "distance": f"kernel distance {math.sqrt(max(cluster.sq_dist, 0.0)):.3g}",
        "centre": picked.centre_name(cluster.centre),
        "members": count(cluster.n_members, "structure"),
        "share": f"{100 * cluster.mass_share:.2g} %",
    }


def _tell_forces(atoms: Atoms) -> str | None:
    """Say which atoms carry the predicted force error, None if it was not predicted."""
    std = atoms.info.get(FORCE_STD_KEY)
    if not isinstance(std, float | np.floating):
        return None
    text = f"{_MEV * float(std):.3g} meV/Å predicted (standard deviation of a force component)"
    stds = atom_stds(atoms)
    if stds is None or not float(np.square(stds).sum()) > 0:
        return text
    share = np.square(stds) / np.square(stds).sum()
    largest = np.argsort(-stds, kind="stable")[: min(_MOST_ATOMS, len(atoms))].tolist()
    named = _enumerate([f"{atoms.symbols[i]} (atom {i}) {stds[i]:.3g} meV/Å" for i in largest])
    carried = 100 * float(share[largest].sum())
    return f"{text}; {carried:.0f} % of the variance is carried by {named}"


def _given(picked: Picked, rank: int) -> str:
    """Say what the variances of a pick were conditioned on."""
    labelled = "the labelled structures" if picked.record.n_train else ""
    earlier = count(rank, "earlier pick") if rank else ""
    return " and ".join(part for part in (labelled, earlier) if part) or "nothing"


def count(n: int, noun: str) -> str:
    """Return a number and its noun, ``1 round`` or ``2 rounds``."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def _enumerate(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
