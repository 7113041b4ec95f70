"""``activation``: what the model's layers say about the average atom."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor

from labelwise.features.representations.base import (
    ModelRepresentation,
    RepresentationOptions,
    register_representation,
)
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch


class Activation(ModelRepresentation):
    """Per interaction layer, the invariant node features averaged over atoms; concatenated.

    One forward pass; no settings.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, equation 6.
    """

    name = "activation"

    def size(self, potential: Potential) -> int:
        """Return the number of invariant channels, summed over the layers."""
        return potential.activation_size

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        """Return (n, d); see ``Potential.activations``."""
        return potential.activations(batch)

    def relevant_options(self, options: RepresentationOptions) -> dict[str, Any]:  # noqa: ARG002
        """Return nothing: there are no settings."""
        return {}


register_representation(Activation.name, lambda _: Activation())
