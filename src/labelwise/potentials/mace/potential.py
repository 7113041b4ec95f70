"""MACE behind the contract: ``MACE`` and ``ScaleShiftMACE`` of mace-torch."""

from __future__ import annotations

import copy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials.base import Potential, check_parameter_block
from labelwise.potentials.graphs import Batch, GraphBuilder
from labelwise.potentials.mace.checkpoint import (
    _arguments,
    _default_dtype,
    hash_model,
    import_mace_modules,
    mace_warnings_silenced,
    model_config,
)
from labelwise.potentials.mace.convolution import NeighbourConvolution, has_scalar_convolution
from labelwise.potentials.mace.cueq import (
    CueqContraction,
    CueqConvolution,
    can_convolve,
    choose_kernels,
    choose_method,
    is_available,
)
from labelwise.potentials.mace.products import ElementwiseContraction
from labelwise.potentials.passes import note_forward

_BLOCK_PREFIXES = {
    "embedding": ("node_embedding.",),
    "readout": ("readouts.",),
    "products": ("products.",),
    "all": ("",),
}


class MacePotential(Potential):
    """A mace-torch model and its features.

    Attributes:
        model: The mace-torch module as it was loaded, its parameters frozen
            (``requires_grad`` False). Its weights may be changed in place; everything
            here follows.
        cueq: Whether convolutions and contractions run through cuEquivariance.
    """

    def __init__(
        self, model: Any, *, name: str, head: str | None = None, cueq: bool = False
    ) -> None:
        """Wrap a complete model; ``load_potential`` is the usual way to one.

        Args:
            model: A ``MACE`` or ``ScaleShiftMACE`` with all attributes of the current
                mace-torch, on its device and in its type; its parameters are frozen.
            name: What to call it.
            head: Head to use; may be None if there is one, or one called ``default``.
            cueq: Run convolutions and contractions through cuEquivariance, where it has what
                they need.

        Raises:
            PotentialError: unknown head, a head is needed, or nothing that cuEquivariance
                could run.
            MissingDependencyError: cuEquivariance is not installed.
        """
        model.eval().requires_grad_(False)
        self.model = model
        self.name = name
        self.elements = tuple(int(z) for z in model.atomic_numbers)
        self.cutoff = float(model.r_max)
        weight = model.node_embedding.linear.weight
        self.dtype, self.device = weight.dtype, weight.device
        self.heads = tuple(str(each) for each in model.heads)
        self.head = choose_head(self.heads, head)
        self.n_layers = len(model.interactions)
        self._scalars = [_scalar_channels(product) for product in model.products]
        self.activation_size = sum(len(channels) for channels in self._scalars)
        specs = getattr(model, "embedding_specs", None) or {}
        self.graph_builder = GraphBuilder(
            elements=self.elements,
            cutoff=self.cutoff,
            charge_range=_known_range(specs.get("total_charge")),
            spin_range=_known_range(specs.get("total_spin")),
        )
        self.cueq = cueq
        kernels = _CueqKernels(self.dtype, self.device) if cueq else _Kernels()
        self._view = _FeatureView(model, kernels)
        if isinstance(kernels, _CueqKernels) and kernels.n_placed == 0:
            raise PotentialError(
                f"{name} has no convolution or contraction that cuEquivariance could run; "
                "use cueq=False"
            )

    @property
    def content_hash(self) -> str:
        """See ``Potential.content_hash``."""
        return hash_model(self.model, head=self.head)

    def with_random_weights(self, seed: int) -> MacePotential:
        """See ``Potential.with_random_weights``."""
        config = model_config(self.model)
        modules = import_mace_modules()
        with (
            torch.random.fork_rng(devices=[]),
            _default_dtype(self.dtype),
            mace_warnings_silenced(),
        ):
            torch.manual_seed(seed)
            build = getattr(modules, type(self.model).__name__)
            model = build(**_arguments(config, modules)).to(self.device)
            model.lammps_mliap = self.model.lammps_mliap
            return MacePotential(model, name=self.name, head=self.head, cueq=self.cueq)

    def with_kernels(self, cueq: bool | None) -> MacePotential:
        """Return the potential on the kernels asked for, sharing every weight.

        Args:
            cueq: See ``load_potential``.

        Raises:
            PotentialError: cuEquivariance was asked for and has nothing for this model, fails,
                or gives other results.
            MissingDependencyError: it was asked for and is not installed.
            ArgumentError: the environment variable has an unknown value.

        Warns:
            KernelWarning: cuEquivariance was chosen automatically, and fails or gives other
                results; the potential goes without.
        """

        def build(with_cueq: bool) -> MacePotential:
            if with_cueq == self.cueq:
                return self
            return MacePotential(self.model, name=self.name, head=self.head, cueq=with_cueq)

        return choose_kernels(build, cueq, available=is_available(self.device))

    def block_weights(self, parameters: str) -> list[Tensor]:
        """See ``Potential.block_weights``."""
        check_parameter_block(parameters)
        absent = _absent_paths(self.model)
        return [
            weight
            for name, weight in sorted(self.model.named_parameters())
            if name.startswith(_BLOCK_PREFIXES[parameters]) and name not in absent
        ]

    def energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """See ``Potential.energies``."""
        note_forward(batch.n_structures)
        out = self._view.run(self._inputs(batch, positions), positions is not None, embedding)
        energies: Tensor = out["energy"]
        return energies

    def node_embedding(self, batch: Batch) -> Float[Tensor, "N C"]:
        """See ``Potential.node_embedding``."""
        with torch.no_grad():
            table: Tensor = self.model.node_embedding(
                torch.eye(len(self.elements), dtype=self.dtype, device=self.device)
            )
        rows: Tensor = table[batch.species]
        return rows

    def embedding_pullback(
        self, batch: Batch, cotangent: Float[Tensor, "N C"]
    ) -> Float[Tensor, "n EC"]:
        """See ``Potential.embedding_pullback``."""
        n_elements = len(self.elements)
        target = batch.structure_idx * n_elements + batch.species
        rows = cotangent.new_zeros(batch.n_structures * n_elements, cotangent.shape[1])
        rows = rows.index_add(0, target, cotangent)
        # e3nn scales a linear path by 1/sqrt(inputs): h = path_weight * W[z].
        path_weight: float = self.model.node_embedding.linear.instructions[0].path_weight
        return rows.view(batch.n_structures, -1) * path_weight

    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """See ``Potential.activations``."""
        note_forward(batch.n_structures)
        with torch.no_grad():
            out = self._view.run(self._inputs(batch, None), False, None)
            sizes = [product.linear.irreps_out.dim for product in self.model.products]
            layers = torch.split(out["node_feats"], sizes, dim=1)
            scalars = [
                layer[:, channels.to(layer.device)]
                for layer, channels in zip(layers, self._scalars, strict=True)
            ]
            atoms = torch.cat(scalars, dim=1)
            total = atoms.new_zeros(batch.n_structures, atoms.shape[1])
            total.index_add_(0, batch.structure_idx, atoms)
            counts = torch.tensor(batch.atom_counts, dtype=atoms.dtype, device=atoms.device)
            return total / counts[:, None]

    def _inputs(self, batch: Batch, positions: Float[Tensor, "N 3"] | None) -> dict[str, Tensor]:
        """Write a batch as mace-torch's dictionary."""
        counts = torch.tensor((0, *batch.atom_counts), device=self.device)
        one_hot = torch.nn.functional.one_hot(batch.species, len(self.elements))
        head = torch.full((batch.n_structures,), self.heads.index(self.head), device=self.device)
        return {
            # mace-torch calls requires_grad_ on what it gets: hand over an alias.
            "positions": batch.positions.detach() if positions is None else positions * 1.0,
            "node_attrs": one_hot.to(self.dtype),
            "edge_index": batch.edge_index,
            "shifts": batch.shifts,
            "unit_shifts": batch.unit_shifts,
            "cell": batch.cells.reshape(-1, 3),
            "batch": batch.structure_idx,
            "ptr": counts.cumsum(0),
            "head": head,
            "total_charge": batch.charges,
            "total_spin": batch.spins,
            "elec_temp": torch.zeros_like(batch.charges),
        }


