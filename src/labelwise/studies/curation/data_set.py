"""A data set in memory: its structures, which of them are repeats, and its kernel."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Int64

from labelwise.errors import ArgumentError, ScreeningError
from labelwise.features.fill import find_rows, make_screen
from labelwise.features.representations import RepresentationOptions, make_representation
from labelwise.features.store.memory import MemoryRows
from labelwise.kernels.base import Kernel
from labelwise.kernels.building import check_kernel, open_kernels
from labelwise.potentials.base import Potential
from labelwise.potentials.size_limit import SizeLimit
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.structures import DuplicateIndex, Frame, Screened, Source
from labelwise.structures.screening import NON_FINITE, NON_FINITE_DETAIL


@dataclass(frozen=True, eq=False)
class DataSet:
    """The structures of a set that a kernel can take, and those it cannot.

    Attributes:
        structures: (n,) structures as read; not to be modified. Positions in Å.
        sources: (n,) file and frame of each.
        indices: (n,) place among all structures as read, from 0.
        first_equal: (n,) position of the first structure that equals it to 1e-6 Å; its own
            position where it is the first.
        aside: Structures that were set aside.
        screened: Why, in the same order.
    """

    structures: tuple[Atoms, ...]
    sources: tuple[Source, ...]
    indices: Int64[np.ndarray, " n"]
    first_equal: Int64[np.ndarray, " n"]
    aside: tuple[Atoms, ...]
    screened: tuple[Screened, ...]

    def __len__(self) -> int:
        """Count the structures that were not set aside."""
        return len(self.structures)

    @property
    def n_read(self) -> int:
        """Structures as read."""
        return len(self.structures) + len(self.screened)

    @property
    def is_repeat(self) -> Bool[np.ndarray, " n"]:
        """Whether an equal structure comes before, (n,) bool."""
        repeat: np.ndarray = self.first_equal != np.arange(len(self))
        return repeat

    def without(self, places: Sequence[int], reason: str, detail: str) -> DataSet:
        """Return the set with some more structures set aside.

        Args:
            places: Positions of the structures.
            reason: Why, see ``Screen``.
            detail: The same in words.
        """
        gone = np.zeros(len(self), dtype=bool)
        gone[list(places)] = True
        kept = np.flatnonzero(~gone)
        first: dict[int, int] = {}
        found = [
            Screened("pool", int(self.indices[i]), self.sources[i], reason, detail) for i in places
        ]
        pairs = [*zip(self.screened, self.aside, strict=True)]
        pairs += zip(found, (self.structures[i] for i in places), strict=True)
        pairs.sort(key=lambda pair: pair[0].index)
        return DataSet(
            structures=tuple(self.structures[i] for i in kept),
            sources=tuple(self.sources[i] for i in kept),
            indices=self.indices[kept],
            first_equal=np.array(
                [
                    first.setdefault(old, new)
                    for new, old in enumerate(self.first_equal[kept].tolist())
                ],
                dtype=np.int64,
            ),
            aside=tuple(atoms for _, atoms in pairs),
            screened=tuple(item for item, _ in pairs),
        )

    def groups(self, key: str, *, required: bool = False) -> list[str]:
        """Return the group of every structure, its value of an info key.

        Args:
            key: The info key.
            required: Whether a structure without the key is an error; else its group is "".

        Raises:
            ArgumentError: No structure has the key, or one lacks it although it is required.
        """
        lacking = [i for i, atoms in enumerate(self.structures) if key not in atoms.info]
        if lacking and (required or len(lacking) == len(self)):
            first = lacking[0]
            present = ", ".join(sorted(map(str, self.structures[first].info))) or "none"
            raise ArgumentError(
                f"{len(lacking)} of {len(self)} structures have no info key {key!r}, the first is "
                f"{self.sources[first]}; its info keys are: {present}"
            )
        return [str(atoms.info.get(key, "")) for atoms in self.structures]


def load_data_set(
    frames: Iterable[Frame],
    potential: Potential | None = None,
    *,
    size_limit: SizeLimit | None = None,
    strict: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> DataSet:
    """Read a data set and set aside what has no place in a kernel.

    What is set aside, and why, is told in ``Screen``; atoms alone in space are set aside with
    any model and without one: their labels are atomic reference energies. Repeats are
    kept and marked.

    Args:
        frames: The structures, for instance from ``iter_frames``.
        potential: The model that will represent them; None checks the structures alone.
        size_limit: Tells which structures are too large; None for any size.
        strict: Whether a structure that is set aside is an error.
        progress: Called as ``progress("read pool", done, None)``.

    Raises:
        ArgumentError: No structures are left.
        ScreeningError: ``strict``, and a structure would be set aside.
        ReadError: Raised by the stream itself.
    """
    screen = make_screen(potential, size_limit)
    seen = DuplicateIndex()
    kept: list[Frame] = []
    aside: list[Atoms] = []
    screened: list[Screened] = []
    first_equal: list[int] = []
    for n_done, frame in enumerate(frames, start=1):
        found = screen.check_content(frame)
        if found is None:
            equal = seen.find(frame.atoms)
            first_equal.append(len(kept) if equal is None else equal)
            if equal is None:
                seen.add(frame.atoms, len(kept))
            kept.append(frame)
        else:
            if strict:
                raise ScreeningError(found.explain_strict())
            screened.append(found)
            aside.append(frame.atoms)
        progress("read pool", n_done, None)
    data = DataSet(
        structures=tuple(frame.atoms for frame in kept),
        sources=tuple(frame.source for frame in kept),
        indices=np.array([frame.index for frame in kept], dtype=np.int64),
        first_equal=np.array(first_equal, dtype=np.int64),
        aside=tuple(aside),
        screened=tuple(screened),
    )
    _refuse(data, strict=strict)
    return data


def make_kernel(
    data: DataSet,
    potential: Potential | None,
    representation: str,
    *,
    options: RepresentationOptions | None = None,
    normalise: str = "cosine",
    batch_atoms: int | None = None,
    strict: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> tuple[DataSet, Kernel]:
    """Make the kernel of a data set; structures whose features are not finite are set aside.

    Args:
        data: The data set.
        potential: Where features come from; None for representations without a model.
        representation: A registered name.
        options: Of the representation; None for the defaults.
        normalise: ``cosine`` or ``none``, see ``build_kernels``.
        batch_atoms: Atoms evaluated at once.
        strict: Whether a structure that is set aside is an error.
        progress: Called as ``progress("represent pool", done, total)``.

    Returns:
        The data set without those structures, n of them, and its kernel, (n,), dimensionless.

    Raises:
        ArgumentError: An unknown name, an option out of range, a model is needed, or no
            structures are left.
        ScreeningError: ``strict``, and a structure would be set aside.
    """
    chosen = make_representation(representation, options)
    check_kernel(chosen, normalise)
    rows = MemoryRows(chosen, potential)
    places = find_rows(
        data.structures,
        rows,
        potential,
        batch_atoms=batch_atoms,
        tell=lambda n_done: progress("represent pool", n_done, len(data)),
    )
    broken = np.flatnonzero(places < 0).tolist()
    if broken:
        data = data.without(broken, NON_FINITE, NON_FINITE_DETAIL)
        _refuse(data, strict=strict)
    (kernel,) = open_kernels(rows, [places[places >= 0]], normalise=normalise)
    return data, kernel


def _refuse(data: DataSet, *, strict: bool) -> None:
    """Raise for a set with structures set aside where none may be, or with no others."""
    if strict and data.screened:
        raise ScreeningError(data.screened[0].explain_strict())
    if len(data) == 0:
        first = data.screened[0] if data.screened else None
        raise ArgumentError(
            f"there is nothing to work on: {data.n_read} structures were read and all set aside"
            + ("" if first is None else f", the first as {first.reason} ({first.detail})")
        )
