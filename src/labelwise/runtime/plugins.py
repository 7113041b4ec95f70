"""Modules of users and of other packages that register models, representations, rules, labellers.

A module is loaded when a name is asked for that is not known yet, or when names are listed:

* every entry point of the groups ``labelwise.potentials``, ``labelwise.representations``,
  ``labelwise.rules`` and ``labelwise.labellers`` of an installed package, when names of that
  kind are wanted; its value is a module that registers what it brings as it is imported;
* every module named in the environment variable ``LABELWISE_PLUGINS``, separated by commas,
  which worker processes inherit.
"""

from __future__ import annotations

import os
import sys
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Literal

from labelwise.errors import ArgumentError

VARIABLE = "LABELWISE_PLUGINS"
Kind = Literal["potentials", "representations", "rules", "labellers"]

_loaded: set[str] = set()


@cache
def _find_modules(kind: Kind, path: tuple[str, ...]) -> tuple[str, ...]:  # noqa: ARG001
    """Return what installed packages name; looking through all of them takes 25 ms."""
    return tuple(point.module for point in entry_points(group=f"labelwise.{kind}"))


def load_plugins(kind: Kind) -> None:
    """Import the modules of plugins that bring something of a kind, each once a process.

    Raises:
        ArgumentError: One of them cannot be imported.
    """
    names = [*_find_modules(kind, tuple(sys.path))]
    names += [name.strip() for name in os.environ.get(VARIABLE, "").split(",") if name.strip()]
    for name in names:
        if name in _loaded:
            continue
        _loaded.add(name)  # first: it may ask for names itself
        try:
            import_module(name)
        except ImportError as error:
            _loaded.discard(name)
            raise ArgumentError(
                f"the plugin {name!r} cannot be imported ({error}): install it, put its folder on "
                f"PYTHONPATH, or take it out of {VARIABLE}"
            ) from error
