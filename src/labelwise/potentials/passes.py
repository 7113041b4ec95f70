"""How many structures went forward and backward through a model, as counted.

A pass is counted where it happens, once for every structure of the batch: a batch of n structures
evaluated once is n forward passes. Every derivative is a backward pass of its own: the forces, a
row of the energy's tangent, and each contraction of the forces' tangents. Outside of
``count_passes`` nothing is counted, and noting a pass costs the look at an empty tuple.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class PassCount:
    """What was counted so far.

    Attributes:
        n_forward: Structures that went forward, each as often as it did.
        n_backward: Structures that went backward, each as often as it did.
    """

    n_forward: int = 0
    n_backward: int = 0


_COUNTS: ContextVar[tuple[PassCount, ...]] = ContextVar("labelwise_pass_counts", default=())


@contextmanager
def count_passes() -> Iterator[PassCount]:
    """Count the passes of the enclosed block, in this thread and context.

    Blocks may nest; a pass counts in all of them. The passes of fine-tuning are not noted, and
    neither are those of a model family of one's own that does not call ``note_forward``.

    Yields:
        The count, which goes on growing until the block is left.
    """
    count = PassCount()
    token = _COUNTS.set((*_COUNTS.get(), count))
    try:
        yield count
    finally:
        _COUNTS.reset(token)


def note_forward(n_structures: int) -> None:
    """Note that a batch of so many structures goes forward through a model once."""
    for count in _COUNTS.get():
        count.n_forward += n_structures


def note_backward(n_structures: int) -> None:
    """Note that a batch of so many structures goes backward through a model once."""
    for count in _COUNTS.get():
        count.n_backward += n_structures
