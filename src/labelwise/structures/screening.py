"""Setting aside structures that cannot or need not be labelled, with the reason."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from ase import Atoms
from ase.data import chemical_symbols
from ase.geometry import complete_cell

from labelwise.errors import StructureError
from labelwise.structures.identity import DuplicateIndex, Fingerprint, make_fingerprint
from labelwise.structures.images import find_nearest_distance
from labelwise.structures.isolated_atoms import REACH, is_isolated_atom
from labelwise.structures.reading import Frame, Source

#: Atoms closer than this are a broken structure, Å.
MIN_DISTANCE = 0.4
#: Beyond this a coordinate is a mistake, Å.
MAX_COORDINATE = 1e6
#: A periodic cell flatter than this has no sensible neighbour list, Å.
MIN_CELL_HEIGHT = 0.1
#: The reason that is found by those who run the model.
NON_FINITE = "non-finite-features"
NON_FINITE_DETAIL = "the model gives features that are not finite"
#: The reason that depends on the memory there is.
TOO_LARGE = "too-large"
#: Reasons that say nothing unless it is said what was found, and how many are listed.
_TOLD_REASONS = frozenset({"unknown-element", "bad-cell"})
_N_TOLD = 4


@dataclass(frozen=True)
class Screened:
    """A structure that was set aside.

    Attributes:
        role: ``pool`` or ``train``.
        index: The structure's place among all that were read for that role.
        source: Its file and frame.
        reason: One of the short names in ``Screen``'s docstring.
        detail: What was found, in words.
    """

    role: str
    index: int
    source: Source
    reason: str
    detail: str

    def explain_strict(self) -> str:
        """Return in words why a strict run ends here."""
        return (
            f"{self.source}: {self.reason} ({self.detail}); "
            "without --strict such structures are set aside"
        )


@runtime_checkable
class ModelLimits(Protocol):
    """Which structures a model can take; ``Potential.graph_builder`` says it."""

    @property
    def elements(self) -> Collection[int]:
        """Atomic numbers that the model knows."""

    @property
    def cutoff(self) -> float:
        """Radius of the model's neighbour list, Å."""

    def charge_and_spin(self, atoms: Atoms) -> object:
        """Raise ``StructureError`` for a charge or a spin that the model does not know."""


@runtime_checkable
class FindsTooLarge(Protocol):
    """Tells which structures are too large; see ``labelwise.potentials.size_limit``."""

    def find(self, atoms: Atoms) -> str | None:
        """Return why a structure is too large, in words, or None."""


def count_reasons(screened: Iterable[Screened]) -> str:
    """Return how many structures were set aside for which reason, the most frequent first.

    For elements and cells it is said which: ``3 unknown-element (the model does not know He)``.

    Args:
        screened: What was set aside.
    """
    details: dict[str, list[str]] = {}
    for each in screened:
        details.setdefault(each.reason, []).append(each.detail)
    ordered = sorted(details.items(), key=lambda item: -len(item[1]))
    return ", ".join(
        f"{len(found)} {reason}{_list_some(found) if reason in _TOLD_REASONS else ''}"
        for reason, found in ordered
    )


def _list_some(details: Sequence[str]) -> str:
    different = list(dict.fromkeys(details))
    more = ["…"] if len(different) > _N_TOLD else []
    return f" ({'; '.join([*different[:_N_TOLD], *more])})"


