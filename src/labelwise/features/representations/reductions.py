"""From the force Jacobian of a structure, whose height is its own, to one row of fixed length.

J_F = ∂F/∂θ has three rows for each atom. It turns with the structure, is permuted with its atoms,
and the plain sum of its rows over the atoms vanishes, because the forces of a structure do. A
reduction is a function of J_F that none of this changes. Here p counts the weights θ as they come:
a block that ``ntk-e`` sketches is sketched before the reduction, which then acts on the
sketched weights.

What is a sum over all rows of J_F takes 3N double-backward passes, N the atoms of the largest
structure of the batch, or ``n_probes`` passes with random signs v in their place: E[v vᵀ] = I, so
that Σ_k (v_kᵀJ)²/k estimates the sum without bias. An exact reduction stays the same under
rotation, reflection, translation, another order of the atoms and another unit cell; an estimated
one depends on orientation, order of the atoms and cell, and is invariant on average only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from functools import lru_cache

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.errors import ArgumentError, check_name
from labelwise.features.representations.base import RepresentationOptions
from labelwise.features.representations.probes import (
    rademacher_directions,
    radial_fields,
    unit_directions,
)
from labelwise.features.representations.sketch import PROBES, ROW_SKETCH, CountSketch, derive_seed
from labelwise.features.representations.tangent import DEFAULT_SKETCH_DIM
from labelwise.potentials.base import Linearisation, Potential
from labelwise.potentials.graphs import Batch

#: Radial fields of the reduction ``fields``.
N_FIELDS = 8
#: Weights that the second moments of ``moments`` are taken over, unless ``sketch_dim`` is given.
MOMENT_DIM = 64
#: Rows of several parts that are longer are sketched.
MAX_ROW = 8192


class Reduction(ABC):
    """One row for each structure of a batch, made of its J_F.

    Attributes:
        size: d, the length of a row.
        is_mean_of_contraction: Whether rows are Jᵀv/(3N); stores tell them by it from the sums
            that once were in their place.
    """

    size: int
    is_mean_of_contraction: bool = False

    def __init__(
        self, options: RepresentationOptions, potential: Potential, n_weights: int
    ) -> None:
        """Take ``n_probes``, ``sketch_dim`` and ``seed``, as far as they matter.

        Args:
            options: As checked by ``check_reduction``.
            potential: Gives elements and cutoff.
            n_weights: p, the weights after the sketch.
        """
        self._n_probes, self._sketch_dim = options.n_probes, options.sketch_dim
        self._seed = options.seed
        self._n_elements, self._cutoff = len(potential.elements), potential.cutoff
        self._n_weights = n_weights
        self.size = self._count_entries()

    @abstractmethod
    def _count_entries(self) -> int:
        """Return the length of a row."""

    @abstractmethod
    def __call__(self, linearisation: Linearisation) -> Float[Tensor, "n d"]:
        """Return the rows of a batch of n structures: (n, d) in the potential's type, detached."""

    def _directions(self, batch: Batch) -> Iterator[Float[Tensor, "N 3"]]:
        """Yield directions with Σ v vᵀ = I, or E[Σ v vᵀ] = k I with k probes."""
        if self._n_probes is None:
            return unit_directions(batch)
        return rademacher_directions(batch, self._n_probes, seed=derive_seed(self._seed, PROBES))

    @property
    def _n_repeats(self) -> int:
        """How often the directions cover every row of J_F."""
        return 1 if self._n_probes is None else self._n_probes


class RootMeanSquare(Reduction):
    """φ_w = sqrt(mean over jα of (∂F_jα/∂θ_w)²): p long, eV/Å per unit of weight.

    3N passes, or n_probes. The mean stays the same for supercells.
    """

    def _count_entries(self) -> int:
        return self._n_weights

    def __call__(self, linearisation: Linearisation) -> Float[Tensor, "n d"]:
        """Return (n, p)."""
        batch = linearisation.batch
        total = _wide_zeros(batch, batch.n_structures, self._n_weights)
        for direction in self._directions(batch):
            total += linearisation.force_rows(direction).to(total.dtype).square()
        n_rows = 3 * self._n_repeats * _count_atoms(total, batch)
        return _narrow(batch, (total / n_rows[:, None]).sqrt())


