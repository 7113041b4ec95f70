"""What a batch changed, as the run that chose it measured it; kept beside the summary.

``batch.npz`` is all that the page of a batch needs beside the structures: whoever makes the page
needs neither the model nor the kernel.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from labelwise.errors import ReadError
from labelwise.pages.plane import Components
from labelwise.runtime.files import write_bytes

FORMAT_VERSION = 1
#: The file's name is that of the summary with this suffix.
SUFFIX = ".npz"
#: Structures of the pool that a map shows at most; chosen and shortlisted ones are always shown.
MOST_POINTS = 50_000
#: Labelled structures that a map shows, or that are kept to be looked at.
MOST_LABELLED = 10_000
_ARRAYS = ("variance_before", "variance_after", "nearest", "distance_before", "distance_after")


@dataclass(frozen=True)
class ClusterAtPick:
    """The cluster that a pick was taken from.

    Attributes:
        centre: Its centre: 0 to m - 1 are the labelled structures, m + j is the pick of rank j.
        n_members: Structures in it, the pick included, that were not picked before.
        mass_share: Its part of the sum of squared distances of all structures, 0 to 1.
        sq_dist: Squared kernel distance from the pick to the centre.
    """

    centre: int
    n_members: int
    mass_share: float
    sq_dist: float


@dataclass(frozen=True, eq=False)
class Shown:
    """Which structures are points of a map: first those of the pool, then labelled ones.

    Attributes:
        pool: Rows of the pool, ascending.
        train: Rows of the labelled structures, ascending.
    """

    pool: Int64[np.ndarray, " p"]
    train: Int64[np.ndarray, " t"]

    def points_of_pool(self, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return the points of some structures of the pool, -1 where they are not shown."""
        return _find(self.pool, rows, 0)

    def points_of_train(self, rows: Int64[np.ndarray, " k"]) -> Int64[np.ndarray, " k"]:
        """Return the points of some labelled structures, -1 where they are not shown."""
        return _find(self.train, rows, len(self.pool))


@dataclass(frozen=True, eq=False)
class Measures:
    """What is measured of the n structures of a pool, of which k were picked.

    Attributes:
        variance_before, variance_after: Posterior variance given the labelled structures, and
            given the batch, too, (n,).
        nearest: Row of the nearest labelled structure, -1 without any, (n,).
        distance_before, distance_after: Kernel distance to the nearest labelled structure,
            infinite without any, and to the nearest of them and the batch, (n,).
        stands_for: Structures, itself included, that are nearer to each pick than to any other
            pick or labelled structure, (k,).
        random_distances: As ``distance_after`` with as many random picks, one array a draw.
        shortlist: Rows on which the rule worked, ascending; None for all.
        clusters: What each pick was taken from, (k,), of rules that have clusters; else empty.
            None for a first pick where nothing was labelled.
        shown: Which structures are points of the map; None without one.
        components: Kernel principal components of the points, the pool's first.
        kernel: The kernel in words.
        target_variances: Posterior variances of the t structures that were chosen for, given the
            labelled structures, and given the batch, too, (t,) each; None where it is the pool.
    """

    variance_before: Float[np.ndarray, " n"]
    variance_after: Float[np.ndarray, " n"]
    nearest: Int64[np.ndarray, " n"]
    distance_before: Float[np.ndarray, " n"]
    distance_after: Float[np.ndarray, " n"]
    stands_for: Int64[np.ndarray, " k"]
    random_distances: tuple[Float[np.ndarray, " n"], ...]
    shortlist: Int64[np.ndarray, " s"] | None
    clusters: tuple[ClusterAtPick | None, ...] = ()
    shown: Shown = field(default_factory=lambda: Shown(np.zeros(0, int), np.zeros(0, int)))
    components: Components = field(default_factory=lambda: Components((), np.zeros(1)))
    kernel: str = ""
    target_variances: tuple[Float[np.ndarray, " t"], Float[np.ndarray, " t"]] | None = None