class Screen:
    """Checks structures one by one and remembers those it has passed.

    ======================  ======================================================
    reason                  what was found
    ======================  ======================================================
    no-atoms                the frame is empty
    non-finite              NaN or infinity in the positions or the cell
    out-of-range            a position or cell component beyond 1e6 Å
    bad-cell                periodic along a missing or flat cell vector, or a cell in
                            words that are not understood
    unknown-element         an element the model was not trained on, or a symbol that is none
    too-large               more atoms than allowed, or than there is memory for
    atoms-too-close         two atoms closer than 0.4 Å
    isolated-atom           one atom without periodic neighbours
    no-neighbours           no pair of atoms within the model's cutoff
    duplicate-of-train      equals a labelled structure to 1e-6 Å (pool only)
    duplicate-of-pool       equals an earlier structure of the pool to 1e-6 Å
    unknown-charge          a total charge or spin the model does not know
    non-finite-features     the model gives NaN or infinity for it
    ======================  ======================================================

    The last one is found by those who run the model, not by this class.

    An isolated atom is set aside in the pool because its label is an atomic reference
    energy, not a sample of a potential-energy surface; the same goes for atoms out of
    each other's reach, about which a model with a finite cutoff has nothing to say.
    Duplicates among the labelled structures are kept: they are the user's.
    """

    def __init__(
        self,
        model: ModelLimits | None,
        *,
        size_limit: FindsTooLarge | None = None,
        min_distance: float = MIN_DISTANCE,
    ) -> None:
        """Set what a structure is held against.

        Args:
            model: The ``graph_builder`` of the potential that is to take the structures; None
                for any elements, charges and spins, and no check for neighbours.
            size_limit: Tells which structures are too large; None for any size.
            min_distance: The least distance between two atoms, Å.
        """
        self._model = model
        self._elements = None if model is None else frozenset(model.elements)
        self._cutoff = None if model is None else model.cutoff
        self._size_limit = size_limit
        self._min_distance = min_distance
        self._train = DuplicateIndex()
        self._pool = DuplicateIndex()
        self._labels: dict[str, list[str]] = {"train": [], "pool": []}
        #: Of the structure that passed last; with it a file can be read again and compared.
        self.last_print: Fingerprint | None = None

    def check_content(self, frame: Frame) -> Screened | None:
        """Return why the model cannot take a structure, or None; repeats are not looked for."""
        found = self._check_content(frame)
        return None if found is None else Screened("pool", frame.index, frame.source, *found)

    def check_train(self, frame: Frame) -> Screened | None:
        """Return why a labelled structure is set aside, or None and remember it."""
        found = self._check_content(frame)
        if found is not None:
            return Screened("train", frame.index, frame.source, *found)
        self._remember(self._train, frame, "train", make_fingerprint(frame.atoms))
        return None

    def check_pool(self, frame: Frame) -> Screened | None:
        """Return why a structure of the pool is set aside, or None and remember it."""
        found = self._check_content(frame)
        if found is not None:  # what is not finite has no fingerprint
            return Screened("pool", frame.index, frame.source, *found)
        known = make_fingerprint(frame.atoms)
        found = self._check_duplicate(known)
        if found is not None:
            return Screened("pool", frame.index, frame.source, *found)
        self._remember(self._pool, frame, "pool", known)
        return None

    def _remember(self, index: DuplicateIndex, frame: Frame, role: str, known: Fingerprint) -> None:
        index.add(known, len(self._labels[role]))
        self.last_print = known
        self._labels[role].append(str(frame.source))

    def _check_duplicate(self, known: Fingerprint) -> tuple[str, str] | None:
        number = self._train.find(known)
        if number is not None:
            return "duplicate-of-train", f"equals {self._labels['train'][number]}"
        number = self._pool.find(known)
        if number is not None:
            return "duplicate-of-pool", f"equals {self._labels['pool'][number]}"
        return None

    def _check_content(self, frame: Frame) -> tuple[str, str] | None:
        atoms = frame.atoms
        return (
            frame.fault
            or _check_numbers(atoms)
            or self._check_elements(atoms)
            or _check_cell(atoms)
            or self._check_size(atoms)
            or self._check_distances(atoms)
            or self._check_charge(atoms)
        )

    def _check_size(self, atoms: Atoms) -> tuple[str, str] | None:
        found = None if self._size_limit is None else self._size_limit.find(atoms)
        return None if found is None else (TOO_LARGE, found)

    def _check_elements(self, atoms: Atoms) -> tuple[str, str] | None:
        if self._elements is None:
            no_elements = [int(z) for z in atoms.numbers if not 0 <= z < len(chemical_symbols)]
            if no_elements:
                return "unknown-element", f"no element has the atomic number {no_elements[0]}"
            return None
        unknown = sorted({int(z) for z in atoms.numbers} - self._elements)
        if not unknown:
            return None
        symbols = ", ".join(
            chemical_symbols[z] if 0 <= z < len(chemical_symbols) else str(z) for z in unknown
        )
        return "unknown-element", f"the model does not know {symbols}"

    def _check_charge(self, atoms: Atoms) -> tuple[str, str] | None:
        if self._model is None:
            return None
        try:
            self._model.charge_and_spin(atoms)
        except StructureError as error:
            return "unknown-charge", str(error)
        return None

    def _check_distances(self, atoms: Atoms) -> tuple[str, str] | None:
        if is_isolated_atom(atoms, cutoff=REACH if self._cutoff is None else self._cutoff):
            return "isolated-atom", "a single atom without neighbours"
        nearest = _nearest_distance(atoms, self._min_distance, self._cutoff)
        if nearest < self._min_distance:
            return "atoms-too-close", f"two atoms at {nearest:.3f} Å"
        if self._cutoff is not None and nearest > self._cutoff:
            return "no-neighbours", f"no two atoms within the model's {self._cutoff:g} Å"
        return None


