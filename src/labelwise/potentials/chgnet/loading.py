"""Finding and reading CHGNet models: the family behind ``load_potential``."""

from __future__ import annotations

from types import MappingProxyType
from typing import Any

import torch

from labelwise.errors import PotentialError
from labelwise.potentials.base import Potential
from labelwise.potentials.checkpoints import CheckpointFamily, Shipped
from labelwise.potentials.chgnet.potential import CHGNetPotential, build_model, import_chgnet
from labelwise.potentials.torch_potential import choose_head

_EMBEDDING = "atom_embedding.embedding.weight"
_REFERENCES = "composition_model.fc.weight"


class CHGNetFamily(CheckpointFamily):
    """CHGNet models: from checkpoints, or by name from chgnet's wheel."""

    name = "chgnet"
    package = "chgnet"
    extra = "chgnet"
    licence = "BSD"
    keys = frozenset({"model", "state_dict", "model_args", _EMBEDDING})
    shipped = MappingProxyType(
        {
            "chgnet-0.3.0": Shipped(
                "pretrained/0.3.0/chgnet_0.3.0_e29f68s314m37.pth.tar", "94 elements, PBE and PBE+U"
            ),
            "chgnet-0.2.0": Shipped(
                "pretrained/0.2.0/chgnet_0.2.0_e30f77s348m32.pth.tar", "94 elements, PBE and PBE+U"
            ),
            "chgnet-r2scan": Shipped(
                "pretrained/r2scan/chgnet_r2scan_transfer_learning_e15f36s161m23.pth.tar",
                "94 elements, r2SCAN",
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
        import_chgnet()
        content = self.read(spec)["model"]
        potential = make_chgnet(content, name=spec, device=device, dtype=dtype)
        choose_head(potential.heads, head)
        return potential


def make_chgnet(
    content: dict[str, Any],
    *,
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
) -> CHGNetPotential:
    """Build a potential of a checkpoint's model.

    Args:
        content: ``state_dict`` and ``model_args``.
        name: What to call it.
        device: Where it is wanted.
        dtype: Floating-point type wanted, by default its own.

    Raises:
        PotentialError: settings and weights do not belong together.
    """
    try:
        state, settings = dict(content["state_dict"]), dict(content["model_args"])
        # Version 0.2.0 had biases that no setting tells of.
        has_bias = any(key.endswith("mlp_out.layers.1.bias") for key in state)
        settings.setdefault("mlp_out_bias", has_bias)
        with torch.random.fork_rng(devices=[]):
            model = build_model(settings)
        own = model.state_dict()
        state.setdefault(_REFERENCES, own[_REFERENCES])
        model.to(state[_EMBEDDING].dtype).load_state_dict(state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise PotentialError(
            f"settings and weights of {name} do not make a model with the installed chgnet: {error}"
        ) from error
    return CHGNetPotential(model.to(device=device, dtype=dtype), name=name)
