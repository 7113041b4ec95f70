"""Small MACE models with random weights, made here so that no file is needed."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import torch

from labelwise.potentials.mace.checkpoint import import_mace_modules, mace_warnings_silenced

ELEMENTS = (1, 6, 8)


_BUILT: dict[str, bytes] = {}


def make_mace(kind: str = "ScaleShiftMACE", **settings: Any) -> torch.nn.Module:
    """Return a model of one's own, the same for the same settings (building takes 0.6 s)."""
    key = repr((kind, sorted(settings.items(), key=lambda item: item[0])))
    if key not in _BUILT:
        _BUILT[key] = pickle.dumps(build_mace(kind, **settings))
    with mace_warnings_silenced():
        # Not a deep copy: mace-torch's EmptyParam cannot be copied, but it can be pickled.
        copy: torch.nn.Module = pickle.loads(_BUILT[key])
    return copy


def build_mace(
    kind: str = "ScaleShiftMACE",
    *,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    heads: tuple[str, ...] = ("Default",),
    hidden_irreps: str = "8x0e",
    n_layers: int = 2,
    interaction: str = "RealAgnosticResidualInteractionBlock",
    interaction_first: str = "RealAgnosticResidualInteractionBlock",
    correlation: int = 2,
    **others: Any,
) -> torch.nn.Module:
    """Build a model with random weights, cutoff 3.5 Å, reproducibly."""
    modules = import_mace_modules()
    from e3nn import o3

    # As mace-torch builds models where cuEquivariance is missing, whether it is or not.
    others.setdefault("use_reduced_cg", False)
    if "edge_irreps" in others:
        others["edge_irreps"] = o3.Irreps(others["edge_irreps"])
    rng = np.random.default_rng(seed)
    n_heads = len(heads)
    scales: dict[str, Any] = {}
    if kind == "ScaleShiftMACE":
        scales = {
            "atomic_inter_scale": [0.8 + 0.1 * i for i in range(n_heads)],
            "atomic_inter_shift": [0.1 * i for i in range(n_heads)],
        }
    default = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(), mace_warnings_silenced():
            torch.manual_seed(seed)
            model: torch.nn.Module = getattr(modules, kind)(
                r_max=3.5,
                num_bessel=4,
                num_polynomial_cutoff=5,
                max_ell=2,
                interaction_cls=getattr(modules.blocks, interaction),
                interaction_cls_first=getattr(modules.blocks, interaction_first),
                num_interactions=n_layers,
                num_elements=len(ELEMENTS),
                hidden_irreps=o3.Irreps(hidden_irreps),
                MLP_irreps=o3.Irreps("4x0e"),
                atomic_energies=rng.normal(size=(n_heads, len(ELEMENTS))),
                avg_num_neighbors=6.0,
                atomic_numbers=list(ELEMENTS),
                correlation=correlation,
                gate=torch.nn.functional.silu,
                radial_MLP=[8, 8],
                heads=list(heads),
                **scales,
                **others,
            )
    finally:
        torch.set_default_dtype(default)
    return model


OMOL_SPECS = {
    "total_charge": {
        "type": "categorical", "per": "graph", "num_classes": 9, "emb_dim": 4, "offset": 4,
    },
    "total_spin": {
        "type": "categorical", "per": "graph", "num_classes": 6, "emb_dim": 4, "offset": 0,
    },
}  # fmt: skip

# Each is a way of being a MACE model that the contract has to carry.
VARIANTS: dict[str, dict[str, Any]] = {
    "scalars": {},
    "vectors": {"hidden_irreps": "6x0e + 6x1o", "correlation": 3},
    "plain": {"kind": "MACE", "interaction_first": "RealAgnosticInteractionBlock"},
    "heads": {"heads": ("pbe", "r2scan", "Default")},
    "repulsion": {"pair_repulsion": True, "distance_transform": "Agnesi"},
    "one-layer": {"n_layers": 1},
    "agnostic": {
        "use_agnostic_product": True,
        "interaction": "RealAgnosticDensityResidualInteractionBlock",
        "interaction_first": "RealAgnosticDensityInteractionBlock",
    },
    "nonlinear": {
        "interaction": "RealAgnosticResidualNonLinearInteractionBlock",
        "interaction_first": "RealAgnosticResidualNonLinearInteractionBlock",
        "apply_cutoff": False,
        "edge_irreps": "8x0e",
    },
    "charged": {"embedding_specs": OMOL_SPECS, "use_embedding_readout": True},
}
