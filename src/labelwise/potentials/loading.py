"""Model families and ``load_potential``, which asks each of them."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import torch

from labelwise.errors import (
    ArgumentError,
    PotentialError,
    UnknownNameError,
    check_name,
    suggest,
)
from labelwise.potentials.base import Potential
from labelwise.potentials.spec import ModelSpec, split_family
from labelwise.runtime.plugins import load_plugins

_DTYPES = {"float32": torch.float32, "float64": torch.float64}
_DEVICES = ("auto", "cpu", "cuda", "mps")
_LAST = "mace"


@dataclass(frozen=True)
class KnownModel:
    """A model that can be loaded by name.

    Attributes:
        name: What ``load_potential`` takes.
        family: The family that loads it.
        source: Where it comes from: ``shipped`` with Labelwise, ``package`` if it lies inside
            the family's own package, or ``download``.
        licence: Under which it may be used, as far as it is known; else empty.
        note: What it was trained on or is for, in a few words.
    """

    name: str
    family: str
    source: str
    licence: str = ""
    note: str = ""


class PotentialFamily(ABC):
    """One kind of model; ``docs/adding_a_potential.md`` shows how to add one.

    Attributes:
        name: What users call it.
        package: The module that it needs, as it is imported; None if it needs none.
        extra: The extra of Labelwise that installs it; None if none does.
    """

    name: ClassVar[str]
    package: ClassVar[str | None] = None
    extra: ClassVar[str | None] = None

    def known_models(self) -> Sequence[KnownModel]:
        """List what can be loaded by name, without importing the family's package."""
        return ()

    @abstractmethod
    def recognises(self, spec: str) -> bool:
        """Tell whether this family should load ``spec``, a name or the path of a file.

        A file is recognised by what is in it, whether or not the family's package is installed.
        """

    @abstractmethod
    def load(
        self,
        spec: str,
        *,
        device: torch.device,
        dtype: torch.dtype | None,
        head: str | None,
        trust: bool,
    ) -> Potential:
        """Load it; see ``load_potential``.

        Raises:
            MissingDependencyError: The family's package is not installed.
        """

    @property
    def is_installed(self) -> bool:
        """Whether the package that it needs can be found; it is not imported."""
        return self.package is None or find_spec(self.package) is not None


@runtime_checkable
class HasKernels(Protocol):
    """A potential that can be evaluated by more than one implementation."""

    def with_kernels(self, cueq: bool | None) -> Potential:
        """Return the potential with or without cuEquivariance; see ``load_potential``."""


@cache
def _families() -> dict[str, PotentialFamily]:
    """Return the families by name, to be added to."""
    from labelwise.potentials.chgnet.loading import CHGNetFamily  # which imports this module
    from labelwise.potentials.mace.loading import MaceFamily
    from labelwise.potentials.mlip.loading import MlipFamily
    from labelwise.potentials.sevennet.loading import SevenNetFamily

    families = (MaceFamily(), SevenNetFamily(), CHGNetFamily(), MlipFamily())
    return {each.name: each for each in families}


def list_families() -> list[PotentialFamily]:
    """List the families of models, those of plugins too, in order of registration."""
    load_plugins("potentials")
    return list(_families().values())


def _find_family(spec: str) -> tuple[PotentialFamily, str]:
    """Return the family of a model, and its name or path.

    MACE is asked last: it takes every file that is left, and says what is wrong with it.

    Raises:
        PotentialError: There is no such file or name.
        UnknownNameError: There is no such family.
    """
    named, rest = split_family(spec)
    if named is not None:
        families = {family.name: family for family in list_families()}
        check_name("family", named, families)
        if not (families[named].recognises(rest) or Path(rest).expanduser().exists()):
            raise PotentialError(_unknown(rest))
        return families[named], rest
    for family in _families().values():
        if any(model.name == spec for model in family.known_models()):
            return family, spec
    for families in (_families(), {each.name: each for each in list_families()}):
        asked = (family for family in families.values() if family.name != _LAST)
        found = next((family for family in asked if family.recognises(spec)), None)
        if found is not None:
            return found, spec
    last = _families()[_LAST]
    if not last.recognises(spec):
        raise PotentialError(_unknown(spec))
    return last, spec


