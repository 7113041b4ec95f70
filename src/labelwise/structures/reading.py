"""Reading structures from anything ASE reads, as a stream.

A *spec* is a path, a glob pattern, or either with ``@slice`` appended, as ASE writes it:
``pool.extxyz``, ``runs/*/out.traj``, ``pool.extxyz@:1000``, ``data.db@-50:``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import ase.io
from ase import Atoms
from ase.io.formats import UnknownFileTypeError, filetype, get_ioformat

from labelwise.errors import LabelwiseWarning, MissingDependencyError, ReadError
from labelwise.structures.compression import decompressed_file, strip_compression
from labelwise.structures.database import iter_database
from labelwise.structures.extxyz import Fault, iter_frame_texts, parse_with_fault
from labelwise.structures.identity import Fingerprint, make_fingerprint
from labelwise.structures.lammps import refuse_types
from labelwise.structures.specs import DATABASE_SUFFIXES
from labelwise.structures.specs import FileSlice as FileSlice
from labelwise.structures.specs import Spec as Spec
from labelwise.structures.specs import expand_specs as expand_specs

_EXTXYZ_SUFFIXES = (".xyz", ".extxyz")
_DATA_SET_SUFFIXES = (".h5", ".hdf5", ".lmdb")


@dataclass(frozen=True, order=True)
class Source:
    """Where a structure came from: a file and the frame's place in it, from 0."""

    file: str
    frame: int

    def __str__(self) -> str:
        return f"{self.file}@{self.frame}"


@dataclass(frozen=True)
class Frame:
    """A structure with its source and its place among all structures read.

    Attributes:
        atoms: The structure.
        source: File and frame.
        index: Place among all frames read.
        fault: Why it cannot be used, although it was read; a ``Screen`` sets it aside.
    """

    atoms: Atoms
    source: Source
    index: int
    fault: Fault | None = None

    def require_sound(self) -> Frame:
        """Return the frame itself, which has no fault.

        Raises:
            ReadError: It has one; names file and frame.
        """
        if self.fault is not None:
            raise ReadError(f"{self.source}: {self.fault.detail}")
        return self


@dataclass(frozen=True)
class RawFrame:
    """A frame that is read and perhaps not parsed yet, so that other processes can do that.

    Attributes:
        content: The text of an extended XYZ frame, or the structure.
        source: File and frame.
        index: Place among all frames read.
    """

    content: str | Atoms
    source: Source
    index: int

    def parse(self) -> Frame:
        """Return the frame with its structure and, where it has one, its fault.

        Raises:
            ReadError: The text is not a valid frame.
        """
        if isinstance(self.content, str):
            atoms, fault = parse_with_fault(self.content, str(self.source))
            return Frame(atoms, self.source, self.index, fault)
        return Frame(self.content, self.source, self.index)


def iter_frames(specs: Spec | Iterable[Spec]) -> Iterator[Frame]:
    """Read structures one by one; never more than one frame of a file is in memory.

    Extended XYZ and ASE databases are streamed, compressed files are read in linear
    time; other formats go through ``ase.io.iread``.

    Args:
        specs: One spec or several, see ``expand_specs``.

    Yields:
        Frames in the order of the specs; ``index`` counts over all files from 0.

    Raises:
        ArgumentError: A slice that cannot be read.
        ReadError: A file is missing, damaged or in no format that ASE knows, or a frame has
            a symbol that is no element; names the file and the frame.
    """
    for frame in iter_unscreened(specs):
        yield frame.require_sound()


def iter_unscreened(specs: Spec | Iterable[Spec]) -> Iterator[Frame]:
    """Do the same for those who set structures aside: frames with a ``fault`` come, too.

    Args:
        specs: One spec or several, see ``expand_specs``.

    Raises:
        ArgumentError: A slice that cannot be read.
        ReadError: As ``iter_frames``, except for what is a fault of one frame.
    """
    for frame in iter_raw_frames(specs):
        yield frame.parse()


