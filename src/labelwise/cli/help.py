"""What ``--help`` shows beside the options' own texts: plain words for types, and examples."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import typer
from rich.markup import escape
from typer.core import TyperCommand, TyperGroup

#: Examples by command; the files are those of ``labelwise demo``. A test parses them all.
EXAMPLES = {
    "": (
        "labelwise demo demo && cd demo",
        "labelwise select --model demo --train train.extxyz --pool pool.extxyz -n 25",
    ),
    "select": (
        "labelwise select --model demo --train train.extxyz --pool pool.extxyz -n 25",
        "labelwise select --model demo --pool pool.extxyz -n 9 --rule joint-pv --report",
    ),
    "represent": ("labelwise represent --model demo --pool pool.extxyz --out features.npz",),
    "finetune": (
        "labelwise finetune --model demo --train train.extxyz --valid valid.extxyz",
        "labelwise finetune --model demo --train train.extxyz --epochs 2 -o short.model",
    ),
    "label": (
        "labelwise label pool.extxyz --calculator tblite.ase.TBLite -o labelled.extxyz",
        "labelwise label pool.extxyz --settings orca.yaml --slurm -o labelled.extxyz",
    ),
    "models": ("labelwise models",),
    "convert": ("labelwise convert trained.model --trust-model --out trained.pt",),
    "doctor": ("labelwise doctor --device cpu",),
    "demo": ("labelwise demo demo",),
    "geometry": ("labelwise geometry --pool pool.extxyz --group-by reaction -o kinds",),
    "calibrate": (
        (
            "labelwise calibrate --model demo --pool pool.extxyz --valid valid.extxyz "
            "--test test.extxyz --out calibration"
        ),
    ),
    "compare": (
        "labelwise compare --preset reaction-natural --budget 2h --out runs",
        "labelwise compare study.yaml finetune.max_updates=200 --dry-run",
    ),
    "summarise": ("labelwise summarise --model demo --pool pool.extxyz -n 10",),
    "split": (
        "labelwise split --model demo --pool pool.extxyz --by reaction --out sets",
        "labelwise split --pool pool.extxyz --by random --test-fraction 0.2 --out sets",
    ),
    "check-data": ("labelwise check-data --model demo --pool pool.extxyz",),
    "plan": (
        "labelwise plan --model demo --pool pool.extxyz -n 1250 --n-structures 200000",
        "labelwise plan --model demo --pool pool.extxyz --hours 8 --price-per-hour 2",
    ),
    "store": ("labelwise store features.zarr --verify",),
    "report": (
        "labelwise report batch.json",
        "labelwise report my-campaign --open",
    ),
    "figures": ("labelwise figures batch.json --out figures --format pdf",),
    "campaign": (
        "labelwise campaign init my-campaign --template",
        "labelwise campaign run my-campaign",
    ),
    "campaign init": ("labelwise campaign init my-campaign --template",),
    "campaign run": (
        "labelwise campaign run my-campaign",
        "labelwise campaign run my-campaign finetune.max_updates=200 stop.rounds=3",
    ),
    "campaign cancel": ("labelwise campaign cancel my-campaign",),
    "campaign status": ("labelwise campaign status my-campaign",),
    "campaign export": ("labelwise campaign export my-campaign --best --out best",),
    "data": ("labelwise data list", "labelwise data inspect pool.extxyz"),
    "data list": ("labelwise data list",),
    "data inspect": ("labelwise data inspect pool.extxyz",),
    "data build": ("labelwise data build t1x-natural Transition1x.h5 --out pools",),
    "data export": ("labelwise data export pool.extxyz --to omol --out pool.aselmdb",),
}
#: What stands for a value of a type that Typer names in Python's words.
_PLAIN = {"str": "TEXT", "int": "N", "float": "X", "path": "PATH", "Path": "PATH"}


class _Plain:
    """A command whose help has plain words for types, whole paragraphs and examples."""

    help: str | None
    epilog: str | None

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            told = getattr(param, "display_type_rich", None)  # Typer has it since 0.29
            if told is not None:
                param.display_type_rich = _say_plainly(param, told)
        return params

    def format_help(self, ctx: Any, formatter: Any) -> None:
        self.help = None if self.help is None else _unwrap(self.help)
        self.epilog = _show_examples(_name_of(ctx))
        super().format_help(ctx, formatter)  # type: ignore[misc]


class Command(_Plain, TyperCommand):
    """A command of the application."""

    #: What options were called once, with their names of today.
    old_names: Mapping[str, str] = {}

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Read the words of the command line, old names of options among them."""
        parts = [word.partition("=") for word in args]
        words = ["".join((self.old_names.get(name, name), *rest)) for name, *rest in parts]
        return super().parse_args(ctx, words)


class Group(_Plain, TyperGroup):
    """The application, or a group of its commands."""


class Application(typer.Typer):
    """A Typer application that shows its help where no command is given."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(no_args_is_help=True, **settings)


def _say_plainly(param: Any, told: Callable[..., str | None]) -> Callable[..., str | None]:
    """Return what shows a parameter's type: nothing for flags and arguments."""
    if getattr(param, "is_flag", False) or param.param_type_name == "argument":
        return lambda ctx: None  # noqa: ARG005 - the signature is Typer's
    if getattr(told, "is_plain", False):
        return told

    def tell(ctx: Any) -> str | None:
        shown = told(ctx=ctx)
        found = re.fullmatch(r"<(?:list\[)?(\w+?)( range)?\]?>", shown or "")
        word = None if found is None else found[1]
        return _PLAIN.get(word, shown) if word is not None else (shown or "").strip("<>")

    tell.is_plain = True  # type: ignore[attr-defined]
    return tell


def _unwrap(text: str) -> str:
    """Return a docstring with every paragraph on one line, to be broken where it is shown."""
    paragraphs = re.split(r"\n\s*\n", text.strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)


def _name_of(ctx: Any) -> str:
    """Return the command's words without the program's name."""
    words: list[str] = []
    while ctx.parent is not None:
        words.insert(0, ctx.info_name)
        ctx = ctx.parent
    return " ".join(words)


def _show_examples(name: str) -> str | None:
    lines = EXAMPLES.get(name)
    if lines is None:
        return None
    return "\n\n".join(["[bold]Examples[/bold]", *(escape(line) for line in lines)])
