"""What a page shows: numbers, charts, tables, a map and structures, as plain data.

Builders make a ``Document`` of saved results. ``page`` writes it as HTML and ``figures`` draws its
charts for print; neither knows where the numbers came from, and no builder knows how they
are drawn. Every text is plain text: whoever shows it escapes it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
from jaxtyping import Float32, Int16, Int32, Shaped, UInt8

#: What a table's cell holds: a text, a number, or nothing.
Cell = str | float | int | None


class Kind(StrEnum):
    """What a page is about."""

    SELECTION = "selection"
    CAMPAIGN = "campaign"
    COMPARISON = "comparison"


class Role(StrEnum):
    """What a structure is to a selection; in the order in which maps draw them."""

    SCREENED = "set aside"
    POOL = "pool"
    SHORTLISTED = "shortlisted"
    LABELLED = "labelled"
    CHOSEN = "chosen"


@dataclass(frozen=True)
class Fact:
    """A headline number.

    Attributes:
        label: What it is.
        value: As it is shown, unit included.
        note: A few words more; may be empty.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class StructureSet:
    """Structures to be looked at, packed.

    Attributes:
        names: Where each is from, ``file@frame``, (s,).
        formulas: Chemical formula of each, (s,).
        starts: First atom of each, and the number of atoms at the end, (s + 1,).
        numbers: Atomic numbers, (a,).
        positions: Coordinates in units of their structure's ``scales``, (a, 3).
        scales: Å per unit of ``positions``, (s,).
        cells: Lattice vectors in rows, Å, NaN without a cell, (s, 9).
        atom_values: A number for each atom, NaN where there is none, (a,); None if no
            structure has any.
        atom_label: What ``atom_values`` are, with their unit.
        fixed: 1 for atoms that do not move, (a,); None if none is fixed.
    """

    names: tuple[str, ...]
    formulas: tuple[str, ...]
    starts: Int32[np.ndarray, " s_plus_1"]
    numbers: UInt8[np.ndarray, " a"]
    positions: Int16[np.ndarray, "a 3"]
    scales: Float32[np.ndarray, " s"]
    cells: Float32[np.ndarray, "s 9"]
    atom_values: Float32[np.ndarray, " a"] | None = None
    atom_label: str = ""
    fixed: UInt8[np.ndarray, " a"] | None = None


@dataclass(frozen=True)
class NumberColumn:
    """A number of each point, to colour by and to show.

    Attributes:
        name: What it is.
        values: NaN where it is not known, (n,).
        unit: Empty if it has none.
    """

    name: str
    values: Float32[np.ndarray, " n"]
    unit: str = ""


@dataclass(frozen=True)
class CategoryColumn:
    """A word for each point.

    Attributes:
        name: What it is.
        codes: Place in ``categories``, -1 where there is none, (n,).
        categories: The words, most frequent first.
    """

    name: str
    codes: Int32[np.ndarray, " n"]
    categories: tuple[str, ...]


Column = NumberColumn | CategoryColumn


@dataclass(frozen=True)
class PointNote:
    """Why a point was chosen, or what else there is to say of it.

    Attributes:
        point: The point.
        lines: Label and text of each line.
    """

    point: int
    lines: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class PoolMap:
    """Structures as points in a plane.

    Attributes:
        name: Unique on the page; letters, digits, hyphens. Names the figure's file, too.
        title: Heading.
        x, y: Coordinates, dimensionless, (n,).
        roles: Place in ``list(Role)``, (n,), as it is at the end.
        x_label, y_label: Of the axes.
        files: Names of files.
        file: Place in ``files``, (n,).
        frame: Number of the frame in its file, (n,).
        structure: Place in the document's structures, -1 if it is not among them, (n,).
        neighbour: The point of its nearest labelled structure, -1 if there is none, (n,).
        columns: What points are coloured by, and shows when one is pointed at.
        rounds: Round from which a point counts as labelled, -1 if it never does, (n,); with it
            there is a slider, and points of a later round are shown as the pool's.
        notes: Of points that have something to be told.
        colour_by: Name of the column by which it is coloured at first; by role if None.
        caption: What is seen, in a sentence or two.
    """

    name: str
    title: str
    x: Float32[np.ndarray, " n"]
    y: Float32[np.ndarray, " n"]
    roles: UInt8[np.ndarray, " n"]
    x_label: str
    y_label: str
    files: tuple[str, ...]
    file: Int32[np.ndarray, " n"]
    frame: Int32[np.ndarray, " n"]
    structure: Int32[np.ndarray, " n"]
    neighbour: Int32[np.ndarray, " n"]
    columns: tuple[Column, ...] = ()
    rounds: Int32[np.ndarray, " n"] | None = None
    notes: tuple[PointNote, ...] = ()
    colour_by: str | None = None
    caption: str = ""


