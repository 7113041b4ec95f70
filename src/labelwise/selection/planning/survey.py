"""A look at a pool: how many structures, of how many atoms, and some of them to try out.

Plain extended XYZ is entered at places spread over its bytes, where the next frame is found;
so a pool of any size is looked at in a moment, and counted by the mean length of a frame.
Compressed files, other formats and slices are read from their front.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np

from labelwise.structures import Frame, Source, iter_unscreened
from labelwise.structures.compression import strip_compression
from labelwise.structures.extxyz import iter_frame_texts
from labelwise.structures.reading import FileSlice, RawFrame, Spec, expand_specs

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
    """What some of the files contribute."""

    n_structures: int | None = 0
    count_error: float = 0.0
    n_seen: int = 0
    n_atoms_seen: int = 0
    split_s: float = 0.0
    read_s: float = 0.0
    n_atoms_read: int = 0


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
    deadline = time.perf_counter() + seconds
    middle = time.perf_counter() + seconds * (len(plain) / max(1, len(slices)))
    frames: list[Frame] = []
    parts: list[_Part] = []
    if plain:
        part, texts = _look_into(plain, seconds, counted_bytes)
        _shuffle(texts, seed)
        parts.append(part)
        frames += _parse(part, texts, middle)
    for file in others:
        parts.append(_Part())
        frames += _read_front(parts[-1], file, deadline)
    _shuffle(frames, seed)
    return _join(parts, [replace(f, index=i) for i, f in enumerate(frames)], bool(others))


def _join(parts: Sequence[_Part], frames: list[Frame], has_fronts: bool) -> Survey:
    counts = [part.n_structures for part in parts]
    known = [count for count in counts if count is not None]
    n_structures = sum(known) if len(known) == len(counts) else None
    error = math.hypot(*(part.count_error * (part.n_structures or 0) for part in parts))
    weights = [p.n_seen if n_structures is None else (p.n_structures or 0) for p in parts]
    atoms = sum(w * p.n_atoms_seen / max(1, p.n_seen) for w, p in zip(weights, parts, strict=True))
    n_read = sum(part.n_atoms_read for part in parts)
    n_seen = sum(part.n_seen for part in parts)
    return Survey(
        n_structures=n_structures,
        count_error=error / n_structures if n_structures else 0.0,
        is_spread=not has_fronts or n_structures == len(frames),
        atoms_per_structure=atoms / max(1, sum(weights)),
        frames=tuple(frames),
        read_s_per_atom=sum(part.read_s for part in parts) / max(1, n_read),
        split_s_per_structure=sum(part.split_s for part in parts) / max(1, n_seen),
    )


def _is_plain(part: FileSlice) -> bool:
    """Tell whether a file can be entered anywhere."""
    is_whole = part.frames == slice(None)
    return is_whole and part.path.is_file() and part.path.suffix.lower() in _EXTXYZ_SUFFIXES


def _shuffle(items: list[Frame] | list[tuple[str, Source]], seed: int) -> None:
    np.random.default_rng(seed).shuffle(items)


def _look_into(
    files: Sequence[FileSlice], seconds: float, counted_bytes: int
) -> tuple[_Part, list[tuple[str, Source]]]:
    """Return what places spread over the bytes of plain files tell, and the frames there."""
    sizes = [file.path.stat().st_size for file in files]
    wanted = int(seconds * _PLACE_BYTES_PER_S)
    width = min(max(wanted, _LEAST_PLACE_BYTES), _MOST_PLACE_BYTES)
    part = _Part()
    if sum(sizes) <= max(_N_PLACES * width, counted_bytes):
        texts = []
        for file in files:
            with _clock(part):
                found = list(iter_frame_texts(file.path))
            texts += [(text, Source(str(file.path), i)) for i, text in enumerate(found)]
        part.n_structures = part.n_seen = len(texts)
    else:
        texts = _enter(part, files, sizes, width)
    part.n_atoms_seen = sum(int(text[: text.index("\n")]) for text, _ in texts)
    return part, texts


def _enter(
    part: _Part, files: Sequence[FileSlice], sizes: Sequence[int], width: int
) -> list[tuple[str, Source]]:
    """Read whole frames at places spread over the files; note how many frames there may be."""
    ends = np.cumsum(sizes)
    texts: list[tuple[str, Source]] = []
    n_bytes, n_frames = [], []
    for place in np.linspace(0, int(ends[-1]) - width, _N_PLACES).astype(np.int64).tolist():
        number = int(np.searchsorted(ends, place, side="right"))
        offset = place - (int(ends[number]) - sizes[number])
        with _clock(part):
            found = read_frames_at(files[number], offset, width)
        # A place inside a frame that is larger than what is read there holds the start of none.
        empty = min(sizes[number] - offset, _WIDEST_PLACE_BYTES)
        n_bytes.append(sum(len(text.encode()) for text in found) if found else empty)
        n_frames.append(len(found))
        name = str(files[number].path)
        texts += [(text, Source(name, len(texts) + i)) for i, text in enumerate(found)]
    part.n_seen = len(texts)
    part.n_structures, part.count_error = count_by_length(sum(sizes), n_bytes, n_frames)
    return texts


def count_by_length(
    total_bytes: int, n_bytes: Sequence[int], n_frames: Sequence[int]
) -> tuple[int, float]:
    """Estimate how many frames there are from frames at several places.

    Args:
        total_bytes: Length of all files.
        n_bytes: Length of the frames read at each place.
        n_frames: Their number.

    Returns:
        The number, and its relative standard error from how the places differ.

    Source: Cochran, *Sampling Techniques*, 3rd ed. 1977, section 6.4 (ratio estimates).
    """
    length = sum(n_bytes) / max(1, sum(n_frames))
    if length == 0.0:
        return 0, 0.0
    residuals = np.asarray(n_bytes) - length * np.asarray(n_frames)
    k = len(n_frames)
    mean = sum(n_bytes) / k
    error = math.sqrt(float(np.square(residuals).sum()) / (k * max(1, k - 1))) / mean
    return round(total_bytes / length), error


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
    frames: list[str] = []
    place = 0
    while place < len(lines):
        following = _end_of_frame(lines, place, is_end)
        if following is None:
            if frames:
                break
            place += 1
            continue
        frames.append(b"\n".join(lines[place:following]).decode() + "\n")
        place = following
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


def _parse(part: _Part, texts: Iterable[tuple[str, Source]], deadline: float) -> Iterator[Frame]:
    """Parse frames until the time is over, at least one."""
    for text, source in texts:
        began = time.perf_counter()
        frame = RawFrame(text, source, 0).parse()
        part.read_s += time.perf_counter() - began
        part.n_atoms_read += len(frame.atoms)
        yield frame
        if time.perf_counter() > deadline:
            return


def _read_front(part: _Part, file: FileSlice, deadline: float) -> list[Frame]:
    """Read the first frames of a file, and count the others if the time allows."""
    began = time.perf_counter()
    stream = iter_unscreened(_spec_of(file))
    frames = list(_until(islice(stream, _FRONT_FRAMES), (began + deadline) / 2))
    part.read_s = time.perf_counter() - began
    part.n_atoms_read = sum(len(frame.atoms) for frame in frames)
    part.n_seen, part.n_atoms_seen = len(frames), part.n_atoms_read
    part.split_s = part.read_s  # other formats are parsed again to find the picks
    if not (_is_text(file) and file.frames == slice(None)):
        rest = _count(stream, deadline)
        part.n_structures = None if rest is None else len(frames) + rest
        return frames
    began = time.perf_counter()
    part.n_structures = _count(iter_frame_texts(file.path), deadline)
    if part.n_structures:
        part.split_s = (time.perf_counter() - began) * len(frames) / part.n_structures
    return frames


def _spec_of(file: FileSlice) -> str:
    if file.frames == slice(None):
        return str(file.path)
    ends = (file.frames.start, file.frames.stop, file.frames.step)
    return f"{file.path}@" + ":".join("" if end is None else str(end) for end in ends)


def _is_text(file: FileSlice) -> bool:
    return strip_compression(file.path).suffix.lower() in _EXTXYZ_SUFFIXES


def _count(frames: Iterable[object], deadline: float) -> int | None:
    n_frames = 0
    for _ in frames:
        n_frames += 1
        if time.perf_counter() > deadline:
            return None
    return n_frames


def _until(frames: Iterable[Frame], deadline: float) -> Iterator[Frame]:
    for frame in frames:
        yield frame
        if time.perf_counter() > deadline:
            return


@contextmanager
def _clock(part: _Part) -> Iterator[None]:
    began = time.perf_counter()
    yield
    part.split_s += time.perf_counter() - began