def _check_numbers(atoms: Atoms) -> tuple[str, str] | None:
    if len(atoms) == 0:
        return "no-atoms", "the frame is empty"
    if not np.isfinite(atoms.positions).all():
        bad = int((~np.isfinite(atoms.positions).all(axis=1)).argmax())
        return "non-finite", f"the position of atom {bad} is not finite"
    if not np.isfinite(atoms.cell.array).all():
        return "non-finite", "the cell is not finite"
    farthest = max(np.abs(atoms.positions).max(), np.abs(atoms.cell.array).max())
    if farthest > MAX_COORDINATE:
        return "out-of-range", f"a coordinate of {farthest:.3g} Å"
    return None


def _check_cell(atoms: Atoms) -> tuple[str, str] | None:
    """Find periodic directions that have no vector, or vectors that lie in a plane."""
    periodic = atoms.cell.array[atoms.pbc]
    if len(periodic) == 0:
        return None
    lengths = np.linalg.norm(periodic, axis=1)
    if (lengths < MIN_DISTANCE).any():
        return "bad-cell", f"periodic along a cell vector of {lengths.min():.3g} Å"
    # The diagonal of R in a QR factorisation is the height over the vectors before;
    # each vector takes its turn to be the last.
    heights = [
        abs(float(np.asarray(np.linalg.qr(np.roll(periodic, turn, axis=0).T, mode="r"))[-1, -1]))
        for turn in range(len(periodic))
    ]
    if min(heights) < MIN_CELL_HEIGHT:
        return "bad-cell", f"the cell is flat: {min(heights):.3g} Å high"
    return None


def _nearest_distance(atoms: Atoms, min_distance: float, cutoff: float | None) -> float:
    """Return the least distance between two atoms, Å, as far as screening needs it.

    Periodic structures are searched to ``min_distance`` only when their density proves
    that some pair lies within the cutoff: the densest packing of n points in a volume V
    has a nearest distance of at most (sqrt(2) V / n)**(1/3).
    """
    if cutoff is None or not atoms.pbc.any():
        return _distance_within(atoms, min_distance)
    bound = float(np.cbrt(np.sqrt(2.0) * abs(atoms.cell.volume) / len(atoms)))
    if not atoms.pbc.all() or bound >= cutoff:
        return _distance_within(atoms, cutoff)
    return min(bound, _distance_within(atoms, min_distance))


def _distance_within(atoms: Atoms, reach: float) -> float:
    cell = complete_cell(atoms.cell.array) if atoms.pbc.any() else np.eye(3)
    return find_nearest_distance(atoms.positions, cell, atoms.pbc, reach)
