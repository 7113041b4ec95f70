"""Small MACE models with random weights."""

from __future__ import annotations

import numpy as np
import torch
from mace import modules  # before e3nn: it lets e3nn 0.4.4 load its constants
from mace.tools.torch_tools import default_dtype

from e3nn import o3  # isort: skip


def build_mace(
    *,
    channels: int = 8,
    hidden: str | None = None,
    elements: tuple[int, ...] = (1, 6, 7, 8),
    cutoff: float = 4.5,
    seed: int = 0,
    dtype: torch.dtype = torch.float32,
) -> torch.nn.Module:
    """Return a ScaleShiftMACE of two layers, the same for the same arguments."""
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    with default_dtype(dtype):
        model = modules.ScaleShiftMACE(
            r_max=cutoff,
            num_bessel=6,
            num_polynomial_cutoff=5,
            max_ell=2,
            interaction_cls=modules.interaction_classes["RealAgnosticResidualInteractionBlock"],
            interaction_cls_first=modules.interaction_classes["RealAgnosticInteractionBlock"],
            num_interactions=2,
            num_elements=len(elements),
            hidden_irreps=o3.Irreps(hidden if hidden is not None else f"{channels}x0e"),
            MLP_irreps=o3.Irreps("8x0e"),
            atomic_energies=np.linspace(-10.0, -1.0, len(elements)),
            avg_num_neighbors=8.0,
            atomic_numbers=list(elements),
            correlation=2,
            gate=torch.nn.functional.silu,
            atomic_inter_scale=1.0,
            atomic_inter_shift=0.0,
            use_reduced_cg=False,  # as mace-torch builds it where cuEquivariance is missing
        )
    torch.random.set_rng_state(state)
    return model
