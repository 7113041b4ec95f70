"""Feature stores that a selection can choose from."""

from __future__ import annotations

from pathlib import Path

from labelwise.errors import ArgumentError
from labelwise.features.representations import feature_blocks
from labelwise.features.store import FeatureStore, Identity
from labelwise.features.store.root import Say, warn
from labelwise.potentials.base import Potential
from labelwise.selection.rules import JOINT_RULE
from labelwise.selection.settings import AcquisitionSettings


def open_store(
    folder: Path,
    settings: AcquisitionSettings,
    potential: Potential | None,
    *,
    storage_dtype: str = Identity.storage_dtype,
    say: Say = warn,
) -> FeatureStore:
    """Open the feature store of a selection's rows; it is made if it is not there.

    Args:
        folder: Where it is.
        settings: Of the selection.
        potential: The model.
        storage_dtype: How a new one keeps numbers.
        say: Told of what was found damaged.

    Raises:
        ArgumentError: The rows cannot be kept in a store, a model is needed, or the store holds
            rows of another model or representation.
        ReadError: The store cannot be read.
        WriteError: The store cannot be made.
    """
    settings.check()
    identity = make_identity(settings, potential, storage_dtype)
    return FeatureStore.open(folder, identity, create=True, say=say)


def make_identity(
    settings: AcquisitionSettings, potential: Potential | None, storage_dtype: str
) -> Identity:
    """Return whose rows a run makes.

    Raises:
        ArgumentError: The representation or the rule cannot be had from a store.
    """
    if not settings.needs_features:
        raise ArgumentError(
            f"the rule {settings.rule!r} looks at no features: leave out the feature store"
        )
    representation = settings.make_representation()
    if settings.rule == JOINT_RULE or not representation.needs_model:
        name = settings.rule if settings.rule == JOINT_RULE else representation.name
        raise ArgumentError(
            f"{name!r} cannot be chosen from a feature store, which keeps one row of numbers of a "
            "model for each structure: leave out the store, or choose ntk-e, ntk-f, ntk-ef or "
            "activation"
        )
    if potential is None:
        raise ArgumentError(settings.explain_need_of_model())
    return Identity(
        representation=representation.name,
        blocks=tuple((b.size, b.weight) for b in feature_blocks(representation, potential)),
        options=representation.relevant_options(settings.options),
        model=potential.content_hash,
        storage_dtype=storage_dtype,
    )
