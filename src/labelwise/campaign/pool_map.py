"""The pool of a campaign under one kernel, as a run measured it; kept for the campaign's page."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from labelwise.campaign.atomic_io import read_arrays, write_arrays
from labelwise.campaign.errors import DamagedStateError
from labelwise.campaign.outcomes import Candidate
from labelwise.pages.plane import Components
from labelwise.structures import Source

#: Folder inside a campaign, which the campaign itself never looks at; it may be removed.
FOLDER = "report"
#: The file in it.
POOL_MAP = "pool_map.npz"
#: Rounds after which variances are measured: first, last and some between them.
MOST_ROUNDS = 12
FORMAT_VERSION = 1


@dataclass(frozen=True, eq=False)
class PoolMapData:
    """What is measured of n points, under the kernel of the model that a campaign began with.

    Attributes:
        sources: Where each point is from: given training structures, then the pool and whatever
            else was chosen from it, (n,).
        n_given: Given training structures, the first of the points.
        n_pool: Structures of the pool as read.
        n_screened: Those that are no points because no model takes them or they repeat others.
        components: Kernel principal components of the points.
        neighbour: Point of the nearest structure that was labelled when a point was chosen; of
            others the nearest of all that are labelled; -1 if none, (n,).
        variance: Posterior variance given all that is labelled, (n,).
        deviations: Posterior standard deviations given what was labelled when a round ended, NaN
            where unknown, by set and round: of ``valid`` and ``test`` in their order, and as
            ``points`` of all points, NaN but for those that the next round chose.
        representation: Of the kernel.
        made_of: What ``digest_candidates`` said when it was made.
        remarks: What could not be measured, one line each.
    """

    sources: tuple[Source, ...]
    n_given: int
    n_pool: int
    n_screened: int
    components: Components
    neighbour: Int64[np.ndarray, " n"]
    variance: Float[np.ndarray, " n"]
    deviations: Mapping[tuple[str, int], Float[np.ndarray, " _"]]
    representation: str
    made_of: str
    remarks: tuple[str, ...] = ()

    def keep(self, is_kept: Bool[np.ndarray, " n"]) -> PoolMapData:
        """Return what is measured of some points; neighbours that are not kept are -1."""
        kept = np.flatnonzero(is_kept)
        new = np.where(is_kept, np.cumsum(is_kept) - 1, -1)
        neighbour = self.neighbour[kept]
        return replace(
            self,
            sources=tuple(self.sources[i] for i in kept.tolist()),
            n_given=int(is_kept[: self.n_given].sum()),
            components=replace(self.components, values=(self.components.values[0][kept],)),
            neighbour=np.where(neighbour >= 0, new[neighbour], -1).astype(np.int64),
            variance=self.variance[kept],
            deviations={
                key: values[kept] if key[0] == "points" else values
                for key, values in self.deviations.items()
            },
        )


def digest_candidates(n_rounds: int, candidates: Sequence[Candidate]) -> str:
    """Return a word for how far a campaign has come, by which a map is known to be up to date."""
    fates = [(each.key, each.n_round, each.role, each.fate) for each in candidates]
    text = json.dumps(["pool map", n_rounds, fates], ensure_ascii=False)
    return hashlib.blake2b(text.encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def spread_evenly(n: int, most: int) -> list[int]:
    """Return at most so many of 0..n-1, first and last among them, ascending."""
    if n <= most:
        return list(range(n))
    return sorted({round(place) for place in np.linspace(0, n - 1, most)})


def write_pool_map(path: Path, found: PoolMapData) -> None:
    """Write a map, numbers in single precision."""
    files = sorted({source.file for source in found.sources})
    number = {file: place for place, file in enumerate(files)}
    arrays: dict[str, Any] = {
        "counts": np.array((FORMAT_VERSION, found.n_given, found.n_pool, found.n_screened)),
        "files": np.array(files, dtype=str),
        "number": np.array([number[source.file] for source in found.sources], dtype=np.int32),
        "frame": np.array([source.frame for source in found.sources], dtype=np.int32),
        "components": found.components.values[0].astype(np.float32),
        "explained": found.components.explained.astype(np.float32),
        "neighbour": found.neighbour.astype(np.int32),
        "variance": found.variance.astype(np.float32),
        "words": np.array([found.representation, found.made_of, *found.remarks], dtype=str),
        **{
            f"{name} {n_round}": values.astype(np.float32)
            for (name, n_round), values in found.deviations.items()
        },
    }
    write_arrays(path, arrays)


def read_pool_map(path: Path) -> PoolMapData | None:
    """Read a map; None if there is none, or it is damaged or of another version."""
    try:
        arrays = read_arrays(path)
        version, n_given, n_pool, n_screened = arrays["counts"].tolist()
        if version != FORMAT_VERSION:
            return None
        files = arrays["files"].tolist()
        places = zip(arrays["number"].tolist(), arrays["frame"].tolist(), strict=True)
        return PoolMapData(
            tuple(Source(files[file], frame) for file, frame in places),
            n_given,
            n_pool,
            n_screened,
            Components((arrays["components"],), arrays["explained"]),
            arrays["neighbour"].astype(np.int64),
            arrays["variance"].astype(np.float64),
            {
                (name.split()[0], int(name.split()[1])): values.astype(np.float64)
                for name, values in arrays.items()
                if " " in name
            },
            str(arrays["words"][0]),
            str(arrays["words"][1]),
            tuple(map(str, arrays["words"][2:])),
        )
    except (DamagedStateError, ValueError, KeyError, IndexError):
        return None
