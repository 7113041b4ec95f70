"""Interatomic potentials behind one contract."""

from typing import TYPE_CHECKING

from labelwise.runtime.lazy_names import lazy_names

if TYPE_CHECKING:
    from labelwise.potentials.base import (
        Linearisation,
        Potential,
        Prediction,
    )
    from labelwise.potentials.batching import map_batches
    from labelwise.potentials.graphs import Batch, Graph, GraphBuilder
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
    from labelwise.potentials.torch_potential import TorchPotential

__all__ = [
    "Batch",
    "Graph",
    "GraphBuilder",
    "KnownModel",
    "Linearisation",
    "Potential",
    "PotentialFamily",
    "Prediction",
    "TorchPotential",
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
        "Batch": "graphs",
        "Graph": "graphs",
        "GraphBuilder": "graphs",
        "KnownModel": "loading",
        "Linearisation": "base",
        "Potential": "base",
        "PotentialFamily": "loading",
        "Prediction": "base",
        "TorchPotential": "torch_potential",
        "as_potential": "loading",
        "describe_untrusted": "loading",
        "find_model_file": "loading",
        "list_models": "loading",
        "load_potential": "loading",
        "map_batches": "batching",
        "register_potential": "loading",
    },
)
