"""The nearest centre of every pool structure, kept up to date as centres are added.

LCMD and k-center share this state. Centres are the labelled structures, numbered
0..m-1, then the picks, m, m+1, …; distances are d²(x, z) = k(x,x) + k(z,z) - 2 k(x,z).

Three things make an added centre z cheap, none of which changes a result:

* *Triangle inequality.* x can only move to z if d(z, c(x)) < 2 d(x, c(x)) (Elkan 2003),
  so one distance per centre spares most distances per structure.
* *Filter, then decide.* Where that does not help, one product in the features' own
  precision finds the structures that might move, with a margin for rounding; only
  those are computed in float64. Float32 features so give the picks of float64.
* *Blocks.* The labelled structures are assigned by matrix products (``nearest_labelled``).

Where rows are on disk, a look at structures that the inequality lets move means reading the
pieces that they are in. It is made only if these are fewer than a pass over the disk costs a
pick; in a pass columns are made for many picks to come (``anticipation``).

Distances below rounding (64 ulp of k(x,x) + k(z,z)) are zero, and of centres that are
equally near within it the earliest is kept: duplicates cannot make a result depend on
the chunk size.
"""

from __future__ import annotations

from functools import partial
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from labelwise.kernels.base import Kernel, chunks
from labelwise.selection.rules.anticipation import AnticipatedColumns, GuessPicks
from labelwise.selection.rules.base import (
    ROUNDING,
    ProgressCallback,
    Selection,
    Ticker,
    check_chunk_size,
    check_n_select,
    threads_for,
)
from labelwise.selection.rules.nearest_labelled import CENTRES_PER_BLOCK, assign_nearest
from labelwise.selection.rules.unlabelled import first_pick

# benchmarks/results/constants.md: a quarter and four times of either change times by 4 % at most.
_FULL_COLUMN_FRACTION = 0.2
_MOST_SKIPS = 16


