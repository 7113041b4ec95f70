"""A whole comparison: run what is not finished, measure costs, write tables and curves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from labelwise.runtime.provenance import describe_machine
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.studies.comparison.cells import read_results
from labelwise.studies.comparison.costs import StudySample, find_costs
from labelwise.studies.comparison.report import write_report
from labelwise.studies.comparison.results import CellKey, CellResult
from labelwise.studies.comparison.running import StudyRun, run_cells
from labelwise.studies.comparison.study import StudyConfig, list_cells

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

    Example:
        In a folder ``demo`` that ``labelwise demo`` made:

        >>> from pathlib import Path
        >>> import labelwise as lw
        >>> from labelwise.studies.comparison.study import read_study
        >>> settings = '''
        ... model: {path: demo}
        ... pools:
        ...   reactions:
        ...     pool: ["pool.extxyz@:20"]
        ...     train: ["train.extxyz@:4"]
        ...     test: {files: ["test.extxyz@:4"]}
        ... methods: [random]
        ... seeds: [0]
        ... selection: {batch_size: 3}
        ... finetune: {max_updates: 2}
        ... rounds: 1
        ... '''
        >>> Path("demo/study.yaml").write_text(settings) > 0
        True
        >>> study = read_study(Path("demo"))
        >>> lw.run_study(study, Path("demo"), Path("demo"), n_processes=1).n_cells
        1

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
    begun = [cell for cell in cells if cell.key in measured]
    costs = find_costs(begun, folder, StudySample(study, base), measures=measures)
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
