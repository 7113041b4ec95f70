"""From streams of structures to a selection: by rows and kernels, or by sets of rows.

A chooser is fed chunk by chunk, first the labelled structures, then the pool, and keeps no
more of them than its rule needs.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from ase import Atoms
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from labelwise.features.memo import FeatureMemo
from labelwise.features.representations import iter_remarked
from labelwise.features.representations.joint_rows import iter_row_sets
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.kernels.base import Kernel
from labelwise.kernels.building import collect_rows
from labelwise.kernels.linear import LinearKernel
from labelwise.potentials.base import Potential
from labelwise.selection.measurement import BatchKernels
from labelwise.selection.rules import (
    JOINT_RULE,
    JointPosterior,
    JointShortlist,
    Selection,
    find_nearest,
    select_batch,
    select_joint_posterior,
)
from labelwise.selection.settings import AcquisitionSettings

_SETS = ("train", "pool")

Nearest = tuple[np.ndarray, np.ndarray]
Report = Callable[[int, int], None]


class Chooser(ABC):
    """A rule and what it needs to know of each structure.

    Attributes:
        remarks: What the representation remarked, to the number of structures.
    """

    def __init__(self) -> None:
        self.remarks: Counter[str] = Counter()

    @abstractmethod
    def represent(self, structures: Iterable[Atoms]) -> Iterator[Any]:
        """Return chunks, in the order of the structures, whose length counts structures."""

    @abstractmethod
    def keep(self, role: str, chunk: Any) -> Bool[np.ndarray, " b"]:
        """Take in a chunk of the ``train`` or the ``pool``; tell which structures are finite.

        Those that are not are left out, and do not count in the selection's indices.
        """

    @abstractmethod
    def choose(self, report: Report) -> tuple[Selection, Nearest | None]:
        """Return the picks, and each pick's nearest labelled structure and its distance."""

    @abstractmethod
    def kernels(self, picks: Int64[np.ndarray, " k"]) -> BatchKernels:
        """Return what the picks were chosen by, for measuring what they changed."""

    @property
    @abstractmethod
    def n_features(self) -> int:
        """Length of a row."""


def make_chooser(
    settings: AcquisitionSettings,
    potential: Potential | None,
    memo: FeatureMemo | None = None,
    *,
    is_measured: bool = False,
) -> Chooser:
    """Return the chooser of a rule that looks at structures.

    Args:
        settings: The rule and the rest.
        potential: The model, if one is needed.
        memo: Rows that are known already.
        is_measured: Whether ``kernels`` will be asked for, so that nothing may be let go.
    """
    if settings.rule == JOINT_RULE:
        if potential is None:
            raise AssertionError("acquire() checks that there is a potential")
        return RowSetChooser(settings, potential, is_measured=is_measured)
    return FeatureChooser(settings, potential, memo)


class FeatureChooser(Chooser):
    """One row a structure, a kernel, and a rule on it."""

    def __init__(
        self,
        settings: AcquisitionSettings,
        potential: Potential | None,
        memo: FeatureMemo | None = None,
    ) -> None:
        """Make the representation.

        Raises:
            ArgumentError: Unknown representation, or an option out of range.
        """
        super().__init__()
        self._settings, self._potential = settings, potential
        self._memo = FeatureMemo(0) if memo is None else memo
        self._representation = settings.make_representation()
        self._rows = collect_rows(
            self._representation, potential, len(_SETS), normalise=settings.resolved_normalise
        )

    @property
    def n_features(self) -> int:
        """Length of a row; of sparse rows, the columns in use."""
        return self._rows.n_features

    def represent(self, structures: Iterable[Atoms]) -> Iterator[Any]:
        """See ``Chooser.represent``."""
        return self._memo.iter_features(
            iter_remarked(structures, self._representation, self.remarks),
            self._potential,
            self._representation,
            self._settings.options,
            batch_atoms=self._settings.batch_atoms,
        )

    def keep(self, role: str, chunk: Any) -> Bool[np.ndarray, " b"]:
        """See ``Chooser.keep``."""
        return self._rows.add(_SETS.index(role), chunk)

    def choose(self, report: Report) -> tuple[Selection, Nearest | None]:
        """See ``Chooser.choose``."""
        train, pool = self._kernels
        selection = select_batch(
            self._settings.rule,
            pool,
            train,
            self._settings.n_select,
            regularisation=self._settings.resolved_regularisation,
            seed=self._settings.seed,
            shortlist=self._settings.shortlist,
            progress=report,
        )
        nearest = find_nearest(pool, train, selection.pool_idx) if len(train) else None
        return selection, nearest

    def kernels(self, picks: Int64[np.ndarray, " k"]) -> BatchKernels:  # noqa: ARG002
        """See ``Chooser.kernels``."""
        return BatchKernels(*self._kernels)

    @cached_property
    def _kernels(self) -> tuple[Kernel, Kernel]:
        """Of the labelled structures and of the pool; rows that come later are not in them."""
        train, pool = self._rows.to_kernels()
        return train, pool


