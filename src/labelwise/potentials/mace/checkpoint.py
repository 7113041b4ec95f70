"""MACE checkpoints without code: hyperparameters as plain values, and weights.

The dictionary ::

    {"format_version": 1, "model_class": "ScaleShiftMACE", "config": {...}, "state_dict": {...}}

is read with ``torch.load(..., weights_only=True)``, which runs no code, unlike mace-torch's
own ``.model`` files, which are pickles. ``config`` holds the keyword arguments of the model's
class, with irreps, classes and gates as strings and arrays as lists.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import pickle
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch

from labelwise.errors import MissingDependencyError, PotentialError
from labelwise.potentials.torch_potential import default_dtype

FORMAT_VERSION = 1
MODEL_CLASSES = ("ScaleShiftMACE", "MACE")

_RADIAL_TYPES = {
    "BesselBasis": "bessel",
    "GaussianBasis": "gaussian",
    "ChebychevBasis": "chebyshev",
}
_TRANSFORMS = {"AgnesiTransform": "Agnesi", "SoftTransform": "Soft"}
_GATES = {"silu": torch.nn.functional.silu, "tanh": torch.tanh, "abs": torch.abs}
_CLASS_ARGUMENTS = ("interaction_cls", "interaction_cls_first", "readout_cls")
_IRREPS_ARGUMENTS = ("hidden_irreps", "MLP_irreps", "edge_irreps")
#: Arguments that a model keeps among its weights.
_WEIGHTS = ("atomic_energies", "atomic_inter_scale", "atomic_inter_shift")


@contextmanager
def mace_warnings_silenced() -> Iterator[None]:
    """Silence what importing and loading mace-torch says about torch, and nothing else."""
    with warnings.catch_warnings():
        for message, category in (
            (r"`torch\.jit\.\w+` is (deprecated|not supported)", Warning),
            ("Environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", UserWarning),
            ("The TorchScript type system doesn't support instance-level annotations", UserWarning),
        ):
            warnings.filterwarnings("ignore", message=message, category=category)
        yield


def import_mace_modules() -> Any:
    """Import ``mace.modules`` and return it.

    Importing mace-torch sets the environment variable TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD; nothing
    here relies on it, and nothing here imports mace-torch before a MACE model is asked for.

    Raises:
        MissingDependencyError: mace-torch is not installed.
    """
    try:
        # Standard output belongs to the user.
        printed = io.StringIO()
        with mace_warnings_silenced(), contextlib.redirect_stdout(printed):
            import mace.modules
    except ModuleNotFoundError as error:
        raise MissingDependencyError("mace-torch", "mace", "loading a MACE model") from error
    for line in printed.getvalue().splitlines():
        if not line.startswith("cuequivariance or cuequivariance_torch is not available"):
            sys.stderr.write(f"{line}\n")
    return mace.modules


def build(checkpoint: Mapping[str, Any]) -> torch.nn.Module:
    """Make a model of a checkpoint.

    Torch's default type and random numbers are left as they were.

    Args:
        checkpoint: What ``save_checkpoint`` returned, or ``torch.load`` read.

    Returns:
        The model on the CPU, in the floating-point type of its weights.

    Raises:
        PotentialError: another format version or class, or a configuration and weights that
            do not belong together.
        MissingDependencyError: mace-torch is not installed.
    """
    version = checkpoint.get("format_version")
    if version != FORMAT_VERSION:
        raise PotentialError(
            f"checkpoint has format version {version!r}; this Labelwise reads {FORMAT_VERSION}: "
            "update Labelwise, or write the checkpoint again"
        )
    class_name = checkpoint.get("model_class")
    if class_name not in MODEL_CLASSES:
        raise PotentialError(
            f"model_class is {class_name!r}; allowed are {', '.join(MODEL_CLASSES)}"
        )
    import_mace_modules()
    try:
        state = checkpoint["state_dict"]
        dtype = state["node_embedding.linear.weight"].dtype
        model = make_module(class_name, checkpoint["config"], dtype)
        model.load_state_dict(state)
    except (AttributeError, KeyError, TypeError, ValueError, RuntimeError, AssertionError) as error:
        raise PotentialError(
            f"the configuration and the weights of this {class_name} checkpoint do not make a "
            f"model with the installed mace-torch: {error}"
        ) from error
    return model


def make_module(class_name: str, config: Mapping[str, Any], dtype: torch.dtype) -> torch.nn.Module:
    """Make a model of a ``config``, for its weights to be loaded.

    Args:
        class_name: One of ``MODEL_CLASSES``.
        config: See the top of this module.
        dtype: Its floating-point type.

    Returns:
        The model on the CPU.
    """
    text = json.dumps(_without_weights(config), sort_keys=True)
    with mace_warnings_silenced():
        pickled = _pickled_model(class_name, text, dtype)
        model: torch.nn.Module = pickle.loads(pickled)  # noqa: S301  # our own bytes
    return model


def _without_weights(config: Mapping[str, Any]) -> dict[str, Any]:
    """Put zeros in place of the values that are among the weights, too."""
    zeros = {key: np.zeros_like(config[key]).tolist() for key in _WEIGHTS if key in config}
    return {**config, **zeros}


@lru_cache(maxsize=8)
def _pickled_model(class_name: str, config: str, dtype: torch.dtype) -> bytes:
    """Make a model for its weights to be loaded: 0.6 s of compiling, 0.07 s to unpickle."""
    modules = import_mace_modules()
    arguments = _arguments(json.loads(config), modules)
    with default_dtype(dtype), torch.random.fork_rng(devices=[]), mace_warnings_silenced():
        return pickle.dumps(getattr(modules, class_name)(**arguments).to(dtype))


def save_checkpoint(model: torch.nn.Module) -> dict[str, Any]:
    """Return a model's hyperparameters and weights as plain values and tensors.

    ``torch.save`` writes the result and ``build`` makes the same model of it.

    Args:
        model: A ``MACE`` or ``ScaleShiftMACE``.

    Returns:
        The dictionary described at the top of this module, tensors on the CPU.

    Raises:
        PotentialError: another class of model, or parts that its class does not build.
    """
    state = {key: value.detach().cpu().clone() for key, value in model.state_dict().items()}
    return {
        "format_version": FORMAT_VERSION,
        "model_class": type(model).__name__,
        "config": model_config(model),
        "state_dict": state,
    }


def hash_model(model: torch.nn.Module, *, head: str) -> str:
    """Hash a model's class, hyperparameters, weights and head.

    Args:
        model: A ``MACE`` or ``ScaleShiftMACE``.
        head: The head in use.

    Returns:
        64 hex digits, the same on every machine and after saving and loading.
    """
    config = {"model_class": type(model).__name__, "head": head, **model_config(model)}
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for key, value in sorted(model.state_dict().items()):
        array = value.detach().cpu().contiguous().numpy()
        digest.update(f"{key} {array.dtype.str} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def model_config(model: Any) -> dict[str, Any]:
    """Read off the keyword arguments that make a model, as plain values.

    Args:
        model: A ``MACE`` or ``ScaleShiftMACE``.

    Returns:
        Keyword arguments with irreps, classes and gates as strings and arrays as lists.

    Raises:
        PotentialError: another class of model, or parts that its class does not build.
    """
    name = type(model).__name__
    if name not in MODEL_CLASSES:
        raise PotentialError(f"a {name} has no weights-only form; only {', '.join(MODEL_CLASSES)}")
    added = {type(each).__name__ for each in model.modules() if "LoRA" in type(each).__name__}
    if added:
        raise PotentialError(
            f"a model with {', '.join(sorted(added))} has no weights-only form; merge the low-rank "
            "weights into the others first, with mace-torch's merge_lora_weights"
        )
    config = {
        **_radial_config(model),
        **_layer_config(model),
        **_readout_config(model),
        "atomic_numbers": [int(z) for z in model.atomic_numbers],
        "num_elements": len(model.atomic_numbers),
        "atomic_energies": model.atomic_energies_fn.atomic_energies.tolist(),
        "heads": [str(head) for head in getattr(model, "heads", ["Default"])],
        "embedding_specs": getattr(model, "embedding_specs", None),
        "use_embedding_readout": hasattr(model, "embedding_readout"),
    }
    if hasattr(model, "scale_shift"):
        config["atomic_inter_scale"] = model.scale_shift.scale.tolist()
        config["atomic_inter_shift"] = model.scale_shift.shift.tolist()
    return config


def _radial_config(model: Any) -> dict[str, Any]:
    radial = model.radial_embedding
    transform = getattr(radial, "distance_transform", None)
    return {
        "r_max": float(model.r_max),
        "num_bessel": int(radial.out_dim),
        "num_polynomial_cutoff": int(radial.cutoff_fn.p),
        "radial_type": _name_of(radial.bessel_fn, _RADIAL_TYPES),
        "distance_transform": "None" if transform is None else _name_of(transform, _TRANSFORMS),
        "apply_cutoff": bool(getattr(radial, "apply_cutoff", True)),
        "pair_repulsion": hasattr(model, "pair_repulsion_fn"),
    }


def _name_of(module: Any, names: Mapping[str, str]) -> str:
    """Return mace-torch's argument for a part of the model."""
    kind = type(module).__name__
    if kind not in names:
        raise PotentialError(
            f"a model with a {kind} has no weights-only form; only with {', '.join(names)}"
        )
    return names[kind]


