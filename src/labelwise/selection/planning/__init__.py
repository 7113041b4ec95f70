"""What a selection will need, from a short trial of its model, its pool and this machine."""
