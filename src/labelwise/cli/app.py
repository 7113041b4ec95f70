"""The application: its exit codes and how errors are shown."""

from __future__ import annotations

import re
import sys
import warnings
from collections.abc import Sequence
from typing import TextIO

import typer

from labelwise.cli import console
from labelwise.cli.building import LazyGroup
from labelwise.cli.help import Application
from labelwise.errors import (
    LabelwiseError,
    LabelwiseWarning,
    ScreeningError,
    UnknownNameError,
    suggest,
)

EXIT_ERROR = 1
EXIT_USAGE = 2
EXIT_SCREENED = 3
EXIT_INTERRUPTED = 130

#: Options whose value may be left out, and what that means.
_OPTIONAL_VALUED = {"--ray": "local", "--report": ""}
_NOT_ONE_OF = re.compile(r"'(?P<given>[^']*)' is not one of (?P<allowed>.*)")
#: Names that options had, and those that they have.
_RENAMED = {"--out-dir": "--out"}
#: Options that take every value up to the next option, as shells expand globs.
_MANY_VALUED = ("--pool", "--train", "--valid", "--test", "--data")

app = Application(
    name="labelwise",
    cls=LazyGroup,
    help="Choose which atomic structures are worth a quantum-chemistry label.",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: What follows the program's name; None takes ``sys.argv``.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["help"]:
        given = [*given[1:], "--help"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            warnings.simplefilter("always", LabelwiseWarning)
            words = spread_many_valued(fill_in_values(given))
            result = app(words, prog_name="labelwise", standalone_mode=False)
    except ScreeningError as error:
        console.fail(str(error))
        return EXIT_SCREENED
    except UnknownNameError as error:
        console.fail(str(error))
        return EXIT_USAGE
    except LabelwiseError as error:
        console.fail(str(error))
        return EXIT_ERROR
    except typer.Exit as stop:
        return stop.exit_code
    except (KeyboardInterrupt, typer.Abort):
        return _interrupted()
    except BrokenPipeError:
        return EXIT_ERROR
    except Exception as error:
        return _report_usage(error)
    if result == EXIT_INTERRUPTED:  # Typer's answer to Ctrl-C in a command
        return _interrupted()
    return result if isinstance(result, int) else 0


def spread_many_valued(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``--pool a b c`` as ``--pool a --pool b --pool c``.

    Args:
        arguments: The command line's words.

    Returns:
        The words with one value for each ``--pool`` and ``--train``.
    """
    spread: list[str] = []
    option: str | None = None
    n_values = 0
    for word in arguments:
        if word.startswith("-") and word != "-":
            option = word if word in _MANY_VALUED else None
            n_values = 0
        elif option is not None:
            n_values += 1
            if n_values > 1:
                spread.append(option)
        spread.append(word)
    return spread


def fill_in_values(arguments: Sequence[str]) -> list[str]:
    """Rewrite ``--ray`` without an address as ``--ray local``, and ``--report`` likewise.

    Options by a name that they once had get the one that they have.

    Args:
        arguments: The command line's words.
    """
    filled: list[str] = []
    for place, word in enumerate(arguments):
        option, equals, value = word.partition("=")
        filled.append(_RENAMED.get(option, option) + equals + value)
        is_last = place + 1 == len(arguments)
        if word in _OPTIONAL_VALUED and (is_last or arguments[place + 1].startswith("-")):
            filled.append(_OPTIONAL_VALUED[word])
    return filled


def _interrupted() -> int:
    console.say("interrupted; nothing was left half-written")
    return EXIT_INTERRUPTED


def _show_warning(
    message: Warning | str,
    category: type[Warning],  # noqa: ARG001 - the signature is Python's
    filename: str,  # noqa: ARG001
    lineno: int,  # noqa: ARG001
    file: TextIO | None = None,  # noqa: ARG001
    line: str | None = None,  # noqa: ARG001
) -> None:
    """Print a warning as one line, without the place in our code that raised it."""
    console.warn(str(message))


def _report_usage(error: Exception) -> int:
    """Print a wrong flag or argument as one line; let a defect of ours be seen whole."""
    shown = getattr(error, "format_message", None)
    if shown is None:
        raise error
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "labelwise"
    if not shown():  # called without arguments, and the help is printed already
        return int(getattr(error, "exit_code", EXIT_USAGE))
    console.fail(f"{_with_suggestion(shown())}\ntry '{path} --help'")
    return int(getattr(error, "exit_code", EXIT_USAGE))


def _with_suggestion(message: str) -> str:
    """Add what may have been meant to Typer's words about a value that is not allowed."""
    found = _NOT_ONE_OF.search(message)
    if found is None:
        return message
    hint = suggest(found["given"], re.findall(r"'([^']*)'", found["allowed"]))
    return f"{message.rstrip('.')}{hint}" if hint else message


@app.callback(invoke_without_command=True)
def _version(
    version: bool = typer.Option(False, "--version", "-V", help="Print the version and stop."),
) -> None:
    if version:
        from labelwise import __version__  # slow to find

        console.output.print(__version__)
        raise typer.Exit
