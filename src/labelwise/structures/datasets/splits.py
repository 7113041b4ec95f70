"""Which structures of labelled reactions become pool, validation and test set, as indices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int64

from labelwise.errors import ArgumentError

#: Section 4.1 of *Pretrained Model Representations as Acquisition Signals for Active Learning of
#: MLIPs*: three pools of five reactions, 35 test structures of each.
N_POOLS, N_REACTIONS, N_TEST = 3, 5, 35
N_VALID = 50
#: Its section 5: the mixed set.
N_MIXED, MIXED_TEST, MIXED_VALID = 100, 0.2, 0.1
#: At most these parts of a small reaction, and of what is left, are held out.
_MOST_TEST, _MOST_VALID = 3, 5


@dataclass(frozen=True)
class PoolSplit:
    """One pool and its held-out sets, as rows of the structures they were made from.

    Attributes:
        pool, valid, test: (n,) int64, ascending; they have nothing in common.
        n_left_out: Copies of held-out structures, which are in none of them.
        changes: What had to differ from the protocol, in words.
        train: (n,) int64, labels to begin with; None where there are none.
    """

    pool: Int64[np.ndarray, " n_pool"]
    valid: Int64[np.ndarray, " n_valid"]
    test: Int64[np.ndarray, " n_test"]
    n_left_out: int
    changes: tuple[str, ...]
    train: Int64[np.ndarray, " n_train"] | None = None

    @property
    def by_role(self) -> dict[str, list[int]]:
        """The sets by name, the pool first."""
        sets = {"pool": self.pool, "train": self.train, "valid": self.valid, "test": self.test}
        return {role: rows.tolist() for role, rows in sets.items() if rows is not None}


def split_natural(
    families: Sequence[str],
    copy_of: Sequence[int],
    *,
    seed: int,
    n_pools: int = N_POOLS,
    n_reactions: int = N_REACTIONS,
) -> list[PoolSplit]:
    """Make pools of a few reactions each, with a balanced test set.

    Reactions are drawn at random, none twice. Of each, 35 structures are the test set, or a
    third of a reaction of fewer than 105; 50 of the rest are the validation set, or a fifth of
    a smaller rest; all others are the pool, which so keeps the natural imbalance.

    Args:
        families: Reaction of each structure, (n,).
        copy_of: First structure that each is an exact copy of, itself if there is none
            before, (n,). A copy of a held-out structure is left out.
        seed: Decides everything, >= 0.
        n_pools: Pools wanted.
        n_reactions: Reactions in each.

    Returns:
        As many pools as there are reactions for, at least one.

    Raises:
        ArgumentError: Too few structures to fill the three sets.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 4.1.
    """
    groups, changes = draw_natural(
        set(families), seed=seed, n_pools=n_pools, n_reactions=n_reactions
    )
    return split_drawn(families, copy_of, groups, seed=seed, changes=changes)


def draw_natural(
    names: Collection[str], *, seed: int, n_pools: int = N_POOLS, n_reactions: int = N_REACTIONS
) -> tuple[list[list[str]], tuple[str, ...]]:
    """Draw the reactions of natural pools, whatever order their names come in.

    Args:
        names: Different names, at least one.
        seed: Decides everything, >= 0.
        n_pools: Pools wanted.
        n_reactions: Reactions in each.

    Returns:
        The names of each pool, as many pools as there are reactions for, at least one; and in
        words that there were too few, if so.
    """
    ordered = sorted(names)
    order = [ordered[i] for i in np.random.default_rng(seed).permutation(len(ordered)).tolist()]
    n_made = max(1, min(n_pools, len(ordered) // n_reactions))
    n_each = min(n_reactions, len(ordered))
    groups = [order[number * n_each : (number + 1) * n_each] for number in range(n_made)]
    if n_made == n_pools and n_each == n_reactions:
        return groups, ()
    made = f"{n_made} of {n_each}, because there are {len(ordered)} reactions"
    return groups, (f"pools: {n_pools} of {n_reactions} reactions → {made}",)


def split_drawn(
    families: Sequence[str],
    copy_of: Sequence[int],
    groups: Sequence[Sequence[str]],
    *,
    seed: int,
    changes: Sequence[str] = (),
) -> list[PoolSplit]:
    """Split natural pools whose reactions are drawn already; see ``split_natural``.

    Args:
        families: Reaction of each structure, (n,).
        copy_of: First structure that each is an exact copy of, (n,).
        groups: The reactions of each pool.
        seed: Decides everything else, >= 0.
        changes: What had to differ so far; told with the first pool.

    Raises:
        ArgumentError: Too few structures to fill the three sets.
    """
    return [
        _split_pool(
            families,
            copy_of,
            list(chosen),
            np.random.default_rng([seed, number]),
            list(changes) if number == 0 else [],
        )
        for number, chosen in enumerate(groups)
    ]


def split_mixed(families: Sequence[str], copy_of: Sequence[int], *, seed: int) -> PoolSplit:
    """Make one pool of all reactions, up to 100, with held-out sets at random over structures.

    Args:
        families: Reaction of each structure, (n,).
        copy_of: As in ``split_natural``.
        seed: Decides everything, >= 0.

    Returns:
        The pool; a fifth of the different structures is the test set, a tenth the validation
        set.

    Raises:
        ArgumentError: Too few structures to fill the three sets.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, section 5.
    """
    chosen, changes = draw_mixed(set(families), seed=seed)
    return split_at_random(families, copy_of, chosen, seed, changes)


def draw_mixed(names: Collection[str], *, seed: int) -> tuple[set[str], list[str]]:
    """Draw the reactions of the mixed pool; also return in words that there were too few."""
    ordered = sorted(names)
    chosen = np.random.default_rng(seed).permutation(len(ordered))[:N_MIXED]
    changes = []
    if len(ordered) < N_MIXED:
        changes.append(f"reactions: {N_MIXED} → {len(ordered)}, which is all there are")
    return {ordered[i] for i in chosen.tolist()}, changes


def split_at_random(
    families: Sequence[str],
    copy_of: Sequence[int],
    chosen: set[str],
    seed: int,
    changes: list[str],
) -> PoolSplit:
    """Hold out a fifth of the different structures to test and a tenth to validate.

    Args:
        families: Family of each structure, (n,).
        copy_of: First structure that each is an exact copy of, (n,).
        chosen: Families that take part.
        seed: Decides everything, >= 0.
        changes: What had to differ so far.

    Raises:
        ArgumentError: Too few structures to fill the three sets.
    """
    first = _first_of(families, copy_of, chosen)
    shuffled = np.random.default_rng([seed, 1]).permutation(first)
    n_test, n_valid = round(MIXED_TEST * len(first)), round(MIXED_VALID * len(first))
    test, valid = shuffled[:n_test], shuffled[n_test : n_test + n_valid]
    return _fill(families, copy_of, chosen, valid, test, changes)


def _split_pool(
    families: Sequence[str],
    copy_of: Sequence[int],
    chosen: list[str],
    rng: np.random.Generator,
    notes: list[str],
) -> PoolSplit:
    changes = list(notes)
    first = _first_of(families, copy_of, set(chosen))
    test: list[int] = []
    for name in chosen:
        members = np.array([i for i in first.tolist() if families[i] == name], dtype=np.int64)
        n_test = min(N_TEST, len(members) // _MOST_TEST)
        if n_test < N_TEST:
            changes.append(
                f"test structures of reaction {name}: {N_TEST} → {n_test}, a third of "
                f"{len(members)}"
            )
        test += rng.permutation(members)[:n_test].tolist()
    held = set(test)
    rest = [i for i in first.tolist() if i not in held]
    n_valid = min(N_VALID, len(rest) // _MOST_VALID)
    if n_valid < N_VALID:
        changes.append(f"validation structures: {N_VALID} → {n_valid}, a fifth of {len(rest)}")
    valid = rng.permutation(np.array(rest, dtype=np.int64))[:n_valid]
    return _fill(families, copy_of, set(chosen), valid, np.array(test, dtype=np.int64), changes)


def _first_of(
    families: Sequence[str], copy_of: Sequence[int], chosen: set[str]
) -> Int64[np.ndarray, " n"]:
    """Return the structures of some reactions that are no copy of an earlier one of them."""
    seen: set[int] = set()
    first = []
    for i, (family, original) in enumerate(zip(families, copy_of, strict=True)):
        if family in chosen and original not in seen:
            seen.add(original)
            first.append(i)
    return np.array(first, dtype=np.int64)


def _fill(
    families: Sequence[str],
    copy_of: Sequence[int],
    chosen: set[str],
    valid: Int64[np.ndarray, " n_valid"],
    test: Int64[np.ndarray, " n_test"],
    changes: list[str],
) -> PoolSplit:
    """Give everything that equals no held-out structure to the pool."""
    members = [i for i, family in enumerate(families) if family in chosen]
    held = {copy_of[i] for i in (*valid.tolist(), *test.tolist())}
    pool = [i for i in members if copy_of[i] not in held]
    if not pool or not len(valid) or not len(test):
        raise ArgumentError(
            f"the {len(members)} structures of {len(chosen)} reactions make a pool of "
            f"{len(pool)}, {len(valid)} to validate and {len(test)} to test; allowed is at least "
            "one of each: give more structures, or folders with pool.extxyz, valid.extxyz and "
            "test.extxyz"
        )
    return PoolSplit(
        np.array(pool, dtype=np.int64),
        np.sort(valid),
        np.sort(test),
        len(members) - len(pool) - len(valid) - len(test),
        tuple(changes),
    )
