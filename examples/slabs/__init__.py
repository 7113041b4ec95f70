"""Adsorbates on metal slabs, generated and labelled here: an example in the manner of OC20."""

from examples.slabs.writing import write_slab_example

__all__ = ["write_slab_example"]
