"""Updates and validations of a lean network as machine code, compiled once and kept on disk.

Compiling takes about a minute and a C++ compiler; the result serves every model of the same
architecture on the same machine, whatever its weights, training set and recipe. An update then
takes a third to a half of the time: operations are merged, and autograd is gone.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from labelwise.errors import PotentialError
from labelwise.potentials import stress
from labelwise.potentials.mace import polynomial as mace_polynomial
from labelwise.potentials.mace.checkpoint import model_config
from labelwise.potentials.mace.potential import MacePotential
from labelwise.potentials.mace.training import (
    contraction,
    frozen_geometry,
    lean_batch,
    lean_mace,
    polynomial,
    traced,
)
from labelwise.potentials.mace.training.lean_batch import LeanBatch
from labelwise.potentials.mace.training.lean_mace import LeanMace, supports
from labelwise.potentials.mace.training.traced import (
    PREDICTION_AXES,
    STRESS_UPDATE_AXES,
    UPDATE_AXES,
    WeightList,
    example_inputs,
    prediction_inputs,
    trace_prediction,
    trace_update,
    update_inputs,
)
from labelwise.potentials.training import WeightedTargets

#: Where compiled code is kept, if set.
CACHE_VARIABLE = "LABELWISE_CACHE"

_SOURCES = (
    contraction,
    frozen_geometry,
    lean_batch,
    lean_mace,
    mace_polynomial,
    polynomial,
    stress,
    traced,
)
_NOT_ARCHITECTURE = ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift", "heads")
_MAX_SIZES = {"P": 1 << 24, "N": 1 << 20, "W": 1 << 12, "Z": 128, "A": 1 << 20, "n": 1 << 16}

Compiled = Callable[..., Sequence[Tensor]]

_KINDS: dict[str, tuple[Callable[..., torch.fx.GraphModule], tuple[str, ...]]] = {
    "update": (trace_update, UPDATE_AXES),
    "prediction": (trace_prediction, PREDICTION_AXES),
    "stress-update": (trace_update, STRESS_UPDATE_AXES),
    "stress-prediction": (trace_prediction, PREDICTION_AXES),
}


class CompiledMace(LeanMace):
    """A lean network whose updates and predictions are compiled; results agree to rounding."""

    def __init__(self, potential: MacePotential) -> None:
        """Take a potential; code is loaded, or compiled, when it is first needed.

        Raises:
            PotentialError: the model or its device is not covered. Later, it cannot be compiled.
        """
        require_compilable(potential)
        super().__init__(potential)
        self._loaded: dict[str, Compiled] = {}
        self._potential, self._weights = potential, WeightList(potential)

    def loss_and_gradients(
        self, batch: LeanBatch, targets: WeightedTargets
    ) -> tuple[Float[Tensor, ""], Sequence[Tensor]]:
        """See ``UpdatingNetwork.loss_and_gradients``."""
        code = self._code("update" if targets.stresses is None else "stress-update")
        loss, *gradients = code(*self._weights.tensors(), *update_inputs(batch, targets))
        return loss, gradients

    def energies_and_forces(
        self, batch: LeanBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"]]:
        """See ``TrainingNetwork.energies_and_forces``."""
        if training:
            return super().energies_and_forces(batch, training=True)
        code = self._code("prediction")
        energies, forces = code(*self._weights.tensors(), *prediction_inputs(batch))
        return energies[: batch.n_structures], forces[: batch.species.shape[0]]

    def energies_forces_stresses(
        self, batch: LeanBatch, *, training: bool
    ) -> tuple[Float[Tensor, " n"], Float[Tensor, "N 3"], Float[Tensor, "n 3 3"]]:
        """See ``TrainingNetwork.energies_forces_stresses``."""
        if training:
            return super().energies_forces_stresses(batch, training=True)
        code = self._code("stress-prediction")
        energies, forces, stresses = code(*self._weights.tensors(), *prediction_inputs(batch))
        n = batch.n_structures
        return energies[:n], forces[: batch.species.shape[0]], stresses[:n]

    def _code(self, kind: str) -> Compiled:
        """Return a compiled function."""
        if kind not in self._loaded:
            self._loaded[kind] = _load(_find(self._potential, kind))
        return self._loaded[kind]


def require_compilable(potential: MacePotential) -> None:
    """Refuse what cannot be compiled.

    Raises:
        PotentialError: a model outside ``supports``, a device other than the CPU, or a torch
            without ahead-of-time compilation.
    """
    reason = None
    if not supports(potential):
        reason = "its hidden features are not scalars, or it is not a plain ScaleShiftMACE"
    elif potential.device.type != "cpu":
        reason = f"it is on the device {potential.device}; only updates on the CPU are compiled"
    elif not hasattr(torch._inductor, "aoti_compile_and_package"):
        reason = f"torch {torch.__version__} cannot compile ahead of time; torch >= 2.6 can"
    if reason is not None:
        raise PotentialError(
            f"compiled is True, but the updates of {potential.name} cannot be compiled: {reason}; "
            "set compiled to False"
        )


def cache_folder() -> Path:
    """Return the folder of compiled code: ``LABELWISE_CACHE`` or the user's cache."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "labelwise"


