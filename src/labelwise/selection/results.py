"""What comes of a selection: the picks, and how they came about."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

from ase import Atoms

from labelwise.errors import LabelwiseWarning
from labelwise.features.fill import ExtractionCounts
from labelwise.runtime.timing import Stage
from labelwise.selection.measures import Measures
from labelwise.selection.picks import Pick
from labelwise.structures import Screened, read_sources
from labelwise.structures.screening import count_reasons

#: Info keys that a chosen structure gains.
RANK_KEY = "labelwise_rank"
POOL_INDEX_KEY = "labelwise_pool_index"
SOURCE_KEY = "labelwise_source"
SCORE_KEY = "labelwise_score"
NEAREST_TRAIN_KEY = "labelwise_nearest_train"
#: Kernel distances below are the rounding of float32 rows, which came out below 1e-6.
_NO_DISTANCE = 1e-5
_N_SHOWN = 3
_ROWS_SHOWN = 10


@dataclass(frozen=True, repr=False)
class Acquisition:
    """A chosen batch and how it came about.

    Attributes:
        picks: The batch in order of choice.
        n_pool: Structures of the pool as read.
        n_train: Labelled structures as read.
        n_features: Length of a feature vector, of sparse ones the columns in use; 0 when none
            was computed.
        screened: Structures that were set aside.
        stages: Seconds by stage.
        groups: Value of the ``group_by`` key to (chosen, offered) structures.
        remarks: In what respect structures could not be represented as they should (``morgan``:
            bonds that could not be perceived), to their number, labelled ones and the pool's.
        extraction: What was done to fill a feature store; None without one.
        measures: What the batch changed; None unless it was measured.

    Example:
        >>> import labelwise as lw
        >>> from ase.build import molecule
        >>> pool = [molecule(name) for name in ("C2H6", "H2O", "CH4")]
        >>> lw.select(pool, 1, potential="demo").acquisition
        Acquisition(1 of 3 structures, 0 labelled already)
    """

    picks: tuple[Pick, ...]
    n_pool: int
    n_train: int
    n_features: int
    screened: tuple[Screened, ...]
    stages: tuple[Stage, ...]
    groups: dict[str, tuple[int, int]] = field(default_factory=dict)
    remarks: dict[str, int] = field(default_factory=dict)
    extraction: ExtractionCounts | None = None
    measures: Measures | None = None

    def __repr__(self) -> str:
        return f"Acquisition({self.describe()})"

    def _repr_html_(self) -> str:
        return self.to_html()

    def describe(self) -> str:
        """Return in words how many were chosen of how many, and what was set aside."""
        words = f"{len(self.picks)} of {self.n_pool} structures, {self.n_train} labelled already"
        aside = count_reasons(self.screened)
        return f"{words}; set aside: {aside}" if aside else words

    def to_html(self) -> str:
        """Return the first picks as a table, texts as text."""
        rows = [("rank", "source", "score", "nearest labelled")]
        for pick in self.picks[:_ROWS_SHOWN]:
            nearest = "" if pick.nearest_train is None else str(pick.nearest_train)
            rows.append((str(pick.rank), str(pick.source), f"{pick.score:.4g}", nearest))
        n_left = len(self.picks) - len(rows) + 1
        lines = ["".join(f"<td>{escape(word)}</td>" for word in row) for row in rows]
        table = "".join(f"<tr>{line}</tr>" for line in lines)
        more = f"<p>and {n_left} more</p>" if n_left else ""
        return f"<p>{escape(self.describe())}</p><table>{table}</table>{more}"

    def warn_of_copies(self) -> None:
        """Warn if chosen structures are at no distance from a labelled one.

        Exact copies are screened; moved, rotated and re-ordered ones are seen by the kernel
        alone, and come last where more structures are asked for than are new.

        Warns:
            LabelwiseWarning: Distances of some picks are zero but for the rounding of float32.
        """
        copies = [
            pick
            for pick in self.picks
            if pick.nearest_distance is not None and pick.nearest_distance <= _NO_DISTANCE
        ]
        if not copies:
            return
        shown = ", ".join(f"{pick.source} of {pick.nearest_train}" for pick in copies[:_N_SHOWN])
        more = ", ..." if len(copies) > _N_SHOWN else ""
        n_new = len(self.picks) - len(copies)
        warnings.warn(
            f"only {n_new} of the {len(self.picks)} chosen structures are new to this kernel; the "
            f"others are moved, rotated or re-ordered copies of labelled ones: {shown}{more}; "
            "choose fewer, or find such copies with 'labelwise check-data'",
            LabelwiseWarning,
            stacklevel=3,
        )

    def read_again(self) -> list[Atoms]:
        """Read the chosen structures from their files, in order of choice.

        Raises:
            ReadError: A file has changed so that a structure is no longer the one that was
                chosen; names file and frame.
        """
        return read_sources(
            [pick.source for pick in self.picks], [pick.fingerprint for pick in self.picks]
        )

    def annotate(self, structures: Sequence[Atoms]) -> list[Atoms]:
        """Return copies of the chosen structures with ``labelwise_*`` info keys.

        Args:
            structures: The chosen structures in order of choice; not modified.
        """
        annotated = []
        for pick, atoms in zip(self.picks, structures, strict=True):
            copy: Atoms = atoms.copy()
            copy.calc = atoms.calc
            copy.info[RANK_KEY] = pick.rank
            copy.info[POOL_INDEX_KEY] = pick.pool_index
            copy.info[SOURCE_KEY] = str(pick.source)
            copy.info[SCORE_KEY] = pick.score
            copy.info.pop(NEAREST_TRAIN_KEY, None)
            if pick.nearest_train is not None:
                copy.info[NEAREST_TRAIN_KEY] = str(pick.nearest_train)
            annotated.append(copy)
        return annotated
