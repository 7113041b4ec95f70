"""The zip archives that mlip saves models in: settings as JSON, weights as NumPy arrays.

Reading one runs nothing and needs neither mlip nor JAX. Names of weights are paths of modules,
joined by ``#`` in the file and by ``/`` here.
"""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from labelwise.errors import PotentialError
from labelwise.potentials.files import DAMAGE, list_members

_SETTINGS, _WEIGHTS = "hyperparams.json", "params.npz"
_ROOT = "params/mlip_network/"
_IN_FILE, _HERE = "#", "/"
# Settings or arrays that are not there, or not what they should be.
_DAMAGE = (*DAMAGE, KeyError, AttributeError, TypeError)


@dataclass(frozen=True)
class ModelArchive:
    """What a saved model consists of.

    Attributes:
        settings: ``config`` (of the architecture), ``dataset_info`` (elements, cutoff, reference
            energies, ...) and what else mlip wrote.
        weights: Arrays by the path of their module in the network, ``layers_0/...``.
    """

    settings: dict[str, Any]
    weights: Mapping[str, NDArray[Any]]


def is_archive(path: Path) -> bool:
    """Tell whether a file is a saved model of mlip's, by what is in it."""
    try:
        return path.is_file() and {_SETTINGS, _WEIGHTS} <= set(list_members(path))
    except PotentialError:
        return False


def read_archive(path: Path) -> ModelArchive:
    """Read a saved model.

    Raises:
        PotentialError: The file is damaged, or holds more than numbers and plain values.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            settings = json.loads(archive.read(_SETTINGS))
            content = io.BytesIO(archive.read(_WEIGHTS))
        with np.load(content, allow_pickle=False) as arrays:
            named = {name.replace(_IN_FILE, _HERE): arrays[name] for name in arrays.files}
        weights = {name.removeprefix(_ROOT): array for name, array in named.items()}
        for part in ("config", "dataset_info"):
            settings[part].keys()
    except _DAMAGE as error:
        raise PotentialError(
            f"{path} holds more than weights and plain values, or is damaged: {error}; give the "
            "archive that mlip's save_model_to_zip wrote"
        ) from None
    return ModelArchive(settings, weights)


def write_archive(stream: IO[bytes], archive: ModelArchive) -> None:
    """Write a model as mlip saves it."""
    named = {(_ROOT + k).replace(_HERE, _IN_FILE): array for k, array in archive.weights.items()}
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **named)
    with zipfile.ZipFile(stream, "w") as target:
        target.writestr(_SETTINGS, json.dumps(archive.settings))
        target.writestr(_WEIGHTS, content.getvalue())
