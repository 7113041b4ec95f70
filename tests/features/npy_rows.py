from __future__ import annotations

from pathlib import Path

import numpy as np

from labelwise.features.row_parts import chunks


class NpyRows:
    """A ``RowSource`` on the rows of an ``.npy`` file, of which no more is read than is asked."""

    def __init__(self, path: Path | str, *, piece_bytes: int = 2**25) -> None:
        with Path(path).open("rb") as file:
            np.lib.format.read_magic(file)
            (self._n, self.width), _, _ = np.lib.format.read_array_header_1_0(file)
            self._path, self._offset = Path(path), file.tell()
        self._rows_per_piece = max(1, piece_bytes // (4 * self.width))

    def __len__(self) -> int:
        return self._n

    def pieces(self) -> list[slice]:
        return chunks(self._n, self._rows_per_piece)

    def read(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self._n)
        offset, count = self._offset + 4 * self.width * start, max(0, stop - start)
        found = np.fromfile(self._path, np.float32, count * self.width, offset=offset)
        return found.reshape(count, self.width)

    def gather(self, idx: np.ndarray) -> np.ndarray:
        out = np.empty((len(idx), self.width), dtype=np.float32)
        for run in np.split(np.arange(len(idx)), np.flatnonzero(np.diff(idx) != 1) + 1):
            if len(run):
                out[run] = self.read(slice(int(idx[run[0]]), int(idx[run[-1]]) + 1))
        return out
