"""Structures as rows of numbers."""

from labelwise.representations.activation import Activation
from labelwise.representations.base import (
    FeatureBlock,
    ModelRepresentation,
    Representation,
    RepresentationOptions,
    StructureRepresentation,
    list_representations,
    make_representation,
    register_representation,
)
from labelwise.representations.extract import (
    feature_blocks,
    feature_size,
    iter_features,
    represent,
)
from labelwise.representations.force_tangent import ForceTangent, JointTangent
from labelwise.representations.normalisation import check_normalisation, normalise_rows
from labelwise.representations.random import RandomFeatures
from labelwise.representations.sketch import CountSketch
from labelwise.representations.tangent import EnergyTangent

register_representation(Activation.name, lambda _: Activation())
register_representation(EnergyTangent.name, EnergyTangent)
register_representation(ForceTangent.name, ForceTangent)
register_representation(JointTangent.name, JointTangent)
register_representation(RandomFeatures.name, RandomFeatures)

__all__ = [
    "Activation",
    "CountSketch",
    "EnergyTangent",
    "FeatureBlock",
    "ForceTangent",
    "JointTangent",
    "ModelRepresentation",
    "RandomFeatures",
    "Representation",
    "RepresentationOptions",
    "StructureRepresentation",
    "check_normalisation",
    "feature_blocks",
    "feature_size",
    "iter_features",
    "list_representations",
    "make_representation",
    "normalise_rows",
    "register_representation",
    "represent",
]