def _layer_config(model: Any) -> dict[str, Any]:
    first, last = model.interactions[0], model.interactions[-1]
    widths = getattr(first.conv_tp_weights, "hs", [0, 64, 64, 64, 0])
    edge_irreps = getattr(model, "edge_irreps", None)
    n_layers = len(model.interactions)
    return {
        "num_interactions": n_layers,
        "interaction_cls_first": type(first).__name__,
        "interaction_cls": type(last).__name__,
        "max_ell": int(model.spherical_harmonics._lmax),
        "hidden_irreps": str(model.products[0].linear.irreps_out),
        "keep_last_layer_irreps": n_layers > 1 and model.products[-1].linear.irreps_out.lmax > 0,
        "edge_irreps": None if edge_irreps is None else str(edge_irreps),
        "use_edge_irreps_first": bool(getattr(model, "use_edge_irreps_first", False)),
        "radial_MLP": [int(width) for width in widths[1:-1]],
        "avg_num_neighbors": float(first.avg_num_neighbors),
        "correlation": [
            len(product.symmetric_contractions.contractions[0].weights) + 1
            for product in model.products
        ],
        "use_so3": bool(getattr(model, "use_so3", False)),
        "use_reduced_cg": _reduced_couplings(model),
        "use_agnostic_product": bool(getattr(model, "use_agnostic_product", False)),
    }


