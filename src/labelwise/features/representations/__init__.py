"""Structures as rows of numbers.

Every module of this folder is imported, so that a representation that registers itself is found.
"""

from importlib import import_module
from pkgutil import iter_modules

from labelwise.features.representations.activation import Activation
from labelwise.features.representations.base import (
    FeatureBlock,
    ModelRepresentation,
    Representation,
    RepresentationOptions,
    StructureRepresentation,
    list_representations,
    make_representation,
    register_representation,
)
from labelwise.features.representations.extract import (
    Chunk,
    feature_blocks,
    feature_size,
    is_finite,
    iter_features,
    join_rows,
    make_size_limit,
    represent,
)
from labelwise.features.representations.force_tangent import ForceTangent, JointTangent
from labelwise.features.representations.morgan import Morgan
from labelwise.features.representations.normalisation import check_normalisation, normalise_rows
from labelwise.features.representations.random import RandomFeatures
from labelwise.features.representations.rows import SparseRows, join_sparse
from labelwise.features.representations.sketch import CountSketch
from labelwise.features.representations.soap import Soap
from labelwise.features.representations.tangent import EnergyTangent

__all__ = [
    "Activation",
    "Chunk",
    "CountSketch",
    "EnergyTangent",
    "FeatureBlock",
    "ForceTangent",
    "JointTangent",
    "ModelRepresentation",
    "Morgan",
    "RandomFeatures",
    "Representation",
    "RepresentationOptions",
    "Soap",
    "SparseRows",
    "StructureRepresentation",
    "check_normalisation",
    "feature_blocks",
    "feature_size",
    "is_finite",
    "iter_features",
    "join_rows",
    "join_sparse",
    "list_representations",
    "make_representation",
    "make_size_limit",
    "normalise_rows",
    "register_representation",
    "represent",
]

for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
