"""A whole comparison: run what is not finished, measure costs, write tables and curves."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from labelwise.campaign.durable import read_json, write_json
from labelwise.campaign.inputs import find_model, locate
from labelwise.errors import StructureError
from labelwise.features.fill import make_screen
from labelwise.potentials import Potential, load_potential
from labelwise.runtime.provenance import describe_machine
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.rules import JOINT_RULE
from labelwise.structures import iter_unscreened
from labelwise.studies.comparison.cells import read_results
from labelwise.studies.comparison.costs import JOINT_ROWS, measure_costs
from labelwise.studies.comparison.presets import count_structures
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import CellKey, CellResult, MethodCost
from labelwise.studies.comparison.running import StudyRun, run_cells
from labelwise.studies.comparison.study import Cell, StudyConfig, list_cells

_log = logging.getLogger(__name__)

COSTS = "costs.json"
_N_SAMPLE = 32
_N_NAMED = 5


def run_study(
    study: StudyConfig,
    folder: Path,
    base: Path,
    *,
    n_processes: int,
    n_threads: int = 1,
    force: bool = False,
    progress: ProgressCallback = ignore_progress,
) -> StudyRun:
    """Run the campaigns of a study that are not finished; see ``run_cells``.

    Args:
        study: Methods, pools and seeds.
        folder: Where campaigns and results go.
        base: Where relative paths of the study begin.
        n_processes: Campaigns at once.
        n_threads: Threads of each.
        force: Begin campaigns anew that were begun with other settings.
        progress: Called with ``rounds``, done, total.

    Raises:
        StudyError: See ``run_cells``.
        WriteError: The folder cannot be written to.
    """
    return run_cells(
        list_cells(study, folder, base),
        folder,
        n_processes=n_processes,
        n_threads=n_threads,
        force=force,
        progress=progress,
    )


def report_study(
    study: StudyConfig,
    folder: Path,
    base: Path,
    *,
    notes: tuple[str, ...] = (),
    measures: bool = True,
) -> list[Path]:
    """Write tables and curves of what a study has measured so far.

    Args:
        study: Methods, pools and seeds.
        folder: Where its campaigns are, and where the results go.
        base: Where relative paths of the study begin.
        notes: Paragraphs for the page.
        measures: Whether costs of methods are measured where they are not known, for which the
            model is loaded; without it they are left out.

    Returns:
        The files, the page first.

    Raises:
        WriteError: The folder cannot be written to.
        DamagedStateError: A campaign's file is not what it wrote.
    """
    cells = list_cells(study, folder, base)
    results = read_results(cells)
    measured = {result.key for result in results}
    costs = _find_costs([cell for cell in cells if cell.key in measured], folder, measures)
    changes = tuple(f"Changed: {change}." for change in study.changes)
    return write_report(
        folder,
        results,
        costs,
        reference=study.reference,
        energy_errors=study.energy_errors,
        title=study.title,
        notes=(*notes, *_describe_study(study, results), *changes),
        planned=[cell.key for cell in cells],
    )


def _describe_study(study: StudyConfig, results: Sequence[CellResult]) -> tuple[str, ...]:
    """Say how the campaigns were run, and what they took."""
    shared = {**study.selection, **study.finetune}
    settings = ", ".join(f"{key} {value}" for key, value in shared.items())
    seconds = sum(sum(cost.seconds.values()) for result in results for cost in result.costs)
    seeds = ", ".join(map(str, study.seeds))
    run = f"{study.rounds} rounds after round 0; {settings or 'default settings'}"
    if study.fixed_forces == "exclude":
        run += "; errors without the forces of fixed atoms"
    return (
        f"Model {Path(study.model.path).name}; seeds {seeds}; {run}.",
        f"The campaigns took {seconds / 3600:.2f} hours together. {describe_machine()}.",
        *_describe_fits(results),
    )


def _describe_fits(results: Sequence[CellResult]) -> Iterator[str]:
    """Say in which rounds energies are no result, and where fits had something to say."""
    undetermined = [(each.key, n) for each in results for n in each.undetermined]
    if undetermined:
        yield (
            f"In {_name_rounds(undetermined)}, test energies are off because the labels do not "
            "determine the reference energies of their compositions: they are no measure of the "
            "model and left blank."
        )
    told = [(each.key, n) for each in results for n in each.messages]
    if told:
        first = " ".join(next(texts for each in results for texts in each.messages.values()))
        yield f"The fits of {_name_rounds(told)} had something to say, see finetune.json: {first}"


def _name_rounds(rounds: Sequence[tuple[CellKey, int]]) -> str:
    """Return how many rounds, and which the first of them are."""
    named = [f"{k.pool} {k.method} seed {k.seed} round {n}" for k, n in rounds[:_N_NAMED]]
    more = ", ..." if len(rounds) > _N_NAMED else ""
    return f"{len(rounds)} round{'s' if len(rounds) > 1 else ''} ({', '.join(named)}{more})"


def _find_costs(cells: list[Cell], folder: Path, measures: bool) -> list[MethodCost]:
    """Return the costs of methods, measured once on their first pool and kept in a file."""
    path = folder / COSTS
    known: dict[str, Any] = read_json(path) if path.exists() else {}
    first = {cell.key.method: cell for cell in reversed(cells)}
    settings = {name: _settings(cell) for name, cell in first.items()}
    missing = [name for name in first if known.get(name, {}).get("settings") != settings[name]]
    if missing and not measures:
        names = ", ".join(missing)
        _log.info("the costs of %s are not known: --tables-only measures nothing", names)
    elif missing:
        _log.info("measuring what each method costs")
        sample = _Sample()
        for name in missing:
            cost = _measure(first[name], sample)
            known[name] = {"settings": settings[name], "cost": asdict(cost)}
        write_json(path, known)
    order = dict.fromkeys(cell.key.method for cell in cells)
    return [MethodCost(**known[name]["cost"]) for name in order if measures or name not in missing]


class _Sample:
    """Model and some structures of a pool, read once."""

    def __init__(self) -> None:
        self._potential: Potential | None = None
        self._pools: dict[str, tuple[list[Any], int]] = {}

    def potential(self, cell: Cell) -> Potential:
        """Load the pretrained model."""
        if self._potential is None:
            model = cell.config.model
            self._potential = load_potential(
                find_model(cell.directory, model.path),
                device=model.device,
                dtype=model.dtype,
                head=model.head,
                trust=model.trust,
            )
        return self._potential

    def structures(self, cell: Cell) -> tuple[list[Any], int]:
        """Return structures spread over the pool, and how many it has."""
        specs = [locate(cell.directory, spec) for spec in cell.config.data.pool]
        key = json.dumps(specs)
        if key not in self._pools:
            potential = self.potential(cell)
            screen = make_screen(potential)
            n_pool = count_structures(specs, Path())
            step = max(1, n_pool // _N_SAMPLE)
            frames = (frame for i, frame in enumerate(iter_unscreened(specs)) if i % step == 0)
            passing = (frame.atoms for frame in frames if screen.check_pool(frame) is None)
            sample = list(islice(passing, _N_SAMPLE))
            if not sample:
                raise StructureError("the pool has no structure that the model can take")
            self._pools[key] = (sample, n_pool)
        return self._pools[key]


def _measure(cell: Cell, sample: _Sample) -> MethodCost:
    selection = cell.config.selection
    structures, n_pool = sample.structures(cell)
    potentials: list[Potential] = []
    representation: str | None = None
    if selection.needs_committee:
        potentials = [sample.potential(cell)] * selection.members
    elif selection.rule != "random":
        potentials = [sample.potential(cell)]
        is_joint = selection.rule == JOINT_RULE
        representation = JOINT_ROWS if is_joint else selection.representation
    settings = selection.settings(selection.batch_size, seed=0)
    cost = measure_costs(
        cell.key.method,
        structures,
        potentials,
        representation=representation,
        options=settings.options,
        n_pool=n_pool,
        batch_atoms=selection.batch_atoms,
    )
    return replace(cost, n_models=selection.members) if selection.needs_committee else cost


def _settings(cell: Cell) -> Mapping[str, Any]:
    """Return what a method's cost depends on, as it is in JSON."""
    content = {
        "model": cell.config.model.model_dump(mode="json"),
        "selection": cell.config.selection.model_dump(mode="json"),
        "pool": cell.config.data.pool,
    }
    plain: dict[str, Any] = json.loads(json.dumps(content))
    return plain
