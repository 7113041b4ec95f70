"""Feature rows that are asked for again and again, kept in memory."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.features.representations import (
    ModelRepresentation,
    Representation,
    RepresentationOptions,
    SparseRows,
    StructureRepresentation,
    iter_features,
    join_sparse,
)
from labelwise.potentials.base import Potential
from labelwise.structures import hash_structure

DEFAULT_MAX_BYTES = 2**29
_CHUNK = 256


class FeatureMemo:
    """Rows by representation and structure, for representations whose rows do not change.

    Those of structures alone never change; those of a model are kept for models that were
    named to ``keep``, for instance the pretrained one of a campaign. When the memory is full,
    further rows are computed each time.
    """

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        self._rows: dict[tuple[str, RepresentationOptions, str], dict[str, Any]] = {}
        self._kept_models: set[str] = set()
        self._n_bytes = 0
        self._max_bytes = max_bytes

    @property
    def n_bytes(self) -> int:
        """Bytes of the rows that are kept."""
        return self._n_bytes

    def keep(self, potential: Potential) -> None:
        """Let rows of a potential be kept from now on."""
        self._kept_models.add(potential.content_hash)

    def iter_features(
        self,
        structures: Iterable[Atoms],
        potential: Potential | None,
        representation: Representation,
        options: RepresentationOptions,
        *,
        batch_atoms: int | None = None,
    ) -> Iterator[Any]:
        """Return what ``representations.iter_features`` returns, computing what is not known.

        Args:
            structures: Read once, not modified; their coordinates must be finite.
            potential: Where features come from; None for representations without a model.
            representation: Made with ``options``.
            options: What tells it from others of its name.
            batch_atoms: Atoms evaluated at once.

        Returns:
            Chunks of rows in the order of the structures.
        """
        model = potential.content_hash if potential is not None else ""
        changes = isinstance(representation, ModelRepresentation) and model not in self._kept_models
        if changes or self._max_bytes == 0:
            return iter_features(structures, potential, representation, batch_atoms=batch_atoms)
        owner = model
        if isinstance(representation, StructureRepresentation):
            owner = ""
            options = options if representation.takes_options else RepresentationOptions()
        known = self._rows.setdefault((representation.name, options, owner), {})
        return self._iter_known(known, structures, potential, representation, batch_atoms)

    def _iter_known(
        self,
        known: dict[str, Any],
        structures: Iterable[Atoms],
        potential: Potential | None,
        representation: Representation,
        batch_atoms: int | None,
    ) -> Iterator[Any]:
        stream = iter(structures)
        while chunk := list(itertools.islice(stream, _CHUNK)):
            names = [hash_structure(atoms) for atoms in chunk]
            missing = {name: i for i, name in enumerate(names) if name not in known}
            new: dict[str, Any] = {}
            parts = iter_features(
                [chunk[i] for i in missing.values()],
                potential,
                representation,
                batch_atoms=batch_atoms,
            )
            rows = (row for part in parts for row in part)
            for name, row in zip(missing, rows, strict=True):
                new[name] = row.copy()
            yield _stack([new[name] if name in new else known[name] for name in names])
            self._remember(known, new)

    def _remember(self, known: dict[str, Any], new: dict[str, Any]) -> None:
        for name, row in new.items():
            size = _count_bytes(row)
            if self._n_bytes + size > self._max_bytes:
                return
            known[name] = row
            self._n_bytes += size


def _stack(rows: list[Any]) -> Any:
    if isinstance(rows[0], SparseRows):
        return join_sparse(rows, rows[0].shape[1])
    return np.stack(rows)


def _count_bytes(row: Any) -> int:
    return int(row.nbytes)
