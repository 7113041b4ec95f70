"""Structures as people give them from Python: in memory, as paths, one or many."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TypeAlias

from ase import Atoms

from labelwise.errors import ArgumentError
from labelwise.structures.reading import Frame, Source, Spec, iter_frames

#: One structure, a path as ``read_structures`` takes it, or any number of either.
Structures: TypeAlias = Atoms | Spec | Iterable[Atoms | Spec]


def frames_of(given: Structures, argument: str) -> list[Frame]:
    """Return structures with their sources, whichever way they were given.

    Args:
        given: A structure, a path (``"pool.extxyz@::10"``, ``"runs/*/out.traj"``), or a list,
            a generator or another iterable of structures and paths; not modified.
        argument: What it was given for: the file's name in the source of structures that are in
            memory.

    Returns:
        Frames in the order given, numbered from 0.

    Raises:
        ArgumentError: It is neither; the message says what came, and at which place.
        ReadError: A path cannot be read.
    """
    found = _iter_frames(given, argument)
    return [Frame(atoms, source, index) for index, (atoms, source) in enumerate(found)]


def atoms_of(given: Structures, argument: str) -> list[Atoms]:
    """Return structures, whichever way they were given; see ``frames_of``."""
    return [atoms for atoms, _ in _iter_frames(given, argument)]


def paths_in(given: object) -> list[Spec]:
    """Return the paths, if one or several of them and nothing else were given; else nothing."""
    several = [given] if isinstance(given, str | os.PathLike) else given
    if not isinstance(several, Sequence):
        return []
    paths: list[Spec] = [each for each in several if isinstance(each, str | os.PathLike)]
    return paths if len(paths) == len(several) else []


def _iter_frames(given: Structures, argument: str) -> Iterator[tuple[Atoms, Source]]:
    several: Iterable[Atoms | Spec]
    if isinstance(given, Atoms | str | os.PathLike):
        several = [given]
    elif isinstance(given, Iterable) and not isinstance(given, bytes | Mapping):
        several = given
    else:
        raise ArgumentError(_explain(argument, given))
    for place, item in enumerate(several):
        if isinstance(item, Atoms):
            yield item, Source(argument, place)
        elif isinstance(item, str | os.PathLike):
            for frame in iter_frames(item):
                yield frame.atoms, frame.source
        else:
            raise ArgumentError(_explain(f"{argument}[{place}]", item))


def _explain(argument: str, given: object) -> str:
    return (
        f"{argument} is {given!r:.60} ({type(given).__name__}): give structures (ase.Atoms), a "
        "path such as 'pool.extxyz@::10', or a list of either"
    )
