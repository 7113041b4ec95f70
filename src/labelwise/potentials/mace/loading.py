"""Finding, reading and mending MACE models: the family behind ``load_potential``."""

from __future__ import annotations

import contextlib
import pickle
import sys
import warnings
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from labelwise.errors import PotentialError
from labelwise.potentials.base import Potential
from labelwise.potentials.files import check_container, list_members
from labelwise.potentials.loading import KnownModel, PotentialFamily, describe_untrusted
from labelwise.potentials.mace.checkpoint import (
    MODEL_CLASSES,
    build,
    import_mace_modules,
    mace_warnings_silenced,
)
from labelwise.potentials.mace.names import (
    BEYOND_CUTOFF,
    Download,
    find_download,
    is_polar,
    list_downloads,
)

#: Ending of checkpoints of weights alone, as ``save_potential`` writes them.
WEIGHTS_SUFFIX = ".pt"
#: Name to file and description.
_SHIPPED = {
    "demo": ("demo_potential.pt", "H C N O, GFN2-xTB, for trying things out"),
    "demo-slabs": ("slab_potential.pt", "adsorbates on seven metals, EMT, for trying things out"),
}
# What models pickled by an older mace-torch lack, with the values that it worked with.
_LATER_ATTRIBUTES: dict[str, Any] = {
    "lammps_mliap": False,
    "apply_cutoff": True,
    "edge_irreps": None,
    "use_reduced_cg": False,
    "use_agnostic_product": False,
    "use_so3": False,
    "use_last_readout_only": False,
    "use_edge_irreps_first": False,
}
_ESSENTIAL = (
    "atomic_numbers",
    "r_max",
    "node_embedding",
    "radial_embedding",
    "spherical_harmonics",
    "interactions",
    "products",
    "readouts",
    "atomic_energies_fn",
)
_GRAPH_INPUTS = {"total_charge", "total_spin", "elec_temp"}


class MaceFamily(PotentialFamily):
    """MACE models of mace-torch, from files, by name, or shipped with the package."""

    name = "mace"
    package = "mace"
    extra = "mace"

    def known_models(self) -> list[KnownModel]:
        """List what can be loaded by name."""
        shipped = [
            KnownModel(name, self.name, "shipped", "as Labelwise", note)
            for name, (_, note) in _SHIPPED.items()
        ]
        downloads = [
            KnownModel(name, self.name, "download", each.licence, each.note)
            for name, each in list_downloads().items()
        ]
        return [*shipped, *downloads]

    def recognises(self, spec: str) -> bool:
        """Take every known name, and every file: this family is asked last."""
        is_known = spec in _SHIPPED or find_download(spec) is not None
        wanted = not self.is_installed and spec.startswith("mace-")
        is_known = is_known or is_polar(spec)
        return is_known or wanted or Path(spec).expanduser().exists()

    def load(
        self,
        spec: str,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        head: str | None,
        trust: bool,
    ) -> Potential:
        """See ``labelwise.potentials.load_potential``."""
        if is_polar(spec):
            raise PotentialError(f"{spec}: {BEYOND_CUTOFF}")
        import_mace_modules()
        download = find_download(spec)
        with mace_warnings_silenced():
            if spec in _SHIPPED:
                model = _read_shipped(spec)
            elif download is not None:
                model = _download(spec, download)
            else:
                model = _read_file(Path(spec).expanduser(), trust=trust)
        is_name = spec in _SHIPPED or download is not None
        name = spec if is_name else str(Path(spec))
        return make_potential(model, name=name, device=device, dtype=dtype, head=head)


def make_potential(
    model: Any,
    *,
    name: str,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    head: str | None = None,
) -> Potential:
    """Check and mend a mace-torch model in memory, move it, and wrap it.

    Args:
        model: What a ``.model`` file held.
        name: What to call it, in messages and results.
        device: Where it is wanted.
        dtype: Floating-point type wanted, by default its own.
        head: See ``load_potential``.

    Returns:
        The potential; the model is used as it is, not copied.

    Raises:
        PotentialError: not a MACE energy model, one that lacks what it needs, or one that
            fails on a pair of atoms.
    """
    from labelwise.potentials.mace.potential import MacePotential

    mend(model, name)
    with mace_warnings_silenced():
        model = model.to(device=device, dtype=dtype)
        potential = MacePotential(model, name=name, head=head)
        _try_out(potential)
    return potential