def iter_raw_frames(specs: Spec | Iterable[Spec]) -> Iterator[RawFrame]:
    """Read frames one by one without parsing those of extended XYZ, which is most of the work.

    Args:
        specs: One spec or several, see ``expand_specs``.

    Yields:
        Frames in the order of the specs; ``index`` counts over all files from 0.

    Raises:
        ArgumentError: A slice that cannot be read.
        ReadError: As ``iter_frames``, except for the content of extended XYZ frames.
    """
    yield from iter_raw_parts(expand_specs(specs))


def iter_raw_parts(parts: Iterable[FileSlice]) -> Iterator[RawFrame]:
    """Do the same for specs that were expanded already."""
    index = 0
    for part in parts:
        n_before = index
        for number, content in _iter_slice(part):
            yield RawFrame(content, Source(str(part.path), number), index)
            index += 1
        if part.is_single and index == n_before:
            raise ReadError(
                f"{part.path} has no frame {part.frames.start}; it holds {count_frames(part.path)}"
            )


def read_structures(specs: Spec | Iterable[Spec]) -> list[Atoms]:
    """Read structures into memory.

    Args:
        specs: One spec or several: a path, a glob, or either with ``@slice``.

    Returns:
        The structures in the order of the specs; positions and cell in Å.

    Example:
        In a folder ``demo`` that ``labelwise demo`` made:

        >>> import labelwise as lw
        >>> len(lw.read_structures(["demo/train.extxyz", "demo/pool.extxyz@:100:10"]))
        20

    Raises:
        ArgumentError: A slice that cannot be read.
        ReadError: A file is missing, damaged or in no format that ASE knows.
    """
    return [frame.atoms for frame in iter_frames(specs)]


def read_sources(
    sources: Sequence[Source], prints: Sequence[Fingerprint | None] | None = None
) -> list[Atoms]:
    """Read single frames again, with one forward pass over each file.

    Args:
        sources: Where the structures are, in any order.
        prints: Fingerprints of the structures that were there, one for each source; None for
            those of which nothing is known.

    Returns:
        One structure for each source, in the same order.

    Raises:
        ReadError: A file has changed so that a frame is no longer there, or is another
            structure; names file and frame.
    """
    wanted: dict[str, set[int]] = {}
    for source in sources:
        wanted.setdefault(source.file, set()).add(source.frame)
    found: dict[Source, Atoms] = {}
    for file, numbers in wanted.items():
        last = max(numbers)
        for number, content in _iter_file(Path(file), numbers.__contains__, last):
            source = Source(file, number)
            found[source] = RawFrame(content, source, 0).parse().require_sound().atoms
    for source in sources:
        if source not in found:
            raise ReadError(f"{source}: the frame is no longer there; did the file change?")
    for source, known in zip(sources, prints or (), strict=prints is not None):
        if known is not None and not known.equals(make_fingerprint(found[source])):
            raise ReadError(
                f"{source} is no longer the structure that was read before: the file has changed "
                "meanwhile; put it back as it was, or run again"
            )
    return [found[source] for source in sources]


def count_frames(path: Path) -> int:
    """Count the frames of a file without building structures where that can be avoided.

    Args:
        path: Any file that ``iter_frames`` reads.

    Raises:
        ReadError: The file cannot be read.
    """
    if _is_extxyz(path):
        return sum(1 for _ in iter_frame_texts(path))
    return sum(1 for _ in _iter_file(path, lambda _: True, None))


def frames_of(part: FileSlice) -> range:
    """Return the numbers of the frames wanted from a file, read no further than to the last.

    Args:
        part: The file and its slice.

    Raises:
        ReadError: The file cannot be read up to there.
    """
    if _is_counted_from_end(part.frames) or not _is_extxyz(part.path):
        return range(*part.frames.indices(count_frames(part.path)))
    n_frames = sum(1 for _ in islice(iter_frame_texts(part.path), part.frames.stop))
    return range(*part.frames.indices(n_frames))


