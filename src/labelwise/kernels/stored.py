"""The linear kernel of rows that are on disk.

Rows are read a piece at a time and multiplied as they pass. The first pieces stay in memory,
as many as a given number of bytes allows; of the others there is one at a time, and the next
one is read by a thread meanwhile. Which pieces stay does not depend on what was asked for: a
pool is gone through from end to end again and again, where keeping the last ones used would
keep nothing.

Everything that a rule asks of a kernel is the same number for number as from memory; so the
rules decide the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int32, Int64
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.row_parts import check_range, squared_norms
from labelwise.kernels.base import Rows, chunks, to_positions
from labelwise.kernels.linear import FeatureKernel, LinearKernel

# Bounds of memory, which rules.planning counts.
GATHER_BYTES = 2**24
ROW_MEMO_BYTES = 2**25
_MOST_REMEMBERED_AT_ONCE = 128
# A part whose float64 copy, 2 MiB, stays in the cache.
_PART_NUMBERS = 2**18
_LEAST_PART = 256


@runtime_checkable
class RowSource(Protocol):
    """n rows φ̃ of length d on disk, normalised for a kernel, in the order of a pool."""

    @property
    def width(self) -> int:
        """Length d of a row."""
        ...

    def __len__(self) -> int:
        """Count the rows."""
        ...

    def pieces(self) -> list[slice]:
        """Cut 0..n, in order and without gaps, into slices that are cheap to read at once."""
        ...

    def read(self, rows: slice) -> Float32[np.ndarray, "r d"]:
        """Return some consecutive rows, (r, d), fresh. Called from another thread too."""
        ...

    def gather(self, idx: Int64[np.ndarray, " k"]) -> Float32[np.ndarray, "k d"]:
        """Return rows in any order, (k, d), fresh."""
        ...


class StoredKernel(FeatureKernel):
    """k(x, x') = φ̃(x)ᵀφ̃(x') on float32 rows that are read as they are needed.

    A row is checked when its piece is first read: it must be finite and fit for products.

    Args:
        source: φ̃, (n, d); normalised already.
        normalise: How, ``"cosine"`` or ``"none"``: kernels that are paired must agree.
        cache_bytes: Pieces to keep, at most so many bytes, on ``device``.
        column_bytes: Whole columns that a rule may keep, at most so many bytes.
        device: Where to multiply.
        reads_ahead: Read the next piece in a thread while this one is used; by default where
            there is a core that products leave free (else they wait for each other).

    Raises:
        ArgumentError: An unknown ``normalise``, a negative size, or pieces that do not make
            up the rows.
    """

    def __init__(
        self,
        source: RowSource,
        *,
        normalise: str = "cosine",
        cache_bytes: int = 0,
        column_bytes: int | None = None,
        device: torch.device | str = "cpu",
        reads_ahead: bool | None = None,
    ) -> None:
        if normalise not in ("cosine", "none"):
            raise ArgumentError(f"normalise={normalise!r}: allowed are 'cosine' and 'none'")
        if cache_bytes < 0 or (column_bytes is not None and column_bytes < 0):
            raise ArgumentError(
                f"cache_bytes={cache_bytes} and column_bytes={column_bytes}: allowed are 0 or more"
            )
        self.normalise = normalise
        self.column_bytes = column_bytes
        self._source = source
        self._n = len(source)
        self._pieces = _checked_pieces(source)
        self._stops = np.array([piece.stop for piece in self._pieces])
        self._device = torch.zeros(0, device=device).device
        row_bytes = 4 * source.width
        self._n_kept = int(np.searchsorted(self._stops * row_bytes, cache_bytes, side="right"))
        self._kept: dict[int, Tensor] = {}
        self._current: tuple[int, Tensor] | None = None
        self._coming: tuple[int, Future[Float32[np.ndarray, "r d"]]] | None = None
        if reads_ahead is None:
            has_gpu = self._device.type != "cpu"
            reads_ahead = has_gpu or torch.get_num_threads() < (os.cpu_count() or 1)
        self._reader = ThreadPoolExecutor(1, "read-ahead") if reads_ahead else None
        self._diagonal = torch.full((self._n,), torch.nan, dtype=torch.float64, device=self._device)
        self._is_checked = np.zeros(len(self._pieces), dtype=bool)
        n_remembered = 0 if self.in_memory else min(self._n, ROW_MEMO_BYTES // row_bytes)
        self._remembered = _RowMemo(self._n, n_remembered, source.width, self._device)

    @property
    def width(self) -> int:
        """Length d of a row."""
        return self._source.width

    @property
    def dtype(self) -> torch.dtype:
        """float32."""
        return torch.float32

    @property
    def device(self) -> torch.device:
        """Device on which rows and products come."""
        return self._device

    @property
    def in_memory(self) -> bool:
        """Whether all pieces stay in memory once they were read."""
        return self._n_kept == len(self._pieces)

    def __len__(self) -> int:
        """Count the structures."""
        return self._n

    def __repr__(self) -> str:
        return (
            f"StoredKernel(n={self._n}, d={self.width}, normalise={self.normalise!r}, "
            f"pieces={len(self._pieces)}, kept={self._n_kept})"
        )

    def diagonal(self) -> Float[Tensor, " n"]:
        """Return ‖φ̃(x)‖², (n,) float64, fresh; pieces that were read before are not again."""
        for number in np.flatnonzero(~self._is_checked).tolist():
            self._piece(number)
        return self._diagonal.clone()

    def pieces(self) -> list[slice]:
        """Return the pieces in which the rows are read."""
        return list(self._pieces)

    def parts(self, rows: Rows) -> list[tuple[Rows, Rows]]:
        """Cut ``rows`` into parts, none across two pieces if it is a slice.

        A slice is cut finely, so that a float64 copy of each part stays in the cache.
        """
        if isinstance(rows, slice):
            start, stop = slice_bounds(rows, self._n)
            size = max(_LEAST_PART, _PART_NUMBERS // self.width)
            return [
                (slice(first - start, last - start), slice(first, last))
                for part in self._parts_of_slice(start, stop)
                for first, last in _cut(part, size)
            ]
        most = max(1, GATHER_BYTES // (4 * self.width))
        if len(rows) <= most:
            return [(slice(None), rows)]
        order = torch.argsort(rows)
        return [(part, rows[part]) for part in torch.split(order, most)]

    def rows(self, rows: Rows) -> Float[Tensor, "r d"]:
        """Return φ̃ of some structures, (r, d) float32. Do not write to it: it may be a view."""
        if isinstance(rows, slice):
            parts = [
                self._within(part) for part in self._parts_of_slice(*slice_bounds(rows, self._n))
            ]
            return parts[0] if len(parts) == 1 else torch.cat(parts)
        missing = self._remembered.missing(rows)
        if 0 < len(missing) <= min(_MOST_REMEMBERED_AT_ONCE, self._remembered.capacity):
            self._remembered.add(missing, self._gather(missing))
            missing = self._remembered.missing(rows)
        return self._gather(rows) if len(missing) else self._remembered.rows(rows)

    def take(self, rows: Rows) -> LinearKernel:
        """Return the kernel of a part of the structures, (k,), with rows in memory."""
        positions = torch.from_numpy(to_positions(rows, self._n)).to(self._device)
        return self._in_memory(self._gather(positions))

    def to_memory(self) -> LinearKernel:
        """Return the kernel of all structures, with rows in memory, 4 n d bytes.

        What this kernel kept is given up piece by piece.
        """
        rows = torch.empty((self._n, self.width), dtype=torch.float32, device=self._device)
        self._n_kept, kept = 0, self._kept
        for number, piece in enumerate(self._pieces):
            if number in kept:
                rows[piece] = kept.pop(number)
            else:
                rows[piece] = self._piece(number)
        self._current = None
        return self._in_memory(rows)

    def share_to_read(self, idx: Int[Tensor, " k"]) -> float:
        """Return the share of all rows, 0 to 1, to be read from disk to have those of ``idx``."""
        touched = np.unique(self._piece_of(idx.cpu().numpy()))
        absent = [self._pieces[i] for i in touched.tolist() if self._at_hand(i) is None]
        n_absent: int = sum(piece.stop - piece.start for piece in absent)
        return n_absent / max(self._n, 1)

    def _in_memory(self, rows: Float[Tensor, "k d"]) -> LinearKernel:
        kernel = LinearKernel.from_rows(rows, self.normalise)
        kernel.column_bytes = self.column_bytes
        return kernel

    def _parts_of_slice(self, start: int, stop: int) -> list[slice]:
        """Cut start..stop at the ends of pieces; at least one part."""
        first = int(np.searchsorted(self._stops, start, side="right"))
        parts: list[slice] = []
        for piece in self._pieces[first:]:
            if piece.start >= stop:
                break
            parts.append(slice(max(start, piece.start), min(stop, piece.stop)))
        return parts if parts else [slice(start, start)]

    def _within(self, rows: slice) -> Float[Tensor, "r d"]:
        """Return consecutive rows of one piece."""
        if rows.stop <= rows.start:
            return torch.empty((0, self.width), dtype=torch.float32, device=self._device)
        number = int(self._piece_of(rows.start))
        start = self._pieces[number].start
        return self._piece(number)[rows.start - start : rows.stop - start]

    def _piece_of(self, positions: int | np.ndarray) -> np.ndarray:
        """Return the number of the piece that holds each structure."""
        return np.asarray(np.searchsorted(self._stops, positions, side="right"))

    def _at_hand(self, number: int) -> Float[Tensor, "r d"] | None:
        """Return a piece that is in memory, else None."""
        if self._current is not None and self._current[0] == number:
            return self._current[1]
        return self._kept.get(number)

    def _piece(self, number: int) -> Float[Tensor, "r d"]:
        """Return a piece, read if need be; it becomes the current one."""
        if self._current is not None and self._current[0] == number:
            return self._current[1]
        in_order = self._current is None or self._current[0] + 1 == number
        self._current = None  # so that no more than this piece and the next are held
        rows = self._kept.get(number)
        if rows is None:
            rows = torch.from_numpy(self._read(number)).to(self._device)
            self._check(number, rows)
            if number < self._n_kept:
                self._kept[number] = rows
        if in_order:
            self._read_ahead(number + 1)
        self._current = (number, rows)
        return rows

    def _read(self, number: int) -> Float32[np.ndarray, "r d"]:
        """Return a piece from the thread that reads ahead, or from disk."""
        coming, self._coming = self._coming, None
        if coming is not None:
            found = coming[1].result()
            if coming[0] == number:
                return found
        return self._source.read(self._pieces[number])

    def _read_ahead(self, number: int) -> None:
        """Have a piece read by the thread, if there is one and it is not at hand."""
        is_last = number >= len(self._pieces)
        if self._reader is None or is_last or number in self._kept or self._coming is not None:
            return
        self._coming = (number, self._reader.submit(self._source.read, self._pieces[number]))

    def _check(self, number: int, rows: Float[Tensor, "r d"]) -> None:
        """Note the squared norms of a piece, and raise if they are not those of sound rows."""
        if self._is_checked[number]:
            return
        piece = self._pieces[number]
        norms = squared_norms(rows)
        limit = torch.finfo(torch.float32).max / (4.0 * self.width)
        if not bool((norms <= limit).all()):
            check_range(rows, piece.start)
        self._diagonal[piece] = norms
        self._is_checked[number] = True

    def _gather(self, idx: Int[Tensor, " k"]) -> Float[Tensor, "k d"]:
        """Return rows in any order, piece by piece, fresh."""
        out = torch.empty((len(idx), self.width), dtype=torch.float32, device=self._device)
        positions = idx.cpu().numpy().astype(np.int64)
        most = max(1, GATHER_BYTES // (4 * self.width))
        for number, places in _grouped(self._piece_of(positions)):
            piece = self._at_hand(number)
            if piece is None and number < self._n_kept:
                piece = self._piece(number)
            for part in chunks(len(places), most):
                chosen = positions[places[part]]
                if piece is None:
                    found = torch.from_numpy(self._source.gather(chosen)).to(self._device)
                else:
                    local = torch.from_numpy(chosen - self._pieces[number].start)
                    found = piece.index_select(0, local.to(self._device))
                out[torch.from_numpy(places[part]).to(self._device)] = found
        return out


class _RowMemo:
    """The rows gathered last, few at a time: a rule comes back to its picks again and again.

    Args:
        n: Structures in all.
        capacity: Rows to remember, 0..n; the oldest make place.
        width: Length of a row.
        device: Where to hold them.
    """

    def __init__(self, n: int, capacity: int, width: int, device: torch.device) -> None:
        self.capacity = capacity
        self._rows = torch.zeros((capacity, width), dtype=torch.float32, device=device)
        n_known = n if capacity else 0
        self._slot: Int32[Tensor, " n"] = torch.full((n_known,), -1, dtype=torch.int32)
        self._holds: Int64[Tensor, " c"] = torch.full((capacity,), -1)
        self._next = 0

    def missing(self, idx: Int[Tensor, " k"]) -> Int[Tensor, " j"]:
        """Return those that are not remembered, each once, ascending."""
        if self.capacity == 0:
            return idx
        wanted = idx.cpu()
        absent: Tensor = torch.unique(wanted[self._slot[wanted] < 0])
        return absent.to(idx.device)

    def rows(self, idx: Int[Tensor, " k"]) -> Float[Tensor, "k d"]:
        """Return rows that are remembered, (k, d)."""
        found: Tensor = self._rows.index_select(0, self._slot[idx.cpu()].to(idx.device))
        return found

    def add(self, idx: Int[Tensor, " j"], rows: Float[Tensor, "j d"]) -> None:
        """Remember rows that were missing, (j, d), j <= capacity."""
        slots = (self._next + torch.arange(len(idx))) % self.capacity
        self._next = (self._next + len(idx)) % self.capacity
        old = self._holds[slots]
        self._slot[old[old >= 0]] = -1
        self._holds[slots] = idx.cpu()
        self._slot[idx.cpu()] = slots.to(torch.int32)
        self._rows[slots.to(self._rows.device)] = rows


def _checked_pieces(source: RowSource) -> list[slice]:
    """Return the pieces of a source, at least one, if they make up its rows."""
    n = len(source)
    pieces = [piece for piece in source.pieces() if piece.stop > piece.start]
    stops = [0, *(piece.stop for piece in pieces)]
    if [piece.start for piece in pieces] != stops[:-1] or stops[-1] != n:
        raise ArgumentError(
            f"the pieces of {type(source).__name__} do not make up its {n} rows: they must "
            "follow one another from 0 to n"
        )
    return pieces if pieces else [slice(0, 0)]


def _cut(part: slice, size: int) -> list[tuple[int, int]]:
    """Cut a slice into pairs of start and stop, at least one."""
    starts = range(part.start, max(part.stop, part.start + 1), size)
    return [(start, min(start + size, part.stop)) for start in starts]


def _grouped(keys: Int64[np.ndarray, " k"]) -> Iterator[tuple[int, Int64[np.ndarray, " j"]]]:
    """Go through the different keys, ascending, with the places of each."""
    order = np.argsort(keys, kind="stable")
    found, firsts = np.unique(keys[order], return_index=True)
    yield from zip(found.tolist(), np.split(order, firsts[1:]), strict=False)


def slice_bounds(rows: slice, n: int) -> tuple[int, int]:
    """Return start and stop of a slice of n structures."""
    start, stop, step = rows.indices(n)
    if step != 1:
        raise ArgumentError(f"a slice of rows with step {step}: allowed are steps of 1")
    return start, max(start, stop)
