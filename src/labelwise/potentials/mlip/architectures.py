"""The networks of mlip: which one a saved model is of, and where its parts are."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from labelwise.errors import PotentialError
from labelwise.potentials.checkpoints import import_quietly
from labelwise.runtime.engines.process_start import forbid_copies


@dataclass(frozen=True)
class Architecture:
    """One kind of network.

    Attributes:
        name: Its class in ``mlip.models``.
        mark: A setting that no other kind has.
        table: Path of the module that looks up the elements' initial features.
        layer: How the names of its layers begin.
        blocks: For each block of weights besides ``embedding`` and ``all``, patterns of paths.
        scalars: Takes the invariant features of atoms, (N, c), from what a layer leaves.
        parity: Whether mirror images have the same energy.
    """

    name: str
    mark: str
    table: str
    layer: str
    blocks: Mapping[str, tuple[str, ...]]
    scalars: Callable[[Mapping[str, Any]], Any]
    parity: bool = True

    def list_weights(self, block: str, names: Sequence[str]) -> list[str]:
        """Return which weights make up a block, in the order of their names.

        Args:
            block: ``embedding``, ``all`` or one of ``blocks``.
            names: Paths of the weights that there are.
        """
        patterns = {"embedding": (f"{self.table}/*",), "all": ("*",), **self.blocks}[block]
        return sorted(name for name in names if any(fnmatchcase(name, p) for p in patterns))


def _irreps_scalars(features: Mapping[str, Any]) -> Any:
    return features["latent"].filter("0e").array


_CONVOLUTION = ("*/linear_in/*", "*/linear_out/*", "*/residual_block/*")
ARCHITECTURES = (
    Architecture(
        "Mace",
        mark="correlation",
        table="embedding_block/node_embedding_block/embed",
        layer="layers_",
        blocks={
            "radial": ("*/radial_mlp/*",),
            "interaction": (*_CONVOLUTION, "*/linear_by_species_block/*"),
            "products": ("*/expansion_block/*",),
            "readout": ("*/readout_block/*",),
        },
        scalars=_irreps_scalars,
    ),
    Architecture(
        "Nequip",
        mark="target_irreps",
        table="NequipEmbeddingBlock_0/NodeEmbeddingBlock_0/embed",
        layer="NequipLayer_",
        blocks={
            "radial": ("*/radial_mlp/*",),
            "interaction": _CONVOLUTION,
            "readout": ("NequipMultiHeadReadoutBlock_*",),
        },
        scalars=_irreps_scalars,
    ),
    Architecture(
        "Visnet",
        mark="vecnorm_type",
        table="embedding_block/node_embedding/embed",
        layer="visnet_layers_",
        blocks={
            "radial": ("embedding_block/edge_embedding/*", "embedding_block/radial_embedding/*"),
            "interaction": ("visnet_layers_*",),
            "readout": ("readout_block/*",),
        },
        scalars=lambda features: features["latent_scalars"],
    ),
    Architecture(
        "Esen",
        mark="sphere_channels",
        table="embedding_block/node_embedding/embed",
        layer="esen_layers_",
        blocks={
            "radial": ("*/rad_func/*",),
            "interaction": ("*/edge_wise/*",),
            "products": ("*/atom_wise/*",),
            "readout": ("readout_block/*",),
        },
        scalars=lambda features: features["latent"][:, 0, :],
        parity=False,  # convolutions in an edge's frame know rotations about it alone
    ),
)


def find_architecture(settings: Mapping[str, Any]) -> Architecture:
    """Return which network a saved model is of; the archive does not name it.

    Args:
        settings: Those of the archive.

    Raises:
        PotentialError: None that can be evaluated here.
    """
    config = settings["config"]
    found = [each for each in ARCHITECTURES if each.mark in config]
    if "add_atomic_energies" not in config:
        raise PotentialError(
            "the model was saved by mlip 0.1 or is of a network of your own; Labelwise evaluates "
            "the MACE, NequIP, ViSNet and eSEN of mlip 0.2: train and save the model with that"
        )
    if len(found) != 1:
        raise PotentialError(
            "the model has settings of none of mlip's MACE, NequIP, ViSNet and eSEN: "
            f"{', '.join(sorted(config))}"
        )
    refused = {
        "use_coulomb_term": "a Coulomb term, which needs a second list of neighbours",
        "use_total_charge_embedding": "an embedding of the total charge",
        "moe": "experts, which have to be combined first (prepare_experts_for_inference)",
    }
    for setting, words in refused.items():
        if config.get(setting):
            raise PotentialError(f"the model has {words}; Labelwise evaluates models without")
    return found[0]


def import_mlip() -> Any:
    """Import mlip and return it; from then on worker processes are programs of their own.

    Raises:
        MissingDependencyError: it is not installed.
    """
    import_quietly("mlip.models", extra="mlip", purpose="loading a model of mlip's")
    import mlip

    forbid_copies()
    return mlip
