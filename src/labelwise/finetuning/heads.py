"""A head of its own for what is replayed: two levels of theory share all but their readouts."""

from __future__ import annotations

from labelwise.errors import ArgumentError
from labelwise.finetuning.recipe import Recipe
from labelwise.finetuning.trainable import require_trainable
from labelwise.potentials import Potential
from labelwise.potentials.torch_potential import TorchPotential


def check_replay_head(potential: TorchPotential, recipe: Recipe, *, replays: bool) -> None:
    """Refuse a head for what is replayed where there cannot be one.

    Args:
        potential: The model that a fine-tuning begins with.
        recipe: ``replay_head``.
        replays: Whether anything is replayed.

    Raises:
        ArgumentError: Nothing is replayed, or it is, or could be taken for, the head that is fitted
            to the new labels.
    """
    head = recipe.replay_head
    if head is None:
        return
    if not replays:
        raise ArgumentError(
            f"replay_head is {head!r}, but nothing is replayed; give structures to replay, or "
            "leave it out"
        )
    others = {each.lower() for each in potential.heads} | {"default"}  # which loading prefers
    if head not in potential.heads and head.lower() in others:
        raise ArgumentError(
            f"replay_head is {head!r}, which could be taken for the head of the new labels, or for "
            f"one of {', '.join(potential.heads)}; give another name, such as pt_head"
        )
    if head == potential.head:
        raise ArgumentError(
            f"replay_head is {head!r}, which is the head that is fitted to the new labels; give "
            "another name, or leave it out to replay with one head"
        )


def with_replay_head(potential: TorchPotential, recipe: Recipe) -> TorchPotential:
    """Return a copy of a model with the recipe's heads; the one for new labels is in use.

    A head that the model lacks is split off the one in use, and begins as its equal.

    Raises:
        PotentialError: A family that has no heads to add.
    """
    head = recipe.replay_head
    if head is None or head in potential.heads:
        return potential.copy()
    return potential.split_head(head)


def on_replay_head(potential: Potential, recipe: Recipe) -> TorchPotential:
    """Return a model with the head in use that what it was pretrained on belongs to.

    It is the recipe's ``replay_head`` or, where the model has none of that name, the one in use.

    Raises:
        PotentialError: A family that cannot be trained here, or whose heads cannot.
    """
    source, head = require_trainable(potential), recipe.replay_head
    return source if head is None or head not in source.heads else source.with_head(head)


def describe_heads(fitted: TorchPotential, recipe: Recipe) -> tuple[str, ...]:
    """Say which head is which; () without a head for what is replayed."""
    if recipe.replay_head is None:
        return ()
    message = (
        f"The fitted model has the heads {', '.join(fitted.heads)}: {fitted.head} is of the new "
        f"labels, {recipe.replay_head} of what was replayed and retained."
    )
    return (message,)