def write_measures(path: Path, measures: Measures, places: Sequence[int]) -> None:
    """Write what was measured, numbers in single precision.

    Args:
        path: The file.
        measures: Of a batch.
        places: Place of each pick in the pool as read, by which the batch is known again.

    Raises:
        WriteError: The file cannot be written.
    """
    arrays: dict[str, Any] = {name: getattr(measures, name) for name in _ARRAYS}
    arrays |= {
        "format_version": np.array(FORMAT_VERSION),
        "places": np.array(places),
        "stands_for": measures.stands_for,
        "random_distances": np.array(measures.random_distances),
        "clusters": np.array([_as_row(each) for each in measures.clusters]).reshape(-1, 4),
        "shown_pool": measures.shown.pool,
        "shown_train": measures.shown.train,
        "components": np.concatenate(measures.components.values),
        "explained": measures.components.explained,
        "kernel": np.array(measures.kernel),
    }
    if measures.shortlist is not None:
        arrays["shortlist"] = measures.shortlist
    if measures.target_variances is not None:
        arrays["target_variances"] = np.array(measures.target_variances)
    content = io.BytesIO()
    compact: dict[str, Any] = {name: _compact(array) for name, array in arrays.items()}
    np.savez_compressed(content, **compact)
    write_bytes(path, content.getvalue())


def read_measures(path: Path, places: Sequence[int]) -> Measures | None:
    """Read what was measured of a batch.

    Args:
        path: The file.
        places: Place of each pick in the pool as read.

    Returns:
        The measures; None if there is no such file or it is of another batch.

    Raises:
        ReadError: The file is damaged, or of a later version.
    """
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            found = dict(content)
        if int(found["format_version"]) != FORMAT_VERSION:
            raise ReadError(f"{path} is of another version of Labelwise; run the selection again")
        return _parse(found) if found["places"].tolist() == list(places) else None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ReadError(f"cannot read {path}: {error}; run the selection again") from error


def is_measures(path: Path) -> bool:
    """Tell whether a file is what ``write_measures`` writes."""
    try:
        with path.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
            return {"places", *_ARRAYS} <= set(content.files)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile):
        return False


def _parse(found: dict[str, Any]) -> Measures:
    found = {
        name: array.astype(np.float64) if array.dtype.kind == "f" else array
        for name, array in found.items()
    }
    shown = Shown(found["shown_pool"].astype(np.int64), found["shown_train"].astype(np.int64))
    return Measures(
        **{name: found[name] for name in _ARRAYS if name != "nearest"},
        nearest=found["nearest"].astype(np.int64),
        stands_for=found["stands_for"].astype(np.int64),
        random_distances=tuple(found["random_distances"]),
        shortlist=found["shortlist"].astype(np.int64) if "shortlist" in found else None,
        clusters=tuple(map(_as_cluster, found["clusters"].tolist())),
        shown=shown,
        components=Components((found["components"],), found["explained"]),
        kernel=str(found["kernel"]),
        target_variances=tuple(found["target_variances"]) if "target_variances" in found else None,
    )


def _as_row(cluster: ClusterAtPick | None) -> tuple[int | float, ...]:
    if cluster is None:
        return (-1.0, 0.0, 0.0, 0.0)
    return (cluster.centre, cluster.n_members, cluster.mass_share, cluster.sq_dist)


def _as_cluster(row: Sequence[float]) -> ClusterAtPick | None:
    centre, n_members, mass_share, sq_dist = row
    return None if centre < 0 else ClusterAtPick(int(centre), int(n_members), mass_share, sq_dist)


def _compact(array: np.ndarray) -> np.ndarray:
    """Return whole numbers of four bytes, and others in single precision."""
    kinds = {"f": np.float32, "i": np.int32}
    kind = kinds.get(array.dtype.kind)
    return array if kind is None or array.dtype.itemsize <= 4 else array.astype(kind)


def _find(
    shown: Int64[np.ndarray, " p"], rows: Int64[np.ndarray, " k"], first: int
) -> Int64[np.ndarray, " k"]:
    if len(shown) == 0:
        return np.full(len(rows), -1, dtype=np.int64)
    places = np.minimum(np.searchsorted(shown, rows), len(shown) - 1)
    return np.where(shown[places] == rows, places + first, -1).astype(np.int64)
