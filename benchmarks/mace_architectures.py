"""MACE as it is fine-tuned now, at full size, with random weights, built by mace-torch itself."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from labelwise.potentials import Potential
from labelwise.potentials.mace.checkpoint import import_mace_modules, mace_warnings_silenced
from labelwise.potentials.mace.loading import make_potential

N_ELEMENTS = 89
HEADS = ("matpes_r2scan", "omat_pbe", "omol")

_DENSITY = {
    "interaction_cls": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticDensityInteractionBlock",
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
    "r_max": 6.0,
    "num_bessel": 10,
    "hidden_irreps": "128x0e + 128x1o",
}
_RESIDUAL = {
    "interaction_cls": "RealAgnosticResidualInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualInteractionBlock",
    "r_max": 5.0,
    "num_bessel": 8,
    "hidden_irreps": "128x0e + 128x1o + 128x2e",
}
_GATED = {
    "interaction_cls": "RealAgnosticResidualNonLinearInteractionBlock",
    "interaction_cls_first": "RealAgnosticResidualNonLinearInteractionBlock",
    "apply_cutoff": False,
    "num_interactions": 3,
    "r_max": 6.0,
    "num_bessel": 8,
    "hidden_irreps": "128x0e + 128x1o",
    "embedding_specs": {
        "total_charge": {
            "type": "categorical", "per": "graph", "num_classes": 201, "emb_dim": 64, "offset": 100,
        },
        "total_spin": {
            "type": "categorical", "per": "graph", "num_classes": 101, "emb_dim": 64, "offset": 0,
        },
    },
    "use_embedding_readout": True,
}  # fmt: skip
#: What each is like, and how it is built.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "MPA-0, OMAT-0": _DENSITY,
    "MPA-0, OMAT-0, 3 heads": {**_DENSITY, "heads": HEADS},
    "L = 2": _RESIDUAL,
    "L = 2, 3 heads": {**_RESIDUAL, "heads": HEADS},
    "OMOL-0": _GATED,
    "OMOL-0, 3 heads": {**_GATED, "heads": HEADS},
}


def build_architecture(name: str) -> Potential:
    """Build one of ``ARCHITECTURES`` in single precision; its last head is used."""
    modules = import_mace_modules()  # before e3nn: it lets e3nn 0.4.4 load its constants
    from e3nn import o3

    settings = dict(ARCHITECTURES[name])
    heads = settings.pop("heads", ("Default",))
    for key in ("interaction_cls", "interaction_cls_first"):
        settings[key] = getattr(modules.blocks, settings[key])
    settings["hidden_irreps"] = o3.Irreps(settings["hidden_irreps"])
    settings.setdefault("num_interactions", 2)
    with mace_warnings_silenced(), torch.random.fork_rng():
        torch.manual_seed(0)
        model = modules.ScaleShiftMACE(
            num_polynomial_cutoff=5,
            max_ell=3,
            correlation=3,
            num_elements=N_ELEMENTS,
            atomic_numbers=list(range(1, N_ELEMENTS + 1)),
            MLP_irreps=o3.Irreps("16x0e"),
            atomic_energies=np.zeros((len(heads), N_ELEMENTS)),
            avg_num_neighbors=12.0,
            gate=torch.nn.functional.silu,
            heads=list(heads),
            atomic_inter_scale=[1.0] * len(heads),
            atomic_inter_shift=[0.0] * len(heads),
            use_reduced_cg=False,  # as mace-torch builds it where cuEquivariance is missing
            **settings,
        )
    return make_potential(model, name=name, head=heads[-1])
