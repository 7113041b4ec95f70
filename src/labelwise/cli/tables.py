"""Tables on the terminal: a narrow one breaks texts between words, never a number or a name."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table
from rich.text import Text

from labelwise.cli import console

#: Words longer than this may be broken.
_LONGEST_WORD = 40
_LARGEST_PLAIN = 99_999.95


def show_rows(
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    n_words: int = 1,
    is_dense: bool = False,
) -> None:
    """Print rows of text on standard output as a table.

    Args:
        columns: Headings.
        rows: Cells, shown as they are.
        n_words: The first columns, which hold words; the others hold numbers, set flush right.
        is_dense: No room around cells, for many columns; headings of numbers do not wrap.
    """
    table = Table(box=box.SIMPLE_HEAD, padding=0 if is_dense else (0, 1), show_edge=not is_dense)
    for place, name in enumerate(columns):
        is_number = place >= n_words
        table.add_column(
            escape(name), justify="right" if is_number else "left", no_wrap=is_number and is_dense
        )
    for row in rows:
        table.add_row(*map(escape, row))
    show_table(table)


def show_table(table: Table, *, on: Console | None = None) -> None:
    """Print a table; columns that find no room follow in further tables below it.

    The first column is repeated in each. Columns that are set flush right or that do not wrap
    keep their width; in others texts are broken between words.

    Args:
        table: The table; it is not changed.
        on: Where it is printed; None takes standard output.
    """
    target = console.output if on is None else on
    for places in _share_out(table, target.width):
        target.print(_make_part(table, places, target.width))


def format_figure(value: float) -> str:
    """Return a number with one decimal, and from 100,000 on with three figures: ``3.56e+06``."""
    return f"{value:.1f}" if abs(value) < _LARGEST_PLAIN else f"{value:.3g}"


def format_seconds(seconds: float) -> str:
    """Return a time with two or three figures that matter: ``0.4 s``, ``12 min``, ``3.5 h``."""
    if seconds < 120.0:
        return f"{seconds:.1f} s" if seconds < 10.0 else f"{seconds:.0f} s"
    minutes = seconds / 60.0
    if minutes < 120.0:
        return f"{minutes:.1f} min" if minutes < 10.0 else f"{minutes:.0f} min"
    return f"{minutes / 60.0:,.1f} h"


def _share_out(table: Table, width: int) -> list[list[int]]:
    """Return which columns each printed part has, the first one in all."""
    least = [_widths(column)[0] for column in table.columns]
    parts = [[0]]
    for place in range(1, len(least)):
        tried = [*parts[-1], place]
        if len(parts[-1]) > 1 and sum(least[i] for i in tried) > _room(table, len(tried), width):
            parts.append([0, place])
        else:
            parts[-1] = tried
    return parts


def _make_part(table: Table, places: list[int], width: int) -> Table:
    """Return some columns of a table, narrow enough for a width where that can be."""
    columns = [table.columns[place] for place in places]
    part = Table(
        *(column.copy() for column in columns),
        box=table.box,
        padding=table.padding,
        show_edge=table.show_edge,
    )
    for row, cells in zip(table.rows, zip(*(c.cells for c in columns), strict=True), strict=True):
        part.add_row(*cells, end_section=row.end_section)
    room = _room(table, len(places), width)
    for column, size in zip(part.columns, _share_room(columns, room), strict=True):
        column.width, column.no_wrap, column.overflow = size, False, "fold"
    return part


def _share_room(columns: list[Column], room: int) -> list[int]:
    """Return widths: the widest column that has something to give gives it, until all fit."""
    least, widths = (list(found) for found in zip(*map(_widths, columns), strict=True))
    if columns[0].justify != "right":  # a name gives way to a number
        least[0] = min(least[0], max(1, room - sum(least[1:])))
    while sum(widths) > room:
        giving = [i for i in range(len(widths)) if widths[i] > least[i]]
        if not giving:
            break
        widths[max(giving, key=widths.__getitem__)] -= 1
    return widths


def _room(table: Table, n_columns: int, width: int) -> int:
    """Return the characters that are left for the cells of so many columns."""
    _, right, _, left = table.padding
    edges = 2 if table.show_edge else 0
    return width - edges - (n_columns - 1) - n_columns * (left + right)


def _widths(column: Column) -> tuple[int, int]:
    """Return the least and the natural width of a column."""
    texts = [Text.from_markup(str(cell)) for cell in (column.header, *column.cells)]
    natural = max(text.cell_len for text in texts)
    if column.no_wrap:
        return natural, natural
    if column.justify == "right":
        return max(_longest_word(texts[0]), *(text.cell_len for text in texts[1:]), 1), natural
    return min(max(map(_longest_word, texts)), _LONGEST_WORD), natural


def _longest_word(text: Text) -> int:
    return max((Text(word).cell_len for word in text.plain.split()), default=1)
