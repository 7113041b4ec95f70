"""How a setting is declared, once: what it means, what it may be, what it is called.

A group of settings is a frozen dataclass whose fields are annotated with a ``Setting``. Python
takes the dataclass, ``campaign.yaml`` and ``study.yaml`` have its fields as keys, and the command
line has an option for each.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import get_annotations
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from annotated_types import Ge, GroupedMetadata, Gt, Le

from labelwise.errors import ArgumentError, check_name

#: Headings of the help.
MODEL, CHOICE, MACHINE, OUTPUT, SCALE = "Model", "Choice", "Machine", "Output", "Large pools"


@dataclass(frozen=True)
class Setting(GroupedMetadata):
    """What a field of a group of settings means, and what it may be.

    Attributes:
        help: What it means, in a sentence or two.
        flags: Names of its option; none for that of the field.
        aliases: Names that its option once had; the help does not show them.
        ge, gt, le: Bounds; None for none.
        choices: The words that are allowed; none for whatever the type allows.
        suggestions: Words that shells complete where others are allowed, too.
        none: The word that stands for None on the command line, where None is no default.
        parse: What makes a value of the word of the command line; None for the type.
        metavar: What stands for its value in the help; None for the type's.
        panel: Heading of the help that it stands under; None for that of most options.

    Example:
        >>> from dataclasses import dataclass
        >>> from typing import Annotated
        >>> @dataclass(frozen=True)
        ... class Cooling:
        ...     rate: Annotated[float, Setting("Kelvin a second.", gt=0)] = 1.0
        >>> list_settings(Cooling)["rate"][1].help
        'Kelvin a second.'
    """

    help: str
    flags: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    ge: float | int | None = None
    gt: float | int | None = None
    le: float | int | None = None
    choices: tuple[str, ...] = ()
    suggestions: tuple[str, ...] = ()
    none: str | None = None
    parse: Callable[[str], Any] | None = None
    metavar: str | None = None
    panel: str | None = None

    def __iter__(self) -> Iterator[Any]:
        """Give the bounds in the words that pydantic knows."""
        bounds = ((Ge, self.ge), (Gt, self.gt), (Le, self.le))
        return iter([kind(bound) for kind, bound in bounds if bound is not None])


Seed = Annotated[int, Setting("Of everything that is drawn.", ge=0, panel=CHOICE)]


def list_settings(group: type) -> dict[str, tuple[Any, Setting]]:
    """Return type and declaration of each setting of a group, by field, its own ones first."""
    hints = get_type_hints(group, include_extras=True)
    names = [name for kind in group.__mro__ for name in get_annotations(kind)]
    found = {}
    for name in dict.fromkeys(names):
        kind, *extras = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (None,)
        for setting in extras:
            if isinstance(setting, Setting):
                found[name] = (kind, setting)
    return found


def check_bounds(settings: object) -> None:
    """Raise unless the numbers of a group are finite and in their bounds, its words choices.

    Args:
        settings: A group of settings; what is None is not looked at.

    Raises:
        ArgumentError: A value is not allowed; names the setting.
    """
    for name, (_, setting) in list_settings(type(settings)).items():
        value = getattr(settings, name)
        if value is None:
            continue
        if setting.choices:
            check_name(name, value, setting.choices)
        for sign, bound, is_met in (
            (">=", setting.ge, operator.ge),
            (">", setting.gt, operator.gt),
            ("<=", setting.le, operator.le),
        ):
            if bound is not None and not (math.isfinite(value) and is_met(value, bound)):
                raise ArgumentError(f"{name} is {value}; allowed is {sign} {bound}")
