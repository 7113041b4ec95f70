"""Structures as rows of numbers."""

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
    iter_remarked,
    join_rows,
    make_size_limit,
    represent,
)
from labelwise.features.representations.force_tangent import ForceTangent, JointTangent
from labelwise.features.representations.morgan import Morgan
from labelwise.features.representations.normalisation import check_normalisation, normalise_rows
from labelwise.features.representations.random import RandomFeatures
from labelwise.features.representations.random_weights import random_activation, random_tangent
from labelwise.features.representations.rows import SparseRows, join_sparse
from labelwise.features.representations.sketch import CountSketch
from labelwise.features.representations.soap import Soap
from labelwise.features.representations.tangent import EnergyTangent

register_representation(Activation.name, lambda _: Activation())
register_representation(EnergyTangent.name, EnergyTangent)
register_representation(ForceTangent.name, ForceTangent)
register_representation(JointTangent.name, JointTangent)
register_representation(RandomFeatures.name, RandomFeatures)
register_representation("activation-random", random_activation)
register_representation("ntk-random", random_tangent)
register_representation(Soap.name, Soap)
register_representation(Morgan.name, Morgan)

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
    "iter_remarked",
    "join_rows",
    "join_sparse",
    "list_representations",
    "make_representation",
    "make_size_limit",
    "normalise_rows",
    "register_representation",
    "represent",
]
