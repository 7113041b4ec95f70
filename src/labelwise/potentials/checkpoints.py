"""Families whose models are torch checkpoints, some of them inside the family's own package."""

from __future__ import annotations

import contextlib
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch

from labelwise.errors import MissingDependencyError, PotentialError
from labelwise.potentials.files import read_words
from labelwise.potentials.loading import KnownModel, PotentialFamily


class Shipped(NamedTuple):
    """A model inside a family's package.

    Attributes:
        file: Its path below the package's folder.
        note: What it knows, in a few words.
    """

    file: str
    note: str


class CheckpointFamily(PotentialFamily):
    """A family of checkpoints that hold weights and plain values.

    Attributes:
        package: As in ``PotentialFamily``; here every family has one.
        shipped: The models inside the package, by name.
        licence: Of those.
        keys: Of dictionaries in every checkpoint, by which it is recognised.
        harmless: Types besides tensors and plain values that a checkpoint may hold, as
            ``torch.serialization.safe_globals`` takes them.
    """

    package: ClassVar[str]
    shipped: ClassVar[Mapping[str, Shipped]]
    licence: ClassVar[str]
    keys: ClassVar[frozenset[str]]
    harmless: ClassVar[Sequence[Any]] = ()

    def known_models(self) -> list[KnownModel]:
        """List what can be loaded by name."""
        return [
            KnownModel(name, self.name, "package", self.licence, model.note)
            for name, model in self.shipped.items()
        ]

    def recognises(self, spec: str) -> bool:
        """Take the known names, and checkpoints by what is in them."""
        path = Path(spec).expanduser()
        return spec in self.shipped or (path.is_file() and read_words(path) >= self.keys)

    def read(self, spec: str) -> dict[str, Any]:
        """Read a checkpoint, which runs no code.

        Args:
            spec: The path of a file, or the name of a model inside the package.

        Raises:
            PotentialError: There is more in it than weights and numbers, or it is damaged.
            MissingDependencyError: A model by name, and the package is not installed.
        """
        path = self._find_shipped(spec) if spec in self.shipped else Path(spec).expanduser()
        try:
            with torch.serialization.safe_globals(list(self.harmless)):
                content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a damaged or hostile file leads to
            raise PotentialError(
                f"{path} holds more than weights and numbers, or is damaged: "
                f"{str(error).splitlines()[0]}; give the checkpoint that {self.package} wrote in "
                "training"
            ) from None
        return content

    def _find_shipped(self, name: str) -> Path:
        found = find_spec(self.package)
        if found is None or not found.submodule_search_locations:
            raise MissingDependencyError(self.package, str(self.extra), f"loading {name}")
        return Path(found.submodule_search_locations[0]) / self.shipped[name].file


def import_quietly(module: str, *, extra: str, purpose: str) -> Any:
    """Import a module of a family's package, and return it.

    Args:
        module: For instance ``chgnet.model.model``; the package has its first word's name.
        extra: The extra of Labelwise that installs the package.
        purpose: What needs it, for the message.

    Raises:
        MissingDependencyError: It is not installed.
    """
    try:
        with silenced():
            return import_module(module)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(module.partition(".")[0], extra, purpose) from error


@contextmanager
def silenced() -> Iterator[None]:
    """Silence what a family's package prints and warns of while it is imported or builds."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        yield
