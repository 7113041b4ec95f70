"""Interatomic potentials behind one contract."""

from labelwise.potentials.base import (
    PARAMETER_BLOCKS,
    ParameterBlock,
    Potential,
    Prediction,
)
from labelwise.potentials.batching import map_batches
from labelwise.potentials.graphs import Batch, Graph, GraphBuilder
from labelwise.potentials.linearisation import Linearisation
from labelwise.potentials.loading import (
    KnownModel,
    PotentialFamily,
    as_potential,
    describe_untrusted,
    find_model_file,
    list_models,
    load_potential,
    register_potential,
)
from labelwise.potentials.mace.loading import MaceFamily

register_potential(MaceFamily())

__all__ = [
    "PARAMETER_BLOCKS",
    "Batch",
    "Graph",
    "GraphBuilder",
    "KnownModel",
    "Linearisation",
    "ParameterBlock",
    "Potential",
    "PotentialFamily",
    "Prediction",
    "as_potential",
    "describe_untrusted",
    "find_model_file",
    "list_models",
    "load_potential",
    "map_batches",
    "register_potential",
]
