"""``ntk-e``: the energy's gradient with respect to weights, the features of its NTK."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import (
    ModelRepresentation,
    RepresentationOptions,
    register_representation,
)
from labelwise.features.representations.sketch import CountSketch
from labelwise.potentials.base import Linearisation, Potential
from labelwise.potentials.graphs import Batch

DEFAULT_SKETCH_DIM = 2048


class EnergyTangent(ModelRepresentation):
    """φ(x) = ∇_θ E(x) over a block of weights, sketched if it is long.

    The embedding block is exact and takes one backward pass for a whole batch; the other
    blocks are taken one structure at a time. Rows are not normalised.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, equation 5.

    Attributes:
        parameters: The block.
    """

    name = "ntk-e"

    def __init__(self, options: RepresentationOptions) -> None:
        """Take ``parameters``, ``sketch_dim`` and ``seed``.

        Raises:
            ArgumentError: sketch_dim < 1 or a negative seed.
        """
        if options.seed < 0:
            raise ArgumentError(f"seed is {options.seed}; it must be at least 0")
        if options.sketch_dim is not None and options.sketch_dim < 1:
            raise ArgumentError(f"sketch_dim is {options.sketch_dim}; it must be at least 1")
        self.parameters = options.parameters
        self._sketch_dim = options.sketch_dim
        if self._sketch_dim is None and self.parameters != "embedding":
            self._sketch_dim = DEFAULT_SKETCH_DIM
        self._seed = options.seed
        self._sketch: CountSketch | None = None

    def size(self, potential: Potential) -> int:
        """Return p, or the sketch's length if that is shorter."""
        size = potential.tangent_size(self.parameters)
        return size if self._sketch_dim is None else min(size, self._sketch_dim)

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        """Return (n, d) in eV per unit of weight; see ``Potential.energy_tangent``."""
        return potential.energy_tangent(
            batch, parameters=self.parameters, project=self.sketch_for(potential)
        )

    def linearise(self, potential: Potential, batch: Batch) -> Linearisation:
        """Return energies and forces of a batch as linear functions of the (sketched) weights."""
        return potential.linearise(
            batch, parameters=self.parameters, project=self.sketch_for(potential)
        )

    def relevant_options(self, options: RepresentationOptions) -> dict[str, Any]:
        """Return the block, and the sketch if there may be one."""
        found: dict[str, Any] = {"parameters": self.parameters}
        if self._sketch_dim is not None:
            found |= {"sketch_dim": self._sketch_dim, "seed": options.seed}
        return found

    def sketch_for(self, potential: Potential) -> CountSketch | None:
        """Return the sketch of rows over the block; None where they are short enough."""
        size = potential.tangent_size(self.parameters)
        if self._sketch_dim is None or size <= self._sketch_dim:
            return None
        if self._sketch is None or self._sketch.size != size:
            self._sketch = CountSketch(size, self._sketch_dim, seed=self._seed)
        return self._sketch


register_representation(EnergyTangent.name, EnergyTangent)
