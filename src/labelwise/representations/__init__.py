"""Structures as rows of numbers."""

from labelwise.representations.activation import Activation
from labelwise.representations.base import (
    ModelRepresentation,
    Representation,
    RepresentationOptions,
    StructureRepresentation,
    list_representations,
    make_representation,
    register_representation,
)
from labelwise.representations.extract import feature_size, iter_features, represent
from labelwise.representations.random import RandomFeatures
from labelwise.representations.sketch import CountSketch
from labelwise.representations.tangent import EnergyTangent

register_representation(Activation.name, lambda _: Activation())
register_representation(EnergyTangent.name, EnergyTangent)
register_representation(RandomFeatures.name, RandomFeatures)

__all__ = [
    "Activation",
    "CountSketch",
    "EnergyTangent",
    "ModelRepresentation",
    "RandomFeatures",
    "Representation",
    "RepresentationOptions",
    "StructureRepresentation",
    "feature_size",
    "iter_features",
    "list_representations",
    "make_representation",
    "register_representation",
    "represent",
]