def _find(potential: MacePotential, kind: str) -> Path:
    """Return the file of a compiled function, made if it is not there."""
    path = cache_folder() / f"{kind}-{_key(potential)}.pt2"
    if not path.exists():
        _compile(potential, kind, path)
    return path


def _key(potential: MacePotential) -> str:
    """Hash whatever the code depends on: architecture, type, sources, versions, processor."""
    config = model_config(potential.model)
    shapes = [(name, list(w.shape)) for name, w in potential.model.named_parameters()]
    about = {
        "config": {key: config[key] for key in config if key not in _NOT_ARCHITECTURE},
        "weights": shapes,
        "head": potential.heads.index(potential.head),
        "dtype": str(potential.dtype),
        "sources": _hash_sources(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "processor": _processor(),
    }
    text = json.dumps(about, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:20]


@cache
def _hash_sources() -> list[str]:
    """Hash the modules that are traced, as they are when the process first asks."""
    contents = [Path(str(module.__file__)).read_bytes() for module in _SOURCES]
    return [hashlib.sha256(content).hexdigest() for content in contents]


def _processor() -> list[str]:
    """Describe the processor: compiled code may use every instruction it has."""
    about = [platform.machine(), platform.processor(), torch.backends.cpu.get_cpu_capability()]
    file = Path("/proc/cpuinfo")
    if file.exists():
        lines = file.read_text().splitlines()
        about += [line for line in lines if line.startswith(("flags", "Features"))][:1]
    return about


def _compile(potential: MacePotential, kind: str, path: Path) -> None:
    """Trace, export and compile a function, and put it in place whole or not at all."""
    make, axes = _KINDS[kind]
    weights = WeightList(potential).tensors()
    example = example_inputs(potential, axes)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent) as folder, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = make(potential, stress=kind.startswith("stress"))
            program = _export(graph, weights, example, axes)
            partial = Path(folder) / "code.pt2"
            torch._inductor.aoti_compile_and_package(program, package_path=str(partial))
            partial.replace(path)
    except (RuntimeError, OSError) as error:
        first = " ".join(str(error).strip().splitlines()[:1])
        raise PotentialError(
            f"compiled is True, but compiling the updates of {potential.name} failed "
            f"({type(error).__name__}: {first}); install a C++ compiler such as g++, make sure "
            f"that {path.parent} can be written, or set compiled to False"
        ) from error


def _export(
    graph: torch.fx.GraphModule,
    weights: Sequence[Tensor],
    example: Sequence[Tensor],
    axes: Sequence[str],
) -> torch.export.ExportedProgram:
    """Write a traced function as a program whose sizes are open."""
    sizes = {key: torch.export.Dim(key, min=2, max=top) for key, top in _MAX_SIZES.items()}
    open_axes: list[dict[int, Any] | None] = [None] * len(weights)
    for letters in axes:
        named = {axis: sizes[letter] for axis, letter in enumerate(letters) if letter != "."}
        open_axes.append(named if named else None)
    return torch.export.export(
        _Flat(graph), (*weights, *example), dynamic_shapes=[tuple(open_axes)], strict=False
    )


class _Flat(torch.nn.Module):
    """A traced graph as the module that ``torch.export`` asks for."""

    def __init__(self, graph: torch.fx.GraphModule) -> None:
        super().__init__()
        self.function = graph

    def forward(self, *inputs: Tensor) -> Any:
        return self.function(*inputs)


@lru_cache(maxsize=16)
def _load(path: Path) -> Compiled:
    """Load compiled code, once in a process."""
    code: Compiled = torch._inductor.aoti_load_package(str(path))
    return code
