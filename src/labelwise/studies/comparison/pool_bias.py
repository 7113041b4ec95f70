"""Pools whose distribution is shifted against the test set, by a known strength.

A structure has a coordinate u in [0, 1]; it stays in the pool with a weight exp(−s·u). Half of
the pool is kept, so that strengths differ in what the pool holds, not in how much. The test set
is not touched.

Each shift has one direction. Families come in a random order, so the other direction is another
seed. Along the path, what lies near the reactant stays; for a path read from its other end it
would be the product. By energy, what lies low stays: pools near minima are what users have, and
structures that are high in energy come with the low ones.

Source: *Force-Aware Neural Tangent Kernels for Scalable and Robust Active Learning of MLIPs*,
arXiv:2605.13788, for the three shifts; how they are drawn is ours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.campaign.seeds import derive_seed
from labelwise.errors import ArgumentError, check_name
from labelwise.runtime.files import hash_file
from labelwise.structures.reading import expand_specs
from labelwise.studies.comparison.pools import (
    DATA,
    DataKeys,
    LabelledText,
    PoolFiles,
    count_families,
    read_labelled,
    require_family,
    write_if_changed,
    write_manifest,
)
from labelwise.studies.comparison.protocols import SHIFTS
from labelwise.studies.comparison.study import PoolSection

KEPT_FRACTION = 0.5
N_BINS = 10


@dataclass(frozen=True)
class AchievedShift:
    """How far a thinned pool is from the whole one, in the coordinate of the shift.

    Attributes:
        n_pool: Structures kept.
        n_whole: Structures of the whole pool.
        mean_u: Mean coordinate of those kept, dimensionless.
        mean_u_whole: Of the whole pool.
        total_variation: ½ Σ_b |p_b − q_b| over ten equal bins of u, 0 to 1.
        kl_nats: Σ_b p_b ln(p_b / q_b), thinned against whole, nats.
    """

    n_pool: int
    n_whole: int
    mean_u: float
    mean_u_whole: float
    total_variation: float
    kl_nats: float


def bias_coordinate(
    shift: str,
    families: Sequence[str],
    *,
    order: Sequence[float] | None = None,
    energies: Sequence[float] | None = None,
    seed: int = 0,
) -> Float64[np.ndarray, " n"]:
    """Return the coordinate that a shift thins by.

    Args:
        shift: ``family``: rank of the family in a random order; ``path``: rank of the
            structure within its family by its place along the path; ``energy``: rank of the
            energy above the family's lowest, over all structures.
        families: Family of each structure, (n,).
        order: Place along the path, for ``path``, (n,).
        energies: For ``energy``, (n,), eV.
        seed: Of the families' order, >= 0.

    Returns:
        u, (n,) float64 in [0, 1]. Equal values have equal ranks.

    Raises:
        ArgumentError: An unknown shift, a single family for ``family``, or values missing.
    """
    labels = np.unique(np.array(families, dtype=str), return_inverse=True)[1]
    if shift == "family":
        n_families = int(labels.max()) + 1
        if n_families < 2:
            raise ArgumentError(
                "shift is 'family', but all structures are of one family; choose path or energy"
            )
        place = np.random.default_rng(seed).permutation(n_families)
        return (place[labels] / (n_families - 1)).astype(np.float64)
    if shift == "path" and order is not None:
        u = np.zeros(len(labels))
        for label in range(int(labels.max()) + 1):
            members = labels == label
            u[members] = _relative_rank(np.asarray(order, dtype=np.float64)[members])
        return u
    if shift == "energy" and energies is not None:
        values = np.asarray(energies, dtype=np.float64)
        lowest = np.array([values[labels == i].min() for i in range(int(labels.max()) + 1)])
        return _relative_rank(values - lowest[labels])
    check_name("shift", shift, SHIFTS)
    raise ArgumentError(f"shift is {shift!r}, which needs a value for each structure")


def thin_pool(
    u: Float64[np.ndarray, " n"], strength: float, *, n_keep: int, seed: int
) -> Int64[np.ndarray, " n_keep"]:
    """Draw structures one after another without replacement, with weights exp(−s·u).

    The draws are made at once: the n_keep largest of −s·u plus Gumbel noise have the same
    distribution. The noise is that of the seed, whatever the strength, so the mean of u never
    rises with the strength.

    Args:
        u: Coordinates, (n,).
        strength: s >= 0; 0 draws uniformly.
        n_keep: Structures to keep, 1 <= n_keep <= n.
        seed: Of the draws, >= 0.

    Returns:
        Rows kept, (n_keep,), ascending.

    Raises:
        ArgumentError: strength or n_keep out of range.

    Source: Efraimidis and Spirakis, Inf. Process. Lett. 97 (2006) 181.
    """
    if not (math.isfinite(strength) and strength >= 0):
        raise ArgumentError(f"strength is {strength}; allowed are finite numbers >= 0")
    if not 1 <= n_keep <= len(u):
        raise ArgumentError(f"n_keep is {n_keep}; allowed are 1 to {len(u)}, the pool's size")
    noise = np.random.default_rng(seed).gumbel(size=len(u))
    first = np.argsort(-(noise - strength * u), kind="stable")[:n_keep]
    return np.sort(first).astype(np.int64)


def measure_shift(
    u: Float64[np.ndarray, " n"], kept: Int64[np.ndarray, " n_keep"]
) -> AchievedShift:
    """Say how far the structures kept are from the whole pool.

    Args:
        u: Coordinates of the whole pool, (n,), in [0, 1].
        kept: Rows kept, at least one.
    """
    whole = np.histogram(u, bins=N_BINS, range=(0.0, 1.0))[0] / len(u)
    part = np.histogram(u[kept], bins=N_BINS, range=(0.0, 1.0))[0] / len(kept)
    filled = part > 0
    return AchievedShift(
        n_pool=len(kept),
        n_whole=len(u),
        mean_u=float(u[kept].mean()),
        mean_u_whole=float(u.mean()),
        total_variation=float(0.5 * np.abs(part - whole).sum()),
        kl_nats=float((part[filled] * np.log(part[filled] / whole[filled])).sum()),
    )


def write_biased_pools(
    base: PoolFiles,
    folder: Path,
    *,
    shifts: Sequence[str] = SHIFTS,
    strengths: Sequence[float] = (3.0,),
    seed: int = 0,
    keys: DataKeys | None = None,
    fraction: float = KEPT_FRACTION,
) -> PoolFiles:
    """Thin each pool by each shift and strength, and once without shift as a control.

    Args:
        base: The whole pools; their validation and test sets stay as they are. Structures
            that they give to begin with are put into the pool before it is thinned, so that
            the first labels come from the shifted pool too.
        folder: The study's folder; files go to ``data/<pool>-<shift>-s<strength>``, the
            control's to ``data/<pool>-s0``.
        shifts: Which of ``family``, ``path`` and ``energy``.
        strengths: s of each, above 0; the control is s = 0.
        seed: Of the families' order and of the draws, >= 0.
        keys: Where structures say what they are; None for the defaults.
        fraction: Part of each pool that is kept, above 0 and at most 1.

    Returns:
        The thinned pools; the manifest of each holds the ``AchievedShift``.

    Raises:
        ArgumentError: Something out of range, or a key that structures lack.
        ReadError: A file that cannot be read.
        WriteError: The folder cannot be written to.
    """
    keys = DataKeys() if keys is None else keys
    _check(shifts, strengths, fraction)
    pools: dict[str, PoolSection] = {}
    changes = list(base.changes)
    plan = [(None, 0.0), *((shift, s) for shift in shifts for s in strengths if s > 0)]
    for name, section in base.pools.items():
        if section.train:
            changes.append(f"{name}: the structures given to begin with → into the pool")
        whole = _Whole(name, section, folder, keys, seed)
        for shift, strength in plan:
            new = f"{name}-s0" if shift is None else f"{name}-{shift}-s{strength:g}"
            whole.write(new, shift, strength, fraction)
            update = {"pool": [f"{DATA}/{new}/pool.extxyz"], "train": []}
            pools[new] = section.model_copy(update=update)
    return PoolFiles(pools, tuple(changes))


class _Whole:
    """A pool before it is thinned."""

    def __init__(
        self, name: str, section: PoolSection, folder: Path, keys: DataKeys, seed: int
    ) -> None:
        self._name, self._folder, self._keys, self._seed = name, folder, keys, seed
        specs = [str(folder / spec) for spec in (*section.pool, *section.train)]
        self._frames = read_labelled(specs, keys)
        self._families = require_family(self._frames, keys.family)
        paths = list(dict.fromkeys(part.path for part in expand_specs(specs)))
        # A source within the study's folder is named from there: the folder may be moved.
        self._sources = [
            {"file": _shorten(path, folder), "sha256": hash_file(path)} for path in paths
        ]

    def write(self, new: str, shift: str | None, strength: float, fraction: float) -> None:
        n_whole = len(self._frames)
        noise = derive_seed(self._seed, 0, f"bias {self._name}")
        u = self._coordinate(shift) if shift is not None else np.zeros(n_whole)
        kept = thin_pool(u, strength, n_keep=max(1, round(fraction * n_whole)), seed=noise)
        chosen = [self._frames[i] for i in kept.tolist()]
        home = self._folder / DATA / new
        text = "".join(frame.text for frame in chosen)
        write_if_changed(home / "pool.extxyz", text.encode("utf-8", "surrogateescape"))
        shown = SHIFTS if shift is None else (shift,)
        record = {
            "sources": self._sources,
            "seed": self._seed,
            "shift": shift,
            "strength": strength,
            "counts": {"pool": count_families(chosen)},
            "achieved": {each: self._achieved(each, kept) for each in shown if self._has(each)},
        }
        write_manifest(home, record)

    def _coordinate(self, shift: str) -> Float64[np.ndarray, " n"]:
        return bias_coordinate(
            shift,
            self._families,
            order=_require_order(self._frames, self._keys.order) if shift == "path" else None,
            energies=[frame.energy for frame in self._frames],
            seed=derive_seed(self._seed, 0, f"family order {self._name}"),
        )

    def _has(self, shift: str) -> bool:
        """Return whether the structures have what a shift looks at."""
        if shift == "family":
            return len(set(self._families)) > 1
        return shift != "path" or all(frame.order is not None for frame in self._frames)

    def _achieved(self, shift: str, kept: Int64[np.ndarray, " n_keep"]) -> dict[str, Any]:
        return asdict(measure_shift(self._coordinate(shift), kept))


def _check(shifts: Sequence[str], strengths: Sequence[float], fraction: float) -> None:
    for shift in shifts:
        check_name("shift", shift, SHIFTS)
    if not shifts or len(set(shifts)) < len(shifts):
        raise ArgumentError(f"shift is {list(shifts)}; allowed are {', '.join(SHIFTS)}, each once")
    wrong = [s for s in strengths if not (math.isfinite(s) and s >= 0)]
    if wrong or not strengths:
        raise ArgumentError(
            f"strength is {list(strengths)}; allowed are finite numbers >= 0, at least one"
        )
    if not 0 < fraction <= 1:
        raise ArgumentError(f"fraction is {fraction}; allowed are 0 < fraction <= 1")


def _require_order(frames: Sequence[LabelledText], key: str) -> list[float]:
    order = [frame.order for frame in frames if frame.order is not None]
    if len(order) < len(frames):
        lacking = next(frame for frame in frames if frame.order is None)
        raise ArgumentError(
            f"order_key is {key!r}, which {lacking.where} does not have; name the info key that "
            "orders structures along the path, or leave out the shift 'path'"
        )
    return order


def _relative_rank(values: Float64[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """Return ranks from 0 to 1; equal values share the mean of their ranks."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    if len(values) == 1:
        return np.zeros(1)
    last = np.cumsum(counts)
    mean = last - (counts + 1) / 2
    return np.asarray(mean[inverse] / (len(values) - 1), dtype=np.float64)


def _shorten(path: Path, folder: Path) -> str:
    absolute, home = path.absolute(), folder.absolute()
    return str(absolute.relative_to(home)) if absolute.is_relative_to(home) else str(absolute)
