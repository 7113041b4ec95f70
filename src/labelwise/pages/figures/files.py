"""The figures of a page as files, tables as CSV, and an index of both."""

from __future__ import annotations

import csv
import io
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from labelwise.errors import ArgumentError, WriteError
from labelwise.pages.document import Chart, Document, HeatMap, Panel, PoolMap, Section, Table
from labelwise.pages.figures.charts import draw_chart
from labelwise.pages.figures.heat_maps import draw_heat_map
from labelwise.pages.figures.pool_maps import draw_pool_map
from labelwise.pages.figures.settings import FigureSettings
from labelwise.pages.figures.styles import clean, drawing
from labelwise.runtime.files import write_bytes, write_text

INDEX = "figures.md"
_DOTS_AN_INCH = 300
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_MARKDOWN = re.compile(r"([\\`*_\[\]<>#|!&])")
#: What files say of their making; dates and versions would make every run's differ.
_METADATA: dict[str, dict[str, None]] = {
    "png": {"Software": None},
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
}

Single = PoolMap | Chart | HeatMap | Table


def write_figures(
    document: Document, folder: Path, settings: FigureSettings | None = None
) -> list[Path]:
    """Write every chart, heat map and map of a page as figures, and every table as CSV.

    Of panels among which a reader chooses, each is written. The same document gives the same
    bytes.

    Args:
        document: The page.
        folder: Where to; made if missing. Files of the same names are replaced.
        settings: How; None for the defaults.

    Returns:
        The files, the index first.

    Raises:
        ArgumentError: A panel's name cannot name a file, or two panels have one name.
        MissingDependencyError: Matplotlib is not installed.
        WriteError: A file cannot be written.
    """
    settings = FigureSettings() if settings is None else settings
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"{folder} is a file; name a folder for the figures")
    panels = [(section, panel) for section in document.sections for panel in _list_all(section)]
    _check_names([panel.name for _, panel in panels])
    written: dict[str, list[str]] = {}
    with drawing():
        for _, panel in panels:
            files = {f"{panel.name}.csv": _as_csv(panel)} if isinstance(panel, Table) else {}
            files = files or _render(panel, settings)
            for name, content in files.items():
                write_bytes(folder / name, content)
            written[panel.name] = list(files)
    write_text(folder / INDEX, _make_index(document, written))
    return [folder / INDEX, *(folder / name for names in written.values() for name in names)]


def _list_all(section: Section) -> Iterator[Single]:
    for panel in section.panels:
        yield from list_single(panel)


def list_single(panel: Panel) -> Iterator[Single]:
    """Yield a panel, or each of those among which it lets choose."""
    if isinstance(panel, PoolMap | Chart | HeatMap | Table):
        yield panel
    else:
        for _, option in panel.options:
            yield option


def _check_names(names: list[str]) -> None:
    for name in names:
        if not _NAME.fullmatch(name) or names.count(name) > 1:
            raise ArgumentError(
                f"a panel is called {name!r}; names are letters, digits and hyphens, each once"
            )


def _render(panel: Single, settings: FigureSettings) -> dict[str, bytes]:
    """Draw a panel and return the content of its files."""
    figure = _draw(panel, settings)
    files = {}
    with warnings.catch_warnings():
        # Names may have letters that the font lacks; they are drawn as boxes.
        warnings.filterwarnings("ignore", message=r"Glyph \d+ .* missing from font")
        for _ in range(2 if _has_fixed_shape(figure) else 1):
            figure.draw_without_rendering()
        figure.set_layout_engine("none")  # laid out once, not for each file
        for kind in settings.formats:
            content = io.BytesIO()
            figure.savefig(content, format=kind, dpi=_DOTS_AN_INCH, metadata=_METADATA[kind])
            files[f"{panel.name}.{kind}"] = content.getvalue()
    return files


def _has_fixed_shape(figure: Any) -> bool:
    """Tell whether axes keep their shape; such find their place in two passes."""
    return any(axes.get_aspect() != "auto" for axes in figure.axes)


def _draw(panel: Single, settings: FigureSettings) -> Any:
    if isinstance(panel, Chart):
        return draw_chart(panel, settings)
    if isinstance(panel, HeatMap):
        return draw_heat_map(panel, settings)
    if isinstance(panel, PoolMap):
        return draw_pool_map(panel, settings)
    raise TypeError(f"{type(panel).__name__} is no figure")


def _as_csv(table: Table) -> bytes:
    """Return a table with all digits; what is not known is left empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.name for column in table.columns])
    writer.writerows([["" if cell is None else cell for cell in row] for row in table.rows])
    return text.getvalue().encode("utf-8")


def _make_index(document: Document, written: dict[str, list[str]]) -> str:
    """Return a list of all files with headings and captions, as Markdown."""
    lines = [f"# {_escape(document.title)}", "", _escape(document.subtitle), ""]
    for section in document.sections:
        panels = list(_list_all(section))
        if not panels:
            continue
        lines += [f"## {_escape(section.title)}", ""]
        for panel in panels:
            links = ", ".join(f"[{name}]({name})" for name in written[panel.name])
            lines += [f"**{_escape(panel.title)}.** {_escape(panel.caption)}", "", links, ""]
    if document.notes:
        lines += ["## Notes", "", *(f"- {_escape(note)}" for note in document.notes), ""]
    return "\n".join(lines)


def _escape(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", clean(text, 10_000))
