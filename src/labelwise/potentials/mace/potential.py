"""MACE behind the contract: ``MACE`` and ``ScaleShiftMACE`` of mace-torch."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from functools import cache
from types import FunctionType
from typing import IO, Any, ClassVar

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials.convolution import EdgeTables, NeighbourConvolution, sort_edges
from labelwise.potentials.graphs import Batch
from labelwise.potentials.mace.checkpoint import (
    _arguments,
    hash_model,
    import_mace_modules,
    mace_warnings_silenced,
    model_config,
    save_checkpoint,
)
from labelwise.potentials.mace.convolution import is_channelwise
from labelwise.potentials.mace.cueq import (
    CueqContraction,
    CueqConvolution,
    choose_kernels,
    choose_method,
    is_available,
)
from labelwise.potentials.mace.elements import ElementwiseLinear, is_linear_by_element
from labelwise.potentials.mace.heads import add_head
from labelwise.potentials.mace.products import ElementwiseContraction
from labelwise.potentials.passes import note_forward
from labelwise.potentials.torch_potential import (
    TorchPotential,
    average_over_atoms,
    choose_head,
    default_dtype,
    list_scalars,
)
from labelwise.potentials.training import TrainingNetwork

# Embeddings of the elements at the ends of an edge, in the NonLinear block.
_BY_ELEMENT = ("source_embedding", "target_embedding")


_ALL = slice(None)


class MacePotential(TorchPotential):
    """A mace-torch model and its features; ``model`` stays as it was loaded.

    Attributes:
        cueq: Whether convolutions and contractions run through cuEquivariance.
    """

    model: Any
    block_prefixes: ClassVar = {
        "embedding": ("node_embedding.",),
        "readout": ("readouts.",),
        "products": ("products.",),
        "interaction": ("interactions.",),
    }
    file_suffixes: ClassVar = (".model", ".pt")

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
        self._scalars = [list_scalars(product.linear.irreps_out) for product in model.products]
        specs = getattr(model, "embedding_specs", None) or {}
        super().__init__(
            model,
            name=name,
            elements=[int(z) for z in model.atomic_numbers],
            cutoff=float(model.r_max),
            activation_size=sum(len(channels) for channels in self._scalars),
            heads=tuple(str(each) for each in model.heads),
            head=head,
            charge_range=_known_range(specs.get("total_charge")),
            spin_range=_known_range(specs.get("total_spin")),
        )
        # e3nn scales a linear path by 1/sqrt(inputs): h = path_weight * W[z].
        self.embedding_scale = float(model.node_embedding.linear.instructions[0].path_weight)
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

    def with_random_weights(self, seed: int, *, scale: float | None = None) -> MacePotential:
        """See ``Potential.with_random_weights``."""
        config = model_config(self.model)
        modules = import_mace_modules()
        with (
            torch.random.fork_rng(devices=[]),
            default_dtype(self.dtype),
            mace_warnings_silenced(),
        ):
            torch.manual_seed(seed)
            build = getattr(modules, type(self.model).__name__)
            model = build(**_arguments(config, modules)).to(self.device)
            model.lammps_mliap = self.model.lammps_mliap
            drawn = MacePotential(model, name=self.name, head=self.head, cueq=self.cueq)
        if scale is not None and hasattr(model, "scale_shift"):
            model.scale_shift.scale.fill_(scale)
            model.scale_shift.shift.zero_()
        return drawn

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

    def absent_weights(self) -> set[str]:
        """Name the product weights that mace-torch froze at zero because symmetry forbids a path.

        It marks them with a class of parameter, which a pickle loses, and a flag, which it keeps.
        """
        absent = set()
        for name, module in self.model.named_modules():
            for key, flag in module.named_buffers(recurse=False):
                if key.startswith("weights_") and key.endswith("_zeroed") and bool(flag):
                    which = key.removeprefix("weights_").removesuffix("_zeroed")
                    absent.add(
                        f"{name}.weights_max" if which == "max" else f"{name}.weights.{which}"
                    )
        return absent

    def interaction_energies(
        self,
        batch: Batch,
        *,
        positions: Float[Tensor, "N 3"] | None = None,
        embedding: Float[Tensor, "N C"] | None = None,
    ) -> Float[Tensor, " n"]:
        """See ``TorchPotential.interaction_energies``."""
        note_forward(batch.n_structures)
        out = self._view.run(
            self._sorted_inputs(batch, positions), positions is not None, embedding
        )
        energies: Tensor = out["energy"]
        return energies

    def activations(self, batch: Batch) -> Float[Tensor, "n a"]:
        """See ``Potential.activations``."""
        note_forward(batch.n_structures)
        with torch.no_grad():
            out = self._view.run(self._sorted_inputs(batch, None), False, None)
            sizes = [product.linear.irreps_out.dim for product in self.model.products]
            layers = torch.split(out["node_feats"], sizes, dim=1)
            scalars = [
                layer[:, channels.to(layer.device)]
                for layer, channels in zip(layers, self._scalars, strict=True)
            ]
            return average_over_atoms(torch.cat(scalars, dim=1), batch)

    def copy(self) -> MacePotential:
        """See ``TorchPotential.copy``."""
        with mace_warnings_silenced():
            # Not a deep copy: mace-torch's EmptyParam cannot be copied, but it can be pickled.
            model = pickle.loads(pickle.dumps(self.model))  # noqa: S301  # our own bytes
        return MacePotential(model, name=self.name, head=self.head, cueq=self.cueq)

    def with_head(self, head: str) -> MacePotential:
        """See ``TorchPotential.with_head``."""
        view = copy.copy(self)
        view.head = choose_head(self.heads, head)
        return view

    def split_head(self, name: str) -> MacePotential:
        """See ``TorchPotential.split_head``."""
        place = self.heads.index(self.head)
        heads = [*self.heads, self.head]
        heads[place] = name
        model = add_head(self.model, place, heads)
        return MacePotential(model, name=self.name, head=self.head, cueq=self.cueq)

    def reference_row(self) -> Float[Tensor, " E"]:
        """See ``TorchPotential.reference_row``: its shape is (E,) or (heads, E)."""
        table: Tensor = self.model.atomic_energies_fn.atomic_energies
        return table if table.dim() == 1 else table[self.heads.index(self.head)]

    def training_network(self, *, compiled: bool = False) -> TrainingNetwork:
        """See ``TorchPotential.training_network``: with frozen geometry where that reaches."""
        from labelwise.potentials.mace.training.compiled import CompiledMace
        from labelwise.potentials.mace.training.frozen_mace import FrozenMace, can_freeze
        from labelwise.potentials.mace.training.lean_mace import LeanMace, supports

        if compiled:
            return CompiledMace(self)
        if supports(self):
            return LeanMace(self)
        return FrozenMace(self) if can_freeze(self) else super().training_network()

    def write(self, stream: IO[bytes], suffix: str) -> None:
        """Write a weights-only checkpoint (``.pt``) or mace-torch's pickled module (``.model``).

        The module is written on the CPU with gradients on, as mace-torch writes it.
        """
        with mace_warnings_silenced():
            if suffix == ".pt":
                torch.save(save_checkpoint(self.model), stream)
            else:
                torch.save(self.copy().model.cpu().requires_grad_(True), stream)

    def _sorted_inputs(
        self, batch: Batch, positions: Float[Tensor, "N 3"] | None
    ) -> dict[str, Tensor]:
        """Write a batch as mace-torch's dictionary, its edges as convolutions want them."""
        return self._inputs(batch, positions, sort_edges(batch.edge_index[1], batch.n_atoms))

    def _inputs(
        self,
        batch: Batch,
        positions: Float[Tensor, "N 3"] | None,
        edges: Int64[Tensor, " M"] | slice = _ALL,
    ) -> dict[str, Tensor]:
        """Write a batch as mace-torch's dictionary, by default with its edges as they are."""
        counts = torch.tensor((0, *batch.atom_counts), device=self.device)
        one_hot = torch.nn.functional.one_hot(batch.species, len(self.elements))
        head = torch.full((batch.n_structures,), self.heads.index(self.head), device=self.device)
        return {
            # mace-torch calls requires_grad_ on what it gets: hand over an alias.
            "positions": batch.positions.detach() if positions is None else positions * 1.0,
            "node_attrs": one_hot.to(self.dtype),
            "edge_index": batch.edge_index[:, edges],
            "shifts": batch.shifts[edges],
            "unit_shifts": batch.unit_shifts[edges],
            "cell": batch.cells.reshape(-1, 3),
            "batch": batch.structure_idx,
            "ptr": counts.cumsum(0),
            "head": head,
            "total_charge": batch.charges,
            "total_spin": batch.spins,
            "elec_temp": torch.zeros_like(batch.charges),
        }


