"""The rules by name, and what the program knows of each.

Every rule is registered in its own file. Nothing else lists rules: the command line, plans of
memory and pages ask for the record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from inspect import signature
from typing import Any, Literal, TypeAlias

from labelwise.errors import ArgumentError, check_name
from labelwise.kernels.base import Kernel
from labelwise.runtime.plugins import load_plugins
from labelwise.selection.options import RuleFacts
from labelwise.selection.rules.base import DEFAULT_REGULARISATION, Selection

#: ``select(pool, train, n_select, *, ...) -> Selection``
SelectFunction: TypeAlias = Callable[..., Selection]
#: Bytes by (n structures, d features, labelled structures, picks).
StateBytes: TypeAlias = Callable[[int, int, int, int], int]


def _unknown_state(n: int, d: int, n_train: int, n_select: int) -> int:  # noqa: ARG001
    """Return 160 bytes a structure: 20 float64 numbers, more than any rule here holds."""
    return 160 * n


@dataclass(frozen=True)
class Rule(RuleFacts):
    """A selection rule and all that is known about it.

    Attributes:
        name: What users call it.
        select: ``select(pool, train, n_select, ...)`` on the kernels of the pool and of the
            labelled structures. It is given those of ``regularisation``, ``seed``,
            ``target``, ``chunk_size`` and ``progress`` that it has as keywords.
        says: What it chooses, to be read after "By"; empty for its name.
        score_name: What the score of a pick is, in a word or three; None if it means nothing.
        why: Why a pick was chosen, a sentence with any of the fields ``{score}``,
            ``{of_what}``, ``{given}``, ``{n_picks}`` and, with ``has_clusters``,
            ``{distance}``, ``{centre}``, ``{members}`` and ``{share}``.
        state_bytes: What it holds beside the rows and whole columns, bytes, by n structures,
            d features, labelled structures and picks.
        keeps_columns: Whether it asks for whole columns again and again, so that keeping some
            spares passes over rows on disk.
        has_clusters: Whether each pick comes out of the cluster of its nearest centre.
        is_random: Whether it is a draw that looks at no structure.
        takes_target: Whether it chooses for other structures than those of the pool, given as
            ``target``; its shortlist is what tells most about them.
        takes: ``kernel``, or ``row-sets`` for a rule with a code path of its own (``joint-pv``).
        regularisation: Its λ where none is given, in units of the kernel.
        normalise: Its normalisation of rows where none is given, ``cosine`` or ``none``.

    Example:
        >>> import numpy as np
        >>> from labelwise import Rule, Selection, register_rule
        >>> def select_first(pool, train, n_select):
        ...     return Selection(np.arange(n_select), np.zeros(n_select))
        >>> register_rule(Rule("first", select_first, says="the order of the files"))
    """

    select: SelectFunction
    _: KW_ONLY
    state_bytes: StateBytes = _unknown_state
    keeps_columns: bool = False
    regularisation: float = DEFAULT_REGULARISATION
    normalise: Literal["cosine", "none"] = "cosine"

    def run(self, pool: Kernel, train: Kernel, n_select: int, **settings: Any) -> Selection:
        """Call ``select`` with those of the settings that it has as keywords."""
        known = signature(self.select).parameters
        used = {name: value for name, value in settings.items() if name in known}
        return self.select(pool, train, n_select, **used)


_RULES: dict[str, Rule] = {}


def register_rule(rule: Rule) -> None:
    """Offer a rule under its name, to ``select``, campaigns and the command line.

    Args:
        rule: The record; ``labelwise.testing.selectors.check_selector`` tells whether its
            function obeys the laws.

    Example:
        >>> import numpy as np
        >>> from labelwise import Rule, Selection, register_rule
        >>> def select_last(pool, train, n_select):
        ...     picks = np.arange(len(pool) - 1, len(pool) - 1 - n_select, -1)
        ...     return Selection(picks, np.zeros(n_select))
        >>> register_rule(Rule("last", select_last, says="the end of the files"))

    Raises:
        ArgumentError: The name is taken.
    """
    if rule.name in _RULES:
        raise ArgumentError(f"the rule {rule.name!r} exists already: choose another name")
    _RULES[rule.name] = rule


def list_rules(takes: str | None = None) -> list[str]:
    """Return the names of all rules, sorted, those of plugins too.

    Args:
        takes: Only rules that take this, ``kernel`` or ``row-sets``.
    """
    load_plugins("rules")
    return sorted(name for name, rule in _RULES.items() if takes in (None, rule.takes))


def get_rule(name: str) -> Rule:
    """Return the rule of a name.

    Raises:
        ArgumentError: There is none; the message lists those known.
    """
    if name not in _RULES:
        check_name("rule", name, list_rules())
    return _RULES[name]
