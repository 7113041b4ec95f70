"""A study's results as a page."""

from __future__ import annotations

from pathlib import Path

from labelwise.pages.document import Document, Kind, Panel, Section
from labelwise.pages.options import ReportOptions
from labelwise.studies.comparison import shown
from labelwise.studies.comparison.page.charts import ComparisonCharts
from labelwise.studies.comparison.page.diagnosis import read_diagnosis
from labelwise.studies.comparison.page.facts import describe_study, list_facts
from labelwise.studies.comparison.page.kept_diagnostics import read_kept
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.comparison.record import StudyRecord, read_record
from labelwise.studies.comparison.wording import list_warnings

_PROTOCOL = (
    "AUC is the sum over the rounds after round 0, which all methods of a pool and a seed share.",
    "A ratio is taken pool by pool and seed by seed and averaged as its logarithm.",
)


def gather_comparison(
    folder: Path,
    options: ReportOptions | None = None,  # noqa: ARG001 - the three pages are asked alike
) -> Document:
    """Make a page of what ``labelwise compare`` found.

    Kernels of a sample of the first pool, and how well their uncertainty is calibrated, are shown
    as ``labelwise compare`` measured them. Where it did not, the page says so.

    Args:
        folder: Of the study, with ``results.json`` in it; or that file.
        options: What a reader may ask of a page, of which nothing concerns this one.

    Returns:
        The page.

    Raises:
        ReadError: The record is missing, or not what ``labelwise compare`` writes.
    """
    place = folder if folder.is_dir() or folder.suffix != ".json" else folder.parent
    return show_comparison(read_record(place))


def show_comparison(record: StudyRecord) -> Document:
    """Make a page of a study's results, and of what lies beside them; see ``gather_comparison``."""
    namer = Namer()
    charts = ComparisonCharts(record.comparison, namer)
    diagnosis = read_diagnosis(record.folder, namer)
    kept = read_kept(record.folder, namer)
    kernels = (
        *(*diagnosis.kernels, *kept.kernels),
        *(*diagnosis.reliability, *kept.reliability),
        *diagnosis.ranking,
    )
    sections = [
        *_list_result_sections(record, charts),
        *_list_method_sections(record, charts),
        Section("kernels-section", "Kernels", kernels),
    ]
    return Document(
        kind=Kind.COMPARISON,
        title=record.title,
        subtitle=describe_study(record),
        facts=list_facts(record),
        sections=tuple(section for section in sections if section.panels or section.text),
        notes=(*record.notes, *_PROTOCOL, *diagnosis.notes, *kept.notes),
    )


def _list_result_sections(record: StudyRecord, charts: ComparisonCharts) -> list[Section]:
    comparison = record.comparison
    results = (
        *_draw(shown.make_errors(comparison)),
        *charts.draw_ratios(),
        *_draw(shown.make_ratios(comparison)),
        *_draw(shown.make_gains(comparison)),
        *_draw(shown.make_scratch(comparison)),
    )
    sections = [
        Section("results", "Results", results, text=list_warnings(comparison)),
        Section("learning-curves", "Learning curves", tuple(charts.draw_curves())),
    ]
    if len(comparison.pools) > 1:
        sections.append(Section("pools", "Pools", _draw(shown.make_pools(comparison))))
    if comparison.splits:
        panels = (*charts.draw_split_curves(), *_draw(shown.make_splits(comparison)))
        sections.append(Section("splits", "Test splits", panels))
    return sections


def _list_method_sections(record: StudyRecord, charts: ComparisonCharts) -> list[Section]:
    comparison = record.comparison
    committees = (*charts.draw_correlations(), *_draw(shown.make_committees(comparison)))
    cost = (
        *charts.draw_cost_against_gain(record.costs),
        *charts.draw_stages(),
        *_draw(shown.make_costs(comparison, record.costs)),
    )
    return [
        Section("committees-section", "Committees", committees),
        Section("cost-section", "Cost", cost),
    ]


def _draw(table: shown.Shown) -> tuple[Panel, ...]:
    panel = table.as_panel()
    return () if panel is None else (panel,)