class _FeatureView:
    """The model with some of its modules replaced, sharing every weight.

    Geometry and embedding can be cut off or overridden, convolutions and products are faster, and
    reference energies are zero.

    The original module stays as it is, for fine-tuning and saving.
    """

    def __init__(self, model: Any, kernels: _Kernels) -> None:
        self._embedding = _Embedding(model.node_embedding)
        references = copy.copy(model.atomic_energies_fn)
        zeros = torch.zeros_like(references.atomic_energies)
        references.__dict__["_buffers"] = {**references._buffers, "atomic_energies": zeros}
        geometry = {
            name: kind(getattr(model, name))
            for name, kind in (
                ("spherical_harmonics", _Harmonics),
                ("radial_embedding", _Geometry),
                ("pair_repulsion_fn", _Geometry),
            )
            if hasattr(model, name)
        }
        self._geometry = tuple(geometry.values())
        products = torch.nn.ModuleList([_with_contraction(p, kernels) for p in model.products])
        blocks = torch.nn.ModuleList([_with_kernels(b, kernels) for b in model.interactions])
        self._model = _with_modules(
            model,
            {
                "node_embedding": self._embedding,
                "atomic_energies_fn": references,
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
        out: torch.Tensor = self.inner(node_attrs) if self.override is None else self.override
        # mace-torch adds charge and spin features in place, which neither what is handed in nor
        # a result of TorchScript that torch has optimised can bear.
        return out * 1.0


class _Constant(torch.nn.Module):
    """A module whose input is a constant, although mace-torch has put it next to features."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, node_attrs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.inner(node_attrs.detach())
        return out


class _Geometry(torch.nn.Module):
    """A module that takes edge vectors or lengths first, cut off from the positions or not."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner
        self.track = False

    def forward(self, edges: torch.Tensor, *others: torch.Tensor) -> Any:
        return self.inner(edges if self.track else edges.detach(), *others)


class _Harmonics(_Geometry):
    """The spherical harmonics, on a CPU as they are written.

    e3nn's are TorchScript, one function for all models of a process, which torch rewrites for
    what it was first called with: their last bits would depend on what a process did before.
    """

    def forward(self, edges: torch.Tensor, *others: torch.Tensor) -> Any:
        edges = edges if self.track else edges.detach()
        if edges.is_cuda:
            return self.inner(edges, *others)
        kind: Any = type(self.inner)
        return _forward_as_written(kind)(_as_written(self.inner), edges, *others)


@cache
def _forward_as_written(kind: Any) -> Callable[..., Any]:
    """Return the forward of a class, with Python functions where its module has TorchScript."""
    forward = kind.forward
    written = {name: _unscripted(value) for name, value in forward.__globals__.items()}
    return FunctionType(forward.__code__, written)


def _as_written(module: torch.nn.Module) -> torch.nn.Module:
    """Return a module, with Python functions where it holds TorchScript."""
    if not any(isinstance(value, torch.jit.ScriptFunction) for value in vars(module).values()):
        return module
    view = copy.copy(module)
    view.__dict__.update({name: _unscripted(value) for name, value in vars(module).items()})
    return view


def _unscripted(value: Any) -> Any:
    """Return the Python function that a TorchScript function was made of, where torch keeps it."""
    if isinstance(value, torch.jit.ScriptFunction):
        return getattr(value, "_torchdynamo_inline", value)
    return value


def _with_modules(module: Any, replaced: dict[str, torch.nn.Module]) -> Any:
    """Copy a module shallowly, sharing parameters and buffers, with some children replaced."""
    view = copy.copy(module)
    view.__dict__["_modules"] = {**module._modules, **replaced}
    return view


class _Kernels:
    """What stands in for mace-torch's convolutions and contractions: Labelwise's own."""

    def __init__(self) -> None:
        self._tables = EdgeTables()

    def convolution(self, block: Any) -> torch.nn.Module | None:
        """Return what to put in place of a block's ``conv_tp``; None to leave it."""
        if not is_channelwise(block):
            return None
        return NeighbourConvolution(block.conv_tp, self._tables)

    def contraction(self, contraction: Any) -> torch.nn.Module:
        """Return what to put in place of a ``SymmetricContraction``."""
        return ElementwiseContraction(contraction)


class _CueqKernels(_Kernels):
    """CuEquivariance's where it has them.

    Attributes:
        n_placed: How many modules it has stood in for.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__()
        self._dtype, self._method = dtype, choose_method(device)
        self.n_placed = 0

    def convolution(self, block: Any) -> torch.nn.Module | None:
        if not is_channelwise(block):
            return super().convolution(block)
        self.n_placed += 1
        return CueqConvolution(block.conv_tp, method=self._method, dtype=self._dtype)

    def contraction(self, contraction: Any) -> torch.nn.Module:
        self.n_placed += 1
        return CueqContraction(contraction, method=self._method, dtype=self._dtype)


def _with_kernels(block: Any, kernels: _Kernels) -> Any:
    """Return an interaction block with what stands in for its parts."""
    replaced: dict[str, torch.nn.Module] = {
        name: _Constant(getattr(block, name)) for name in _BY_ELEMENT if hasattr(block, name)
    }
    convolution = kernels.convolution(block)
    if convolution is not None:
        replaced["conv_tp"] = convolution
    if is_linear_by_element(getattr(block, "skip_tp", None)):
        replaced["skip_tp"] = ElementwiseLinear(block.skip_tp)
    view = _with_modules(block, replaced)
    if convolution is not None:
        view.conv_fusion = True  # mace-torch then hands over nodes and edges, and sums no messages
    return view


def _with_contraction(product: Any, kernels: _Kernels) -> Any:
    contraction = product.symmetric_contractions
    if type(contraction).__name__ != "SymmetricContraction":
        return product
    return _with_modules(product, {"symmetric_contractions": kernels.contraction(contraction)})


def _known_range(spec: dict[str, Any] | None) -> tuple[float, float] | None:
    """Return the range of a charge or spin that the model's embedding table holds."""
    if spec is None:
        return None
    if spec["type"] != "categorical":
        return (-float("inf"), float("inf"))
    offset = float(spec.get("offset", 0))
    return (-offset, spec["num_classes"] - 1 - offset)
