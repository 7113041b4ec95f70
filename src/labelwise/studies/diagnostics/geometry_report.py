"""What kernels tell apart, as tables, a page and plain data."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labelwise.runtime.files import write_text
from labelwise.runtime.part_store import without_nan
from labelwise.studies.diagnostics.geometry import KernelGeometry
from labelwise.studies.diagnostics.geometry_study import GeometryStudy, KernelEntry
from labelwise.studies.tables import to_csv, to_markdown

TABLE, FAMILIES, PAGE = "geometry.csv", "families.csv", "geometry.md"

#: Attribute, heading of the column, decimals.
_COLUMNS = (
    ("within", "within", 3),
    ("between", "betw.", 3),
    ("alignment", "KTA", 2),
    ("neighbour_accuracy", "1-NN", 2),
    ("silhouette", "silh.", 2),
    ("path_correlation", "ρ path", 2),
    ("spread", "spread", 2),
    ("effective_rank", "rank", 1),
    ("effective_rank_within", "fam.", 1),
)
_MORE = ("gap", "ratio")
_FAMILY_COLUMNS = (
    ("within", "within", 3),
    ("between", "between", 3),
    ("neighbour_accuracy", "1-NN", 2),
    ("silhouette", "silhouette", 2),
    ("path_correlation", "ρ path", 2),
    ("spread", "spread", 2),
    ("effective_rank", "rank", 1),
)
LEGEND = (
    "Kernels are of cosines (Tanimoto for morgan). within, betw.: mean similarity of two "
    "structures of one family, of two. KTA: centred alignment with the matrix of same family. "
    "1-NN: structures whose nearest other one is of their family. silh.: mean silhouette under "
    "the kernel distance. ρ path: Spearman correlation of kernel distance and distance along the "
    "path, mean over families. spread: kernel distance within families over that between them. "
    "rank, fam.: effective rank of the centred matrix, whole and mean over families."
)
SIMILARITY_LEGEND = (
    "CKA: centred alignment with the same kernel of {model}; of random weights, with its trained "
    "ones."
)


def name_columns(study: GeometryStudy) -> list[str]:
    """Return the headings of the columns that ``list_rows`` fills."""
    names = ["kernel", *(heading for _, heading, _ in _COLUMNS)]
    return [*names, "CKA"] if _has_similarity(study) else names


def list_rows(study: GeometryStudy) -> Iterator[list[str]]:
    """Yield the cells of the table, short enough for a terminal; empty what is not known.

    With several models, the kernels of each that depends on weights follow a row that has the
    kernel's name alone, and are named by their model.
    """
    former = None
    for entry in study.entries:
        is_one_of_several = len(study.models) > 1 and entry.model is not None
        if is_one_of_several and entry.kernel != former:
            yield [entry.kernel, *[""] * (len(name_columns(study)) - 1)]
        former = entry.kernel
        name = f"  {entry.model}" if is_one_of_several else entry.kernel
        cells = [_format(getattr(entry.geometry, key), n) for key, _, n in _COLUMNS]
        similarity = [_format(entry.similarity, 2)] if _has_similarity(study) else []
        yield [name, *cells, *similarity]


def describe(study: GeometryStudy, *, group_by: str, order_by: str | None) -> list[str]:
    """Say in a few lines what was compared and how the table is to be read.

    Args:
        study: The kernels.
        group_by: Key of the families.
        order_by: Key of the place along the path, None if there is none.
    """
    sample = study.sample
    order = f", in order of {order_by}" if order_by is not None else ""
    n_families = len(sample.names)
    asked = (
        f"{len(sample.idx)} of {sum(sample.n_offered)} structures, {n_families} "
        f"{'family' if n_families == 1 else 'families'} ({group_by}){order}."
    )
    words = [asked, LEGEND]
    if _has_similarity(study):
        words.append(SIMILARITY_LEGEND.format(model=study.models[0]))
    return words


def write_page(
    path: Path, study: GeometryStudy, *, words: Sequence[str], pictures: Sequence[str] = ()
) -> None:
    """Write the tables as Markdown.

    Args:
        path: Where to write.
        study: The kernels.
        words: Lines above the table, see ``describe``.
        pictures: Names of pictures beside the page, shown below the tables.

    Raises:
        WriteError: The file cannot be written.
    """
    text = ["# What the kernels tell apart", ""]
    for line in words:
        text += [line, ""]
    text.append(to_markdown(name_columns(study), map(_markdown_row, list_rows(study))))
    text += ["", "## Families", "", to_markdown(*_family_table(study)), ""]
    for name in pictures:
        text += [f"![{Path(name).stem}]({name})", ""]
    write_text(path, "\n".join(text))


def write_tables(folder: Path, study: GeometryStudy) -> None:
    """Write the numbers of each kernel, and of each of its families, as CSV.

    Args:
        folder: Where ``geometry.csv`` and ``families.csv`` go.
        study: The kernels.

    Raises:
        WriteError: A file cannot be written.
    """
    keys = [*(key for key, _, _ in _COLUMNS), *_MORE]
    family_keys = ["n_structures", *(key for key, _, _ in _FAMILY_COLUMNS)]
    rows: list[list[Any]] = []
    family_rows: list[list[Any]] = []
    for entry in study.entries:
        head = [entry.kernel, entry.model]
        numbers = [getattr(entry.geometry, key) for key in keys]
        rows.append([*head, *numbers, entry.similarity, round(entry.seconds, 3)])
        family_rows += [
            [*head, family.name, *(getattr(family, key) for key in family_keys)]
            for family in entry.geometry.families
        ]
    names = ["kernel", "model", *keys, "similarity", "seconds"]
    write_text(folder / TABLE, to_csv(names, rows))
    family_names = ["kernel", "model", "family", *family_keys]
    write_text(folder / FAMILIES, to_csv(family_names, family_rows))


def to_data(study: GeometryStudy) -> dict[str, Any]:
    """Return the study as plain data, ready for JSON: None for NaN, matrices left out."""
    sample = study.sample
    return {
        "models": list(study.models),
        "families": [
            {"name": name, "n_offered": offered, "n_structures": int((sample.family == i).sum())}
            for i, (name, offered) in enumerate(zip(sample.names, sample.n_offered, strict=True))
        ],
        "idx": sample.idx.tolist(),
        "kernels": [without_nan(_entry_to_data(entry)) for entry in study.entries],
    }


def _entry_to_data(entry: KernelEntry) -> dict[str, Any]:
    geometry: KernelGeometry = entry.geometry
    numbers = {**asdict(geometry), **{key: getattr(geometry, key) for key in _MORE}}
    families = numbers.pop("families")
    return {
        "kernel": entry.kernel,
        "model": entry.model,
        **numbers,
        "similarity": entry.similarity,
        "seconds": round(entry.seconds, 3),
        "families": families,
    }


def _family_table(study: GeometryStudy) -> tuple[list[str], list[list[str]]]:
    headings = ["kernel", "family", "n", *(heading for _, heading, _ in _FAMILY_COLUMNS)]
    rows = []
    for entry in study.entries:
        several = len(study.models) > 1 and entry.model is not None
        label = f"{entry.kernel}, {entry.model}" if several else entry.kernel
        for family in entry.geometry.families:
            cells = [_format(getattr(family, key), n) for key, _, n in _FAMILY_COLUMNS]
            rows.append(_markdown_row([label, family.name, str(family.n_structures), *cells]))
    return headings, rows


def _markdown_row(cells: Sequence[str]) -> list[str]:
    """Keep a name's indent, and mark what is not known."""
    first = cells[0].replace("  ", "&nbsp;&nbsp;", 1) if cells[0].startswith("  ") else cells[0]
    is_heading = not any(cells[1:])
    rest = [cell if cell or is_heading else "-" for cell in cells[1:]]
    return [first, *rest]


def _has_similarity(study: GeometryStudy) -> bool:
    return any(not math.isnan(entry.similarity) for entry in study.entries)


def _format(value: float, decimals: int) -> str:
    return "" if math.isnan(value) else f"{value:.{decimals}f}"
