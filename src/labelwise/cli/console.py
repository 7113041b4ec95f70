"""Progress bars, tables and messages on the terminal."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType

from rich.console import Console
from rich.text import Text

from labelwise.runtime.timing import ProgressCallback, ignore_progress

#: Results go to standard output; everything said about them goes to standard error.
errors = Console(stderr=True, highlight=False, soft_wrap=True)
output = Console(highlight=False)


@contextmanager
def show_status(message: str, *, enabled: bool) -> Iterator[None]:
    """Show a spinner on standard error while the enclosed block runs."""
    if enabled and errors.is_terminal:
        with errors.status(message):
            yield
    else:
        yield


@contextmanager
def show_progress(
    *, enabled: bool, totals: Mapping[str, int] = MappingProxyType({})
) -> Iterator[ProgressCallback]:
    """Give a callback that draws one bar for each stage on standard error.

    Args:
        enabled: False for a callback that draws nothing; nothing is drawn either where
            standard error is not a terminal.
        totals: Totals of stages that do not know theirs, by name.

    Yields:
        A callback that takes a stage's name, what is done and the total if known.
    """
    if not (enabled and errors.is_terminal):
        yield ignore_progress
        return
    from labelwise.runtime.progress_bars import show_bars  # slow to import

    with show_bars(errors, totals) as report:
        yield report


@contextmanager
def show_log(*, enabled: bool) -> Iterator[None]:
    """Print what the library's loggers tell while the enclosed block runs, a line each.

    Args:
        enabled: False for nothing.
    """
    logger, handler = logging.getLogger("labelwise"), _Lines()
    before = logger.level
    if enabled:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


class _Lines(logging.Handler):
    """Prints records as ``say`` does."""

    def emit(self, record: logging.LogRecord) -> None:
        say(self.format(record))


def say(message: str) -> None:
    """Print one line about the run to standard error."""
    errors.print(message, markup=False)


def tell(*lines: str | None) -> None:
    """Print lines of a result to standard output as they are; None is passed over."""
    for line in lines:
        if line is not None:
            output.print(line, markup=False, soft_wrap=True)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    errors.print(Text.assemble(("warning: ", "bold yellow"), message))


def fail(message: str) -> None:
    """Print an error to standard error."""
    errors.print(Text.assemble(("error: ", "bold red"), message))
