"""Atoms and their periodic images, for questions that a cell list answers badly.

A cell list needs memory in proportion to the cell's volume and time in proportion to
how thin it is. A k-d tree over the atoms and the images near them minds neither large
vacuum, nor thin cells, nor atoms far away.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float64, Int64
from scipy.spatial import cKDTree


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

    Args:
        positions: (n, 3), Å.
        cell: (3, 3), Å, rows are lattice vectors; not singular, also in open directions.
        pbc: (3,) bool.
        reach: Å.

    Returns:
        The atoms and the images.
    """
    heights = 1.0 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    margin = np.where(pbc, reach / heights, np.inf)
    scaled = np.linalg.solve(cell.T, positions.T).T
    home = np.where(pbc, -np.floor(scaled), 0.0)
    scaled = scaled + home
    n_images = np.where(pbc, np.ceil(reach / heights), 0).astype(int)
    shifts = np.array(list(itertools.product(*(range(-n, n + 1) for n in n_images))))
    shifts = shifts[shifts.any(axis=1)]
    images = scaled[None] + shifts[:, None]
    near = ((images >= -margin) & (images <= 1.0 + margin)).all(axis=2)
    which, atom = np.nonzero(near)
    return Images(
        np.concatenate([scaled, images[near]]) @ cell,
        np.concatenate([np.arange(len(positions)), atom]),
        np.concatenate([home, home[atom] + shifts[which]]).astype(np.int64),
    )


def find_nearest_distance(
    positions: Float64[np.ndarray, "n 3"],
    cell: Float64[np.ndarray, "3 3"],
    pbc: Bool[np.ndarray, "axes=3"],
    reach: float,
) -> float:
    """Return the least distance between two atoms or images of atoms, Å.

    Args:
        positions: (n, 3), Å, n >= 1.
        cell: (3, 3), Å; not singular if any direction is periodic.
        pbc: (3,) bool.
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
        positions: (n, 3), Å.
        cell: (3, 3), Å; not singular.
        pbc: (3,) bool.
        cutoff: Å.

    Returns:
        i and j, (pairs,) int64; the distance, (pairs,), Å; and S, (pairs, 3) int64, so
        that the distance is |r_j - r_i + S @ cell|. Sorted by i.
    """
    images = list_images(positions, cell, pbc, cutoff)
    n_atoms = len(positions)
    near = cKDTree(images.points).query_ball_point(images.points[:n_atoms], cutoff)
    first = np.repeat(np.arange(n_atoms), [len(points) for points in near])
    second = np.array([point for points in near for point in points], dtype=np.int64)
    first, second = first[first != second], second[first != second]
    distance = np.linalg.norm(images.points[second] - images.points[first], axis=1)
    keep = distance < cutoff
    first, second, distance = first[keep], second[keep], distance[keep]
    return first, images.atom[second], distance, images.shift[second] - images.shift[first]
