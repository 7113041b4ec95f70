"""From a pool of structures to the batch worth labelling."""
