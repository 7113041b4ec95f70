"""``activation-random`` and ``ntk-random``: the same network before it learnt anything."""

from __future__ import annotations

import weakref
from typing import Any

from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations.activation import Activation
from labelwise.features.representations.base import (
    ModelRepresentation,
    RepresentationOptions,
    register_representation,
)
from labelwise.features.representations.tangent import EnergyTangent
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch


class RandomWeights(ModelRepresentation):
    """The rows of another representation, from an untrained network of the same architecture.

    What pretraining adds is the difference to these. The weights depend on the architecture
    and the seed alone, so that rows do not change while the given potential is fine-tuned.

    Source: *Pretrained Model Representations as Acquisition Signals for Active Learning of
    MLIPs*, the randomly initialised kernels of section 4.

    Attributes:
        name: Its name in the registry.
    """

    def __init__(self, name: str, inner: ModelRepresentation, *, seed: int) -> None:
        """Take the representation to be read from the untrained network.

        Raises:
            ArgumentError: a negative seed.
        """
        if seed < 0:
            raise ArgumentError(f"seed is {seed}; it must be at least 0")
        self.name = name
        self._inner = inner
        self._seed = seed
        # One network a potential, for as long as the potential lives.
        self._networks: weakref.WeakKeyDictionary[Potential, Potential] = (
            weakref.WeakKeyDictionary()
        )

    def size(self, potential: Potential) -> int:
        """Return d, the same as with the potential's own weights."""
        return self._inner.size(potential)

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        """Return (n, d), in the unit of the inner representation.

        Raises:
            PotentialError: the potential's family cannot be made anew.
        """
        return self._inner.compute(self._network(potential), batch)

    def relevant_options(self, options: RepresentationOptions) -> dict[str, Any]:
        """Return those of the inner representation, and the seed of the weights."""
        return self._inner.relevant_options(options) | {"seed": options.seed}

    def _network(self, potential: Potential) -> Potential:
        network = self._networks.get(potential)
        if network is None:
            network = self._networks[potential] = potential.with_random_weights(self._seed)
        return network


register_representation(
    "activation-random",
    lambda options: RandomWeights("activation-random", Activation(), seed=options.seed),
)
register_representation(
    "ntk-random",
    lambda options: RandomWeights("ntk-random", EnergyTangent(options), seed=options.seed),
)
