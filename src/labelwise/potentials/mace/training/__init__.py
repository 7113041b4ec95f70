"""Energies and forces of MACE in few operations, differentiable by the weights."""
