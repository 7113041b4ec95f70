"""The methods of acquisition that a study can name, as settings of a campaign's selection."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

from labelwise.campaign.config import SelectionSection
from labelwise.errors import ArgumentError, suggest
from labelwise.selection.options import SelectionOptions
from labelwise.selection.rules import JOINT_RULE
from labelwise.selection.settings import AcquisitionSettings

#: Names of kernels in the papers' tables, and the representations behind them.
KERNELS = {
    "activation": "activation",
    "ntk": "ntk-e",
    "ntk-f": "ntk-f",
    "ntk-ef": "ntk-ef",
    "soap": "soap",
    "tanimoto": "morgan",
    "activation-random": "activation-random",
    "ntk-random": "ntk-random",
}
_RULES = ("k-center", "lcmd", "pv", "target", "top")


def _name_methods() -> dict[str, dict[str, Any]]:
    methods: dict[str, dict[str, Any]] = {
        "random": {"rule": "random"},
        "committee-e": {"rule": "committee-e"},
        "committee-f": {"rule": "committee-f"},
        "committee-e-bootstrap": {"rule": "committee-e", "diversity": "bootstrap"},
        "committee-f-bootstrap": {"rule": "committee-f", "diversity": "bootstrap"},
        "joint-pv": {"rule": "joint-pv"},
    }
    for kernel, representation in KERNELS.items():
        for rule in _RULES:
            methods[f"{kernel}-{rule}"] = {"rule": rule, "representation": representation}
    return methods


#: Name of a method to the keys of ``SelectionSection`` that make it. ``ntk`` is ``ntk-e``, and
#: ``tanimoto`` is the kernel of ``morgan`` fingerprints, as in the paper's tables.
METHODS: Mapping[str, Mapping[str, Any]] = MappingProxyType(_name_methods())

#: Options of a selection that its rows depend on, and those that its kernel depends on.
ROW_OPTIONS = ("parameters", "reduction", "n_probes", "sketch_dim")
KERNEL_OPTIONS = (*ROW_OPTIONS, "energy_weight", "normalise", "regularisation")

#: Ending of a method's name that lets fine-tuning begin with random weights.
SCRATCH = "-scratch"


def spell_out(methods: Any) -> Any:
    """Return the methods of a study by name, each with its settings in full.

    Args:
        methods: A list of names of ``METHODS`` and of settings, which are given names; or a
            mapping of names to settings, or to nothing for those that ``METHODS`` knows.

    Returns:
        Name to the keys of ``selection``, and under ``finetune`` those of fine-tuning, in which
        the method's campaigns differ from the others; what is no methods at all as it came.

    Raises:
        ArgumentError: An unknown name, or two methods of one name.
    """
    given = methods.values() if isinstance(methods, Mapping) else methods
    for each in given if isinstance(methods, Mapping | list) else ():
        if isinstance(each, Mapping):
            _check_words(each)
    if isinstance(methods, list):
        named: dict[str, Any] = {}
        for each in methods:
            name = name_method(each) if isinstance(each, Mapping) else str(each)
            if name in named:
                raise ArgumentError(f"methods: {name} is there twice; leave one of them out")
            named[name] = each if isinstance(each, Mapping) else None
        methods = named
    if not isinstance(methods, Mapping):
        return methods
    return {
        name: get_method(str(name)) if each is None else _take_kernel(each)
        for name, each in methods.items()
    }


def _check_words(settings: Mapping[str, Any]) -> None:
    """Raise ``ArgumentError`` unless what a method is named by can be read."""
    for key in ("kernel", "representation", "rule"):
        if not isinstance(settings.get(key, ""), str):
            raise ArgumentError(f"methods: {key} is {settings[key]!r}; give one word")
    if not isinstance(settings.get("finetune") or {}, Mapping):
        raise ArgumentError(
            f"methods: finetune is {settings['finetune']!r}; give its settings as KEY: VALUE"
        )


def name_method(settings: Mapping[str, Any]) -> str:
    """Return a name made of a method's settings.

    Args:
        settings: ``rule``, and ``kernel`` or ``representation``; every other setting is added
            with a plus sign.

    Example:
        >>> name_method({"kernel": "ntk-ef", "rule": "lcmd", "energy_weight": 0.3})
        'ntk-ef-lcmd+energy_weight0.3'
    """
    rest = dict(settings)
    tuning = rest.pop("finetune", None) or {}
    parts = [rest.pop(key, None) for key in ("kernel", "representation", "rule")]
    name = "-".join(str(part) for part in parts if part is not None) or "method"
    if dict(tuning) == {"start": "scratch"}:
        name, tuning = name + SCRATCH, {}
    options = [f"+{key}{value}" for key, value in (*rest.items(), *dict(tuning).items())]
    return re.sub(r"[^A-Za-z0-9._+-]", "", name + "".join(options))


def name_kernel(
    settings: AcquisitionSettings | SelectionSection, options: Sequence[str] = KERNEL_OPTIONS
) -> str:
    """Return what a selection scores by: the representation, and options that are not usual."""
    name: str = JOINT_RULE if settings.rule == JOINT_RULE else settings.representation
    usual = SelectionOptions()
    own = ((key, getattr(settings, key)) for key in options)
    return name + "".join(f"+{key}{value}" for key, value in own if value != getattr(usual, key))


def _take_kernel(settings: Any) -> Any:
    """Return settings with ``kernel``, by the papers' name, as ``representation``."""
    if not isinstance(settings, Mapping) or "kernel" not in settings:
        return settings
    rest = {key: value for key, value in settings.items() if key != "kernel"}
    if "representation" in rest:
        raise ArgumentError("kernel and representation are the same: leave one of them out")
    kernel = settings["kernel"]
    return {"representation": KERNELS.get(kernel, kernel), **rest}


def get_method(name: str) -> dict[str, Any]:
    """Return the settings behind a method's name, see ``spell_out``.

    Args:
        name: A key of ``METHODS``; with the ending ``-scratch`` the campaign's models are
            trained from random weights, and a committee's members differ in them.

    Raises:
        ArgumentError: An unknown name; the message names the nearest one.
    """
    base = name.removesuffix(SCRATCH)
    if base not in METHODS:
        raise ArgumentError(
            f"method {name!r} is unknown; known are {', '.join(METHODS)}, each also with "
            f"{SCRATCH}; any other needs its settings: {{kernel: ..., rule: ...}}"
            f"{suggest(base, METHODS)}"
        )
    settings = dict(METHODS[base])
    if base == name:
        return settings
    if settings["rule"].startswith("committee"):
        settings["diversity"] = "scratch"
    return {**settings, "finetune": {"start": "scratch"}}
