"""Names of a package that are imported when they are first used."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the ``__getattr__`` of a package whose names are loaded when they are first used.

    Args:
        package: The package's name, ``__name__``.
        homes: The module below the package that defines each name.

    Example:
        >>> __getattr__ = lazy_names("labelwise", {"LabelwiseError": "errors"})
        >>> __getattr__("LabelwiseError").__module__
        'labelwise.errors'
    """

    def load(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        return getattr(import_module(f"{package}.{homes[name]}"), name)

    return load
