"""SevenNet: the only place that imports it."""
