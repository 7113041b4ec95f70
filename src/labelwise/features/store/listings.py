"""What the frames of an input file are, so that a file that is known need not be read again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int64, UInt8

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.store.names import LISTINGS_FOLDER
from labelwise.runtime.files import write_bytes

_FORMAT = 2
#: Formats whose fingerprints know no charges and no coordinates: such files are read again.
_OUTDATED = (1,)
_HASH = re.compile(r"[0-9a-f]{32}")
_FRAME_DTYPE = np.dtype(
    [
        ("key", "u1", (16,)),
        ("species", "u1", (16,)),
        ("n_atoms", "<i8"),
        ("projections", "<f8", (8,)),
        ("frame", "<i8"),
    ]
)


@dataclass(frozen=True)
class Listing:
    """The frames of one input file, or of a part of it, in order.

    Attributes:
        keys: (n, 16) uint8; zeros for a frame that was set aside.
        species: (n, 16) uint8, hash of elements, periodic directions and electronic state.
        n_atoms: (n,) int64; like the next two it serves to find duplicates.
        projections: (n, 8) float64, Å.
        coordinates: (c,) float64, Å, see ``Fingerprints``.
        frames: (n,) int64, each frame's number in the file.
        set_aside: Places of frames that no model can take: the reason's short name and the
            detail.
        groups: (n,) values of the key by which structures are counted; empty without one.

    Raises:
        ArgumentError: Lengths that differ, or a frame that there is not.
    """

    keys: UInt8[np.ndarray, "n 16"]
    species: UInt8[np.ndarray, "_ 16"]
    n_atoms: Int64[np.ndarray, " _"]
    projections: Float64[np.ndarray, "_ 8"]
    coordinates: Float64[np.ndarray, " c"]
    frames: Int64[np.ndarray, " _"]
    set_aside: Mapping[int, tuple[str, str]]
    groups: Sequence[str] = ()

    def __post_init__(self) -> None:
        n_frames = len(self.keys)
        columns = (self.species, self.n_atoms, self.projections, self.frames)
        lengths = {len(column) for column in (*columns, self.groups or self.keys)}
        if lengths - {n_frames}:
            raise ArgumentError(
                f"columns of {sorted({n_frames, *lengths})} frames; there must be as many in each"
            )
        outside = [frame for frame in self.set_aside if not 0 <= frame < n_frames]
        if outside:
            raise ArgumentError(f"set_aside names frame {outside[0]} of {n_frames} frames")

    def __len__(self) -> int:
        return len(self.keys)


def write_listing(store: Path, file_hash: str, listing: Listing) -> None:
    """Write a listing in one step, with a checksum.

    Args:
        store: The feature store's folder.
        file_hash: ``hash_file`` of the input file, blake2b.
        listing: Its frames.

    Raises:
        ArgumentError: ``file_hash`` is not such a hash.
        WriteError: The disk is full or cannot be written to.
    """
    frames = np.zeros(len(listing), _FRAME_DTYPE)
    frames["key"], frames["species"] = listing.keys, listing.species
    frames["n_atoms"], frames["frame"] = listing.n_atoms, listing.frames
    frames["projections"] = listing.projections
    header = {
        "format": _FORMAT,
        "n_frames": len(listing),
        "groups": list(listing.groups),
        "set_aside": [[frame, *why] for frame, why in sorted(listing.set_aside.items())],
    }
    body = frames.tobytes() + listing.coordinates.astype("<f8").tobytes()
    content = json.dumps(header).encode() + b"\n" + body
    write_bytes(_listing_path(store, file_hash), _checksum(content) + b"\n" + content)


def read_listing(store: Path, file_hash: str) -> Listing | None:
    """Read a listing; None if there is none, or one of an earlier format.

    Args:
        store: The feature store's folder.
        file_hash: ``hash_file`` of the input file, blake2b.

    Raises:
        ArgumentError: ``file_hash`` is not such a hash.
        ValueError: The listing is damaged.
        ReadError: It cannot be read.
    """
    path = _listing_path(store, file_hash)
    try:
        found, _, content = path.read_bytes().partition(b"\n")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ReadError(f"cannot read {path}: {error.strerror or error}") from error
    if found != _checksum(content):
        raise ValueError(f"{path} does not agree with its checksum")
    line, _, body = content.partition(b"\n")
    header = json.loads(line)
    if header["format"] in _OUTDATED:
        return None
    if header["format"] != _FORMAT:
        raise ValueError(f"{path} has format {header['format']}")
    frames = np.frombuffer(body, _FRAME_DTYPE, count=header["n_frames"])
    return Listing(
        keys=frames["key"].copy(),
        species=frames["species"].copy(),
        n_atoms=frames["n_atoms"].copy(),
        projections=frames["projections"].copy(),
        coordinates=np.frombuffer(body, "<f8", offset=frames.nbytes).astype(np.float64),
        frames=frames["frame"].copy(),
        groups=tuple(header["groups"]),
        set_aside={frame: (reason, detail) for frame, reason, detail in header["set_aside"]},
    )


def remove_listing(store: Path, file_hash: str) -> None:
    """Remove a listing, if it is there and can be removed."""
    with suppress(OSError):
        _listing_path(store, file_hash).unlink()


def _listing_path(store: Path, file_hash: str) -> Path:
    if not _HASH.fullmatch(file_hash):
        raise ArgumentError(
            f"file_hash={file_hash!r}: 32 hexadecimal digits, a blake2b of hash_file"
        )
    return store / LISTINGS_FOLDER / f"{file_hash}.listing"


def _checksum(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).hexdigest().encode()
