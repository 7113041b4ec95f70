"""A MACE with one head more: what a head owns is copied, the rest is what it was.

A head owns its rows of the reference energies, of scale and shift, and its units of the readouts:
its column of a linear one, its hidden units and what reads them of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials.mace.checkpoint import make_module, model_config

_PER_HEAD = ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift")


def add_head(model: Any, source: int, heads: Sequence[str]) -> torch.nn.Module:
    """Return a model with another head at the end, which begins as the equal of one that is there.

    Args:
        model: A ``MACE`` or ``ScaleShiftMACE`` of n heads; it is not modified.
        source: Place of the head that is copied.
        heads: (n + 1) names.

    Returns:
        The model, which shares no weight, on the same device and of the same type.

    Raises:
        PotentialError: A model that has no weights-only form, or readouts of another kind.
    """
    config, n_heads = model_config(model), len(heads) - 1
    for key in _PER_HEAD:
        if key in config:
            values, as_rows = torch.as_tensor(config[key]), key == "atomic_energies"
            config[key] = _with_copy(values, n_heads, source, as_rows=as_rows).tolist()
    config["heads"] = list(heads)
    weight = model.node_embedding.linear.weight
    grown: Any = make_module(type(model).__name__, config, weight.dtype)
    grown.load_state_dict(_grow(model, grown, n_heads, source))
    grown.lammps_mliap = model.lammps_mliap
    return grown.to(weight.device)  # type: ignore[no-any-return]


def _grow(model: Any, grown: Any, n_heads: int, source: int) -> dict[str, Tensor]:
    """Return the state of the larger model."""
    state, before = dict(grown.state_dict()), model.state_dict()
    for key, now in state.items():
        was = before[key].cpu()
        name, _, kind = key.rpartition(".")
        if was.shape == now.shape:
            state[key] = was
        elif kind in ("atomic_energies", "scale", "shift"):
            as_rows = kind == "atomic_energies"
            state[key] = _with_copy(was, n_heads, source, as_rows=as_rows)
        elif kind == "weight":
            layers = model.get_submodule(name), grown.get_submodule(name)
            state[key] = _grow_layer(was, *layers, n_heads, source)
        elif kind == "bias":
            state[key] = _with_copy(was, n_heads, source)
        elif kind != "output_mask":
            raise PotentialError(
                f"{key} of the model is another for each head in a way that is unknown here; "
                "replay with one head"
            )
    return state


def _with_copy(
    values: Tensor, n_heads: int, source: int, *, as_rows: bool = False
) -> Float[Tensor, "*shape"]:
    """Return a number or a row of numbers for each head, with a copy of one head's at the end.

    Models of one head may have no dimension for heads.
    """
    rows = values.reshape(n_heads, -1)
    grown = torch.cat([rows, rows[source : source + 1]])
    return grown if as_rows else grown.flatten()


def _grow_layer(weight: Tensor, was: Any, now: Any, n_heads: int, source: int) -> Tensor:
    """Return the weights of an e3nn layer whose outputs, and perhaps inputs, are each a head's."""
    old, new = ([ins for ins in each.instructions if ins.i_in >= 0] for each in (was, now))
    if len(old) != 1 or len(new) != 1:
        raise PotentialError("a readout reads more than scalars; replay with one head")
    (n_in, n_out), shape = old[0].path_shape, new[0].path_shape
    grown = weight.new_zeros(shape)
    grown[:n_in, :n_out] = weight.view(n_in, n_out)
    width = n_out // n_heads
    rows = slice(0, n_in)
    if shape[0] != n_in:  # inputs are each a head's, too
        height = n_in // n_heads
        rows = slice(source * height, (source + 1) * height)
    copied = grown[rows, source * width : (source + 1) * width].clone()
    grown[rows if shape[0] == n_in else slice(n_in, None), n_out:] = copied
    # e3nn divides by the root of the number of inputs.
    rescaled: Tensor = grown * (old[0].path_weight / new[0].path_weight)
    return rescaled.flatten()
