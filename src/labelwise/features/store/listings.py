"""What the frames of an input file are, so that a file that is known need not be read again."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from pathlib import Path

import numpy as np

from labelwise.errors import ArgumentError, ReadError
from labelwise.features.frames import FrameTable
from labelwise.features.store.names import LISTINGS_FOLDER
from labelwise.runtime.files import write_bytes
from labelwise.structures.repeats import Fingerprints

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


def write_listing(store: Path, file_hash: str, listing: FrameTable) -> None:
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
    frames["key"], frames["species"] = listing.keys, listing.prints.species
    frames["n_atoms"], frames["frame"] = listing.prints.n_atoms, listing.frames
    frames["projections"] = listing.prints.projections
    header = {
        "format": _FORMAT,
        "n_frames": len(listing),
        "groups": list(listing.groups),
        "set_aside": [[frame, *why] for frame, why in sorted(listing.set_aside.items())],
    }
    body = frames.tobytes() + listing.prints.coordinates.astype("<f8").tobytes()
    content = json.dumps(header).encode() + b"\n" + body
    write_bytes(_listing_path(store, file_hash), _checksum(content) + b"\n" + content)


def read_listing(store: Path, file_hash: str, file: str = "") -> FrameTable | None:
    """Read a listing; None if there is none, or one of an earlier format.

    Args:
        store: The feature store's folder.
        file_hash: ``hash_file`` of the input file, blake2b.
        file: Its name now.

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
    return FrameTable(
        keys=frames["key"].copy(),
        prints=Fingerprints(
            species=frames["species"].copy(),
            n_atoms=frames["n_atoms"].copy(),
            projections=frames["projections"].copy(),
            coordinates=np.frombuffer(body, "<f8", offset=frames.nbytes).astype(np.float64),
        ),
        files=(file,),
        file_idx=np.zeros(len(frames), dtype=np.int32),
        frames=frames["frame"].copy(),
        indices=np.arange(len(frames)),
        set_aside={frame: (reason, detail) for frame, reason, detail in header["set_aside"]},
        groups=tuple(header["groups"]),
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
