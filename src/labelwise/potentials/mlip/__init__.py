"""InstaDeep's mlip (JAX): the only place that imports it."""
