"""A selection's structures read once more, held against the summary, and represented again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from ase import Atoms
from jaxtyping import Int64

from labelwise.errors import PotentialError, ReadError
from labelwise.features.memo import FeatureMemo
from labelwise.features.representations import ModelRepresentation
from labelwise.pages.document import Column
from labelwise.potentials import Potential, list_models, load_potential
from labelwise.runtime.timing import ProgressCallback
from labelwise.selection.force_uncertainty import FORCE_STD_KEY
from labelwise.selection.page.options import ReportOptions
from labelwise.selection.page.pool_columns import ColumnCollector
from labelwise.selection.page.record import SelectionRecord, check_files
from labelwise.selection.page.representing import (
    KernelView,
    view_row_sets,
    view_rows,
    view_store,
)
from labelwise.selection.page.shelves import Shelf, Shelved
from labelwise.selection.record import describe_model
from labelwise.selection.rules import JOINT_RULE
from labelwise.selection.stored import StoreSettings
from labelwise.structures import iter_unscreened, read_sources, read_structures

#: Labelled structures that are kept and shown; of more, a random part is.
MOST_LABELLED = 10_000
_SAME_PLACE = 1e-4  # Å; extended XYZ rounds to 1e-8


@dataclass(frozen=True, eq=False)
class ReadAgain:
    """What was read once more.

    Attributes:
        train, pool: What was noted of the structures that were not set aside.
        columns: What they tell, labelled ones first.
        rows: Rows of the picks in the pool.
        chosen: The picks.
        view: What the kernel says of them; None if it is not known.
        why_no_view: Why, in words.
    """

    train: Shelved
    pool: Shelved
    columns: tuple[Column, ...]
    rows: Int64[np.ndarray, " k"]
    chosen: tuple[Atoms, ...]
    view: KernelView | None
    why_no_view: str | None


def read_again(
    record: SelectionRecord,
    options: ReportOptions,
    *,
    potential: Potential | None,
    memo: FeatureMemo | None,
    max_bytes: int,
    progress: ProgressCallback,
) -> ReadAgain:
    """Read all structures once more, and represent them if that can be done.

    Args:
        record: The selection.
        options: What the reader asked for.
        potential: The model, if it is loaded already.
        memo: Rows that are known already.
        max_bytes: Room for structures to be looked at, as ``StructurePacker`` counts.
        progress: Called with stage, done, total.

    Raises:
        ReadError: A file is missing or not what it was.
        PotentialError: The model cannot be loaded, or is another one.
    """
    if potential is None:
        potential = _load_model(record, options)
    _check_model(record, potential)
    reader = _Reader(record, options.seed, max_bytes, progress)
    chosen = read_sources([pick.source for pick in record.picks])
    annotated = _with_batch(record, chosen)
    why_not = _why_no_view(record, potential)
    view = None if why_not is not None else _represent(reader, record, potential, memo, chosen)
    if view is None:
        reader.run_through()
    return ReadAgain(
        reader.close("train"),
        reader.close("pool"),
        reader.collector.columns(),
        reader.rows_of_picks(),
        tuple(annotated),
        view,
        why_not,
    )


class _Reader:
    """Goes through the structures of both roles once, the labelled ones first."""

    def __init__(
        self, record: SelectionRecord, seed: int, max_bytes: int, progress: ProgressCallback
    ) -> None:
        self.collector = ColumnCollector(energy_key=record.energy_key)
        self.progress = progress
        self._record = record
        specs = {"train": record.train, "pool": record.pool}
        n_always = record.n_train if record.n_train <= MOST_LABELLED else 0
        always = {"train": set(range(n_always)), "pool": {p.pool_index for p in record.picks}}
        self._shelves = {
            role: Shelf(
                role,
                {item.index for item in record.screened if item.role == role},
                self.collector,
                always=always[role],
                max_bytes=max_bytes,
                seed=seed,
            )
            for role in specs
        }
        self.passing: dict[str, Iterator[Atoms]] = {
            role: self._shelves[role].passing(iter_unscreened(names) if names else ())
            for role, names in specs.items()
        }

    def run_through(self) -> None:
        """Read what has not been read yet."""
        for role, structures in self.passing.items():
            for n_done, _ in enumerate(structures, start=1):
                self.progress(f"read {role}", n_done, None)

    def close(self, role: str) -> Shelved:
        """Return what was noted of a role that has been read.

        Raises:
            ReadError: It is not as many structures as it was.
        """
        n = self._record.n_train if role == "train" else self._record.n_pool
        return self._shelves[role].close(n, str(self._record.path))

    def rows_of_picks(self) -> Int64[np.ndarray, " k"]:
        """Return the rows of the picks, once the pool has been read."""
        return self.close("pool").rows_of(pick.pool_index for pick in self._record.picks)


def _represent(
    reader: _Reader,
    record: SelectionRecord,
    potential: Potential | None,
    memo: FeatureMemo | None,
    chosen: list[Atoms],
) -> KernelView:
    """Represent the structures on the road that the selection took."""
    settings, streams = record.settings, (reader.passing["train"], reader.passing["pool"])
    if settings.rule == JOINT_RULE and potential is not None:
        return view_row_sets(
            *streams, chosen, reader.rows_of_picks, settings, potential, progress=reader.progress
        )
    store = _find_store(record)
    if store is None or potential is None:
        return view_rows(
            *streams,
            reader.rows_of_picks,
            settings,
            potential,
            memo=memo,
            progress=reader.progress,
        )
    reader.run_through()
    return view_store(
        store,
        (record.train, reader.close("train").indices),
        (record.pool, reader.close("pool").indices),
        reader.rows_of_picks(),
        settings,
        potential,
        progress=reader.progress,
    )


def _load_model(record: SelectionRecord, options: ReportOptions) -> Potential | None:
    """Return the model if one is needed and known; None if not."""
    noted = record.content.get("model")
    name = options.model if options.model is not None else record.input("model")
    if name is None or not (_needs_model(record) or noted):
        return None
    if options.model is None:
        if all(model.name != name for model in list_models()):
            path = record.find_file(str(name))
            name = str(name) if path is None else str(path)
        if found := describe_model(str(name)):
            check_files(record, "model", found)  # before code from it runs
    noted = noted if isinstance(noted, dict) else {}
    return load_potential(
        name,
        device=options.device,
        dtype=noted.get("dtype"),
        head=noted.get("head"),
        trust=options.trust_model,
    )


def _check_model(record: SelectionRecord, potential: Potential | None) -> None:
    if potential is None or record.model_hash in (None, potential.content_hash):
        return
    raise PotentialError(
        f"the model {potential.name} is not that of {record.path}: its content hash is "
        f"{potential.content_hash}, and the selection's was {record.model_hash}; give the model of "
        "the selection with --model, or run the selection again"
    )


def _why_no_view(record: SelectionRecord, potential: Potential | None) -> str | None:
    """Say why there is no kernel to show, None if there is one."""
    if potential is not None or not _needs_model(record):
        return None
    if record.settings.needs_features:
        raise PotentialError(
            f"{record.path} does not say which model was used: give it with --model"
        )
    return (
        f"There is no map: the rule {record.settings.rule} looked at no structure, and no "
        "model was given that would tell which are alike. Give one with --model, or make the "
        "selection with a representation that needs none, such as soap."
    )


def _needs_model(record: SelectionRecord) -> bool:
    settings = record.settings
    return settings.rule == JOINT_RULE or isinstance(
        settings.make_representation(), ModelRepresentation
    )


def _find_store(record: SelectionRecord) -> StoreSettings | None:
    """Return the feature store of the selection if it is still there."""
    name = record.input("store")
    found = None if name is None else record.find_file(str(name))
    return None if found is None else StoreSettings(found, str(record.input("store_dtype")))


def _with_batch(record: SelectionRecord, chosen: list[Atoms]) -> list[Atoms]:
    """Return the picks with the force errors that were predicted for them.

    Raises:
        ReadError: The batch is there, and holds other structures.
    """
    out = record.input("out")
    path = None if out is None else record.find_file(str(out))
    if path is None or not path.is_file():
        return chosen
    batch = read_structures([path])
    same = len(batch) == len(chosen) and all(map(_is_same, batch, chosen))
    if not same:
        raise ReadError(
            f"{path} does not hold the structures that {record.path} names; put back the files "
            "of the selection, or run it again"
        )
    for atoms, annotated in zip(chosen, batch, strict=True):
        _carry_over(annotated.info, atoms.info)
        _carry_over(annotated.arrays, atoms.arrays)
    return chosen


def _is_same(one: Atoms, other: Atoms) -> bool:
    return bool(
        np.array_equal(one.numbers, other.numbers)
        and np.allclose(one.positions, other.positions, rtol=0.0, atol=_SAME_PLACE)
    )


def _carry_over(there: dict[str, Any], here: dict[str, Any]) -> None:
    if FORCE_STD_KEY in there:
        here[FORCE_STD_KEY] = there[FORCE_STD_KEY]
