"""Structures as sets of rows: one for the energy, and those of the forces.

A feature row stands for one number that a structure has; its energy and its 3N force
components are 3N + 1 numbers, so a structure is as many rows. They are kept one structure
after another, the energy's first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations.normalisation import check_normalisation


@dataclass(frozen=True, eq=False)
class RowSets:
    """The rows of n structures, R in all.

    With the exact rows of J_F, or with random signs in their place, RᵀR is that of the
    structure, exactly or on average; nothing else of the rows enters a joint posterior.

    Attributes:
        rows: (R, d) float32 or float64, eV and eV/Å per unit of weight until they are weighed.
        counts: (n,) rows of each structure, the energy's included, >= 1.
        n_atoms: (n,) atoms of each structure, >= 1.
    """

    rows: Float[Tensor, "R d"]
    counts: Int64[Tensor, " n"]
    n_atoms: Int64[Tensor, " n"]

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            ArgumentError: They do not.
        """
        fits = len(self.counts) == len(self.n_atoms) and int(self.counts.sum()) == len(self.rows)
        if not fits or bool((self.counts < 1).any()):
            raise ArgumentError(
                f"{len(self.rows)} rows, {len(self.counts)} counts that sum up to "
                f"{int(self.counts.sum())} and {len(self.n_atoms)} numbers of atoms: every "
                "structure needs its energy row, and all rows must be counted"
            )

    def __len__(self) -> int:
        """Count the structures."""
        return len(self.counts)

    @property
    def dim(self) -> int:
        """Length d of a row."""
        return self.rows.shape[1]

    @cached_property
    def starts(self) -> Int64[Tensor, " n"]:
        """Place of each structure's energy row, (n,)."""
        return torch.cumsum(self.counts, 0) - self.counts

    @property
    def owner(self) -> Int64[Tensor, " R"]:
        """The structure that each row belongs to, (R,)."""
        return torch.arange(len(self)).repeat_interleave(self.counts)

    def is_finite(self) -> list[bool]:
        """Tell for each structure whether all of its rows are finite."""
        bad = ~torch.isfinite(self.rows).all(dim=1)
        count = torch.zeros(len(self), dtype=torch.int64).index_add_(0, self.owner, bad.long())
        return (count == 0).tolist()

    def row_idx(self, structures: Int64[Tensor, " k"]) -> Int64[Tensor, " _"]:
        """Return the places of the rows of some structures, in their order."""
        counts = self.counts[structures]
        begin = self.starts[structures] - (torch.cumsum(counts, 0) - counts)
        return torch.arange(int(counts.sum())) + begin.repeat_interleave(counts)

    def take(self, structures: Int64[Tensor, " k"]) -> RowSets:
        """Return a part of the structures, (k,), with rows copied."""
        rows = self.rows.index_select(0, self.row_idx(structures))
        return RowSets(rows, self.counts[structures], self.n_atoms[structures])

    def __getitem__(self, mask: Bool[np.ndarray, " n"]) -> RowSets:
        """Return the structures that are marked, with rows copied."""
        return self.take(torch.from_numpy(np.flatnonzero(mask)))

    def squares(self) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
        """Return ‖J_E‖² and ‖J_F‖² of each structure, (n,) float64 each."""
        square = torch.cat([part.double().square().sum(1) for part in torch.split(self.rows, 4096)])
        total = torch.zeros(len(self), dtype=torch.float64).index_add_(0, self.owner, square)
        energy = square[self.starts]
        return energy, total - energy


@dataclass(frozen=True)
class RowScales:
    """How rows are brought to one scale before energies and forces are weighed.

    Attributes:
        normalise: ``cosine``: energy and force rows of each structure are divided by their own
            norm, ‖J_E‖ and ‖J_F‖, so that every structure has a prior variance of one;
            ``none``: by one number each for all structures.
        energy_weight: w, the energy's part of the prior variance, 0 <= w <= 1.
        energy_square: Mean of ‖J_E‖² over the reference structures, for ``none``.
        force_square: Mean of ‖J_F‖² over the reference structures, for ``none``.
    """

    normalise: str
    energy_weight: float
    energy_square: float = 1.0
    force_square: float = 1.0

    def __post_init__(self) -> None:
        """Check every setting.

        Raises:
            ArgumentError: An unknown normalisation, or a weight outside [0, 1].
        """
        check_normalisation(self.normalise)
        if not 0.0 <= self.energy_weight <= 1.0:
            raise ArgumentError(f"energy_weight is {self.energy_weight}; allowed is 0 to 1")

    @classmethod
    def measured(cls, reference: RowSets, *, normalise: str, energy_weight: float) -> RowScales:
        """Take the scales from reference structures, (m,); without any they are one."""
        scales = cls(normalise, energy_weight)
        if normalise == "cosine" or len(reference) == 0:
            return scales
        energy, force = (float(square.mean()) for square in reference.squares())
        return replace(scales, energy_square=energy or 1.0, force_square=force or 1.0)

    def weigh(self, sets: RowSets) -> RowSets:
        """Return the rows √w J_E/s_E and √(1−w) J_F/s_F, in a new tensor.

        The mean of a structure's prior variance, the sum of the squares of its rows, is one.
        """
        energy, force = sets.squares()
        if self.normalise == "none":
            energy, force = (
                torch.full_like(energy, self.energy_square),
                torch.full_like(force, self.force_square),
            )
        factor = _part(1.0 - self.energy_weight, force)[sets.owner]
        factor[sets.starts] = _part(self.energy_weight, energy)
        return replace(sets, rows=sets.rows * factor.to(sets.rows)[:, None])


def join_row_sets(parts: Sequence[RowSets], dim: int) -> RowSets:
    """Put the structures of several sets behind each other; none give an empty set of width d."""
    if not parts:
        nothing = torch.zeros(0, dtype=torch.int64)
        return RowSets(torch.zeros(0, dim), nothing, nothing)
    return RowSets(
        torch.cat([part.rows for part in parts]),
        torch.cat([part.counts for part in parts]),
        torch.cat([part.n_atoms for part in parts]),
    )


def drop_empty_columns(*sets: RowSets) -> tuple[RowSets, ...]:
    """Leave out the columns in which all rows of all sets are zero: absent elements, mostly.

    No inner product changes. One column is kept if all are zero.
    """
    used = torch.zeros(sets[0].dim, dtype=torch.bool)
    for each in sets:
        for part in torch.split(each.rows, 4096):
            used |= (part != 0).any(dim=0)
    if bool(used.all()):
        return sets
    columns = torch.nonzero(used).squeeze(1) if bool(used.any()) else torch.tensor([0])
    return tuple(replace(each, rows=each.rows.index_select(1, columns)) for each in sets)


def _part(weight: float, square: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Return √(weight/square), zero where the rows are zero themselves."""
    inverse = torch.where(square > 0, 1.0 / square.clamp_min(1e-300), torch.zeros_like(square))
    return inverse.sqrt() * math.sqrt(weight)
