"""What a representation is, and the registry of them.

A representation maps a structure to a row of numbers, φ(x). There are two kinds: those of a
``ModelRepresentation`` are read from a potential, a batch at a time; those of a
``StructureRepresentation`` need the structures alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Float, Float32
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch


@dataclass(frozen=True)
class RepresentationOptions:
    """Settings that representations understand; each takes what concerns it.

    Attributes:
        parameters: Block of weights that tangents are taken over: ``embedding``, ``readout``,
            ``products`` or ``all``.
        sketch_dim: Length of sketched rows; None keeps ``embedding`` rows as they are and
            sketches the other blocks to 2,048.
        seed: Seed of sketches and random features, >= 0.
    """

    parameters: str = "embedding"
    sketch_dim: int | None = None
    seed: int = 0


class ModelRepresentation(ABC):
    """A representation read from a potential.

    Attributes:
        name: Its name in the registry.
    """

    name: str

    @abstractmethod
    def size(self, potential: Potential) -> int:
        """Return d, the length of a row with this potential."""

    @abstractmethod
    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        """Return the rows of a batch.

        Args:
            potential: Where the features come from; left as it was.
            batch: n structures.

        Returns:
            (n, d) in the potential's type and on its device, detached.
        """


class StructureRepresentation(ABC):
    """A representation that needs no potential.

    Attributes:
        name: Its name in the registry.
    """

    name: str

    @abstractmethod
    def size(self) -> int:
        """Return d, the length of a row."""

    @abstractmethod
    def compute(self, structures: Sequence[Atoms]) -> Float32[np.ndarray, "n d"]:
        """Return the rows of n structures, which are left as they were: (n, d) float32."""


Representation = ModelRepresentation | StructureRepresentation
RepresentationFactory = Callable[[RepresentationOptions], Representation]

_FACTORIES: dict[str, RepresentationFactory] = {}


def register_representation(name: str, factory: RepresentationFactory) -> None:
    """Add a representation to the registry.

    Args:
        name: What users call it.
        factory: Makes it from the options.

    Raises:
        ArgumentError: the name is taken.
    """
    if name in _FACTORIES:
        raise ArgumentError(f"a representation called {name!r} is registered already")
    _FACTORIES[name] = factory


def list_representations() -> list[str]:
    """Return the registered names, sorted."""
    return sorted(_FACTORIES)


def make_representation(name: str, options: RepresentationOptions | None = None) -> Representation:
    """Make a representation by name.

    Raises:
        ArgumentError: unknown name, or an option out of range.
    """
    if name not in _FACTORIES:
        raise ArgumentError(
            f"representation is {name!r}; known are {', '.join(list_representations())}"
        )
    return _FACTORIES[name](options if options is not None else RepresentationOptions())
