"""CHGNet's layers, with its weights and its results, evaluated where there is less to evaluate.

A network sees, for each edge or angle, features of atoms and bonds side by side. Here its first
linear map acts on atoms and bonds, W [a b] = W_a a + W_b b, before they are copied to edges and
angles, which are many more. C, D and F are the channels of atoms, bonds and angles.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.potentials.chgnet.bonds import BondGraph

Part = tuple[Float[Tensor, "k c"], Int64[Tensor, " m"] | None]


def propagate(
    model: Any, graph: BondGraph, vectors: Float[Tensor, "M 3"], atoms: Float[Tensor, "N C"]
) -> list[Float[Tensor, "N C"]]:
    """Return the atoms' features behind each atom convolution.

    Args:
        model: chgnet's.
        graph: The batch's bonds and angles.
        vectors: (M, 3) of the edges, Å.
        atoms: (N, C), the initial features.
    """
    lengths = torch.linalg.vector_norm(vectors, dim=1)
    bond_lengths = lengths[graph.edge_of_bond]
    basis = model.bond_basis_expansion.rbf_expansion_ag(bond_lengths)
    bonds = model.bond_embedding(basis)
    edge_weights = model.bond_weights_ag(basis).index_select(0, graph.bond_of_edge)
    angles = angle_weights = None
    if uses_angles(model):
        directions = vectors / lengths[:, None]
        waves = model.angle_basis_expansion(directions[graph.first], directions[graph.second])
        angles = model.angle_embedding(waves)
        basis = model.bond_basis_expansion.rbf_expansion_bg(bond_lengths[graph.short_bonds])
        weights = model.bond_weights_bg(basis)
        angle_weights = weights[graph.first_short] * weights[graph.second_short]
    layers = []
    for place, layer in enumerate(model.atom_conv_layers):
        atoms = _update_atoms(layer, atoms, bonds, edge_weights, graph)
        layers.append(atoms)
        if angles is None or angle_weights is None or place == model.n_conv - 1:
            continue
        bond_layer, angle_layer = model.bond_conv_layers[place], model.angle_layers[place]
        bonds = _update_bonds(bond_layer, atoms, bonds, angles, angle_weights, graph)
        # The angles behind the last bond convolution are seen by nothing.
        if angle_layer is not None and place < model.n_conv - 2:
            angles = _update_angles(angle_layer, atoms, bonds, angles, graph)
    return layers


def uses_angles(model: Any) -> bool:
    """Tell whether bonds, and thereby energies, depend on angles."""
    return any(layer is not None for layer in model.bond_conv_layers)


def _update_atoms(
    layer: Any,
    atoms: Float[Tensor, "N C"],
    bonds: Float[Tensor, "B D"],
    weights: Float[Tensor, "M C"],
    graph: BondGraph,
) -> Float[Tensor, "N C"]:
    """Evaluate an ``AtomConv``; the weights are factors of the messages along edges."""
    parts = (atoms, graph.centre), (bonds, graph.bond_of_edge), (atoms, graph.neighbour)
    messages = apply_gated(layer.twoBody_atom, parts) * weights
    total = torch.zeros_like(atoms).index_add(0, graph.centre, messages)
    return _renew(
        layer, atoms, layer.mlp_out(total) if layer.use_mlp_out else total, layer.atom_norm
    )


def _update_bonds(
    layer: Any,
    atoms: Float[Tensor, "N C"],
    bonds: Float[Tensor, "B D"],
    angles: Float[Tensor, "A F"],
    weights: Float[Tensor, "A D"],
    graph: BondGraph,
) -> Float[Tensor, "B D"]:
    """Evaluate a ``BondConv``; the weights are factors of the messages from angles.

    In chgnet a structure without angles keeps its bonds, though the layer may have a bias.
    """
    parts = _seen_by_angles(atoms, bonds, angles, graph)
    messages = apply_gated(layer.twoBody_bond, parts) * weights
    receivers = graph.bond_of_edge[graph.first]
    total = torch.zeros_like(bonds).index_add(0, receivers, messages)
    renewed = _renew(
        layer, bonds, layer.mlp_out(total) if layer.use_mlp_out else total, layer.bond_norm
    )
    return torch.where(graph.has_angles[:, None], renewed, bonds)


def _update_angles(
    layer: Any,
    atoms: Float[Tensor, "N C"],
    bonds: Float[Tensor, "B D"],
    angles: Float[Tensor, "A F"],
    graph: BondGraph,
) -> Float[Tensor, "A F"]:
    """Evaluate an ``AngleUpdate``."""
    change = apply_gated(layer.twoBody_bond, _seen_by_angles(atoms, bonds, angles, graph))
    return _renew(layer, angles, change, layer.angle_norm)


def _seen_by_angles(
    atoms: Float[Tensor, "N C"],
    bonds: Float[Tensor, "B D"],
    angles: Float[Tensor, "A F"],
    graph: BondGraph,
) -> Sequence[Part]:
    """List what the networks of angles see, in chgnet's order."""
    short = bonds.index_select(0, graph.short_bonds)
    return (
        (short, graph.first_short),
        (short, graph.second_short),
        (angles, None),
        (atoms, graph.centre[graph.first]),
    )


def apply_gated(network: Any, parts: Sequence[Part]) -> Float[Tensor, "m c"]:
    """Evaluate a ``GatedMLP`` on features side by side.

    Args:
        network: chgnet's.
        parts: Features, in the order in which it sees them, each with the row that every edge
            or angle sees, or None if there is one for each.
    """
    stacks = (network.mlp_core.layers, network.mlp_gate.layers)
    place = next(i for i, each in enumerate(stacks[0]) if isinstance(each, torch.nn.Linear))
    weight = torch.cat([stack[place].weight for stack in stacks])
    hidden = torch.cat([stack[place].bias for stack in stacks])
    columns = torch.split(weight, [features.shape[1] for features, _ in parts], dim=1)
    for (features, index), matrix in zip(parts, columns, strict=True):
        image = features @ matrix.T
        hidden = hidden + (image if index is None else image.index_select(0, index))
    halves = zip(stacks, hidden.chunk(2, dim=1), strict=True)
    core, gate = (stack[place + 1 :](half) for stack, half in halves)
    if network.norm is not None:
        core, gate = network.bn1(core), network.bn2(gate)
    product: Tensor = network.activation(core) * network.sigmoid(gate)
    return product


def _renew(
    layer: Any, old: Float[Tensor, "k C"], new: Float[Tensor, "k C"], norm: Any
) -> Float[Tensor, "k C"]:
    """Return new features, added to the old and normalised if the layer does so."""
    total = new + old if layer.resnet else new
    return total if norm is None else norm(total)
