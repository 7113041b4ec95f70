"""Shortlist of a stream of row sets: only the rows of the most uncertain structures are kept."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.errors import SelectionError
from labelwise.features.representations.row_sets import RowSets, join_row_sets
from labelwise.selection.rules.joint_posterior import JointPosterior, prior_order_of_sets

# As many more shortlists as this are held before the worst are let go: a bound of memory.
_SLACK = 2


class JointShortlist:
    """The K structures of largest joint posterior variance among those added so far.

    At most three K structures and one chunk are held at a time, whatever the pool's size. Of
    equal scores those that came first stay, so that the chunks do not matter. With nothing
    labelled all are held, and the order is that of ``prior_order_of_sets``.

    Args:
        posterior: The posterior given the labelled structures.
        n_keep: K, >= 1.
        per_atom: Whether the variance is divided by the number of atoms.

    Raises:
        SelectionError: K is out of range.
    """

    def __init__(self, posterior: JointPosterior, n_keep: int, *, per_atom: bool) -> None:
        if n_keep < 1:
            raise SelectionError(f"shortlist={n_keep}: allowed are whole numbers from 1")
        self._posterior, self._n_keep, self._per_atom = posterior, n_keep, per_atom
        self._parts: list[RowSets] = []
        self._places: list[Int64[Tensor, " _"]] = []
        self._scores: list[Float[Tensor, " _"]] = []
        self._n_added = 0

    def add(self, sets: RowSets) -> None:
        """Score the next structures of the stream, weighed, and keep what is among the best."""
        score = self._posterior.variances(sets)
        if self._per_atom:
            score = score / sets.n_atoms
        self._parts.append(sets)
        self._scores.append(score)
        self._places.append(torch.arange(self._n_added, self._n_added + len(sets)))
        self._n_added += len(sets)
        n_held = sum(len(part) for part in self._parts)
        if n_held > (1 + _SLACK) * self._n_keep and not self._posterior.is_prior:
            self._prune()

    def finish(self, dim: int) -> tuple[RowSets, Int64[Tensor, " k"]]:
        """Return the kept structures in the order of the stream, and their places in it.

        Args:
            dim: Length of a row, for an empty stream.
        """
        if not self._parts:
            return join_row_sets([], dim), torch.zeros(0, dtype=torch.int64)
        self._prune()
        return self._parts[0], self._places[0]

    def _prune(self) -> None:
        score, place = torch.cat(self._scores), torch.cat(self._places)
        joined = join_row_sets(self._parts, self._parts[0].dim)
        if self._posterior.is_prior:
            order = prior_order_of_sets(joined, score)
        else:
            order = torch.argsort(score, descending=True, stable=True)
        best = order[: self._n_keep].sort().values
        self._parts, self._scores = [joined.take(best)], [score[best]]
        self._places = [place[best]]