def _readout_config(model: Any) -> dict[str, Any]:
    readout = model.readouts[-1]
    config = {
        "use_last_readout_only": bool(getattr(model, "use_last_readout_only", False)),
        "MLP_irreps": "16x0e",
        "gate": None,
    }
    if not hasattr(readout, "hidden_irreps"):
        return config
    n_heads = len(getattr(model, "heads", ["Default"]))
    per_head = [f"{part.mul // n_heads}x{part.ir}" for part in readout.hidden_irreps]
    config.update(MLP_irreps="+".join(per_head), readout_cls=type(readout).__name__)
    activations = getattr(getattr(readout, "non_linearity", None), "acts", None)
    if activations is not None and len(activations) > 0 and activations[0] is not None:
        config["gate"] = _gate_name(activations[0].f)
    return config


def _gate_name(gate: Any) -> str:
    names = [name for name, function in _GATES.items() if function is gate]
    if not names:
        raise PotentialError(f"the gate {gate!r} is not one of {', '.join(_GATES)}")
    return names[0]


def _reduced_couplings(model: Any) -> bool:
    """Tell whether the reduced coupling basis is in use.

    The attribute alone does not tell: mace-torch sets it by default and builds the whole basis all
    the same where cuEquivariance is missing. So the couplings are counted.
    """
    if not getattr(model, "use_reduced_cg", False):
        return False
    contractions = model.products[0].symmetric_contractions
    first = contractions.contractions[0]
    order = len(first.weights) + 1
    irrep_out = str(contractions.irreps_out[0].ir)
    n_whole = _count_couplings(str(first.coupling_irreps), irrep_out, order)
    return int(first.U_tensors(order).shape[-1]) != n_whole


@cache
def _count_couplings(irreps_in: str, irrep_out: str, order: int) -> int:
    """Return how many couplings the whole basis has."""
    from e3nn import o3
    from mace.tools.cg import U_matrix_real

    couplings = U_matrix_real(
        irreps_in=o3.Irreps(irreps_in),
        irreps_out=o3.Irreps(irrep_out),
        correlation=order,
        dtype=torch.float64,
        use_cueq_cg=False,
    )
    return int(couplings[-1].shape[-1])


def _arguments(config: Mapping[str, Any], modules: Any) -> dict[str, Any]:
    """Turn plain values back into what the model's class takes."""
    from e3nn import o3

    arguments = dict(config)
    for key in _CLASS_ARGUMENTS:
        if isinstance(arguments.get(key), str):
            arguments[key] = _find_block(modules.blocks, arguments[key])
    for key in _IRREPS_ARGUMENTS:
        if isinstance(arguments.get(key), str):
            arguments[key] = o3.Irreps(arguments[key])
    if isinstance(arguments.get("gate"), str):
        arguments["gate"] = _GATES[arguments["gate"]]
    return arguments


def _find_block(blocks: Any, name: str) -> Any:
    """Return a class of network blocks by its name, and nothing else that can be called."""
    found = getattr(blocks, name, None)
    if not (isinstance(found, type) and issubclass(found, torch.nn.Module)):
        raise TypeError(f"{name!r} is no block of mace-torch")
    return found
