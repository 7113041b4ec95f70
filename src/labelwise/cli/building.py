"""From declarations to commands: each is imported when it is named, its work when it is done."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from importlib import import_module
from inspect import Parameter, Signature
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer
from typer.main import get_command, get_group

from labelwise.cli.commands import COMMANDS, GROUPS
from labelwise.cli.help import Application, Command, Group
from labelwise.cli.options import Take
from labelwise.errors import ArgumentError, UnknownNameError, check_name
from labelwise.runtime.settings import Setting, list_settings
from labelwise.structures.specs import expand_specs

#: Fields that name files of structures.
_STRUCTURES = ("files", "pool", "train", "valid", "test")


@dataclass(frozen=True)
class _Group:
    """Settings that a command takes as options.

    Attributes:
        kind: Their dataclass.
        settings: Type and declaration of each, by field.
        defaults: Of each; ``MISSING`` for those that have to be given.
    """

    kind: Any
    settings: dict[str, tuple[Any, Setting]]
    defaults: Mapping[str, Any]


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
        _check_files(given)
        args = _gather(declaration, given)
        if hasattr(args, "check"):
            args.check()
        return getattr(import_module(f"labelwise.cli.{module}"), f"run_{snake}")(args)

    call.__signature__ = Signature(list(_expand(declaration)))  # type: ignore[attr-defined]
    call.__doc__ = declaration.__doc__
    alone = typer.Typer(
        add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich"
    )
    alone.command(words.rpartition(" ")[2], cls=Command)(call)
    command = get_command(alone)
    command.old_names = _list_old_names(declaration)  # type: ignore[attr-defined]
    return command


def _list_old_names(declaration: type) -> dict[str, str]:
    """Return what options were called once, with their names of today."""
    settings = list_settings(declaration)
    for hint in get_type_hints(declaration, include_extras=True).values():
        group = _group_of(hint)
        settings |= {} if group is None else group.settings
    return {old: _flag(name, each) for name, (_, each) in settings.items() for old in each.aliases}


def _check_files(given: Mapping[str, Any]) -> None:
    """Tell a missing file before anything heavy is imported."""
    for name in _STRUCTURES:
        specs = given.get(name)
        if specs and isinstance(specs, list):
            expand_specs(specs)


def _expand(declaration: type) -> Iterator[Parameter]:
    """Give the parameters of a command: its own, and those of the groups of settings in it."""
    hints = get_type_hints(declaration, include_extras=True)
    own = list_settings(declaration)
    for field in fields(declaration):
        group = _group_of(hints[field.name])
        if group is not None:
            for name, (kind, setting) in group.settings.items():
                yield _option(name, kind, setting, group.defaults[name])
        elif field.name in own:
            yield _option(field.name, *own[field.name], field.default)
        else:
            yield _parameter(field.name, hints[field.name], field.default)


def _gather(declaration: type, given: Mapping[str, Any]) -> Any:
    """Return the command with its groups of settings, from the values of its parameters."""
    hints = get_type_hints(declaration, include_extras=True)
    own = list_settings(declaration)
    values = dict(given)
    for name, (kind, setting) in own.items():
        values[name] = _read(_flag(name, setting), given[name], kind, setting)
    groups = {field.name: _group_of(hints[field.name]) for field in fields(declaration)}
    for place, group in groups.items():
        if group is None:
            continue
        chosen = {
            name: _read(_flag(name, setting), given[name], kind, setting)
            for name, (kind, setting) in group.settings.items()
        }
        values[place] = group.kind(**chosen)
    return declaration(**{name: values[name] for name in groups})


def _group_of(hint: Any) -> _Group | None:
    """Return the group of settings that a field of a command is; None for an option."""
    kind, *extras = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    if not (isinstance(kind, type) and is_dataclass(kind)):
        return None
    take = next((each for each in extras if isinstance(each, Take)), Take())
    settings = {
        name: found
        for name, found in list_settings(kind).items()
        if name not in take.without and (not take.only or name in take.only)
    }
    defaults = {field.name: field.default for field in fields(kind)}
    return _Group(kind, settings, {**defaults, **take.defaults})


def _parameter(name: str, annotation: Any, default: Any) -> Parameter:
    shown = Parameter.empty if default is MISSING else default
    return Parameter(name, Parameter.KEYWORD_ONLY, default=shown, annotation=annotation)


def _option(name: str, kind: Any, setting: Setting, default: Any) -> Parameter:
    """Return the parameter of a setting."""
    shown: bool | str = True
    check = _check_words(name, kind, setting.choices) if setting.choices else None
    if setting.parse is not None:
        kind = str | None
        default = ",".join(default) if isinstance(default, tuple) else default
    elif setting.none is not None:
        kind, default = str, setting.none if default is None else str(default)
    elif _kind_of_many(kind) is not None:
        words = [f"{each:g}" if isinstance(each, float) else str(each) for each in default or ()]
        kind, default = str | None, None if default is None else ",".join(words)
        shown = ", ".join(words) if len(words) > 1 else True
    offered = setting.choices or setting.suggestions
    option = typer.Option(
        *(setting.flags or (_flag(name, setting),)),
        help=setting.help,
        min=setting.ge if int in (kind, *get_args(kind)) else None,
        metavar=setting.metavar or "|".join(setting.choices) or None,
        show_default=shown,
        callback=check,
        autocompletion=_complete(offered) if offered else None,
        rich_help_panel=setting.panel,
    )
    return _parameter(name, Annotated[kind, option], default)


def _kind_of_many(kind: Any) -> Any:
    """Return the type of each of several values with commas between; None for one value."""
    for each in (kind, *get_args(kind)):
        if get_origin(each) is tuple:
            return get_args(each)[0]
    return None


def _check_words(
    name: str, kind: Any, choices: tuple[str, ...]
) -> Callable[[str | None], str | None]:
    def check(value: str | None) -> str | None:
        if value is not None:
            for word in [value] if _kind_of_many(kind) is None else value.split(","):
                check_name(name, word.strip(), choices)
        return value

    return check


def _complete(choices: tuple[str, ...]) -> Callable[[str], list[str]]:
    return lambda incomplete: [word for word in choices if word.startswith(incomplete)]


def _flag(name: str, setting: Setting) -> str:
    return setting.flags[0] if setting.flags else "--" + name.replace("_", "-")


def _read(flag: str, value: Any, kind: Any, setting: Setting) -> Any:
    """Return a value of the command line as the setting takes it: words, numbers, None.

    Raises:
        ArgumentError: It is none that is allowed.
    """
    if setting.parse is not None:
        return None if value is None else setting.parse(value)
    one = _kind_of_many(kind)
    if one is not None and value is not None:
        words = [word.strip() for word in value.split(",") if word.strip()]
        try:
            return tuple(one(word) for word in words)
        except ValueError as error:
            what = "integers" if one is int else "numbers"
            raise ArgumentError(
                f"{flag} is {value!r}; give {what} with commas between: 0,1"
            ) from error
    if setting.none is None:
        return value
    if value == setting.none:
        return None
    if float in get_args(kind):
        try:
            return float(value)
        except ValueError as error:
            raise UnknownNameError(
                f"{flag} is {value!r}; give a number, or {setting.none!r}"
            ) from error
    least = 0 if setting.ge is None else int(setting.ge)
    if not (value.isascii() and value.isdigit() and int(value) >= least):
        raise UnknownNameError(
            f"{flag} is {value!r}; give an integer of at least {least}, or {setting.none!r}"
        )
    return int(value)
