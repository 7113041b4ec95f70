"""Every error that Labelwise raises on purpose.

Each is a ``LabelwiseError`` and also the builtin that a caller would expect::

    LabelwiseError
    ├── ArgumentError           (ValueError)     an argument is out of range or unknown
    │   ├── UnknownNameError                     a word that is none of those allowed
    │   └── SelectionError                       a selection that cannot be made
    │       └── ShortPoolError                   fewer structures than are asked for
    ├── StructureError          (ValueError)     a structure that no model can take
    │   └── ScreeningError                       --strict, and structures were set aside
    ├── ReadError               (OSError)        a file that cannot be read or parsed
    │   └── DataSetError                         a file of a published format that is damaged
    ├── WriteError              (OSError)        a result that cannot be written
    ├── LabelError              (KeyError)       a requested label that is missing
    ├── PotentialError          (RuntimeError)   a model that cannot be loaded or used
    │   └── OutOfMemoryError    (MemoryError)    one structure alone does not fit the device
    └── MissingDependencyError  (ImportError)    an extra that is not installed

Four rooms add branches of their own, drawn where they are defined: ``labelling/base.py``
(``LabellingError``, ``LabelsPending``), ``campaign/errors.py`` (``CampaignError``),
``runtime/engines/base.py`` (``ClusterError``) and ``features/store/chunk_files.py``
(``DamagedChunkError``).

A message says which argument, what came, what is allowed and what to do next.
"""

from __future__ import annotations

import difflib
import sys
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import TextIO


class LabelwiseWarning(UserWarning):
    """Base of every warning given on purpose."""


class LabelwiseError(Exception):
    """Base of every error raised on purpose.

    Example:
        >>> import labelwise as lw
        >>> try:
        ...     lw.load_potential("demmo")
        ... except lw.LabelwiseError as error:
        ...     print(type(error).__name__)
        PotentialError
    """

    def __str__(self) -> str:
        """Return the message as written (``KeyError`` would quote it)."""
        return " ".join(str(part) for part in self.args)


class ArgumentError(LabelwiseError, ValueError):
    """An argument is out of range, unknown or at odds with another."""


class UnknownNameError(ArgumentError):
    """A word that is none of those allowed; at the command line, a wrong flag."""


class SelectionError(ArgumentError):
    """The selection asked for cannot be made from this pool."""


class ShortPoolError(SelectionError):
    """More structures are asked for than can be chosen.

    Args:
        message: What was asked for, what there is, and why.
        n_left: Structures that can be chosen.

    Attributes:
        n_left: Structures that can be chosen.
    """

    def __init__(self, message: str, n_left: int) -> None:
        super().__init__(message)
        self.n_left = n_left

    def __reduce__(self) -> tuple[type[ShortPoolError], tuple[str, int]]:
        """Let the error pass from one process to another."""
        return type(self), (str(self), self.n_left)


class StructureError(LabelwiseError, ValueError):
    """A structure that no model can take."""


class ScreeningError(StructureError):
    """Structures were set aside although strict screening was asked for."""


class ReadError(LabelwiseError, OSError):
    """A file is missing, unreadable, truncated or not in the format it claims."""


class DataSetError(ReadError):
    """A file of a published format that is damaged or not laid out as the format says."""


class WriteError(LabelwiseError, OSError):
    """A result cannot be written."""


class LabelError(LabelwiseError, KeyError):
    """A label that was asked for is missing from a structure."""


class PotentialError(LabelwiseError, RuntimeError):
    """A model cannot be loaded, or cannot do what was asked of it."""


class OutOfMemoryError(PotentialError, MemoryError):
    """A single structure does not fit into the device's memory."""


class MissingDependencyError(LabelwiseError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        """Name the package, the extra that installs it and what needs it.

        Where the package is there, and its import failed for want of another one, that is named.
        """
        from importlib.metadata import PackageNotFoundError, version  # which takes time

        cause = sys.exc_info()[1]
        lacking = repr(package)
        with suppress(PackageNotFoundError):
            known = version(package)
            if isinstance(cause, ModuleNotFoundError):
                lacking = f"{cause.name!r}, which {package} {known} imports"
        super().__init__(
            f"{purpose} needs the package {lacking}, which is not installed; install it with: "
            f"pip install 'labelwise[{extra}]'"
        )


@contextmanager
def collect_warnings() -> Iterator[list[str]]:
    """Keep the warnings given on purpose in a worker process, for the process that it works for.

    Yields:
        Their texts, each once, as they come.
    """
    texts: list[str] = []
    with warnings.catch_warnings():
        show = warnings.showwarning

        def keep(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if not issubclass(category, LabelwiseWarning):
                show(message, category, filename, lineno, file, line)
            elif str(message) not in texts:
                texts.append(str(message))

        warnings.showwarning = keep
        warnings.simplefilter("always", LabelwiseWarning)
        yield texts


def check_name(argument: str, value: object, allowed: Iterable[str]) -> None:
    """Raise unless a word is one of those allowed.

    Args:
        argument: What the word was given for.
        value: What was given.
        allowed: The words.

    Raises:
        UnknownNameError: It is none of them; the message lists them.
    """
    names = list(allowed)
    if value not in names:
        raise UnknownNameError(
            f"{argument} is {value!r}; allowed are {', '.join(names)}{suggest(value, names)}"
        )


def suggest(value: object, allowed: Iterable[str]) -> str:
    """Return "; did you mean ...?" where a word resembles one of those allowed, else nothing."""
    lowered = {name.lower().replace("_", "-"): name for name in sorted(allowed)}
    word = str(value).lower().replace("_", "-")
    close = difflib.get_close_matches(word, lowered, n=1)
    return f"; did you mean {lowered[close[0]]!r}?" if close else ""
