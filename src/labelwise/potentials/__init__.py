"""Interatomic potentials behind one contract."""

from typing import TYPE_CHECKING

from labelwise.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
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

__getattr__ = lazy_names(
    __name__,
    {
        "PARAMETER_BLOCKS": "base",
        "Batch": "graphs",
        "Graph": "graphs",
        "GraphBuilder": "graphs",
        "KnownModel": "loading",
        "Linearisation": "linearisation",
        "ParameterBlock": "base",
        "Potential": "base",
        "PotentialFamily": "loading",
        "Prediction": "base",
        "as_potential": "loading",
        "describe_untrusted": "loading",
        "find_model_file": "loading",
        "list_models": "loading",
        "load_potential": "loading",
        "map_batches": "batching",
        "register_potential": "loading",
    },
)