class RowSetChooser(Chooser):
    """Structures as sets of rows, and the joint energy-force posterior.

    With labelled structures the rows of the pool are weighed as they come, and with a shortlist
    only those of the most uncertain structures are held. Without any, the scale comes from
    the pool and so all rows are held, as they are if it is to be measured what was chosen.
    """

    def __init__(
        self, settings: AcquisitionSettings, potential: Potential, *, is_measured: bool
    ) -> None:
        """Set up empty sets."""
        super().__init__()
        self._energies: dict[str, list[Float[Tensor, "_ d"]]] = {"train": [], "pool": []}
        self._all: list[RowSets] | None = [] if is_measured else None
        self._settings, self._potential = settings, potential
        self._raw: dict[str, list[RowSets]] = {"train": [], "pool": []}
        self._scales: RowScales | None = None
        self._train = join_row_sets([], 1)
        self._shortlist: JointShortlist | None = None
        self._dim = 1

    @property
    def n_features(self) -> int:
        """Length of a row."""
        return self._dim

    def represent(self, structures: Iterable[Atoms]) -> Iterator[Any]:
        """See ``Chooser.represent``."""
        settings = self._settings
        return iter_row_sets(
            structures, self._potential, settings.options, batch_atoms=settings.batch_atoms
        )

    def keep(self, role: str, chunk: Any) -> Bool[np.ndarray, " b"]:
        """See ``Chooser.keep``."""
        sets: RowSets = chunk
        self._dim = sets.dim
        finite = np.array(sets.is_finite())
        if not finite.all():
            sets = sets.take(torch.from_numpy(np.flatnonzero(finite)))
        if self._all is not None:
            self._energies[role].append(sets.rows[sets.starts])
        if role == "pool" and self._scales is None and self._raw["train"]:
            self._condition(self._join("train"))
        if role == "train" or self._scales is None:
            self._raw[role].append(sets)
        else:
            self._hold(self._scales.weigh(sets))
        return finite

    def choose(self, report: Report) -> tuple[Selection, Nearest | None]:
        """See ``Chooser.choose``."""
        if self._scales is None:
            self._condition(self._join("train"))
        pool, places = self._pool()
        selection = select_joint_posterior(
            pool,
            self._train,
            self._settings.n_select,
            regularisation=self._settings.resolved_regularisation,
            per_atom=self._per_atom,
            progress=report,
        )
        nearest = self._nearest(pool, selection.pool_idx)
        return Selection(places[selection.pool_idx], selection.score), nearest

    def kernels(self, picks: Int64[np.ndarray, " k"]) -> BatchKernels:
        """See ``Chooser.kernels``; the kernel is the cosine of the energy rows."""
        if self._all is None:
            raise AssertionError("what is to be measured is said beforehand")
        batch = join_row_sets(self._all, self._dim).take(torch.from_numpy(picks))
        regularisation = self._settings.resolved_regularisation
        before = JointPosterior(self._train, regularisation)
        after = JointPosterior(self._train, regularisation)
        for place in range(len(batch)):
            after.add(batch.take(torch.tensor([place])).rows)
        train, pool = (
            LinearKernel(torch.cat([self._energies["pool"][0][:0], *self._energies[role]]))
            for role in _SETS
        )
        return BatchKernels(train, pool, (self._variances(before), self._variances(after)))

    def _variances(self, posterior: JointPosterior) -> Float64[np.ndarray, " n"]:
        """Return the joint posterior variance of every structure of the pool, (n,)."""
        found = [
            posterior.variances(part) / (part.n_atoms.double() if self._per_atom else 1.0)
            for part in self._all or ()
        ]
        variances: Float64[np.ndarray, " n"] = torch.cat(found).double().cpu().numpy()
        return variances

    @property
    def _per_atom(self) -> bool:
        """Under the cosine every structure has the same prior variance already."""
        return self._settings.resolved_normalise == "none"

    def _condition(self, train: RowSets) -> None:
        """Measure the scales and weigh what is there."""
        settings = self._settings
        waiting = self._raw["pool"]
        reference = train if len(train) else join_row_sets(waiting, self._dim)
        self._scales = RowScales.measured(
            reference, normalise=settings.resolved_normalise, energy_weight=settings.energy_weight
        )
        self._train = self._scales.weigh(train)
        if settings.shortlist is not None:
            posterior = JointPosterior(self._train, settings.resolved_regularisation)
            n_keep = settings.shortlist
            self._shortlist = JointShortlist(posterior, n_keep, per_atom=self._per_atom)
        self._raw["pool"] = []
        for sets in waiting:
            self._hold(self._scales.weigh(sets))

    def _hold(self, weighed: RowSets) -> None:
        if self._all is not None:
            self._all.append(weighed)
        if self._shortlist is not None:
            self._shortlist.add(weighed)
        else:
            self._raw["pool"].append(weighed)

    def _pool(self) -> tuple[RowSets, np.ndarray]:
        """Return the rows to choose from, and the places of their structures in the pool."""
        if self._shortlist is not None:
            kept, places = self._shortlist.finish(self._dim)
            return kept, places.numpy()
        pool = self._join("pool")
        return pool, np.arange(len(pool))

    def _join(self, role: str) -> RowSets:
        joined = join_row_sets(self._raw[role], self._dim)
        self._raw[role].clear()
        return joined

    def _nearest(self, pool: RowSets, picks: np.ndarray) -> Nearest | None:
        """Return the nearest labelled structures under the cosine of the energy rows."""
        if len(self._train) == 0 or self._settings.energy_weight == 0.0:
            return None
        picked = LinearKernel(pool.rows[pool.starts[torch.from_numpy(picks)]])
        labelled = LinearKernel(self._train.rows[self._train.starts])
        return find_nearest(picked, labelled, np.arange(len(picks)))