@dataclass(frozen=True)
class Axis:
    """One axis of a chart.

    Attributes:
        label: With its unit, as in ``force RMSE / meV Å⁻¹``.
        is_log: Whether it is logarithmic.
    """

    label: str
    is_log: bool = False


@dataclass(frozen=True)
class Series:
    """Points of one name in a chart.

    Attributes:
        name: As the legend says.
        x: Abscissae, numbers or words, (k,).
        y: Ordinates, NaN where unknown, (k,).
        low, high: Ends of a band or of error bars, (k,); both or neither.
        style: Colour, dash and marker are those of this number, so that one name looks the same in
            every chart; its place in the chart if None.
        structure: Place in the document's structures of each point, -1 if none, (k,); points
            that have one open it when clicked.
    """

    name: str
    x: Shaped[np.ndarray, " k"] | tuple[str, ...]
    y: Float32[np.ndarray, " k"]
    low: Float32[np.ndarray, " k"] | None = None
    high: Float32[np.ndarray, " k"] | None = None
    style: int | None = None
    structure: Int32[np.ndarray, " k"] | None = None


class Mark(StrEnum):
    """How the series of a chart are drawn."""

    LINES = "lines"  # with markers; low and high as a band
    STEPS = "steps"  # a histogram's outline: y holds from x to the next x
    POINTS = "points"  # low and high as error bars
    BARS = "bars"  # side by side
    STACKED = "stacked"  # bars on one another


@dataclass(frozen=True)
class Chart:
    """Series on common axes.

    Attributes:
        name: Unique on the page; letters, digits, hyphens. Names the figure's file, too.
        title: Heading.
        mark: How series are drawn.
        x, y: The axes.
        series: What is drawn.
        diagonal: Whether a line y = x is drawn, both axes with the same range.
        caption: What is seen.
        band_name: What the bands are, for the switch that shows them; empty without bands.
    """

    name: str
    title: str
    mark: Mark
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    diagonal: bool = False
    caption: str = ""
    band_name: str = ""


@dataclass(frozen=True)
class HeatMap:
    """A matrix in colours.

    Attributes:
        name: Unique on the page; letters, digits, hyphens.
        title: Heading.
        values: NaN where unknown, (r, c).
        rows, columns: Names, (r,) and (c,).
        label: What the values are, with their unit.
        limits: Ends of the scale; those of the values if None.
        caption: What is seen.
    """

    name: str
    title: str
    values: Float32[np.ndarray, "r c"]
    rows: tuple[str, ...]
    columns: tuple[str, ...]
    label: str
    limits: tuple[float, float] | None = None
    caption: str = ""


@dataclass(frozen=True)
class TableColumn:
    """A column of a table.

    Attributes:
        name: Heading, with its unit.
        digits: Significant digits that are shown of its numbers; None for words and for
            numbers shown as they are.
    """

    name: str
    digits: int | None = None


@dataclass(frozen=True)
class Table:
    """Rows that can be sorted.

    Attributes:
        name: Unique on the page; letters, digits, hyphens.
        title: Heading.
        columns: What each column is.
        rows: Cells of each row, as many as columns.
        points: The map's point that each row tells of, -1 if none; empty without a map. Such a
            row opens the structure.
        map_name: The map of ``points``.
        caption: What is seen.
    """

    name: str
    title: str
    columns: tuple[TableColumn, ...]
    rows: tuple[tuple[Cell, ...], ...]
    points: tuple[int, ...] = ()
    map_name: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Choice:
    """Several panels of which one is shown, chosen from a list.

    Attributes:
        name: Unique on the page; letters, digits, hyphens.
        label: What is chosen, such as ``round``.
        options: Name and panel of each.
        first: Place of the option that is shown at first.
    """

    name: str
    label: str
    options: tuple[tuple[str, Chart | HeatMap | Table], ...]
    first: int = 0


Panel = PoolMap | Chart | HeatMap | Table | Choice


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        name: Unique on the page; letters, digits, hyphens; the link to it.
        title: Heading.
        panels: What it shows, in order.
        text: Paragraphs above the panels.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    text: tuple[str, ...] = ()


@dataclass(frozen=True)
class Document:
    """A whole page.

    Attributes:
        kind: What it is about.
        title: Heading.
        subtitle: One line: what was done, by which rule, with which model.
        facts: Headline numbers.
        sections: The parts, in order.
        structures: What can be looked at in three dimensions.
        notes: Small print: files, versions, how numbers were computed.
    """

    kind: Kind
    title: str
    subtitle: str
    facts: tuple[Fact, ...] = ()
    sections: tuple[Section, ...] = ()
    structures: StructureSet | None = None
    notes: tuple[str, ...] = field(default=())
