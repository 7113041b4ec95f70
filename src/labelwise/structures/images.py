"""Atoms and their periodic images, for questions that a cell list answers badly.

A cell list needs memory in proportion to the cell's volume and time in proportion to
how thin it is. A k-d tree over the atoms and the images near them minds neither large
vacuum, nor thin cells, nor atoms far away.

All functions take ``positions``, (n, 3), Å, n >= 1; ``cell``, (3, 3), Å, whose rows are lattice
vectors, not singular if any direction is periodic; and ``pbc``, (3,) bool.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import cKDTree

#: Atoms whose neighbours are counted to estimate those of all.
_COUNTED_ATOMS = 2000


@dataclass(frozen=True)
class Images:
    """The atoms of a structure moved into its cell, then those of their images in reach.

    Attributes:
        points: (n + m, 3) float64, Å, the n atoms first.
        atom: (n + m,) int64, the atom that each point is an image of.
        shift: (n + m, 3) int64, lattice vectors that take the atom as it was to the point.
    """

    points: Float64[np.ndarray, "points 3"]
    atom: Int64[np.ndarray, " points"]
    shift: Int64[np.ndarray, "points 3"]


def list_images(
    positions: Float64[np.ndarray, "n 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    reach: float,
) -> Images:
    """List the atoms and every image of them that lies within reach of the cell.

    The cell must not be singular, also in open directions.

    Args:
        positions: (n, 3).
        cell: (3, 3).
        pbc: (3,).
        reach: Å.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    margin = np.where(pbc, reach / heights, np.inf)
    scaled = np.linalg.solve(cell.T, positions.T).T
    home = np.where(pbc, -np.floor(scaled), 0.0)
    scaled = scaled + home
    n_images = np.where(pbc, np.ceil(reach / heights), 0).astype(int)
    parts, atoms, shifts = [scaled], [np.arange(len(positions))], [home]
    for shift in itertools.product(*(range(-n, n + 1) for n in n_images)):
        if not any(shift):
            continue
        # One image of the cell at a time: all 26 of a million atoms would not fit.
        images = scaled + shift
        near = np.flatnonzero(((images >= -margin) & (images <= 1.0 + margin)).all(axis=1))
        parts.append(images[near])
        atoms.append(near)
        shifts.append(home[near] + shift)
    return Images(
        np.concatenate(parts) @ cell,
        np.concatenate(atoms),
        np.concatenate(shifts).astype(np.int64),
    )


def find_nearest_distance(
    positions: Float64[np.ndarray, "n 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    reach: float,
) -> float:
    """Return the least distance between two atoms or images of atoms, Å.

    Args:
        positions: (n, 3).
        cell: (3, 3).
        pbc: (3,).
        reach: Images farther than this from the cell are left out, Å.

    Returns:
        The distance in Å; infinity when there is no other atom and no image in reach.
        Exact up to ``reach``, and for structures without periodicity.
    """
    points = list_images(positions, cell, pbc, reach).points if pbc.any() else positions
    if len(points) == 1:
        return np.inf
    distances, _ = cKDTree(points).query(points[: len(positions)], k=2)
    return float(distances[:, 1].min())


def find_pairs(
    positions: Float64[np.ndarray, "n 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    cutoff: float,
) -> tuple[
    Int64[np.ndarray, " pairs"],
    Int64[np.ndarray, " pairs"],
    Float64[np.ndarray, " pairs"],
    Int64[np.ndarray, "pairs 3"],
]:
    """Find every ordered pair of an atom and another atom or image within a cutoff.

    Args:
        positions: (n, 3).
        cell: (3, 3).
        pbc: (3,).
        cutoff: Å.

    Returns:
        i and j, (pairs,) int64; the distance, (pairs,), Å; and S, (pairs, 3) int64, so
        that the distance is |r_j - r_i + S @ cell|. Sorted by i.
    """
    images = list_images(positions, cell, pbc, cutoff)
    atoms = cKDTree(images.points[: len(positions)])
    # As an array: lists of Python's integers take minutes for a million atoms.
    pairs = atoms.sparse_distance_matrix(cKDTree(images.points), cutoff, output_type="ndarray")
    first, second = pairs["i"].astype(np.int64), pairs["j"].astype(np.int64)
    distance = np.linalg.norm(images.points[second] - images.points[first], axis=1)
    keep = (first != second) & (distance < cutoff)
    order = np.lexsort((second[keep], first[keep]))
    first, second, distance = (each[keep][order] for each in (first, second, distance))
    return first, images.atom[second], distance, images.shift[second] - images.shift[first]


def estimate_pairs(
    positions: Float64[np.ndarray, "n 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    cutoff: float,
) -> float:
    """Estimate how many pairs ``find_pairs`` would find, from the neighbours of some atoms.

    Args:
        positions: (n, 3).
        cell: (3, 3).
        pbc: (3,).
        cutoff: Å.

    Returns:
        The number of ordered pairs: exact up to 2,000 atoms, else from 2,000 atoms that are
        spread over the list.
    """
    points = list_images(positions, cell, pbc, cutoff).points if pbc.any() else positions
    places = np.linspace(0, len(positions) - 1, min(len(positions), _COUNTED_ATOMS)).astype(int)
    tree = cKDTree(points)
    counts = tree.query_ball_point(points[places], cutoff, return_length=True)
    return float((np.asarray(counts) - 1).mean() * len(positions))