def count_quickly(specs: Spec | Iterable[Spec], *, max_bytes: int = 100_000_000) -> int | None:
    """Count the structures of some specs where that takes no more than about a second.

    Args:
        specs: One spec or several.
        max_bytes: Larger inputs, and other formats than extended XYZ, are not counted.

    Returns:
        The number of structures; None if it is not known, or a file cannot be read, which is
        for those to tell who read it.
    """
    parts = expand_specs(specs)
    plain = all(
        part.path.is_file() and part.path.suffix.lower() in _EXTXYZ_SUFFIXES for part in parts
    )
    if not plain or sum(part.path.stat().st_size for part in parts) > max_bytes:
        return None
    try:
        return sum(len(frames_of(part)) for part in parts)
    except ReadError:
        return None


def _iter_slice(part: FileSlice) -> Iterator[tuple[int, str | Atoms]]:
    """Yield (frame number, content) of the frames wanted from one file."""
    if _is_counted_from_end(part.frames):
        chosen = range(*part.frames.indices(count_frames(part.path)))
        if not chosen:
            return
        pairs = _iter_file(part.path, chosen.__contains__, max(chosen))
        yield from reversed(list(pairs)) if chosen.step < 0 else pairs
        return
    start, stop, step = part.frames.start or 0, part.frames.stop, part.frames.step or 1
    if stop is not None and stop <= start:
        return
    last = None if stop is None else stop - 1
    yield from _iter_file(
        part.path, lambda number: number >= start and (number - start) % step == 0, last
    )


def _is_counted_from_end(frames: slice) -> bool:
    numbers = (frames.start, frames.stop, frames.step)
    return any(number is not None and number < 0 for number in numbers)


def _iter_file(
    path: Path, wanted: Callable[[int], bool], last: int | None
) -> Iterator[tuple[int, str | Atoms]]:
    """Yield (frame number, content) of the frames wanted, up to and with ``last``."""
    if _is_extxyz(path):
        for number, text in enumerate(iter_frame_texts(path)):
            if wanted(number):
                yield number, text
            if last is not None and number >= last:
                return
        return
    number = 0
    try:
        for number, atoms in enumerate(_iter_with_ase(path)):
            if wanted(number):
                yield number, atoms
            if last is not None and number >= last:
                return
    except (ReadError, MissingDependencyError):
        raise
    except Exception as error:  # ASE's readers raise whatever they stumble on
        raise ReadError(
            f"{path}: cannot be read at frame {number} or after ({_describe(error)})"
        ) from error


def _describe(error: Exception) -> str:
    if isinstance(error, KeyError) and len(said := str(error.args[0]).split()) == 1:
        hint = "are these LAMMPS types?" if said[0].isdigit() else "is it an element's symbol?"
        return f"{said[0]!r} is not known; {hint}"
    return str(error).strip() or type(error).__name__


def _iter_with_ase(path: Path) -> Iterator[Atoms]:
    if not path.exists():
        raise ReadError(f"no such file: {path}")
    with decompressed_file(path) as plain:
        if plain.suffix.lower() in DATABASE_SUFFIXES:
            yield from iter_database(plain)
            return
        file_format = _name_format(plain, path)
        refuse_types(plain, file_format, path)
        frames = ase.io.iread(
            str(plain), index=":", format=file_format, do_not_split_by_at_sign=True
        )
        atoms = None
        for atoms in frames:
            yield atoms
        if atoms is None:
            warnings.warn(
                f"{path} was read as {file_format}, a format of ASE, and holds no structures; if "
                "it is of another format, convert it to extended XYZ (.extxyz)",
                LabelwiseWarning,
                stacklevel=2,
            )


def _name_format(plain: Path, path: Path) -> str:
    """Return what ASE calls the format of a file."""
    try:
        return str(get_ioformat(filetype(str(plain))).name)
    except UnknownFileTypeError as error:
        if plain.suffix.lower() in _DATA_SET_SUFFIXES:
            raise ReadError(
                f"{path} is not read here; if it is a data set that 'labelwise data list' "
                f"names, convert it: labelwise data export {path} --to mace-extxyz --out "
                f"{plain.stem}.extxyz"
            ) from error
        raise ReadError(
            f"{path} is in no format that ASE knows; convert it to extended XYZ (.extxyz)"
        ) from error


def _is_extxyz(path: Path) -> bool:
    return strip_compression(path).suffix.lower() in _EXTXYZ_SUFFIXES
