"""What the commands on whole data sets share: reading them and making their kernel."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from labelwise.cli import console, options
from labelwise.cli.commands.check_data import CheckDataCommand
from labelwise.cli.commands.split import SplitCommand
from labelwise.cli.commands.summarise import SummariseCommand
from labelwise.errors import ArgumentError, WriteError
from labelwise.features.representations import (
    ModelRepresentation,
    RepresentationOptions,
    make_representation,
    make_size_limit,
)
from labelwise.kernels.base import Kernel
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.provenance import package_versions
from labelwise.selection.record import describe_potential
from labelwise.structures import Frame, Screen, Screened, iter_frames, iter_unscreened
from labelwise.structures.reading import count_quickly, expand_specs
from labelwise.structures.screening import count_reasons
from labelwise.studies.curation.data_set import DataSet, load_data_set, make_kernel

DataSetCommand = CheckDataCommand | SplitCommand | SummariseCommand


@dataclass(frozen=True)
class KernelChoice:
    """The kernel that the flags ask for.

    Attributes:
        representation: A registered name.
        options: Its options.
        normalise: ``cosine`` or ``none``.
        model: Path or name of the model; None for none.
        batch_atoms: Atoms evaluated at once; None for the model's default.
    """

    representation: str
    options: RepresentationOptions
    normalise: str
    model: str | None
    batch_atoms: int | None

    @property
    def is_possible(self) -> bool:
        """Whether there is a model, or none is needed."""
        chosen = make_representation(self.representation, self.options)
        return self.model is not None or not isinstance(chosen, ModelRepresentation)

    def require(self) -> None:
        """Raise ``ArgumentError`` unless there is a model or none is needed."""
        if not self.is_possible:
            raise ArgumentError(
                f"representation {self.representation!r} needs a model: give --model PATH, a "
                "name from 'labelwise models', or --model demo"
            )


def choose_kernel(args: DataSetCommand) -> KernelChoice:
    """Collect the flags of a kernel, and check them.

    Raises:
        ArgumentError: An unknown name, or an option out of range.
    """
    chosen = RepresentationOptions(
        parameters=args.parameters.value,
        sketch_dim=args.sketch_dim,
        seed=args.seed,
        reduction=args.reduction,
        n_probes=options.parse_probes(args.probes),
        energy_weight=args.energy_weight,
    )
    make_representation(args.representation, chosen)
    scale = "cosine" if args.normalise is None else args.normalise.value
    return KernelChoice(args.representation, chosen, scale, args.model, args.batch_atoms)


def load(
    args: DataSetCommand,
    choice: KernelChoice,
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
    with_kernel = needs_kernel and choice.is_possible
    if with_kernel and choice.model is not None:
        with console.show_status("loading the model", enabled=talkative):
            potential = load_potential(
                choice.model,
                device=args.device,
                dtype=None if args.dtype is None else args.dtype.value,
                head=args.head,
                trust=args.trust_model,
            )
    total = count_quickly(args.pool) if talkative else None
    totals = {} if total is None else {"read pool": total}
    with console.show_progress(enabled=talkative, totals=totals) as progress:
        frames = iter_frames(args.pool) if needs_all else iter_unscreened(args.pool)
        representation = (
            make_representation(choice.representation, choice.options) if with_kernel else None
        )
        limit = make_size_limit(potential, representation)
        data = load_data_set(frames, potential, size_limit=limit, strict=strict, progress=progress)
        if not with_kernel:
            return data, None, potential
        data, kernel = make_kernel(
            data,
            potential,
            choice.representation,
            options=choice.options,
            normalise=choice.normalise,
            batch_atoms=choice.batch_atoms,
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
    screen = Screen(None if potential is None else potential.graph_builder)
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
    data: DataSet, choice: KernelChoice, potential: Potential | None, *, with_kernel: bool
) -> dict[str, Any]:
    """Return what a record tells of a data set and its kernel, as plain data."""
    kernel = None
    if with_kernel:
        kernel = {"representation": choice.representation, "normalise": choice.normalise}
        kernel |= asdict(choice.options)
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
