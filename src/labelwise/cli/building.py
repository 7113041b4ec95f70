"""From declarations to commands: each is imported when it is named, its work when it is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field, fields
from importlib import import_module
from inspect import Parameter, Signature
from typing import Any, get_type_hints

import typer
from typer.main import get_command, get_group

from labelwise.cli.commands import COMMANDS, GROUPS
from labelwise.cli.help import Application, Command, Group
from labelwise.structures.specs import expand_specs

#: Fields that name files of structures.
_STRUCTURES = ("files", "pool", "train", "valid", "test")


class LazyCommands(Mapping[str, Any]):
    """Commands by name, each made when it is asked for.

    Args:
        group: The words before the name, ``campaign`` say; none for all commands.
    """

    def __init__(self, group: str = "") -> None:
        self._before = f"{group} " if group else ""
        below = [w.removeprefix(self._before) for w in COMMANDS if w.startswith(self._before)]
        self._names = list(dict.fromkeys(word.partition(" ")[0] for word in below))

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        words = self._before + name
        return make_group(words) if words in GROUPS else make_command(words)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def describe(self, name: str) -> Command | None:
        """Return what the list of commands shows of one, without importing it; None for none."""
        if name not in self._names:
            return None
        words = self._before + name
        return Command(name, help=GROUPS[words] if words in GROUPS else COMMANDS[words][1])


class LazyGroup(Group):
    """A group that imports the one command that is named."""

    commands: LazyCommands  # type: ignore[assignment]

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = LazyCommands(self.name if self.name in GROUPS else "")

    # The signatures are Typer's.
    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002
        """Return the names in the order of the help."""
        return list(self.commands)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002
        """Return what the list of commands shows of one."""
        return self.commands.describe(cmd_name)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        """Return the command that is named, and the words behind its name."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else self.commands[name], rest


def make_group(name: str) -> Any:
    """Return a group of commands: a key of ``GROUPS``."""
    return get_group(Application(name=name, cls=LazyGroup, help=GROUPS[name]))


def make_command(words: str) -> Any:
    """Return a command: a key of ``COMMANDS``.

    Its declaration is imported now, what it does when it is run. A declaration may have a method
    ``check`` for mistakes that can be told before that.
    """
    module, _ = COMMANDS[words]
    snake = words.replace(" ", "_").replace("-", "_")
    name = "".join(word.capitalize() for word in snake.split("_"))
    declaration = getattr(import_module(f"labelwise.cli.commands.{module}"), f"{name}Command")

    def call(**given: Any) -> Any:
        args = declaration(**given)
        _check_inputs(args)
        return getattr(import_module(f"labelwise.cli.{module}"), f"run_{snake}")(args)

    hints = get_type_hints(declaration, include_extras=True)
    call.__signature__ = Signature(  # type: ignore[attr-defined]
        [_parameter(field, hints[field.name]) for field in fields(declaration)]
    )
    call.__doc__ = declaration.__doc__
    alone = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    alone.command(words.rpartition(" ")[2], cls=Command)(call)
    return get_command(alone)


def _check_inputs(args: Any) -> None:
    """Tell a missing file before anything heavy is imported."""
    for name in _STRUCTURES:
        specs = getattr(args, name, None)
        if specs and isinstance(specs, list):
            expand_specs(specs)
    if hasattr(args, "check"):
        args.check()


def _parameter(field: Field[Any], annotation: Any) -> Parameter:
    default = Parameter.empty if field.default is MISSING else field.default
    return Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