class NearestCentre:
    """Nearest centre and squared distance to it, for every structure of a pool.

    Args:
        pool: The pool's kernel, (n,) structures.
        train: The labelled structures, (m,), m >= 0.
        chunk_size: Pool structures a block.
        ticker: Told of each block of the first assignment.

    Attributes:
        diagonal: k(x, x), (n,) float64.
        sq_dist: d² to the nearest centre, (n,) float64; infinite before the first.
        centre: Number of the nearest centre, (n,) int64; 0 before the first.
        taken: Whether it is picked already, (n,) bool.
        n_centres: Labelled structures and picks so far.
        n_spared: Distances from picks to structures that were ruled out by the triangle
            inequality, of ``n_asked``.
        n_asked: The structures times the picks so far.
    """

    def __init__(self, pool: Kernel, train: Kernel, chunk_size: int, ticker: Ticker) -> None:
        self._pool = pool
        self._train = train
        self._chunk_size = chunk_size
        self.diagonal = pool.diagonal64()
        self._train_diagonal = train.diagonal64()
        self.n_centres = len(train)
        self.sq_dist, self.centre = assign_nearest(
            pool, self.diagonal, train, self._train_diagonal, chunk_size, ticker
        )
        self._picks: list[int] = []
        self.taken = torch.zeros(len(pool), dtype=torch.bool, device=self.diagonal.device)
        self._on_disk = not pool.in_memory
        self._rounding, self._products_per_value = pool.rounding, pool.products_per_value
        self._columns = AnticipatedColumns(pool)
        self._half_gap = 0.5 * (self.diagonal - self.sq_dist)
        self._norm = self.diagonal.sqrt()
        self._reach_is_wide = 0
        self._skip_reach = 0
        self.n_spared = 0
        self.n_asked = 0

    @property
    def n_open(self) -> int:
        """Structures that are not picked yet."""
        return len(self.taken) - len(self._picks)

    def first_pick(self) -> int:
        """Return the structure to begin with where there is no centre yet."""
        return first_pick(self._pool, self.diagonal, self._chunk_size)

    def open_sq_dist(self) -> Float[Tensor, " n"]:
        """Return d² to the nearest centre, (n,), with -inf for what is picked already."""
        return self.sq_dist.masked_fill(self.taken, -torch.inf)

    def add(self, pick: int, guess: GuessPicks) -> None:
        """Make the pool structure ``pick`` a centre.

        Args:
            pick: Its pool index.
            guess: Returns about so many structures that may be picked after it; it has no
                effect on the result.
        """
        reach = self._within_reach(pick)
        self.taken[pick] = True
        self.n_asked += len(self.taken)
        self.n_spared += 0 if reach is None else len(self.taken) - len(reach)
        near, products = self._filtered(pick, reach, guess)
        self._move(near, pick, products)
        self._picks.append(pick)
        self.n_centres += 1

    def _within_reach(self, pick: int) -> Int[Tensor, " r"] | None:
        """Return the structures that the triangle inequality lets move; None if many.

        Where it keeps sparing little it is asked ever more rarely. None too where looking at
        the structures would cost more than a column: it is there already, or they are
        scattered over the disk.
        """
        if self.n_centres == 0 or (self._on_disk and self._columns.holds(pick)):
            return None
        if self._skip_reach > 0:
            self._skip_reach -= 1
            return None
        with threads_for(self.n_centres * self._products_per_value):
            to_centres = self._lower_sq_dist_to_centres(pick)
        reach = torch.nonzero(to_centres[self.centre] < 4.0 * self.sq_dist).squeeze(1)
        if len(reach) > _FULL_COLUMN_FRACTION * len(self.centre):
            self._reach_is_wide = min(self._reach_is_wide + 1, _MOST_SKIPS)
            self._skip_reach = 0 if self._on_disk else self._reach_is_wide
            return None
        self._reach_is_wide = 0
        a_pick = 1.0 / self._columns.picks_served
        return None if self._pool.share_to_read(reach) > a_pick else reach

    def _lower_sq_dist_to_centres(self, pick: int) -> Float[Tensor, " c"]:
        """Bound d²(z, c) from below for every centre c, (n_centres,) float64."""
        row = torch.tensor([pick], device=self.centre.device)
        picks = torch.tensor(self._picks, dtype=torch.int64, device=self.centre.device)
        values = torch.cat(
            [
                self._pool.block(row, self._train, slice(None))[0],
                self._pool.block(row, self._pool, picks)[0],
            ]
        )
        theirs = torch.cat([self._train_diagonal, self.diagonal[picks]])
        mine = self.diagonal[pick]
        slack = 2.0 * self._rounding * torch.sqrt(mine * theirs) + ROUNDING * (mine + theirs)
        return mine + theirs - 2.0 * self._pool.checked64(values) - slack

    def _filtered(
        self, pick: int, reach: Int[Tensor, " r"] | None, guess: GuessPicks
    ) -> tuple[Int[Tensor, " s"], Float[Tensor, " s"] | None]:
        """Return those within reach (all for None) that may be nearer to ``pick``.

        With them k(x, pick) in float64, (s,), where it had to be had for the filter.
        """
        z = torch.tensor([pick], device=self.centre.device)
        half_gap, norm = self._half_gap, self._norm
        if reach is None:
            values = self._columns.column(pick, guess)
        else:
            with threads_for(len(reach) * self._products_per_value):
                values = self._values(reach, z)
            half_gap, norm = half_gap[reach], norm[reach]
        exact = self._columns.exact
        slack = (ROUNDING if exact else self._rounding) * float(self._norm[pick])
        bar = torch.add(half_gap, norm, alpha=-slack).add_(0.5 * self.diagonal[pick])
        near = torch.nonzero(~(values < bar)).squeeze(1)  # NaN too: it must be found
        products = values[near] if exact else None
        return (near if reach is None else reach[near]), products

    def _values(self, rows: Int[Tensor, " r"], z: Int[Tensor, 1]) -> Float[Tensor, " r"]:
        """Return k(x, z), (r,), in float64 if it must be read from disk."""
        if self._columns.exact:
            return self._pool.block64(rows, self._pool, z)[:, 0]
        return self._pool.block(rows, self._pool, z)[:, 0]

    def _move(
        self, near: Int[Tensor, " r"], pick: int, products: Float[Tensor, " r"] | None
    ) -> None:
        """Give those of ``near`` to ``pick`` that are nearer to it, decided in float64."""
        z = torch.tensor([pick], device=near.device)
        for part in chunks(len(near), self._chunk_size):
            rows = near[part]
            own = self.diagonal[rows] + self.diagonal[pick]
            if products is None:
                with threads_for(len(rows) * self._products_per_value):
                    sq_dist = own - 2.0 * self._pool.block64(rows, self._pool, z)[:, 0]
            else:
                sq_dist = own - 2.0 * products[part]
            sq_dist = sq_dist.masked_fill(sq_dist <= ROUNDING * own, 0.0)
            moves = sq_dist < self.sq_dist[rows] - ROUNDING * own
            moved = rows[moves]
            self.sq_dist[moved] = sq_dist[moves]
            self.centre[moved] = self.n_centres
            self._half_gap[moved] = 0.5 * (self.diagonal[moved] - sq_dist[moves])


