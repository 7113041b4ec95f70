"""The conformance kit: laws that potentials, representations and rules of one's own must obey."""

from labelwise.testing.potentials import check_potential as check_potential
from labelwise.testing.representations import check_representation as check_representation
