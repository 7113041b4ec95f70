"""``labelwise geometry``: what kernels tell apart."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import typer

from labelwise.campaign.state import (
    MODEL,
    CampaignState,
    read_state,
    verify_file,
    verify_model,
)
from labelwise.cli import console
from labelwise.cli.commands.geometry import GeometryCommand
from labelwise.cli.data_sets import read_usable
from labelwise.cli.tables import show_rows
from labelwise.errors import ArgumentError, MissingDependencyError, ReadError, WriteError
from labelwise.potentials import Potential
from labelwise.potentials.loading import require_model
from labelwise.potentials.spec import ModelSpec, find_model
from labelwise.runtime.files import write_text
from labelwise.runtime.provenance import package_versions, to_json
from labelwise.selection.record import describe_potential
from labelwise.structures import Frame
from labelwise.studies.diagnostics.geometry_pictures import (
    draw_distances,
    draw_frames,
    draw_matrices,
)
from labelwise.studies.diagnostics.geometry_report import (
    PAGE,
    describe,
    list_rows,
    name_columns,
    to_data,
    write_page,
    write_tables,
)
from labelwise.studies.diagnostics.geometry_study import (
    FamilySample,
    GeometryStudy,
    check_kernels,
    needs_model,
    read_families,
    read_order,
    sample_families,
    study_geometry,
)
from labelwise.studies.diagnostics.settings import GEOMETRY_DATA


def run_geometry(args: GeometryCommand) -> None:
    """Run ``labelwise geometry``."""
    names = args.kernels
    settings = args.representation
    check_kernels(names, settings)
    if args.out.exists() and not args.out.is_dir():
        raise WriteError(f"--out is {args.out}, which is a file; name a folder")
    is_talkative = not (args.quiet or args.as_json)
    models = _Models(
        _find_models(args.model or [], args.campaign, args.rounds, args.loading),
        enabled=is_talkative,
    )
    wants_model = any(needs_model(name, settings) for name in names)
    if wants_model and not models.specs:
        raise ArgumentError(
            f"--representations {','.join(names)} needs a model; give --model or --campaign"
        )
    potential = models.load(0) if wants_model else None
    if potential is not None:
        potential.check_block(settings.parameters)
    frames = read_usable(args.pool, potential, option="--pool", enabled=is_talkative)
    sample, order_by = _sample(
        frames, args.group_by, args.order_by, args.max_structures, say=not args.quiet
    )
    with console.show_progress(enabled=is_talkative) as progress:
        study = study_geometry(
            [frame.atoms for frame in frames],
            sample,
            names,
            potentials=models if wants_model else (),
            options=settings,
            batch_atoms=args.batch_atoms,
            progress=progress,
        )
    words = describe(study, group_by=args.group_by, order_by=order_by)
    _draw_and_write(args.out, study, words, quiet=args.quiet)
    inputs = {"pool": args.pool, "group_by": args.group_by, "order_by": order_by}
    chosen = {
        "kernels": names,
        "max_structures": args.max_structures,
        "parameters": settings.parameters,
    }
    summary = {
        "format_version": 1,
        "inputs": {**inputs, "models": {name: spec.path for name, spec in models.specs}},
        "settings": {**chosen, "sketch_dim": settings.sketch_dim, "seed": settings.seed},
        "model_details": models.described,
        "versions": package_versions(),
        **to_data(study),
        "sources": [str(frames[i].source) for i in sample.idx],
    }
    write_text(args.out / GEOMETRY_DATA, to_json(summary))
    if args.as_json:
        typer.echo(to_json(summary), nl=False)
    elif is_talkative:
        _show(study, words, args.out)


class _Models:
    """Models one after another, one in memory at a time."""

    def __init__(self, specs: Sequence[tuple[str, ModelSpec]], *, enabled: bool) -> None:
        self.specs = specs
        self.described: dict[str, Any] = {}
        self._enabled = enabled
        self._kept: tuple[int, Potential] | None = None

    def load(self, place: int) -> Potential:
        if self._kept is None or self._kept[0] != place:
            self._kept = None
            name, spec = self.specs[place]
            with console.show_status(f"loading {name}", enabled=self._enabled):
                potential = require_model(spec)
            self.described[name] = describe_potential(potential)
            self._kept = (place, potential)
        return self._kept[1]

    def __iter__(self) -> Iterator[tuple[str, Potential]]:
        for place, (name, _) in enumerate(self.specs):
            yield name, self.load(place)


def _find_models(
    given: Sequence[str], campaign: Path | None, rounds: str | None, how: ModelSpec
) -> list[tuple[str, ModelSpec]]:
    """List the models in the order in which they are compared, each with its own name."""
    named = [_split_name(word) for word in given]
    specs = [(name, replace(how, path=path)) for name, path in named]
    if campaign is not None:
        specs += _find_rounds(campaign, rounds, how, with_first=not specs)
    elif rounds is not None:
        raise ArgumentError("--rounds needs --campaign, whose rounds they are")
    names = [name for name, _ in specs]
    for name in names:
        if names.count(name) > 1:
            raise ArgumentError(
                f"two models are called {name!r}; name them: --model first={specs[0][1].path}"
            )
    return specs


def _split_name(word: str) -> tuple[str, str]:
    """Split ``name=path``; a path may have an equals sign in it."""
    name, equals, path = word.partition("=")
    if equals and not Path(word).exists():
        if not (name and path):
            raise ArgumentError(f"--model is {word!r}; give a model, or name=model")
        return name, path
    return Path(word).stem, word


def _find_rounds(
    directory: Path, rounds: str | None, how: ModelSpec, *, with_first: bool
) -> list[tuple[str, ModelSpec]]:
    state = read_state(directory)
    settings = state.config.model
    # Whether the file is trusted is not the folder's to say, which may be somebody else's.
    loading = replace(
        how,
        dtype=settings.dtype if how.dtype is None else how.dtype,
        head=settings.head if how.head is None else how.head,
    )
    specs = []
    if with_first:
        verify_model(state)
        first = find_model(directory, settings.path)
        specs.append(("pretrained", replace(loading, path=first)))
    for n_round in _parse_rounds(rounds, state):
        path = state.round_folder(n_round) / MODEL
        if not path.exists():
            raise ReadError(f"{path} is missing; choose other --rounds")
        verify_file(state, n_round, MODEL)
        specs.append((f"round {n_round}", replace(loading, path=str(path))))
    return specs


def _parse_rounds(words: str | None, state: CampaignState) -> list[int]:
    last = state.n_round - 1
    if last < 0:
        raise ArgumentError(f"{state.directory} has finished no round yet; run it first")
    if words is None:
        return sorted({min(1, last), last})
    found = []
    for word in words.split(","):
        if not word.strip().isdecimal() or int(word) > last:
            raise ArgumentError(
                f"--rounds is {words!r}; give finished rounds, 0 to {last}, with commas between"
            )
        found.append(int(word))
    return list(dict.fromkeys(found))


def _sample(
    frames: Sequence[Frame],
    group_by: str,
    order_by: str | None,
    max_structures: int,
    *,
    say: bool,
) -> tuple[FamilySample, str | None]:
    """Choose the structures; an order that cannot be used is left out, with a warning."""
    families = read_families(frames, group_by)
    warn: Callable[[str], None] = console.warn if say else lambda _: None
    order = None
    if order_by is not None:
        try:
            order = read_order(frames, order_by)
        except ArgumentError as error:
            warn(f"{error}; no numbers of the path, structures as they come")
            order_by = None
    sample = sample_families(families, order, max_structures=max_structures)
    if len(sample.names) == 1:
        warn(
            f"all structures have {group_by} = {sample.names[0]}: with one family there are no "
            "numbers between families"
        )
    return sample, order_by


def _draw_and_write(out: Path, study: GeometryStudy, words: Sequence[str], *, quiet: bool) -> None:
    pictures: list[str] = []
    try:
        for draw in (draw_matrices, draw_distances, draw_frames):
            pictures += draw(out, study)
    except MissingDependencyError as error:
        if not quiet:
            console.say(f"no pictures: {error}")
    shown = [name for name in pictures if name.endswith(".png")]
    write_page(out / PAGE, study, words=words, pictures=shown)
    write_tables(out, study)


def _show(study: GeometryStudy, words: Sequence[str], out: Path) -> None:
    show_rows(name_columns(study), list_rows(study), is_dense=True)
    console.tell(*words, f"tables and pictures: {out}")
