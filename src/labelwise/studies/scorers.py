"""Scores of structures given labelled ones, for kernels that weigh energies and forces.

Gradients are computed once for all weights, kernels and labelled sets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Float32, Float64, Int64

from labelwise.errors import StructureError
from labelwise.features.representations import RepresentationOptions, represent
from labelwise.features.representations.base import FeatureBlock
from labelwise.features.representations.force_tangent import JointTangent
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.normalisation import normalise_rows
from labelwise.features.representations.row_sets import (
    RowScales,
    RowSets,
    drop_empty_columns,
    join_row_sets,
)
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials import Potential
from labelwise.selection.rules.joint_posterior import joint_variances, select_joint_posterior
from labelwise.selection.rules.posterior_variance import (
    posterior_variance,
    select_posterior_variance,
)


@dataclass(frozen=True, eq=False)
class Split:
    """Places of the labelled structures and of those that are scored, among all of a study.

    Attributes:
        train_idx: (m,) int64.
        rest_idx: (n,) int64, none of them in ``train_idx``.
    """

    train_idx: Int64[np.ndarray, " m"]
    rest_idx: Int64[np.ndarray, " n"]


class Scorer(Protocol):
    """One kernel with one weight, over all structures of a study."""

    def score(self, split: Split) -> Float64[np.ndarray, " n"]:
        """Return the posterior variance of each structure that is not labelled."""
        ...

    def pick(self, split: Split, n_select: int) -> Int64[np.ndarray, " k"]:
        """Return a batch of structures that are not labelled, picked one given the other."""
        ...


class JointScorer:
    """The joint energy-force posterior variance.

    Per atom if rows keep their length (``none``): what force errors are is an average over
    components, and a total variance grows with their number. With ``cosine`` every structure
    has a prior variance of one, which is not divided again.

    Args:
        sets: Rows of all structures, not weighed.
        normalise: ``none`` or ``cosine``; with ``none`` all structures set the scale.
        weight: The energy's part, 0 to 1.
        regularisation: λ, > 0.
    """

    def __init__(
        self, sets: RowSets, *, normalise: str, weight: float, regularisation: float
    ) -> None:
        scales = RowScales.measured(sets, normalise=normalise, energy_weight=weight)
        self._sets = scales.weigh(sets)
        self._per_atom = normalise == "none"
        self._regularisation = regularisation

    def score(self, split: Split) -> Float64[np.ndarray, " n"]:
        """Return the variance, dimensionless, (n,)."""
        train, rest = self._parts(split)
        total = joint_variances(rest, train, regularisation=self._regularisation).numpy()
        return total / rest.n_atoms.numpy() if self._per_atom else total

    def pick(self, split: Split, n_select: int) -> Int64[np.ndarray, " k"]:
        """Return the greedy batch."""
        train, rest = self._parts(split)
        chosen = select_joint_posterior(
            rest,
            train,
            n_select,
            regularisation=self._regularisation,
            per_atom=self._per_atom,
        )
        return split.rest_idx[chosen.pool_idx]

    def _parts(self, split: Split) -> tuple[RowSets, RowSets]:
        train, rest = (torch.from_numpy(idx) for idx in (split.train_idx, split.rest_idx))
        return self._sets.take(train), self._sets.take(rest)


class TangentScorer:
    """The posterior variance of ``ntk-ef`` under the cosine, with λ = 1e-3.

    Args:
        rows: Energy and force features of all structures, (n, d), not normalised.
        blocks: The energy's block and that of the forces, whatever their weights.
        weight: The energy's part, 0 to 1.
    """

    def __init__(
        self, rows: Float32[np.ndarray, "n d"], blocks: Sequence[FeatureBlock], *, weight: float
    ) -> None:
        energy, force = blocks
        weighed = (replace(energy, weight=weight), replace(force, weight=1.0 - weight))
        own = rows.copy()
        normalise_rows(own[:0], own, weighed)
        self._kernel = LinearKernel(own, normalise="none")

    def score(self, split: Split) -> Float64[np.ndarray, " n"]:
        """Return the variance, dimensionless, (n,)."""
        return posterior_variance(*self._parts(split)).numpy()

    def pick(self, split: Split, n_select: int) -> Int64[np.ndarray, " k"]:
        """Return the greedy batch."""
        return split.rest_idx[select_posterior_variance(*self._parts(split), n_select).pool_idx]

    def _parts(self, split: Split) -> tuple[LinearKernel, LinearKernel]:
        rest, train = (torch.from_numpy(idx) for idx in (split.rest_idx, split.train_idx))
        return self._kernel.take(rest), self._kernel.take(train)


@dataclass(frozen=True, eq=False)
class BlockRows:
    """The gradients of all structures over one block of parameters.

    Attributes:
        sets: Energy and force rows.
        features: By reduction, the rows of ``ntk-ef``.
        feature_blocks: By reduction, the energy's block and that of the forces.
    """

    sets: RowSets
    features: dict[str, Float32[np.ndarray, "n d"]]
    feature_blocks: dict[str, tuple[FeatureBlock, ...]]

    @property
    def n_kernels(self) -> int:
        """Number of kernels for each weight."""
        return 2 + len(self.features)

    def scorers(
        self, weights: Sequence[float], *, regularisation: float
    ) -> Iterator[tuple[str, float, Scorer]]:
        """Yield kernel, weight and scorer, by kernel and then by weight."""
        for kernel, normalise in (("joint-pv", "none"), ("joint-pv-cosine", "cosine")):
            for weight in weights:
                yield (
                    kernel,
                    weight,
                    JointScorer(
                        self.sets,
                        normalise=normalise,
                        weight=weight,
                        regularisation=regularisation,
                    ),
                )
        for reduction, rows in self.features.items():
            for weight in weights:
                blocks = self.feature_blocks[reduction]
                yield f"ntk-ef-{reduction}", weight, TangentScorer(rows, blocks, weight=weight)


def compute_block_rows(
    structures: Sequence[Atoms],
    potential: Potential,
    options: RepresentationOptions,
    reductions: Sequence[str],
    *,
    batch_atoms: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> BlockRows:
    """Compute everything that kernels of one block of parameters need.

    Args:
        structures: n structures; not modified.
        potential: Where the gradients come from.
        options: ``parameters``, ``sketch_dim``, ``seed`` and ``n_probes``.
        reductions: Of the force rows of ``ntk-ef``.
        batch_atoms: Atoms evaluated at once.
        progress: Called with the structures done, n for the rows and n for each reduction.

    Raises:
        ArgumentError: An option is unknown or out of range.
        StructureError: A structure that the potential cannot take, or with gradients that are
            not finite.
    """
    n = len(structures)

    def offset(place: int) -> Callable[[int], None] | None:
        return None if progress is None else lambda n_done: progress(place * n + n_done)

    parts = iter_row_sets(
        structures, potential, options, batch_atoms=batch_atoms, progress=offset(0)
    )
    sets = join_row_sets(list(parts), dim=1)
    finite = sets.is_finite()
    if not all(finite):
        raise StructureError(
            f"structure {finite.index(False)} has gradients that are not finite, perhaps because "
            "atoms nearly coincide; leave it out"
        )
    features, blocks = {}, {}
    for place, reduction in enumerate(reductions, start=1):
        joint = JointTangent(replace(options, reduction=reduction))
        features[reduction] = represent(
            structures, potential, joint, batch_atoms=batch_atoms, progress=offset(place)
        )
        blocks[reduction] = joint.blocks(potential)
    return BlockRows(drop_empty_columns(sets)[0], features, blocks)