class ElementRootMeanSquare(Reduction):
    """The root mean square, for each element of the atom that the force acts on.

    φ_zw = sqrt(mean over the atoms j of element z and α of (∂F_jα/∂θ_w)²), (E·p) long with the
    elements in the potential's order, zeros for those that are absent; eV/Å per unit of weight.
    Rows longer than 8,192 are sketched to 2,048, any row to ``sketch_dim`` if that is given.

    3N passes; or n_probes for each element of the batch, with probes that are zero on the others.
    The means stay the same for supercells.
    """

    def _count_entries(self) -> int:
        return _joined_size(self._n_elements * self._n_weights, self._sketch_dim)

    def __call__(self, linearisation: Linearisation) -> Float[Tensor, "n d"]:
        """Return (n, d)."""
        batch = linearisation.batch
        elements, slots = torch.unique(batch.species, return_inverse=True)
        total = _wide_zeros(batch, batch.n_structures, len(elements), self._n_weights)
        structures = torch.arange(batch.n_structures, device=total.device)
        for direction, slot in self._directions_by_slot(batch, slots, len(elements)):
            rows = linearisation.force_rows(direction)
            total[structures, slot] += rows.to(total.dtype).square()
        n_atoms = _wide_zeros(batch, batch.n_structures, len(elements))
        ones = torch.ones_like(slots, dtype=total.dtype)
        n_atoms.index_put_((batch.structure_idx, slots), ones, accumulate=True)
        n_rows = 3 * self._n_repeats * n_atoms.clamp_min(1.0)
        means = _narrow(batch, (total / n_rows[:, :, None]).sqrt())
        parts = dict(zip(elements.tolist(), means.unbind(1), strict=True))
        size = self._n_elements * self._n_weights
        return _join(batch, parts.items(), size, self._seed, to=self.size)

    def _directions_by_slot(
        self, batch: Batch, slots: Int64[Tensor, " N"], n_slots: int
    ) -> Iterator[tuple[Float[Tensor, "N 3"], Int64[Tensor, " n"]]]:
        """Yield directions that in each structure lie on one element, and which that is."""
        for direction in self._directions(batch):
            if self._n_probes is None:
                slot = torch.zeros_like(slots[: batch.n_structures])
                atoms = direction.any(dim=1)
                slot[batch.structure_idx[atoms]] = slots[atoms]
                yield direction, slot
                continue
            for place in range(n_slots):
                slot = torch.full_like(slots[: batch.n_structures], place)
                yield direction * (slots == place)[:, None], slot


class ForceNorm(Reduction):
    """φ = J_FᵀF/(3N) = ∇_θ ½ mean F_jα², with the model's own forces: p long.

    In eV²/Å² per unit of weight. One pass. Invariant without an average, and the same for
    supercells. Zero where the forces are; where symmetry makes them vanish, rounding is what is
    left of the row.
    """

    is_mean_of_contraction = True

    def _count_entries(self) -> int:
        return self._n_weights

    def __call__(self, linearisation: Linearisation) -> Float[Tensor, "n d"]:
        """Return (n, p)."""
        return _mean_row(linearisation, linearisation.forces)


class Fields(Reduction):
    """φ_m = J_Fᵀv^(m)/(3N) for eight radial fields (``radial_fields``), concatenated: (8 p) long.

    In eV/Å per unit of weight. Rows longer than 8,192 are sketched to 2,048, any row to
    ``sketch_dim`` if that is given.

    Eight passes. Invariant without an average, the fields turning with the structure, and the
    same for supercells.
    """

    is_mean_of_contraction = True

    def _count_entries(self) -> int:
        return _joined_size(N_FIELDS * self._n_weights, self._sketch_dim)

    def __call__(self, linearisation: Linearisation) -> Float[Tensor, "n d"]:
        """Return (n, d)."""
        batch = linearisation.batch
        fields = radial_fields(batch, N_FIELDS, cutoff=self._cutoff)
        parts = enumerate(_mean_row(linearisation, field) for field in fields)
        return _join(batch, parts, N_FIELDS * self._n_weights, self._seed, to=self.size)


