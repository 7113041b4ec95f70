"""CHGNet: the only place that imports it."""