def mend(model: Any, name: str) -> None:
    """Give a model the attributes that mace-torch added later, in place.

    Args:
        model: What a ``.model`` file held.
        name: What to call it in messages.

    Raises:
        PotentialError: not a MACE energy model, or essential parts are missing.
    """
    kind = type(model).__name__
    if kind == "PolarMACE":
        raise PotentialError(f"{name}: {BEYOND_CUTOFF}")
    if kind not in MODEL_CLASSES:
        raise PotentialError(
            f"{name} holds a {kind}; Labelwise takes {' and '.join(MODEL_CLASSES)} models"
        )
    missing = [part for part in _ESSENTIAL if not hasattr(model, part)]
    if missing:
        raise PotentialError(
            f"{name} lacks {', '.join(missing)}: it was written by a mace-torch too old to be "
            "mended; load it with that version, save its weights, and load them into a new model"
        )
    if type(model.node_embedding.linear).__name__ != "Linear" or not hasattr(
        model.node_embedding.linear, "instructions"
    ):
        raise PotentialError(
            f"{name} was converted to an accelerated backend; convert it back with mace-torch's "
            "mace_cueq_to_e3nn and load that"
        )
    if not hasattr(model, "heads"):
        energies = model.atomic_energies_fn.atomic_energies
        n_heads = len(energies) if energies.dim() == 2 else 1
        model.heads = ["Default"] if n_heads == 1 else [f"head_{i}" for i in range(n_heads)]
    for attribute, value in _LATER_ATTRIBUTES.items():
        if not hasattr(model, attribute):
            setattr(model, attribute, value)
    unknown = set(getattr(model, "embedding_specs", None) or {}) - _GRAPH_INPUTS
    if unknown:
        raise PotentialError(
            f"{name} wants the inputs {', '.join(sorted(unknown))}; Labelwise gives "
            f"{', '.join(sorted(_GRAPH_INPUTS))}"
        )


def _try_out(potential: Potential) -> None:
    """Evaluate one pair of atoms, so that an unusable model is refused now, with a remedy."""
    pair = Atoms(numbers=[potential.elements[0]] * 2, positions=[[0, 0, 0], [0, 0, 1.0]])
    batch = potential.collate([potential.prepare(pair)])
    try:
        potential.energy_tangent(batch)
    except (AttributeError, KeyError, TypeError, IndexError, RuntimeError) as error:
        raise PotentialError(
            f"{potential.name} loads, but fails on a pair of atoms: {error}; it was written by a "
            "mace-torch that differs too much from the installed one: install the version that "
            "wrote it, or save its weights there and load them into a new model"
        ) from error


def _read_shipped(name: str) -> torch.nn.Module:
    resource = files("labelwise.potentials.mace") / "models" / _SHIPPED[name][0]
    if not resource.is_file():
        raise PotentialError(f"the shipped model {name!r} is missing; install Labelwise again")
    try:
        with resource.open("rb") as stream:
            return build(torch.load(stream, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise PotentialError(
            f"the shipped model {name!r} holds more than weights and plain values: {error}; "
            "write it again with save_checkpoint, or install Labelwise again"
        ) from error


def _download(name: str, download: Download) -> Any:
    """Load a named model with mace-torch's own loaders, which print and may download."""
    from mace.calculators import foundations_models as loaders

    load = getattr(loaders, download.loader)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            return load(model=download.key, device="cpu", return_raw_model=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        cause = error.__cause__ if error.__cause__ is not None else error
        raise PotentialError(
            f"{name} could not be had: {cause}; check the network, or download the file on "
            "another machine and give its path"
        ) from error


def _read_file(path: Path, *, trust: bool) -> Any:
    """Read a model file; only a file that is trusted is unpickled, and never a ``.pt``."""
    check_container(path)
    _refuse_compiled(path)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Detected pickle protocol", UserWarning)
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or hostile file leads to
        if path.suffix.lower() == WEIGHTS_SUFFIX:
            raise PotentialError(_explain_weights(path, error)) from None
        if not (trust or _from_known_loaders(path)):
            raise PotentialError(describe_untrusted(path)) from None
        return _unpickle(path)
    if isinstance(content, dict) and "format_version" in content:
        return build(content)
    raise PotentialError(
        f"{path} holds {_describe(content)}, not a model; give the .model file that mace-torch "
        "wrote at the end of the training, or a checkpoint of Labelwise"
    )


def _refuse_compiled(path: Path) -> None:
    members = list_members(path)
    if any("/code/" in name or name.endswith("/constants.pkl") for name in members):
        raise PotentialError(
            f"{path} is compiled TorchScript (for LAMMPS or another engine), which gives no "
            "features; give the .model file that it was made from"
        )


def _explain_weights(path: Path, error: Exception) -> str:
    """Say why a ``.pt`` is refused, without torch's advice to load it all the same."""
    found = "more than weights" if isinstance(error, pickle.UnpicklingError) else "no weights"
    return (
        f"{path} holds {found}, or is damaged; a {WEIGHTS_SUFFIX} file is read as weights alone, "
        "which runs no code, whatever is trusted: put back the checkpoint that Labelwise wrote. "
        "A whole model of mace-torch that you trust can be loaded under a name that ends in .model"
    )


def _unpickle(path: Path) -> Any:
    """Load a file that is trusted by running the code in it."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise anything
        raise PotentialError(
            f"{path} cannot be unpickled: {type(error).__name__}: {error}; it is damaged, not a "
            "model, or written with another version of torch, e3nn or mace-torch"
        ) from error
    if not isinstance(content, torch.nn.Module):
        raise PotentialError(f"{path} holds {_describe(content)}, not a model")
    return content


def _describe(content: object) -> str:
    if isinstance(content, dict):
        keys = ", ".join(str(key) for key in list(content)[:4])
        return f"a dictionary ({keys}, ...), perhaps weights alone or a training checkpoint,"
    return f"a {type(content).__name__}"


def _from_known_loaders(path: Path) -> bool:
    from mace.tools.utils import get_cache_dir

    return path.resolve().is_relative_to(Path(get_cache_dir()).resolve())
