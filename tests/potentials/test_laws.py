from __future__ import annotations

import torch

from labelwise.potentials import Potential
from labelwise.potentials.mace.loading import make_potential
from labelwise.testing.potentials import check_potential
from tests.potentials.models import make_mace


def test_every_kind_of_mace_obeys_the_laws(potential: Potential) -> None:
    check_potential(potential)


def test_single_precision_obeys_the_laws() -> None:
    check_potential(make_potential(make_mace(dtype=torch.float32), name="float32"))
