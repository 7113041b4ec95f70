"""NequIP models behind the contract of Labelwise, as a module of one's own.

    PYTHONPATH=examples LABELWISE_PLUGINS=nequip_family labelwise select --model nequip-random ...

The model has random weights; of one of your own, ``load`` takes what nequip reads from its file.
"""

import torch
from ase.data import atomic_numbers
from nequip.data import AtomicDataDict as keys
from nequip.model import NequIPGNNModel
from nequip.utils.global_state import set_global_state

from labelwise.potentials import PotentialFamily, TorchPotential, register_potential
from labelwise.potentials.torch_potential import average_over_atoms, default_dtype


class NequipPotential(TorchPotential):
    block_prefixes = {
        "embedding": ("func.type_embed",),
        "radial": ("func.layer0_convnet.conv.edge_mlp",),
        "readout": ("func.per_atom_energy_readout",),
    }

    def __init__(self, network, *, name, cutoff):
        elements = tuple(atomic_numbers[symbol] for symbol in network.type_names)
        size = network.model.func.irreps_out[keys.NODE_FEATURES_KEY].dim
        super().__init__(
            network.model, name=name, elements=elements, cutoff=cutoff, activation_size=size
        )

    def run(self, batch, positions):
        sender, receiver = batch.edge_index
        return self.model.func(
            {
                keys.POSITIONS_KEY: positions,
                keys.EDGE_INDEX_KEY: torch.stack([receiver, sender]),  # the centre comes first
                keys.EDGE_VECTORS_KEY: positions[sender] - positions[receiver] - batch.shifts,
                keys.ATOM_TYPE_KEY: batch.species,
                keys.BATCH_KEY: batch.structure_idx,
                keys.NUM_NODES_KEY: batch.structure_idx.bincount(minlength=batch.n_structures),
            }
        )

    def interaction_energies(self, batch, *, positions=None, embedding=None):
        positions = batch.positions if positions is None else positions
        return self.run(batch, positions)[keys.TOTAL_ENERGY_KEY][:, 0]

    def activations(self, batch):
        features = self.run(batch, batch.positions)[keys.NODE_FEATURES_KEY]
        return average_over_atoms(features.detach(), batch)


class NequipFamily(PotentialFamily):
    name = "nequip"

    def recognises(self, spec):
        return spec == "nequip-random"

    def load(self, spec, *, device, dtype, head, trust):
        options = {"type_names": ["H", "C", "N", "O"], "r_max": 4.0, "avg_num_neighbors": 10.0}
        with default_dtype(torch.get_default_dtype()):
            set_global_state()  # it sets a type, too
            network = NequIPGNNModel(
                seed=0, model_dtype="float64", num_layers=2, l_max=1, num_features=8, **options
            )
        return NequipPotential(network, name=spec, cutoff=options["r_max"])


register_potential(NequipFamily())