def register_potential(family: PotentialFamily) -> None:
    """Let a model family take part in ``load_potential``.

    Example:
        >>> from labelwise import load_potential, register_potential
        >>> from labelwise.potentials.loading import PotentialFamily
        >>> class Mine(PotentialFamily):
        ...     name = "mine"
        ...     def recognises(self, spec):
        ...         return spec.endswith(".mine")
        ...     def load(self, spec, *, device, dtype, head, trust):
        ...         return load_potential("demo", device=str(device), dtype=dtype)
        >>> register_potential(Mine())
        >>> len(load_potential("mine:any.mine").elements)
        4

    Raises:
        ArgumentError: the name is taken.
    """
    families = _families()
    if family.name in families:
        raise ArgumentError(f"a potential family called {family.name!r} is registered already")
    families[family.name] = family


def list_models() -> list[KnownModel]:
    """List the models that can be loaded by name, families in order of registration."""
    return [model for family in list_families() for model in family.known_models()]


def load_potential(
    spec: str | PathLike[str],
    *,
    device: str = "auto",
    dtype: str | torch.dtype | None = None,
    head: str | None = None,
    trust: bool = False,
    cueq: bool | None = None,
) -> Potential:
    """Load a pretrained potential.

    A mace-torch ``.model`` file is a pickle: **loading it runs code from the file**. It is refused
    unless ``trust`` is set or it came from mace-torch's own downloads. A ``.pt`` is a weights-only
    checkpoint, as ``save_potential`` writes it: it runs no code, needs no trust, and whatever
    else has that ending is refused.

    Args:
        spec: Path of a model file, whose family is recognised by its content, or a name from
            ``list_models``, for instance ``mace-off-small``, ``7net-0``, ``demo``; or either
            behind a family's name and a colon, as in ``mace:trained.model``.
        device: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto``: cuda if there is one, else cpu.
        dtype: ``float32`` or ``float64``; by default that of the checkpoint.
        head: Head of a multi-head model; may be omitted if there is one head, or one that is
            called ``default``.
        trust: Unpickle the file, which runs code from it; say so only of a file whose origin
            you trust.
        cueq: Evaluate a MACE model's convolutions and contractions with NVIDIA's
            cuEquivariance (True) or without (False). Rows, weights and hashes mean the same
            either way. By default the environment variable ``LABELWISE_CUEQ`` decides, which
            is ``on``, ``off`` or, where it is not set, ``auto``: on a CUDA device where
            cuequivariance-torch and cuequivariance-ops-torch are installed. Energies, forces,
            tangents and activations of five atoms are compared before it is used.

    Returns:
        The potential, its weights frozen.

    Raises:
        PotentialError: no such file or name, not a model, a damaged file, a pickle that is not
            trusted, a failed download, an unknown head; cuEquivariance was asked for and cannot
            evaluate the model.
        ArgumentError: unknown device or type, or a device that is not there.
        MissingDependencyError: the package that the model needs is not installed, or
            cuEquivariance was asked for and is not.

    Example:
        >>> import labelwise as lw
        >>> lw.load_potential("demo", device="cpu")
        MacePotential('demo', 4 elements (H, C, N, O), cutoff 4.5 Å, float32 on cpu)

    Warns:
        KernelWarning: cuEquivariance was chosen automatically and fails, or gives other
            results; the model is evaluated without it.
    """
    family, name = _find_family(str(spec))
    with torch.random.fork_rng(devices=[]):  # a network is drawn before its weights are read
        potential = family.load(
            name,
            device=resolve_device(device),
            dtype=resolve_dtype(dtype),
            head=head,
            trust=trust,
        )
    if isinstance(potential, HasKernels):
        return potential.with_kernels(cueq)
    if cueq:
        raise PotentialError(
            f"{potential.name} is a {type(potential).__name__}, which cuEquivariance cannot "
            "evaluate; only MACE potentials can use it: leave cueq out"
        )
    return potential


