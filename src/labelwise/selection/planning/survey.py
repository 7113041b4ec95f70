"""A look at a pool: how many structures, of how many atoms, and some of them to try out.

Plain extended XYZ is entered at places spread over its bytes, where the next frame is found;
so a pool of any size is looked at in a moment, and counted by the mean length of a frame.
Compressed files, other formats and slices are read from their front.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice

import numpy as np

from labelwise.structures import Frame, Source
from labelwise.structures.extxyz import iter_frame_texts
from labelwise.structures.reading import FileSlice, RawFrame, Spec, expand_specs, iter_raw_parts

_EXTXYZ_SUFFIXES = (".xyz", ".extxyz")
_N_PLACES = 16
_PLACE_BYTES_PER_S = 2**18
_LEAST_PLACE_BYTES, _MOST_PLACE_BYTES = 2**14, 2**20
_WIDEST_PLACE_BYTES = 2**26
#: Plain files of so many bytes together are read whole, and so counted.
COUNTED_BYTES = 20_000_000
_FRONT_FRAMES = 1000


@dataclass(frozen=True)
class Survey:
    """What a look at some structure files tells.

    Attributes:
        n_structures: Structures in all; None where counting them would take too long.
        count_error: Relative standard error of that number; 0 where they were counted.
        is_spread: Whether the sample comes from all over the files, not from their front.
        atoms_per_structure: Mean number of atoms.
        frames: The sample, in an order that has no meaning; ``source.frame`` and ``index``
            count within the sample.
        read_s_per_atom: Seconds to read and parse, by atom.
        split_s_per_structure: Seconds to pass over a structure without parsing it.
    """

    n_structures: int | None
    count_error: float
    is_spread: bool
    atoms_per_structure: float
    frames: tuple[Frame, ...]
    read_s_per_atom: float
    split_s_per_structure: float


@dataclass
class _Part:
    """What some of the files contribute: structures and seconds, seen and parsed."""

    n_structures: int | None
    count_error: float
    n_seen: int
    n_atoms_seen: int
    split_s: float
    frames: list[Frame] = field(default_factory=list)
    read_s: float = 0.0

    def parse(self, raws: Iterable[RawFrame], deadline: float) -> None:
        """Parse frames until the time is over, at least one."""
        began = time.perf_counter()
        for raw in raws:
            self.frames.append(raw.parse())
            if time.perf_counter() > deadline:
                break
        self.read_s = time.perf_counter() - began


def survey_files(
    specs: Spec | Iterable[Spec],
    *,
    seconds: float,
    seed: int = 0,
    counted_bytes: int = COUNTED_BYTES,
) -> Survey:
    """Look at the structures of some files for a short time.

    Args:
        specs: One spec or several, see ``structures.reading.expand_specs``.
        seconds: How long to take, about; the sample is as large as can be read in it.
        seed: Of the order of the sample.
        counted_bytes: Plain extended XYZ of at most so many bytes is counted, not estimated.

    Returns:
        Counts, rates and the sample.

    Raises:
        ArgumentError: A slice that cannot be read.
        ReadError: A file is missing or damaged where it was looked at.
    """
    slices = expand_specs(specs)
    plain = [part for part in slices if _is_plain(part)]
    others = [part for part in slices if not _is_plain(part)]
    began, random = time.perf_counter(), np.random.default_rng(seed)
    parts: list[_Part] = []
    if plain:
        part, raws = _look_into(plain, seconds, counted_bytes)
        random.shuffle(raws)
        part.parse(raws, began + seconds * len(plain) / len(slices))
        parts.append(part)
    parts += [_read_front(file, began + seconds) for file in others]
    frames = [frame for part in parts for frame in part.frames]
    random.shuffle(frames)
    counts = [part.n_structures for part in parts]
    known = [count for count in counts if count is not None]
    n_structures = sum(known) if len(known) == len(counts) else None
    error = math.hypot(*(part.count_error * (part.n_structures or 0) for part in parts))
    weights = [p.n_seen if n_structures is None else (p.n_structures or 0) for p in parts]
    atoms = sum(w * p.n_atoms_seen / max(1, p.n_seen) for w, p in zip(weights, parts, strict=True))
    n_atoms_read = sum(len(frame.atoms) for frame in frames)
    return Survey(
        n_structures=n_structures,
        count_error=error / n_structures if n_structures else 0.0,
        is_spread=not others or n_structures == len(frames),
        atoms_per_structure=atoms / max(1, sum(weights)),
        frames=tuple(replace(frame, index=i) for i, frame in enumerate(frames)),
        read_s_per_atom=sum(part.read_s for part in parts) / max(1, n_atoms_read),
        split_s_per_structure=sum(p.split_s for p in parts) / max(1, sum(p.n_seen for p in parts)),
    )


def _is_plain(part: FileSlice) -> bool:
    """Tell whether a file can be entered anywhere."""
    is_whole = part.frames == slice(None)
    return is_whole and part.path.is_file() and part.path.suffix.lower() in _EXTXYZ_SUFFIXES


def _look_into(
    files: Sequence[FileSlice], seconds: float, counted_bytes: int
) -> tuple[_Part, list[RawFrame]]:
    """Return what places spread over the bytes of plain files tell, and the frames there."""
    began = time.perf_counter()
    sizes = [file.path.stat().st_size for file in files]
    wanted = int(seconds * _PLACE_BYTES_PER_S)
    width = min(max(wanted, _LEAST_PLACE_BYTES), _MOST_PLACE_BYTES)
    error = 0.0
    if sum(sizes) <= max(_N_PLACES * width, counted_bytes):
        texts = [
            (text, Source(str(file.path), number))
            for file in files
            for number, text in enumerate(iter_frame_texts(file.path))
        ]
        n_structures = len(texts)
    else:
        texts, n_structures, error = _enter(files, sizes, width)
    split_s = time.perf_counter() - began
    n_atoms = sum(int(text[: text.index("\n")]) for text, _ in texts)
    part = _Part(n_structures, error, len(texts), n_atoms, split_s)
    return part, [RawFrame(text, source, 0) for text, source in texts]


def _enter(
    files: Sequence[FileSlice], sizes: Sequence[int], width: int
) -> tuple[list[tuple[str, Source]], int, float]:
    """Read whole frames at places spread over the files; tell how many frames there may be."""
    ends = np.cumsum(sizes)
    texts: list[tuple[str, Source]] = []
    n_bytes, n_frames = [], []
    for place in np.linspace(0, int(ends[-1]) - width, _N_PLACES).astype(np.int64).tolist():
        number = int(np.searchsorted(ends, place, side="right"))
        offset = place - (int(ends[number]) - sizes[number])
        found = read_frames_at(files[number], offset, width)
        # A place inside a frame that is larger than what is read there holds the start of none.
        empty = min(sizes[number] - offset, _WIDEST_PLACE_BYTES)
        n_bytes.append(sum(len(text.encode()) for text in found) if found else empty)
        n_frames.append(len(found))
        name = str(files[number].path)
        texts += [(text, Source(name, len(texts) + i)) for i, text in enumerate(found)]
    return texts, *count_by_length(sum(sizes), n_bytes, n_frames)


def count_by_length(
    total_bytes: int, n_bytes: Sequence[int], n_frames: Sequence[int]
) -> tuple[int, float]:
    """Estimate how many frames there are from frames at several places.

    Args:
        total_bytes: Length of all files.
        n_bytes: Length of the frames read at each place.
        n_frames: Their number.

    Returns:
        The number, and its relative standard error.
    """
    length = sum(n_bytes) / max(1, sum(n_frames))
    if length == 0.0:
        return 0, 0.0
    return round(total_bytes / length), ratio_error(n_bytes, n_frames)


def ratio_error(totals: Sequence[float], counts: Sequence[float]) -> float:
    """Return the relative standard error of Σ totals / Σ counts, from how several places differ.

    Source: Cochran, *Sampling Techniques*, 3rd ed. 1977, section 6.4 (ratio estimates).
    """
    y, x = np.asarray(totals, dtype=np.float64), np.asarray(counts, dtype=np.float64)
    k = len(y)
    square = float(np.square(y - y.sum() / x.sum() * x).sum())
    return math.sqrt(square / (k * max(1, k - 1))) / float(y.mean())


def read_frames_at(file: FileSlice, offset: int, width: int) -> list[str]:
    """Return the whole frames of a plain extended XYZ file behind an offset.

    Args:
        file: The file.
        offset: Where to enter, bytes.
        width: How much to read, bytes; more if that holds no whole frame.

    Returns:
        The text of each frame; none behind the last one.

    Raises:
        OSError: The file cannot be read.
    """
    size = file.path.stat().st_size
    start = max(0, offset - 1)  # where the line ends that is entered in its middle
    with file.path.open("rb") as stream:
        while True:
            stream.seek(start)
            content = stream.read(width)
            is_end = start + len(content) >= size
            lines = content.replace(b"\r\n", b"\n").split(b"\n")
            if not is_end or not lines[-1].strip():
                lines.pop()  # cut through, or what follows the last newline
            found = _whole_frames(lines[1:] if offset > 0 else lines, is_end)
            if found or is_end or width >= _WIDEST_PLACE_BYTES:
                return found
            width *= 4


def _whole_frames(lines: Sequence[bytes], is_end: bool) -> list[str]:
    """Return the text of the first frame among some lines and of those that follow it at once."""
    frames: list[str] = []
    place = 0
    while place < len(lines):
        end = _end_of_frame(lines, place, is_end)
        if end is None and frames:
            break
        if end is not None:
            frames.append(b"\n".join(lines[place:end]).decode() + "\n")
        place = place + 1 if end is None else end
    return frames


def _end_of_frame(lines: Sequence[bytes], place: int, is_end: bool) -> int | None:
    """Return where the frame ends that begins here; None if none does, or it is cut off.

    A line that holds a number only begins a frame if another does so behind its atoms.
    """
    n_atoms = _count_of(lines[place])
    if n_atoms is None:
        return None
    end = place + 2 + n_atoms
    while end < len(lines) and (not lines[end].strip() or lines[end].lstrip().startswith(b"VEC")):
        end += 1
    if end < len(lines):
        return end if _count_of(lines[end]) is not None else None
    return end if is_end and end == len(lines) else None


def _count_of(line: bytes) -> int | None:
    text = line.strip()
    return int(text) if text.isdigit() else None


def _read_front(file: FileSlice, deadline: float) -> _Part:
    """Parse the first frames of a file, and count the others if the time allows."""
    began = time.perf_counter()
    raws = iter_raw_parts([file])
    part = _Part(None, 0.0, 0, 0, 0.0)
    part.parse(islice(raws, _FRONT_FRAMES), (began + deadline) / 2)
    part.n_seen, part.n_atoms_seen = len(part.frames), sum(len(f.atoms) for f in part.frames)
    began, n_more = time.perf_counter(), 0
    for _ in raws:
        n_more += 1
        if time.perf_counter() > deadline:
            break
    else:
        part.n_structures = part.n_seen + n_more
    passing_s = (
        (time.perf_counter() - began) / n_more if n_more else part.read_s / max(1, part.n_seen)
    )
    part.split_s = passing_s * part.n_seen
    return part
