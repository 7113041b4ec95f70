"""What a path is: a selection, a campaign or a study; and the page of it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from labelwise.campaign.yaml_files import CONFIG_FILE
from labelwise.cli import console
from labelwise.cli.commands.report import TARGETS, require_target
from labelwise.errors import ReadError
from labelwise.pages.document import Document
from labelwise.pages.options import ReportOptions
from labelwise.runtime.timing import ProgressCallback, ignore_progress
from labelwise.selection.page import gather_selection, is_summary
from labelwise.studies.comparison.record import RECORD
from labelwise.studies.comparison.study_file import STUDY_FILE


def warn_of_old_options(model: str | None, device: str | None, *, is_trusted: bool) -> None:
    """Say that a page needs no model, to those who give one as in the first versions."""
    if model is not None or device is not None or is_trusted:
        console.warn(
            "--model, --trust-model and --device have no effect: a page is made of what the run "
            "wrote, and loads no model"
        )


def gather(
    target: Path, options: ReportOptions, *, progress: ProgressCallback = ignore_progress
) -> Document:
    """Make the page of whatever a path leads to.

    Args:
        target: The JSON summary of a selection, its batch, the folder of a campaign or of a study.
        options: What the reader asked for.
        progress: Called with stage, done, total, where that is known.

    Raises:
        ReadError: There is nothing at the path, or nothing that has a page.
        LabelwiseError: As the selection, campaign or comparison says.
    """
    return recognise(target, progress=progress)(options)


def recognise(
    target: Path, *, progress: ProgressCallback = ignore_progress
) -> Callable[[ReportOptions], Document]:
    """Return what makes the page of a path, without making it.

    Arguments and errors are those of ``gather``.
    """
    require_target(target)
    if target.name == RECORD and not is_summary(target):
        return _open_comparison(target)
    if not target.is_dir():
        return partial(gather_selection, find_summary(target), progress=progress)
    if (target / CONFIG_FILE).is_file():
        from labelwise.campaign.page import gather_campaign

        return partial(gather_campaign, target)
    if any((target / name).is_file() for name in (STUDY_FILE, RECORD)):
        return _open_comparison(target)
    summaries = [path for path in sorted(target.glob("*.json")) if is_summary(path)]
    if len(summaries) == 1:
        return partial(gather_selection, summaries[0], progress=progress)
    if summaries:
        names = ", ".join(path.name for path in summaries[:5])
        raise ReadError(f"{target} holds {len(summaries)} selections ({names}): give one of them")
    raise ReadError(f"{target} is no campaign, no study and holds no selection; give {TARGETS}")


def _open_comparison(target: Path) -> Callable[[ReportOptions], Document]:
    from labelwise.studies.comparison.page import gather_comparison

    return partial(gather_comparison, target)


def find_summary(path: Path) -> Path:
    """Return the summary of a selection, given that or the batch.

    Raises:
        ReadError: It is neither.
    """
    if is_summary(path):
        return path
    beside = path.with_suffix(".json")
    if path.suffix != ".json" and is_summary(beside):
        return beside
    if path.suffix == ".json":
        raise ReadError(f"{path} is not the summary of a selection; give {TARGETS}")
    raise ReadError(f"the summary of {path} is not beside it ({beside.name}); give {TARGETS}")
