"""Names of the models that mace-torch can download, from mace-torch's own tables.

They are read from its source without importing it, which takes seconds, so that the names of a
new mace-torch are known here, too.
"""

from __future__ import annotations

import ast
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

_SOURCE = Path("calculators") / "foundations_models.py"
#: Tables of mace-torch by the loader that takes their keys.
_TABLES = {"mace_mp_urls": "mace_mp", "mace_off_urls": "mace_off"}
#: Why the models of a loader, and of its class, are not taken.
BEYOND_CUTOFF = (
    "MACE-POLAR's electrostatics reach beyond every cutoff, and Labelwise takes models whose "
    "atoms see their neighbours within one alone; choose mace-omol for charged molecules"
)
_ASL = "Academic Software License, no commercial use"
#: What a name says of the licence; the others are MIT.
_ACADEMIC = ("off", "omol", "omat", "matpes", "mh-")
_NOTES = {
    "mp": "materials, PBE",
    "mpa": "materials, PBE; MPtrj and sAlex",
    "omat": "materials, PBE; OMat24",
    "matpes": "materials; MatPES",
    "mh": "materials, molecules, surfaces; several heads",
    "off": "organic molecules, ωB97M-D3",
    "omol": "molecules with charge and spin, ωB97M-V; OMol25",
}
_SIZES = ("small", "medium", "large")


class Download(NamedTuple):
    """A model that mace-torch downloads.

    Attributes:
        loader: The function of ``mace.calculators.foundations_models`` that does.
        key: What it takes; None for its only model.
        licence: Under which it may be used.
        note: What it is for.
    """

    loader: str
    key: str | None
    licence: str
    note: str


@cache
def list_downloads() -> dict[str, Download]:
    """Return the models by name; nothing where mace-torch is not installed."""
    keys = [(loader, key) for table, loader in _TABLES.items() for key in _read_keys(table)]
    found = {_name(loader, key): _describe(loader, key) for loader, key in keys}
    return {**found, "mace-omol": _describe("mace_omol", None)} if found else {}


def find_download(name: str) -> Download | None:
    """Return the model of a name, also of one put together from a loader and its key.

    Args:
        name: For instance ``mace-mpa-0-medium``, or ``mace-mp-medium-mpa-0``.
    """
    known = list_downloads()
    aliases = {f"{each.loader.replace('_', '-')}-{each.key}": each for each in known.values()}
    short = {"mace-mpa-0": "mace-mpa-0-medium", "mace-omol-0": "mace-omol"}
    return {**aliases, **known}.get(short.get(name, name))


def is_polar(name: str) -> bool:
    """Whether a name is one of mace-torch's MACE-POLAR models, with ``mace-`` before it or not."""
    return name.removeprefix("mace-") in _read_keys("polar_model_urls")


def _name(loader: str, key: str) -> str:
    """Return what a model is called here: ``mace-``, the data, the version, the size."""
    size, _, rest = key.removeprefix("mace-").partition("-")
    if size not in _SIZES:
        return f"mace-{key.removeprefix('mace-')}"
    if rest.rstrip("0123456789").endswith("-"):  # data and version, as in mpa-0
        return f"mace-{rest}-{size}"
    return f"{loader.replace('_', '-')}-{key}"


def _describe(loader: str, key: str | None) -> Download:
    words = loader.removeprefix("mace_") if key is None else f"{loader}-{key}"
    licence = _ASL if any(word in words for word in _ACADEMIC) else "MIT"
    note = [text for word, text in _NOTES.items() if word in words]
    return Download(loader, key, licence, note[-1])


def _read_keys(table: str) -> list[str]:
    """Return the keys of a dictionary that mace-torch's source holds; none if it is not there."""
    package = find_spec("mace")
    if package is None or not package.submodule_search_locations:
        return []
    try:
        source = (Path(package.submodule_search_locations[0]) / _SOURCE).read_text("utf-8")
        statements = ast.parse(source).body
    except (OSError, ValueError, SyntaxError):
        return []
    return [
        key.value
        for statement in statements
        if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Dict)
        if [ast.unparse(target) for target in statement.targets] == [table]
        for key in statement.value.keys
        if isinstance(key, ast.Constant) and isinstance(key.value, str)
    ]