class Moments(Reduction):
    """The second moments J_FᵀJ_F/(3N) of the rows, over p weights sketched to s.

    Their upper triangle, the entries off the diagonal times √2: s(s+1)/2 long, so that
    φᵀφ' = ‖J_F J_F'ᵀ‖²_F / (3N · 3N'), and under the cosine the overlap of the two force
    Fisher matrices. s is 64, or ``sketch_dim``, or p if that is less; eV²/Å² per unit of
    weight squared.

    3N passes, or n_probes. The mean stays the same for supercells.
    """

    def _count_entries(self) -> int:
        return self._n_moments * (self._n_moments + 1) // 2

    def __call__(self, linearisation: Linearisation) -> Float[Tensor, "n d"]:
        """Return (n, s(s+1)/2)."""
        batch, s = linearisation.batch, self._n_moments
        total = _wide_zeros(batch, batch.n_structures, s, s)
        for direction in self._directions(batch):
            rows = linearisation.force_rows(direction).to(total.dtype)
            if s < self._n_weights:
                rows = _row_sketch(self._n_weights, s, self._seed)(rows)
            total.baddbmm_(rows[:, :, None], rows[:, None, :])
        row, column = torch.triu_indices(s, s, device=total.device).unbind()
        scale = (1.0 + (row != column).to(total)).sqrt()
        n_rows = 3 * self._n_repeats * _count_atoms(total, batch)
        return _narrow(batch, total[:, row, column] * scale / n_rows[:, None])

    @property
    def _n_moments(self) -> int:
        """How many weights enter, s."""
        return min(self._n_weights, MOMENT_DIM if self._sketch_dim is None else self._sketch_dim)


REDUCTIONS: dict[str, type[Reduction]] = {
    "rms": RootMeanSquare,
    "element-rms": ElementRootMeanSquare,
    "force-norm": ForceNorm,
    "fields": Fields,
    "moments": Moments,
}


def check_reduction(options: RepresentationOptions) -> None:
    """Raise ``ArgumentError`` unless the reduction is known and n_probes is None or >= 1."""
    check_name("reduction", options.reduction, REDUCTIONS)
    if options.n_probes is not None and options.n_probes < 1:
        raise ArgumentError(
            f"n_probes is {options.n_probes}; it must be at least 1, or None for exact features"
        )


def _wide_zeros(batch: Batch, *shape: int) -> Tensor:
    """Return zeros to sum in: float64 wherever the device has it."""
    device = batch.positions.device
    dtype = batch.positions.dtype if device.type == "mps" else torch.float64
    return torch.zeros(shape, dtype=dtype, device=device)


def _narrow(batch: Batch, values: Tensor) -> Tensor:
    return values.to(batch.positions.dtype)


def _mean_row(
    linearisation: Linearisation, directions: Float[Tensor, "N 3"]
) -> Float[Tensor, "n k"]:
    """Return J_Fᵀv/(3N), the mean over the 3N components of each structure, (n, k)."""
    rows = linearisation.force_rows(directions)
    return rows / (3.0 * _count_atoms(rows, linearisation.batch))[:, None]


def _count_atoms(like: Tensor, batch: Batch) -> Float[Tensor, " n"]:
    return torch.tensor(batch.atom_counts, dtype=like.dtype, device=like.device)


def _join(
    batch: Batch,
    parts: Iterable[tuple[int, Float[Tensor, "n p"]]],
    size: int,
    seed: int,
    *,
    to: int,
) -> Float[Tensor, "n d"]:
    """Put parts, given with their places, side by side in rows of ``size``; sketch these.

    A part at a time, so that long rows are never formed.
    """
    joined = batch.positions.new_zeros(batch.n_structures, to)
    for place, rows in parts:
        start = place * rows.shape[1]
        if to == size:
            joined[:, start : start + rows.shape[1]] = rows
        else:
            joined += _row_sketch(size, to, seed)(rows, start=start)
    return joined


def _joined_size(size: int, sketch_dim: int | None) -> int:
    if sketch_dim is not None:
        return min(size, sketch_dim)
    return size if size <= MAX_ROW else DEFAULT_SKETCH_DIM


@lru_cache(maxsize=8)
def _row_sketch(size: int, sketch_dim: int, seed: int) -> CountSketch:
    return CountSketch(size, sketch_dim, seed=derive_seed(seed, ROW_SKETCH))
