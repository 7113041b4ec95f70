"""Heat maps of kernels."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from labelwise.studies.diagnostics.geometry_pictures import (
    CAPTIONS,
    draw_distances,
    draw_frames,
    draw_matrices,
)
from labelwise.studies.diagnostics.geometry_study import GeometryStudy
from tests.studies.diagnostics.test_geometry_report import make_study

pytest.importorskip("matplotlib")
PNG = b"\x89PNG"


def with_matrix(study: GeometryStudy, K: np.ndarray) -> GeometryStudy:
    return replace(study, entries=tuple(replace(entry, K=K) for entry in study.entries))


def test_pictures_are_there_and_say_what_they_show(tmp_path: Path) -> None:
    study = make_study(("before", "round 1", "round 2"))
    for draw, stem in (
        (draw_matrices, "kernels"), (draw_distances, "distances"), (draw_frames, "frames"),
    ):  # fmt: skip
        assert draw(tmp_path, study) == [f"{stem}.png", f"{stem}.svg"]
        assert (tmp_path / f"{stem}.png").read_bytes().startswith(PNG)
        svg = (tmp_path / f"{stem}.svg").read_text()
        for words in (CAPTIONS[stem], "soap", "ntk-e", *study.sample.names):
            assert f"<!-- {words} -->" in svg, words


def test_same_study_gives_the_same_files(tmp_path: Path) -> None:
    study = make_study()
    draw_matrices(tmp_path / "first", study)
    draw_matrices(tmp_path / "second", study)
    for name in ("kernels.png", "kernels.svg"):
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_kernels_that_tell_nothing_apart_are_drawn(tmp_path: Path) -> None:
    study = with_matrix(make_study(), np.ones((12, 12)))
    assert draw_matrices(tmp_path, study) and draw_frames(tmp_path, study)
    assert draw_distances(tmp_path, study) == []


def test_one_family_or_one_structure_a_family(tmp_path: Path) -> None:
    alone = make_study(names=("only",))
    assert draw_matrices(tmp_path, alone) and draw_frames(tmp_path, alone)
    assert draw_distances(tmp_path, alone) == []
    singles = make_study(names=("a", "b", "c"), n=1)
    assert draw_frames(tmp_path, singles)


def test_frames_of_many_families_are_the_first_eight(tmp_path: Path) -> None:
    study = make_study(names=tuple(f"family{i}" for i in range(12)), n=2)
    draw_frames(tmp_path, study)
    svg = (tmp_path / "frames.svg").read_text()
    assert "family7" in svg and "family8" not in svg