def choose_head(heads: tuple[str, ...], head: str | None) -> str:
    """Return the head to use.

    Args:
        heads: The model's heads.
        head: The one asked for, or None.

    Raises:
        PotentialError: unknown head, or several and none of them is called ``default``.
    """
    if head is not None:
        if head not in heads:
            raise PotentialError(f"head is {head!r}; this model has {', '.join(heads)}")
        return head
    if len(heads) == 1:
        return heads[0]
    default = [each for each in heads if each.lower() == "default"]
    if len(default) != 1:
        raise PotentialError(
            f"this model has the heads {', '.join(heads)}: choose one with head=... or --head"
        )
    return default[0]


class _FeatureView:
    """The model with some of its modules replaced, sharing every weight.

    Geometry and embedding can be cut off or overridden, convolutions and products are faster.

    The original module stays as it is, for fine-tuning and saving.
    """

    def __init__(self, model: Any, kernels: _Kernels) -> None:
        self._embedding = _Embedding(model.node_embedding)
        geometry = {
            name: _Geometry(getattr(model, name))
            for name in ("spherical_harmonics", "radial_embedding", "pair_repulsion_fn")
            if hasattr(model, name)
        }
        self._geometry = tuple(geometry.values())
        products = torch.nn.ModuleList([_with_contraction(p, kernels) for p in model.products])
        blocks = torch.nn.ModuleList([_with_convolution(b, kernels) for b in model.interactions])
        self._model = _with_modules(
            model,
            {
                "node_embedding": self._embedding,
                "interactions": blocks,
                "products": products,
                **geometry,
            },
        )

    def run(
        self,
        inputs: dict[str, torch.Tensor],
        track_positions: bool,
        embedding: torch.Tensor | None,
    ) -> dict[str, torch.Tensor]:
        """Evaluate the model; without ``track_positions`` the geometry is a constant."""
        self._embedding.override = embedding
        for module in self._geometry:
            module.track = track_positions
        try:
            out: dict[str, torch.Tensor] = self._model(inputs, compute_force=False)
            return out
        finally:
            self._embedding.override = None


