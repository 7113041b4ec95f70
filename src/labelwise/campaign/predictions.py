"""What the model of a round predicts, kept in the round's folder for the campaign's page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from labelwise.campaign.atomic_io import read_arrays, write_arrays

#: The file, beside ``measure.json``.
PREDICTIONS = "predictions.npz"
#: What the model of the round before predicts for the structures that a round added.
CHOSEN = "chosen"
#: Predictions of a set that take more are kept of structures drawn at random, bytes.
MAX_BYTES = 2**26
_ENERGY_BYTES, _FORCE_BYTES = 8, 12


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model predicts for some structures of a set.

    Attributes:
        places: Which structures of the set, ascending, (n,).
        energies: (n,), eV.
        forces: (n_atoms_i, 3) each, eV/Å.
    """

    places: Int64[np.ndarray, " n"]
    energies: Float64[np.ndarray, " n"]
    forces: tuple[Float64[np.ndarray, "_ 3"], ...]

    def take(self, places: Int64[np.ndarray, " k"]) -> Predictions | None:
        """Return the predictions for some structures of the set; None if one is not among them."""
        rows = np.searchsorted(self.places, places)
        if len(rows) and (rows >= len(self.places)).any():
            return None
        if not np.array_equal(self.places[rows], places):
            return None
        return Predictions(places, self.energies[rows], tuple(self.forces[i] for i in rows))


def sample_predictions(
    energies: Float64[np.ndarray, " n"],
    forces: Sequence[Float64[np.ndarray, "_ 3"]],
    *,
    seed: int,
) -> Predictions:
    """Return the predictions for a set, or of a large one for a part drawn at random.

    Args:
        energies: (n,), eV.
        forces: (n_atoms_i, 3) each, eV/Å.
        seed: Of the draw; the same for each round, so that rounds can be compared.
    """
    order = np.random.default_rng(seed).permutation(len(energies))
    sizes = np.array([_ENERGY_BYTES + _FORCE_BYTES * len(forces[i]) for i in order.tolist()])
    places = np.sort(order[np.cumsum(sizes) <= MAX_BYTES]).astype(np.int64)
    return Predictions(places, energies[places], tuple(forces[i] for i in places.tolist()))


def write_predictions(path: Path, found: Mapping[str, Predictions]) -> None:
    """Write predictions, energies in double and forces in single precision."""
    arrays: dict[str, Any] = {}
    for role, each in found.items():
        arrays[f"{role}_places"] = each.places.astype(np.int32)
        arrays[f"{role}_energies"] = each.energies
        arrays[f"{role}_n_atoms"] = np.array([len(part) for part in each.forces], dtype=np.int32)
        parts = [np.zeros((0, 3)), *each.forces]
        arrays[f"{role}_forces"] = np.concatenate(parts).astype(np.float32)
    write_arrays(path, arrays)


def read_predictions(path: Path) -> dict[str, Predictions]:
    """Read predictions by role; nothing if there is no such file, as of earlier versions.

    Raises:
        DamagedStateError: It is damaged.
    """
    arrays = read_arrays(path)
    names = [name.removesuffix("_places") for name in arrays if name.endswith("_places")]
    return {role: _parse(arrays, role) for role in names}


def _parse(arrays: Mapping[str, Any], role: str) -> Predictions:
    forces = arrays[f"{role}_forces"].astype(np.float64)
    cuts = np.cumsum(arrays[f"{role}_n_atoms"])[:-1]
    n = len(arrays[f"{role}_n_atoms"])
    return Predictions(
        arrays[f"{role}_places"].astype(np.int64),
        arrays[f"{role}_energies"].astype(np.float64),
        tuple(np.split(forces, cuts)) if n else (),
    )