def load_model(spec: ModelSpec, *, device: str | None = None) -> Potential | None:
    """Load the model that is asked for; None if none is.

    Args:
        spec: The model, and how it is loaded.
        device: In place of the one that was asked for.

    Raises:
        LabelwiseError: As ``load_potential``.
    """
    if spec.path is None:
        return None
    return load_potential(
        spec.path,
        device=spec.device if device is None else device,
        dtype=spec.dtype,
        head=spec.head,
        trust=spec.trust,
    )


def require_model(spec: ModelSpec) -> Potential:
    """Load the model that is asked for.

    Raises:
        ArgumentError: None is.
        LabelwiseError: As ``load_potential``.
    """
    potential = load_model(spec)
    if potential is None:
        raise ArgumentError("no model is given: name a file or a model, such as 'demo'")
    return potential


def as_potential(potential: Potential | str | PathLike[str]) -> Potential:
    """Return a potential, which is loaded if it was given by name or path.

    Raises:
        ArgumentError: It is neither.
        PotentialError: It cannot be loaded; see ``load_potential``.
    """
    if isinstance(potential, Potential):
        return potential
    if isinstance(potential, str | PathLike):
        return load_potential(potential)
    raise ArgumentError(
        f"potential is a {type(potential).__name__}: give what load_potential returns, or the name "
        "or path that it takes, such as 'demo'"
    )


def find_model_file(spec: str) -> Path | None:
    """Return the file that ``load_potential`` reads; None for a known name, or if there is none.

    Args:
        spec: What ``load_potential`` takes.
    """
    _, name = split_family(spec)
    path = Path(name).expanduser()
    is_known = any(model.name == name for model in list_models())
    return path if path.is_file() and not is_known else None


def describe_untrusted(path: str | PathLike[str]) -> str:
    """Return why a pickle is refused; for families whose models are files of that kind.

    Args:
        path: The file, which nobody said to trust.
    """
    return (
        f"{path} is a pickle, and loading it runs code from it: pass --trust-model (trust=True; "
        "in a campaign's or study's YAML file, model: trust: true) if you trust where it came "
        "from, or on a machine where you do, convert it to weights alone with "
        "labelwise.save_potential(potential, 'name.pt')"
    )


def resolve_device(device: str) -> torch.device:
    """Turn a device's name into a device that is there.

    Raises:
        ArgumentError: unknown name, or no such device in this machine.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in _DEVICES or (index and not index.isdigit()):
        raise UnknownNameError(
            f"device is {device!r}; allowed are auto, {', '.join(_DEVICES)} and cuda:<n>"
            f"{suggest(kind, _DEVICES)}"
        )
    n_cuda = torch.cuda.device_count()
    if kind == "cuda" and int(index or 0) >= n_cuda:
        raise ArgumentError(f"device is {device!r}, but this machine has {n_cuda} CUDA devices")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise ArgumentError("device is 'mps', which this machine does not have; use cpu")
    return torch.device(device)


def resolve_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """Turn a floating-point type's name into the type; None stays None.

    Raises:
        ArgumentError: neither ``float32`` nor ``float64``.
    """
    if dtype is None or dtype in _DTYPES.values():
        return dtype if isinstance(dtype, torch.dtype) else None
    check_name("dtype", dtype, _DTYPES)
    return _DTYPES[str(dtype)]


def _unknown(spec: str) -> str:
    names = [model.name for model in list_models()]
    close = difflib.get_close_matches(spec, names, n=3)
    hint = f"; did you mean {' or '.join(close)}?" if close else ""
    return (
        f"model is {spec!r}, which is neither a file nor a known name{hint} "
        f"(known: {', '.join(names)})"
    )
