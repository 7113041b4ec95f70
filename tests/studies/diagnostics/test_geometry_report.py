"""Tables, page and plain data of a study of kernels."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from labelwise.studies.diagnostics.geometry import measure_geometry
from labelwise.studies.diagnostics.geometry_report import (
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
    KernelEntry,
    sample_families,
)


def make_study(
    models: tuple[str, ...] = ("m",), names: tuple[str, ...] = ("a|b", "c"), n: int = 6
) -> GeometryStudy:
    """Return a study of random kernels: ``ntk-e`` of each model, and ``soap``."""
    families = [name for name in names for _ in range(n)]
    order = np.tile(np.arange(n, dtype=np.float64), len(names))
    sample = sample_families(families, order, max_structures=len(families))
    entries = []
    for i, model in enumerate((*models, None)):
        rows = np.random.default_rng(i).normal(size=(len(families), 4))
        rows[:, 0] += 3.0 * sample.family
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        entries.append(_entry(rows @ rows.T, model, sample, 0.5 if 0 < i < len(models) else np.nan))
    return GeometryStudy(sample, tuple(entries), models)


def _entry(
    K: np.ndarray, model: str | None, sample: FamilySample, similarity: float
) -> KernelEntry:
    geometry = measure_geometry(K, sample.family, order=sample.order, names=sample.names)
    kernel = "soap" if model is None else "ntk-e"
    return KernelEntry(kernel, model, geometry, float(similarity), 0.1, K)


def test_rows_of_one_model() -> None:
    study = make_study()
    rows = list(list_rows(study))
    assert [row[0] for row in rows] == ["ntk-e", "soap"]
    assert "CKA" not in name_columns(study)
    assert {len(row) for row in rows} == {len(name_columns(study))}
    place = name_columns(study).index("KTA")
    assert float(rows[1][place]) == pytest.approx(study.entries[1].geometry.alignment, abs=0.006)


def test_rows_of_several_models_stand_below_their_kernel() -> None:
    study = make_study(("before", "round 1"))
    rows = list(list_rows(study))
    assert [row[0] for row in rows] == ["ntk-e", "  before", "  round 1", "soap"]
    assert [row[-1] for row in rows] == ["", "", "0.50", ""]
    assert any(
        "same kernel of before" in line for line in describe(study, group_by="r", order_by=None)
    )


def test_terminal_table_fits_80_columns() -> None:
    study = make_study(("before", "round 1"))
    rows = [name_columns(study), *list_rows(study)]
    widths = [max(len(row[i]) for row in rows) for i in range(1, len(rows[0]))]
    assert 18 + sum(widths) + len(widths) <= 80


def test_tables_hold_the_numbers(tmp_path: Path) -> None:
    study = make_study(("before", "round 1"))
    write_tables(tmp_path, study)
    with (tmp_path / "geometry.csv").open() as stream:
        lines = list(csv.DictReader(stream))
    assert [(line["kernel"], line["model"]) for line in lines] == [
        ("ntk-e", "before"), ("ntk-e", "round 1"), ("soap", ""),
    ]  # fmt: skip
    for line, entry in zip(lines, study.entries, strict=True):
        for key in ("within", "gap", "ratio", "path_correlation", "effective_rank"):
            shown = float(line[key]) if line[key] else math.nan
            assert shown == pytest.approx(getattr(entry.geometry, key), nan_ok=True)
    assert [line["similarity"] for line in lines] == ["", "0.5", ""]
    with (tmp_path / "families.csv").open() as stream:
        families = list(csv.DictReader(stream))
    assert [line["family"] for line in families] == ["a|b", "c"] * 3
    first = study.entries[0].geometry.families[0]
    assert float(families[0]["path_correlation"]) == pytest.approx(first.path_correlation)


def test_page_is_made_of_whole_tables(tmp_path: Path) -> None:
    study = make_study(("before", "round 1"))
    words = describe(study, group_by="reaction", order_by="frame")
    write_page(tmp_path / "page.md", study, words=words, pictures=["kernels.png"])
    text = (tmp_path / "page.md").read_text()
    assert "12 of 12 structures, 2 families (reaction), in order of frame." in text
    assert "![kernels](kernels.png)" in text
    lines = [line.replace("\\|", "") for line in text.splitlines() if line.startswith("|")]
    tables = [line.count("|") for line in lines]
    assert set(tables[:6]) == {12} and set(tables[6:]) == {11}
    assert len(tables) == 2 + 4 + 2 + 6


def test_data_have_no_nan() -> None:
    study = make_study(names=("only",))
    data = json.loads(json.dumps(to_data(study), allow_nan=False))
    assert data["kernels"][0]["between"] is None and data["kernels"][0]["gap"] is None
    assert data["kernels"][0]["families"][0]["name"] == "only"
    assert data["families"] == [{"name": "only", "n_offered": 6, "n_structures": 6}]
    assert data["idx"] == list(range(6))
