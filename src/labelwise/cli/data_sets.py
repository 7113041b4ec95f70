"""What the commands on whole data sets share: reading them and making their kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labelwise.cli import console
from labelwise.cli.commands.check_data import CheckDataCommand
from labelwise.cli.commands.split import SplitCommand
from labelwise.cli.commands.summarise import SummariseCommand
from labelwise.errors import ArgumentError, WriteError
from labelwise.features.fill import make_screen
from labelwise.features.representations import (
    make_representation,
    make_size_limit,
)
from labelwise.kernels.base import Kernel
from labelwise.potentials import Potential
from labelwise.potentials.loading import load_model
from labelwise.runtime.provenance import package_versions
from labelwise.selection.record import describe_potential
from labelwise.structures import Frame, Screened, iter_frames, iter_unscreened
from labelwise.structures.reading import count_quickly, expand_specs
from labelwise.structures.screening import count_reasons
from labelwise.studies.curation.data_set import DataSet, load_data_set, make_kernel

DataSetCommand = CheckDataCommand | SplitCommand | SummariseCommand


def is_possible(args: DataSetCommand) -> bool:
    """Return whether there is a model for the kernel, or it needs none.

    Raises:
        ArgumentError: An unknown name, or an option out of range.
    """
    chosen = make_representation(args.kernel.representation, args.kernel.options)
    return args.model.path is not None or not chosen.needs_model


def require_kernel(args: DataSetCommand) -> None:
    """Raise ``ArgumentError`` unless the kernel can be made."""
    if not is_possible(args):
        raise ArgumentError(args.kernel.explain_need_of_model())


def load(
    args: DataSetCommand,
    *,
    strict: bool,
    talkative: bool,
    needs_kernel: bool = True,
    needs_all: bool = False,
) -> tuple[DataSet, Kernel | None, Potential | None]:
    """Read a data set and make its kernel where the flags allow one.

    With ``needs_all``, a frame that cannot be written as it was read is an error.

    Raises:
        LabelwiseError: As ``load_potential``, ``load_data_set`` and ``make_kernel`` do.
    """
    expand_specs(args.pool)  # a missing file is told before a model is loaded
    potential = None
    with_kernel = needs_kernel and is_possible(args)
    if with_kernel and args.model.path is not None:
        with console.show_status("loading the model", enabled=talkative):
            potential = load_model(args.model)
    total = count_quickly(args.pool) if talkative else None
    totals = {} if total is None else {"read pool": total}
    with console.show_progress(enabled=talkative, totals=totals) as progress:
        frames = iter_frames(args.pool) if needs_all else iter_unscreened(args.pool)
        representation = (
            make_representation(args.kernel.representation, args.kernel.options)
            if with_kernel
            else None
        )
        limit = make_size_limit(potential, representation)
        data = load_data_set(frames, potential, size_limit=limit, strict=strict, progress=progress)
        if not with_kernel:
            return data, None, potential
        data, kernel = make_kernel(
            data,
            potential,
            args.kernel.representation,
            options=args.kernel.options,
            normalise=args.kernel.resolved_normalise,
            batch_atoms=args.kernel.batch_atoms,
            strict=strict,
            progress=progress,
        )
    return data, kernel, potential


def read_usable(
    specs: Sequence[str], potential: Potential | None, *, option: str, enabled: bool
) -> list[Frame]:
    """Read the structures that a model can take, and say what was set aside.

    Args:
        specs: As ``iter_frames`` takes them.
        potential: The model; None checks the structures alone.
        option: Of the command line, for messages.
        enabled: Whether to say it.

    Raises:
        ArgumentError: There are structures, and none can be taken.
        ReadError: A file cannot be read.
    """
    screen = make_screen(potential)
    kept: list[Frame] = []
    screened: list[Screened] = []
    for frame in iter_unscreened(specs):
        found = screen.check_content(frame)
        if found is None:
            kept.append(frame)
        else:
            screened.append(found)
    aside = f"set aside {len(screened)}: {count_reasons(screened)}"
    if screened and not kept:
        raise ArgumentError(f"{option} has no structure that can be used: {aside}")
    if screened and enabled:
        console.say(f"{option}: {aside}")
    return kept


def describe(
    data: DataSet, args: DataSetCommand, potential: Potential | None, *, with_kernel: bool
) -> dict[str, Any]:
    """Return what a record tells of a data set and its kernel, as plain data."""
    kernel = None
    if with_kernel:
        scale = args.kernel.resolved_normalise
        kernel = {"representation": args.kernel.representation, "normalise": scale}
        kernel |= asdict(args.kernel.options)
    return {
        "kernel": kernel,
        "model": None if potential is None else describe_potential(potential),
        "versions": package_versions(),
        "counts": {
            "read": data.n_read,
            "kept": len(data),
            "exact_duplicates": int(data.is_repeat.sum()),
            "set_aside": len(data.screened),
            "set_aside_by_reason": dict(Counter(item.reason for item in data.screened)),
        },
        "set_aside": [
            {
                "index": item.index,
                "file": item.source.file,
                "frame": item.source.frame,
                "reason": item.reason,
                "detail": item.detail,
            }
            for item in data.screened
        ],
    }


def say_set_aside(data: DataSet) -> str | None:
    """Return a line on what was set aside; None if nothing was."""
    if not data.screened:
        return None
    return f"set aside {len(data.screened)}: {count_reasons(data.screened)}"


def check_targets(targets: Sequence[Path], inputs: Sequence[str]) -> None:
    """Refuse to write over an input or a directory, or two results to one file.

    Raises:
        ArgumentError: Two targets are the same file.
        WriteError: A target is an input or a directory.
    """
    sources = {part.path.resolve() for part in expand_specs(inputs)}
    places = [target.resolve() for target in targets]
    if len(set(places)) < len(places):
        raise ArgumentError(f"two results would go to the same file: {targets[0]}")
    for target in targets:
        if target.resolve() in sources:
            raise WriteError(f"{target} is one of the inputs; choose another place")
        if not target.name or target.is_dir():
            raise WriteError(f"cannot write {target}: it is a directory")


def check_own(path: Path, mark: bytes, command: str, *, force: bool) -> None:
    """Refuse to replace a file that does not begin as a command of ours writes it.

    Args:
        path: The file, which may be missing.
        mark: What the first 64 kB hold if the command wrote it.
        command: Name of the command.
        force: Replace it all the same.

    Raises:
        WriteError: It exists and is not ours.
    """
    if force or not path.exists():
        return
    with path.open("rb") as stream:
        if mark in stream.read(1 << 16):
            return
    raise WriteError(
        f"{path} exists and was not written by 'labelwise {command}'; "
        "choose another place, or replace it with --force"
    )
