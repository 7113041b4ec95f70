"""What is done with a frame before the model sees it: parse, check, name, neighbour list."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from ase import Atoms

from labelwise.errors import StructureError
from labelwise.potentials.graphs import Graph, GraphBuilder
from labelwise.potentials.size_limit import SizeLimit
from labelwise.structures import Screen
from labelwise.structures.identity import Fingerprint, hash_geometry, make_fingerprint
from labelwise.structures.reading import RawFrame

KEY_BYTES = 16


@dataclass(frozen=True)
class Prepared:
    """A frame that was looked at.

    Attributes:
        frame: The frame's number in its file.
        file: The file.
        key: 16 bytes, equal for structures that give equal rows; None if set aside.
        fingerprint: By which repeats are found; None if set aside.
        graph: What the model takes; None if set aside, or if its row is known already.
        reason: Why it was set aside, see ``Screen``; empty if it was not.
        detail: The same in words.
        group: Value of the info key by which structures are counted.
    """

    frame: int
    file: str
    key: bytes | None = None
    fingerprint: Fingerprint | None = None
    graph: Graph | None = None
    reason: str = ""
    detail: str = ""
    group: str = ""


class Preparer:
    """Turns frames into what a model takes; picklable, for other processes.

    Args:
        builder: The model's.
        size_limit: Tells which structures are too large.
        group_by: An info key whose value is passed on.
    """

    def __init__(
        self, builder: GraphBuilder, size_limit: SizeLimit | None = None, *, group_by: str | None
    ) -> None:
        self._builder = builder
        self._screen = Screen(builder, size_limit=size_limit)
        self._group_by = group_by

    def prepare(self, frames: Sequence[RawFrame]) -> list[Prepared]:
        """Parse frames, check their content and make their graphs.

        Raises:
            ReadError: A frame cannot be parsed.
            StructureError: The model cannot take a structure that passed the screen.
        """
        return [self._prepare(raw) for raw in frames]

    def _prepare(self, raw: RawFrame) -> Prepared:
        frame = raw.parse()
        atoms = frame.atoms
        place = (frame.source.frame, frame.source.file)
        group = "" if self._group_by is None else str(atoms.info.get(self._group_by, ""))
        found = self._screen.check_content(frame)
        if found is not None:
            return Prepared(*place, reason=found.reason, detail=found.detail, group=group)
        try:
            graph = self._builder(atoms)
        except StructureError as error:
            raise StructureError(f"{frame.source}: {error}") from error
        state = (graph.charge, graph.spin)
        return Prepared(*place, make_key(atoms, state), make_fingerprint(atoms), graph, group=group)


def make_key(atoms: Atoms, state: tuple[float, float]) -> bytes:
    """Return what names a structure's row, 16 bytes.

    Structures whose state the model does not tell apart have one row.

    Args:
        atoms: The structure.
        state: Total charge, e, and spin multiplicity, as the model takes them.
    """
    content = bytes.fromhex(hash_geometry(atoms)) + struct.pack("<2d", *state)
    return hashlib.blake2b(content, digest_size=KEY_BYTES).digest()
