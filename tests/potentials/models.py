"""MACE models with random weights, made here so that no file is needed."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from labelwise.potentials.mace.checkpoint import import_mace_modules, mace_warnings_silenced

ELEMENTS = (1, 6, 8)


_BUILT: dict[str, bytes] = {}
_SMALL: dict[str, Any] = {
    "r_max": 3.5,
    "num_bessel": 4,
    "num_polynomial_cutoff": 5,
    "max_ell": 2,
    "avg_num_neighbors": 6.0,
    "radial_MLP": [8, 8],
}


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
    elements: Sequence[int] = ELEMENTS,
    **others: Any,
) -> torch.nn.Module:
    """Build a model with random weights, of cutoff 3.5 Å unless told, reproducibly."""
    modules = import_mace_modules()
    from e3nn import o3

    # As mace-torch builds models where cuEquivariance is missing, whether it is or not.
    others.setdefault("use_reduced_cg", False)
    for key in ("edge_irreps", "MLP_irreps"):
        if key in others:
            others[key] = o3.Irreps(others[key])
    if "readout_cls" in others:
        others["readout_cls"] = getattr(modules.blocks, others["readout_cls"])
    size: dict[str, Any] = {**_SMALL, "MLP_irreps": o3.Irreps("4x0e"), **others}
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
                interaction_cls=getattr(modules.blocks, interaction),
                interaction_cls_first=getattr(modules.blocks, interaction_first),
                num_interactions=n_layers,
                num_elements=len(elements),
                hidden_irreps=o3.Irreps(hidden_irreps),
                atomic_energies=rng.normal(size=(n_heads, len(elements))),
                atomic_numbers=list(elements),
                correlation=correlation,
                gate=torch.nn.functional.silu,
                heads=list(heads),
                **scales,
                **size,
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

_NONLINEAR = "RealAgnosticResidualNonLinearInteractionBlock"
_MATERIALS: dict[str, Any] = {
    "interaction": "RealAgnosticDensityResidualInteractionBlock",
    "interaction_first": "RealAgnosticDensityInteractionBlock",
    "pair_repulsion": True,
    "distance_transform": "Agnesi",
}
# The models that are fine-tuned today, as far as their architectures are known, with channels to
# be filled in. OMAT-0 and MATPES are built like MPA-0; "papers" has features up to l = 2.
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "mpa-0": {**_MATERIALS, "hidden_irreps": "{c}x0e + {c}x1o"},
    "mh": {
        "interaction": _NONLINEAR,
        "interaction_first": _NONLINEAR,
        "hidden_irreps": "{c}x0e + {c}x1o",
        "edge_irreps": "{e}x0e + {e}x1o + {e}x2e + {e}x3o",
        "use_edge_irreps_first": True,
        "use_agnostic_product": True,
        "use_last_readout_only": True,
        "apply_cutoff": False,
        "distance_transform": "Agnesi",
        "readout_cls": "NonLinearBiasReadoutBlock",
        "heads": ("omat_pbe", "matpes_r2scan", "spice_wB97M", "omol"),
    },
    "omol-0": {
        "interaction": _NONLINEAR,
        "interaction_first": _NONLINEAR,
        "hidden_irreps": "{c}x0e + {c}x1o",
        "edge_irreps": "{c}x0e + {c}x1o",
        "n_layers": 3,
        "use_agnostic_product": True,
        "apply_cutoff": False,
        "embedding_specs": OMOL_SPECS,
        "use_embedding_readout": True,
    },
    "off24": {"hidden_irreps": "{c}x0e + {c}x1o"},
    "papers": {"hidden_irreps": "{c}x0e + {c}x1o + {c}x2e"},
}
_ORGANIC = (1, 6, 7, 8, 9, 15, 16, 17, 35, 53)
_FULL: dict[str, Any] = {
    "r_max": 6.0,
    "num_bessel": 10,
    "max_ell": 3,
    "avg_num_neighbors": 40.0,
    "radial_MLP": [64, 64, 64],
    "MLP_irreps": "16x0e",
    "correlation": 3,
    "dtype": torch.float32,
}


def architecture(name: str, *, full: bool = False) -> dict[str, Any]:
    """Return what ``make_mace`` takes to build one of ``ARCHITECTURES``.

    Args:
        name: Which.
        full: At the size of the published models, in float32; by default a few channels of each
            kind, three elements and a short cutoff, in float64.
    """
    n_channels, n_edge_channels = (128, 128) if full else (6, 4)
    settings = {
        key: value.format(c=n_channels, e=n_edge_channels) if key.endswith("irreps") else value
        for key, value in ARCHITECTURES[name].items()
    }
    if not full:
        return {"max_ell": 3, "correlation": 3, **settings}
    elements = _ORGANIC if name in ("omol-0", "off24") else tuple(range(1, 90))
    return {**_FULL, **settings, "elements": elements}
