"""``ntk-f`` and ``ntk-ef``: the forces' gradients with respect to weights, alone or joined."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import ArgumentError
from labelwise.features.representations.base import (
    FeatureBlock,
    ModelRepresentation,
    RepresentationOptions,
    register_representation,
)
from labelwise.features.representations.reductions import REDUCTIONS, Reduction, check_reduction
from labelwise.features.representations.tangent import EnergyTangent
from labelwise.potentials.base import Potential
from labelwise.potentials.graphs import Batch


class ForceTangent(ModelRepresentation):
    """A reduction of J_F = ∂F/∂θ, (3N, p), over a block of weights to one row a structure.

    See ``reductions`` for formula, unit, cost and invariances of each. Rows are not
    normalised; a structure whose forces depend on no weight, such as a single atom, has a
    row of zeros.

    Source: the mixed derivatives of arXiv:2605.13788.
    """

    name = "ntk-f"

    def __init__(self, options: RepresentationOptions) -> None:
        """Take ``parameters``, ``sketch_dim``, ``seed``, ``reduction`` and ``n_probes``.

        Weights are sketched as those of ``ntk-e`` are, and the reduction acts on the sketched
        weights. Where it makes rows of its own length, ``sketch_dim`` bounds these too: for
        ``moments`` it is s.

        Raises:
            ArgumentError: unknown block or reduction, sketch_dim < 1, n_probes < 1 or a
                negative seed.
        """
        check_reduction(options)
        self._options = options
        self._energy = EnergyTangent(options)

    def size(self, potential: Potential) -> int:
        """Return the length of a reduced row."""
        return self.reduction(potential).size

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        """Return (n, d) in the unit of the reduction."""
        return self.reduction(potential)(self._energy.linearise(potential, batch))

    def relevant_options(self, options: RepresentationOptions) -> dict[str, Any]:
        """Return what the energy's rows depend on, the reduction and the probes."""
        found = self._energy.relevant_options(options)
        found |= {"reduction": options.reduction, "n_probes": options.n_probes}
        if REDUCTIONS[options.reduction].is_mean_of_contraction:
            found["rows"] = "means over 3N"
        return found | {"sketch_dim": options.sketch_dim, "seed": options.seed}

    def reduction(self, potential: Potential) -> Reduction:
        """Return what makes rows of this potential's linearised forces."""
        n_weights = self._energy.size(potential)
        return REDUCTIONS[self._options.reduction](self._options, potential, n_weights)


class JointTangent(ModelRepresentation):
    """The rows of ``ntk-e`` and ``ntk-f`` side by side, as two blocks.

    Each block is normalised on its own, and the kernel is w k_E + (1 − w) k_F with the
    energy's weight w. Energies and forces are linearised once.
    """

    name = "ntk-ef"

    def __init__(self, options: RepresentationOptions) -> None:
        """Take ``energy_weight`` and the options of ``ntk-f``.

        Raises:
            ArgumentError: energy_weight outside 0 to 1, or an option that ``ntk-f`` refuses.
        """
        if not 0.0 <= options.energy_weight <= 1.0:
            raise ArgumentError(
                f"energy_weight is {options.energy_weight}; it must be between 0 and 1"
            )
        self._energy_weight = options.energy_weight
        self._energy = EnergyTangent(options)
        self._forces = ForceTangent(options)

    def size(self, potential: Potential) -> int:
        """Return the length of both rows together."""
        return self._energy.size(potential) + self._forces.size(potential)

    def blocks(self, potential: Potential) -> tuple[FeatureBlock, ...]:
        """Return the energy's block and that of the forces."""
        return (
            FeatureBlock(self._energy.size(potential), self._energy_weight),
            FeatureBlock(self._forces.size(potential), 1.0 - self._energy_weight),
        )

    def relevant_options(self, options: RepresentationOptions) -> dict[str, Any]:
        """Return those of ``ntk-f``; the weight is that of the blocks."""
        return self._forces.relevant_options(options)

    def compute(self, potential: Potential, batch: Batch) -> Float[Tensor, "n d"]:
        """Return (n, d): eV per unit of weight, then the unit of the reduction."""
        linearisation = self._energy.linearise(potential, batch)
        forces = self._forces.reduction(potential)(linearisation)
        return torch.cat([linearisation.energy_rows(), forces], dim=1)


register_representation(ForceTangent.name, ForceTangent)
register_representation(JointTangent.name, JointTangent)
