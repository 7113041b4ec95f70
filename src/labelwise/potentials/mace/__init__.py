"""MACE, by mace-torch's checkpoints and weights-only ones."""
