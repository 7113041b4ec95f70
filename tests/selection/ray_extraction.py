"""What worker processes import: a representation that notes whom it computes."""

from __future__ import annotations

import copy
import dataclasses
import os
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations import RepresentationOptions, register_representation
from labelwise.features.representations.tangent import EnergyTangent
from labelwise.potentials import Batch, Potential, load_potential


class NotedTangent(EnergyTangent):
    """Rows of ``ntk-e``; each structure computed leaves a line in a file."""

    name = "ntk-noted"
    ledger = Path(os.devnull)

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        lengths = np.split(batch.positions.numpy(), np.cumsum(batch.atom_counts)[:-1])
        lines = [f"{os.getpid()} {np.abs(part).sum():.9f}\n" for part in lengths]
        handle = os.open(self.ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(handle, "".join(lines).encode())
        os.close(handle)
        return super().compute(potential, batch)


def make_noted(options: RepresentationOptions) -> NotedTangent:
    return NotedTangent(options)


def load_charged() -> Potential:
    """Load a model that takes charges from -1 to 1."""
    charged = copy.copy(load_potential("demo", device="cpu"))
    charged.graph_builder = dataclasses.replace(charged.graph_builder, charge_range=(-1.0, 1.0))
    return charged


def load_noted(ledger: Path) -> Potential:
    """Load the model and make the representation known, in any process."""
    with suppress(ArgumentError):
        register_representation(NotedTangent.name, make_noted)
    NotedTangent.ledger = ledger
    return load_potential("demo", device="cpu")