class _Embedding(torch.nn.Module):
    """The node embedding, or what is put in its place."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.override: torch.Tensor | None = None

    def forward(self, node_attrs: torch.Tensor) -> torch.Tensor:
        if self.override is not None:
            return self.override * 1.0  # mace-torch adds charge and spin features in place
        out: torch.Tensor = self.inner(node_attrs)
        return out


class _Geometry(torch.nn.Module):
    """A module that takes edge vectors or lengths first, cut off from the positions or not."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.track = False

    def forward(self, edges: torch.Tensor, *others: torch.Tensor) -> Any:
        return self.inner(edges if self.track else edges.detach(), *others)


def _with_modules(module: Any, replaced: dict[str, torch.nn.Module]) -> Any:
    """Copy a module shallowly, sharing parameters and buffers, with some children replaced."""
    view = copy.copy(module)
    view.__dict__["_modules"] = {**module._modules, **replaced}
    return view


class _Kernels:
    """What stands in for mace-torch's convolutions and contractions: Labelwise's own."""

    def convolution(self, block: Any) -> torch.nn.Module | None:
        """Return what to put in place of a block's ``conv_tp``; None to leave it."""
        return NeighbourConvolution(block.conv_tp) if has_scalar_convolution(block) else None

    def contraction(self, contraction: Any) -> torch.nn.Module:
        """Return what to put in place of a ``SymmetricContraction``."""
        return ElementwiseContraction(contraction)


class _CueqKernels(_Kernels):
    """CuEquivariance's where it has them.

    Attributes:
        n_placed: How many modules it has stood in for.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._method = dtype, choose_method(device)
        self.n_placed = 0

    def convolution(self, block: Any) -> torch.nn.Module | None:
        if not can_convolve(block):
            return super().convolution(block)
        self.n_placed += 1
        return CueqConvolution(block.conv_tp, method=self._method, dtype=self._dtype)

    def contraction(self, contraction: Any) -> torch.nn.Module:
        self.n_placed += 1
        return CueqContraction(contraction, method=self._method, dtype=self._dtype)


def _with_convolution(block: Any, kernels: _Kernels) -> Any:
    convolution = kernels.convolution(block)
    if convolution is None:
        return block
    view = _with_modules(block, {"conv_tp": convolution})
    view.conv_fusion = True  # mace-torch then hands over nodes and edges, and sums no messages
    return view


def _with_contraction(product: Any, kernels: _Kernels) -> Any:
    contraction = product.symmetric_contractions
    if type(contraction).__name__ != "SymmetricContraction":
        return product
    return _with_modules(product, {"symmetric_contractions": kernels.contraction(contraction)})


def _scalar_channels(product: Any) -> torch.Tensor:
    """Return the places of the even scalars in a layer's output."""
    irreps = product.linear.irreps_out
    places = [
        torch.arange(part.start, part.stop)
        for (_, irrep), part in zip(irreps, irreps.slices(), strict=True)
        if irrep.l == 0 and irrep.p == 1
    ]
    return torch.cat(places)


def _absent_paths(model: Any) -> set[str]:
    """Name the product weights that mace-torch froze at zero because symmetry forbids the path.

    It marks them with a class of parameter, which a pickle loses, and a flag, which it keeps.
    """
    absent = set()
    for name, module in model.named_modules():
        for key, flag in module.named_buffers(recurse=False):
            if key.startswith("weights_") and key.endswith("_zeroed") and bool(flag):
                which = key.removeprefix("weights_").removesuffix("_zeroed")
                absent.add(f"{name}.weights_max" if which == "max" else f"{name}.weights.{which}")
    return absent


def _known_range(spec: dict[str, Any] | None) -> tuple[float, float] | None:
    """Return the range of a charge or spin that the model's embedding table holds."""
    if spec is None:
        return None
    if spec["type"] != "categorical":
        return (-float("inf"), float("inf"))
    offset = float(spec.get("offset", 0))
    return (-offset, spec["num_classes"] - 1 - offset)
