"""Finding and reading SevenNet models: the family behind ``load_potential``."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from labelwise.errors import PotentialError
from labelwise.potentials.base import Potential
from labelwise.potentials.checkpoints import CheckpointFamily, Shipped, silenced
from labelwise.potentials.sevennet.potential import (
    SevenNetPotential,
    build_model,
    import_sevenn,
)

# What sevenn's checkpoints hold besides tensors and plain values: arrays of numbers.
_HARMLESS = [
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    (np._core.multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),  # type: ignore[attr-defined]
    (np._core.multiarray.scalar, "numpy.core.multiarray.scalar"),  # type: ignore[attr-defined]
    *(type(np.dtype(kind)) for kind in ("f4", "f8", "i4", "i8", "bool")),
]


class SevenNetFamily(CheckpointFamily):
    """SevenNet models: from checkpoints, or by name from sevenn's wheel."""

    name = "sevennet"
    package = "sevenn"
    extra = "sevenn"
    licence = "MIT"
    keys = frozenset({"config", "model_state_dict", "optimizer_state_dict"})
    harmless = _HARMLESS
    shipped = MappingProxyType(
        {
            "7net-0": Shipped(
                "pretrained_potentials/SevenNet_0__11Jul2024/checkpoint_sevennet_0.pth",
                "89 elements, PBE",
            ),
            "7net-l3i5": Shipped(
                "pretrained_potentials/SevenNet_l3i5/checkpoint_l3i5.pth", "89 elements, PBE"
            ),
            "7net-mf-0": Shipped(
                "pretrained_potentials/SevenNet_MF_0/checkpoint_sevennet_mf_0.pth",
                "heads PBE and R2SCAN",
            ),
        }
    )

    def load(
        self,
        spec: str,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        head: str | None,
        trust: bool,  # noqa: ARG002  # checkpoints are read as weights and plain values
    ) -> Potential:
        """See ``labelwise.potentials.load_potential``."""
        import_sevenn()
        return make_sevennet(self.read(spec), name=spec, device=device, dtype=dtype, head=head)


def make_sevennet(
    content: dict[str, Any],
    *,
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    head: str | None = None,
) -> SevenNetPotential:
    """Build a potential of a checkpoint's content.

    Args:
        content: ``config`` and ``model_state_dict``.
        name: What to call it.
        device: Where it is wanted.
        dtype: Floating-point type wanted, by default its own.
        head: See ``load_potential``.

    Raises:
        PotentialError: settings and weights do not belong together, or an unknown head.
    """
    import sevenn
    from sevenn import checkpoint
    from sevenn.scripts import backward_compatibility

    try:
        with silenced():
            config = checkpoint._config_cp_routine(dict(content["config"]))
            model = build_model(config, torch.float32 if dtype is None else dtype)
            state = backward_compatibility.patch_state_dict_if_old(
                content["model_state_dict"], config, model
            )
            # Coupling coefficients are constants: as exact as the type that is asked for.
            constants = {k: v for k, v in model.state_dict().items() if "._w3j_" in k}
            model.load_state_dict({**state, **constants})
            config["version"] = sevenn.__version__  # whose weights these are now, when written
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise PotentialError(
            f"settings and weights of {name} do not make a model with the installed sevenn: {error}"
        ) from error
    model = model.to(device)
    return SevenNetPotential(model, config, name=name, head=head)
