"""What a representation is, and the registry of them.

A representation maps a structure to a row of numbers, φ(x). There are two kinds: those of a
``ModelRepresentation`` are read from a potential, a batch at a time; those of a
``StructureRepresentation`` need the structures alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from ase import Atoms
from jaxtyping import Float, Float32, Int64
from torch import Tensor

from labelwise.errors import ArgumentError, check_name
from labelwise.features.options import RepresentationOptions as RepresentationOptions
from labelwise.features.representations.rows import SparseRows
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch
from labelwise.runtime.plugins import load_plugins

#: The kernel that is made of rows: φᵀφ', or of bits |a∩b| / |a∪b|.
KernelKind = Literal["linear", "tanimoto"]


@dataclass(frozen=True)
class FeatureBlock:
    """A part of a row that is normalised on its own and weighted in the kernel.

    Attributes:
        size: Its entries, >= 1. The blocks of a representation follow one another and make
            up the whole row.
        weight: Its part of the kernel, >= 0: k(x, z) = Σ_b w_b φ̃_b(x)ᵀφ̃_b(z).
    """

    size: int
    weight: float = 1.0


class Representation(ABC):
    """What maps a structure to a row of numbers; one of the two kinds below.

    Attributes:
        name: Its name in the registry.
        kernel: What is made of its rows; ``tanimoto`` takes zeros and ones.
        needs_model: Whether rows are read from a potential.
        column_block: None if rows are dense. Sparse rows come as ``SparseRows``, and structures
            that have an entry in columns b · column_block up to (b + 1) · column_block have
            most of them.
        takes_options: Whether any of the options makes other rows.
    """

    name: str
    kernel: KernelKind = "linear"
    needs_model: ClassVar[bool]
    column_block: int | None = None
    takes_options: bool = True

    def name_columns(self, columns: Int64[np.ndarray, " u"]) -> list[str]:
        """Name some columns of sparse rows, in words."""
        return [str(column) for column in columns.tolist()]

    def remark(self, atoms: Atoms) -> str | None:  # noqa: ARG002
        """Say in what respect a structure could not be represented as it should; else None."""
        return None

    def relevant_options(self, options: RepresentationOptions) -> dict[str, Any]:
        """Return those options on which the numbers of a row depend; by default all, if any.

        Args:
            options: What the representation was made with.
        """
        return asdict(options) if self.takes_options else {}


class ModelRepresentation(Representation):
    """A representation read from a potential."""

    needs_model = True

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

    def blocks(self, potential: Potential) -> tuple[FeatureBlock, ...]:
        """Return the parts of a row that are normalised on their own; by default one."""
        return (FeatureBlock(self.size(potential)),)


class StructureRepresentation(Representation):
    """A representation that needs no potential."""

    needs_model = False

    @abstractmethod
    def size(self) -> int:
        """Return d, the length of a row."""

    @abstractmethod
    def compute(self, structures: Sequence[Atoms]) -> Float32[np.ndarray, "n d"] | SparseRows:
        """Return the rows of n structures, which are left as they were: (n, d) float32."""


RepresentationFactory = Callable[[RepresentationOptions], Representation]

_FACTORIES: dict[str, RepresentationFactory] = {}


def register_representation(name: str, factory: RepresentationFactory) -> None:
    """Add a representation to the registry.

    Args:
        name: What users call it.
        factory: Makes it from the options.

    Raises:
        ArgumentError: the name is taken.

    Example:
        >>> import numpy as np
        >>> from labelwise import register_representation
        >>> from labelwise.features.representations import StructureRepresentation
        >>> class Elements(StructureRepresentation):
        ...     name = "elements"
        ...     def size(self):
        ...         return 119
        ...     def compute(self, structures):
        ...         rows = [np.bincount(atoms.numbers, minlength=119) for atoms in structures]
        ...         return np.array(rows, dtype=np.float32)
        >>> register_representation("elements", lambda options: Elements())
    """
    if name in _FACTORIES:
        raise ArgumentError(f"a representation called {name!r} is registered already")
    _FACTORIES[name] = factory


def list_representations() -> list[str]:
    """Return the registered names, sorted, those of plugins too."""
    load_plugins("representations")
    return sorted(_FACTORIES)


def make_representation(name: str, options: RepresentationOptions | None = None) -> Representation:
    """Make a representation by name.

    Raises:
        ArgumentError: unknown name, or an option out of range.
    """
    if name not in _FACTORIES:
        check_name("representation", name, list_representations())
    return _FACTORIES[name](options if options is not None else RepresentationOptions())
