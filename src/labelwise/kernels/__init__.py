"""How similar are two structures."""
