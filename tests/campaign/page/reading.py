"""Finding panels and series in a document."""

from __future__ import annotations

from typing import Any

from labelwise.pages.document import Chart, Choice, Document, Panel, Series


def iter_panels(document: Document) -> dict[str, Panel]:
    """Return all panels by name, those of choices too."""
    found: dict[str, Panel] = {}
    for section in document.sections:
        for panel in section.panels:
            found[panel.name] = panel
            if isinstance(panel, Choice):
                found |= {option.name: option for _, option in panel.options}
    return found


def panel(document: Document, name: str) -> Any:
    return iter_panels(document)[name]


def series(chart: Chart, name: str) -> Series:
    return next(each for each in chart.series if each.name == name)


def fact(document: Document, label: str) -> Any:
    return next(each for each in document.facts if each.label == label)