def nearest_state_bytes(n: int, d: int, n_train: int, n_select: int) -> int:
    """Return what the state holds beside the rows and whole columns, bytes: see ``Rule``."""
    centres = min(n_train, CENTRES_PER_BLOCK)
    picked = 8 * (n_train + n_select) + 4 * d * n_select
    return 120 * n + 12 * d * centres + picked


@runtime_checkable
class DistanceRule(Protocol):
    """How a rule picks from the state of nearest centres."""

    def choose(self, state: NearestCentre) -> int:
        """Return the next pick, given at least one centre."""
        ...

    def guess(self, state: NearestCentre, count: int) -> list[int]:
        """Return about ``count`` structures that may be picked next, all different."""
        ...


def select_by_distance(
    pool: Kernel,
    train: Kernel,
    n_select: int,
    rule: DistanceRule,
    *,
    chunk_size: int,
    progress: ProgressCallback | None,
) -> Selection:
    """Pick by a rule that looks at nearest centres only; each pick becomes a centre.

    Args:
        pool: The pool's kernel, (n_pool,) structures, dimensionless.
        train: The labelled structures, (n_train,), may be empty.
        n_select: Structures to pick, 1 <= n_select <= n_pool.
        rule: Which structure is next.
        chunk_size: Pool structures a block; no effect on the picks.
        progress: Called as ``progress(done, total)`` in units of work.

    Returns:
        pool_idx (n_select,) int64 in order of choice; score (n_select,), the squared
        distance to the nearest centre when chosen, k(x, x) where there was none.

    Raises:
        SelectionError: n_select or chunk_size out of range, or a kernel value that is
            not finite.
        ArgumentError: The kernels do not belong together.
    """
    check_n_select(n_select, len(pool))
    check_chunk_size(chunk_size)
    pool.check_partner(train)
    ticker = Ticker(progress, len(pool.chunks(chunk_size)) + n_select)
    state = NearestCentre(pool, train, chunk_size, ticker)
    return pick_by_distance(state, n_select, rule, ticker)


def pick_by_distance(
    state: NearestCentre, n_select: int, rule: DistanceRule, ticker: Ticker
) -> Selection:
    """Pick by a rule from a state of nearest centres, which is brought up to date.

    Args:
        state: The nearest centre of every structure.
        n_select: Structures to pick, 1 <= n_select <= ``state.n_open``.
        rule: Which structure is next.
        ticker: Told of each pick.

    Returns:
        As ``select_by_distance``.
    """
    picks: list[int] = []
    scores: list[float] = []
    for _ in range(n_select):
        if state.n_centres == 0:
            pick = state.first_pick()
            score = float(state.diagonal[pick])
            state.add(pick, lambda _: [])
        else:
            pick = rule.choose(state)
            score = float(state.sq_dist[pick])
            state.add(pick, partial(rule.guess, state))
        picks.append(pick)
        scores.append(score)
        ticker.advance()
    return Selection.from_lists(picks, scores)
