"""Synthetic studies that look like real ones: P1's sizes, decays and spreads."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np

from labelwise.studies.comparison.results import ERRORS, CellKey, CellResult, RoundCost

METHODS = (
    "random",
    "committee-e",
    "committee-f",
    "activation-pv",
    "activation-lcmd",
    "ntk-pv",
    "ntk-lcmd",
    "ntk-ef-pv",
    "joint-pv",
    "soap-lcmd",
    "tanimoto-pv",
)
#: How fast the error falls, and where it ends, relative to random: about as in P1's Table 4.
QUALITY = {
    "random": 1.0,
    "committee-e": 0.95,
    "committee-f": 0.8,
    "activation-pv": 0.46,
    "activation-lcmd": 0.5,
    "ntk-pv": 0.42,
    "ntk-lcmd": 0.45,
    "ntk-ef-pv": 0.4,
    "joint-pv": 0.38,
    "soap-lcmd": 0.6,
    "tanimoto-pv": 0.7,
}
_SCALES = {"energy_rmse": 90.0, "forces_rmse": 400.0, "energy_mae": 60.0, "forces_mae": 220.0}


def make_cell(
    pool: str,
    method: str,
    seed: int,
    *,
    n_rounds: int = 13,
    start: str = "pretrained",
    is_finished: bool = True,
    quality: float | None = None,
) -> CellResult:
    """Make a campaign: round 0 is the same for all methods of a pool, seed and start."""
    common = np.random.default_rng([zlib.crc32(pool.encode()), seed])
    own = np.random.default_rng([zlib.crc32(f"{pool} {method} {start}".encode()), seed])
    base = method.removesuffix("-scratch")
    quality = QUALITY.get(base, 0.6) if quality is None else quality
    level = common.uniform(0.7, 1.4) * (2.0 if start == "scratch" else 1.0)
    progress = np.arange(n_rounds) / 12
    curves = {}
    for error in ERRORS:
        first = _SCALES[error] * level * common.lognormal(sigma=0.1)
        shape = np.exp(-2.4 * progress ** (0.4 + 0.6 * quality) * (1.35 - 0.5 * quality))
        noise = own.lognormal(sigma=0.07, size=n_rounds)
        noise[0] = 1.0
        curves[error] = tuple((first * shape * noise).tolist())
    is_committee = base.startswith("committee")
    correlations = {}
    if is_committee:
        drift = own.normal(0.15, 0.12, size=(2, n_rounds - 1)).clip(-1, 1).tolist()
        correlations = {"energy": tuple(drift[0]), "forces": tuple(drift[1])}
    seconds = {"select": 6.0, "label": 0.2, "finetune": 40.0 * (3 if is_committee else 1)}
    costs = tuple(
        RoundCost(
            seconds={**seconds, "measure": 4.0 + 0.1 * i},
            peak_mib={"select": 900.0, "finetune": 1200.0 + i},
        )
        for i in range(n_rounds)
    )
    return CellResult(
        key=CellKey(pool, method, seed),
        n_labels=tuple(10 + 5 * i for i in range(n_rounds)),
        curves=curves,
        costs=costs,
        n_models=3 if is_committee else 1,
        start=start,
        rank_correlations=correlations,
        is_finished=is_finished,
    )


def make_study(
    methods: Sequence[str] = METHODS,
    *,
    pools: Sequence[str] = ("natural-1", "natural-2", "natural-3"),
    seeds: Sequence[int] = (0, 1),
    n_rounds: int = 13,
) -> list[CellResult]:
    """Make all campaigns of a study."""
    return [
        make_cell(pool, method, seed, n_rounds=n_rounds)
        for method in methods
        for pool in pools
        for seed in seeds
    ]
