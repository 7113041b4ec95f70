"""The joint energy-force posterior on sets of rows, which are taken in as they come."""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from labelwise.features.frames import FrameTable
from labelwise.features.representations.row_sets import RowScales, RowSets, join_row_sets
from labelwise.features.store.base import RowStore
from labelwise.kernels.linear import LinearKernel
from labelwise.selection.choosing import Choice, Nearest, Report
from labelwise.selection.measurement import BatchKernels
from labelwise.selection.rules import (
    JointPosterior,
    JointShortlist,
    Selection,
    find_nearest,
    select_joint_posterior,
)
from labelwise.selection.settings import AcquisitionSettings


class JointChooser(RowStore):
    """Structures as sets of rows, and the joint energy-force posterior.

    With labelled structures the rows of the pool are weighed as they come, and with a shortlist
    only those of the most uncertain structures are held. Without any, the scale comes from
    the pool and so all rows are held, as they are if it is to be measured what was chosen.
    """

    def __init__(self, settings: AcquisitionSettings, *, is_measured: bool = False) -> None:
        """Set up empty sets, of which the labelled structures come first.

        Args:
            settings: The rule's.
            is_measured: Whether ``kernels`` will be asked for, so that nothing may be let go.
        """
        self._energies: dict[str, list[Float[Tensor, "_ d"]]] = {"train": [], "pool": []}
        self._all: list[RowSets] | None = [] if is_measured else None
        self._settings = settings
        self._role = "train"
        self._raw: dict[str, list[RowSets]] = {"train": [], "pool": []}
        self._scales: RowScales | None = None
        self._train = join_row_sets([], 1)
        self._shortlist: JointShortlist | None = None
        self._dim = 1

    @property
    def n_features(self) -> int:
        """Length of a row."""
        return self._dim

    def begin_pool(self) -> None:
        """Take what comes from now on as the pool's."""
        self._role = "pool"
        if self._raw["train"]:
            self._condition(self._join("train"))

    def append(self, frames: FrameTable, rows: RowSets) -> None:  # noqa: ARG002
        """Take in the row sets of some structures, finite and not weighted."""
        self._dim = rows.dim
        if self._all is not None:
            self._energies[self._role].append(rows.rows[rows.starts])
        if self._scales is None:
            self._raw[self._role].append(rows)
        else:
            self._hold(self._scales.weigh(rows))

    def choose(self, report: Report) -> Choice:
        """Apply the rule."""
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
        chosen = Selection(places[selection.pool_idx], selection.score)
        kernels = None if self._all is None else partial(self._kernels, chosen.pool_idx)
        return Choice(chosen, nearest, kernels)

    def _kernels(self, picks: Int64[np.ndarray, " k"]) -> BatchKernels:
        """Return the cosine of the energy rows, and variances of the joint posterior."""
        batch = join_row_sets(self._all or [], self._dim).take(torch.from_numpy(picks))
        regularisation = self._settings.resolved_regularisation
        before = JointPosterior(self._train, regularisation)
        after = JointPosterior(self._train, regularisation)
        for place in range(len(batch)):
            after.add(batch.take(torch.tensor([place])).rows)
        train, pool = (
            LinearKernel(torch.cat([self._energies["pool"][0][:0], *self._energies[role]]))
            for role in ("train", "pool")
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
