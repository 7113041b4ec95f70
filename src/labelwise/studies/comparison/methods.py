"""The methods of acquisition that a study can name, as settings of a campaign's selection."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from labelwise.errors import ArgumentError, suggest

_KERNELS = {
    "activation": "activation",
    "ntk": "ntk-e",
    "ntk-f": "ntk-f",
    "ntk-ef": "ntk-ef",
    "soap": "soap",
    "tanimoto": "morgan",
    "activation-random": "activation-random",
    "ntk-random": "ntk-random",
}
_RULES = ("k-center", "lcmd", "pv", "top")


def _name_methods() -> dict[str, dict[str, Any]]:
    methods: dict[str, dict[str, Any]] = {
        "random": {"rule": "random"},
        "committee-e": {"rule": "committee-e"},
        "committee-f": {"rule": "committee-f"},
        "committee-e-bootstrap": {"rule": "committee-e", "diversity": "bootstrap"},
        "committee-f-bootstrap": {"rule": "committee-f", "diversity": "bootstrap"},
        "joint-pv": {"rule": "joint-pv"},
    }
    for kernel, representation in _KERNELS.items():
        for rule in _RULES:
            methods[f"{kernel}-{rule}"] = {"rule": rule, "representation": representation}
    return methods


#: Name of a method to the keys of ``SelectionSection`` that make it. ``ntk`` is ``ntk-e``, and
#: ``tanimoto`` is the kernel of ``morgan`` fingerprints, as in the paper's tables.
METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(_name_methods())

#: Ending of a method's name that lets fine-tuning begin with random weights.
SCRATCH = "-scratch"


def get_method(name: str) -> dict[str, Any]:
    """Return the settings behind a method's name.

    Args:
        name: A key of ``METHODS``; with the ending ``-scratch`` the campaign's models are
            trained from random weights, and a committee's members differ in them.

    Returns:
        Under ``selection`` and ``finetune`` the keys in which the method's campaigns differ
        from the study's others.

    Raises:
        ArgumentError: An unknown name; the message names the nearest one.
    """
    base = name.removesuffix(SCRATCH)
    if base not in METHODS:
        raise ArgumentError(
            f"method {name!r} is unknown; known are {', '.join(METHODS)}, each also with "
            f"{SCRATCH}; any other needs its settings: {{rule: ..., representation: ...}}"
            f"{suggest(base, METHODS)}"
        )
    selection = dict(METHODS[base])
    if base == name:
        return {"selection": selection, "finetune": {}}
    if selection["rule"].startswith("committee"):
        selection["diversity"] = "scratch"
    return {"selection": selection, "finetune": {"start": "scratch"}}
