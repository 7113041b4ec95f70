"""A data set in memory: its structures, which of them are repeats, and its kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from ase import Atoms
from jaxtyping import Bool, Int64

from labelwise.errors import ArgumentError, ScreeningError, StructureError
from labelwise.kernel_building import build_kernels
from labelwise.kernels import Kernel
from labelwise.potentials.base import Potential
from labelwise.representations import RepresentationOptions
from labelwise.structures import DuplicateIndex, Frame, Screen, Screened, Source
from labelwise.timing import ProgressCallback, ignore_progress


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
        strict: Whether a structure that is set aside is an error.
        progress: Called as ``progress("read pool", done, None)``.

    Raises:
        ArgumentError: No structures are left.
        ScreeningError: ``strict``, and a structure would be set aside.
        ReadError: Raised by the stream itself.
    """
    screen = Screen(
        None if potential is None else potential.elements,
        None if potential is None else potential.cutoff,
    )
    seen = DuplicateIndex()
    kept: list[Frame] = []
    aside: list[Atoms] = []
    screened: list[Screened] = []
    first_equal: list[int] = []
    for n_done, frame in enumerate(frames, start=1):
        found = _find_fault(frame, screen, potential)
        if found is None:
            equal = seen.find(frame.atoms)
            first_equal.append(len(kept) if equal is None else equal)
            if equal is None:
                seen.add(frame.atoms, len(kept))
            kept.append(frame)
        else:
            if strict:
                raise ScreeningError(
                    f"{found.source}: {found.reason} ({found.detail}); "
                    "without --strict such structures are set aside"
                )
            screened.append(found)
            aside.append(frame.atoms)
        progress("read pool", n_done, None)
    if not kept:
        raise ArgumentError(
            f"there is nothing to work on: {len(screened)} structures were read and all set aside"
            + (f", the first as {screened[0].reason} ({screened[0].detail})" if screened else "")
        )
    return DataSet(
        structures=tuple(frame.atoms for frame in kept),
        sources=tuple(frame.source for frame in kept),
        indices=np.array([frame.index for frame in kept], dtype=np.int64),
        first_equal=np.array(first_equal, dtype=np.int64),
        aside=tuple(aside),
        screened=tuple(screened),
    )


def make_kernel(
    data: DataSet,
    potential: Potential | None,
    representation: str,
    *,
    options: RepresentationOptions | None = None,
    normalise: str = "cosine",
    batch_atoms: int | None = None,
    progress: ProgressCallback = ignore_progress,
) -> Kernel:
    """Return the kernel of a data set's structures, (n,), dimensionless.

    Args:
        data: The data set.
        potential: Where features come from; None for representations without a model.
        representation: A registered name.
        options: Of the representation; None for the defaults.
        normalise: ``cosine`` or ``none``, see ``build_kernels``.
        batch_atoms: Atoms evaluated at once.
        progress: Called as ``progress("represent pool", done, total)``.

    Raises:
        ArgumentError: An unknown name, an option out of range, or a model is needed.
        StructureError: A structure whose features are not finite.
    """
    report: Callable[[int], None] = lambda done: progress("represent pool", done, len(data))  # noqa: E731
    (kernel,) = build_kernels(
        [data.structures],
        potential,
        representation,
        options=options,
        normalise=normalise,
        batch_atoms=batch_atoms,
        progress=report,
    )
    return kernel


def _find_fault(frame: Frame, screen: Screen, potential: Potential | None) -> Screened | None:
    found = screen.check_content(frame)
    if found is not None:
        return found
    if len(frame.atoms) == 1 and not frame.atoms.pbc.any():
        detail = "a single atom without neighbours"
        return Screened("pool", frame.index, frame.source, "isolated-atom", detail)
    if potential is None:
        return None
    try:
        potential.graph_builder.charge_and_spin(frame.atoms)
    except StructureError as error:
        return Screened("pool", frame.index, frame.source, "unknown-charge", str(error))
    return None
