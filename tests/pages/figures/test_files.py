from __future__ import annotations

import csv
import hashlib
import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
from PIL import Image

from labelwise.errors import ArgumentError, WriteError
from labelwise.pages.document import Document, Section
from labelwise.pages.figures.files import write_figures
from labelwise.pages.figures.settings import FigureSettings
from tests.pages.documents import make_document

HOSTILE = ' _<b>&"$x_{1}$ \\frac]]> \x00\x07日本'
NAMES = (
    *("map", "learning-curves", "parity", "distances", "bars", "stacked", "kernel"),
    *("forces-0", "forces-1", "forces-2"),
)


def shrink(document: Document) -> Document:
    """Keep two panels of each kind but maps, to be quick."""
    first, second, third = document.sections
    some = replace(second, panels=second.panels[:1])
    return replace(document, sections=(first, some, replace(third, panels=third.panels[:2])))


def digest(folder: Path) -> dict[str, str]:
    paths = sorted(folder.iterdir())
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("figures")
    write_figures(make_document(), folder, FigureSettings(("png", "svg")))
    return folder


def text_of(path: Path) -> str:
    texts = [element for element in ET.parse(path).iter() if element.tag.endswith("}text")]
    return "\n".join("".join(element.itertext()) for element in texts)


def test_every_panel_is_written(folder: Path) -> None:
    expected = {f"{name}.{kind}" for name in NAMES for kind in ("png", "svg")}
    assert {path.name for path in folder.iterdir()} == {*expected, "picks.csv", "figures.md"}


def test_labels_are_text_in_svg(folder: Path) -> None:
    words = text_of(folder / "learning-curves.svg")
    for label in ("labels", "force RMSE / meV Å⁻¹", "posterior variance", "k-center"):
        assert label in words
    assert "structures" in text_of(folder / "distances.svg")
    assert "Learning curves" not in words


def test_figures_have_the_width_of_a_column(folder: Path) -> None:
    with Image.open(folder / "learning-curves.png") as image:
        assert image.width == pytest.approx(85 / 25.4 * 300, abs=2)
        assert len(np.unique(np.asarray(image.convert("L")))) > 20


def test_tables_are_csv(folder: Path) -> None:
    text = (folder / "picks.csv").read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text)))
    assert rows[0] == ["structure", "order", "variance", "cluster mass"]
    assert len(rows) == 131
    assert rows[1][3] == ""
    assert float(rows[2][3]) == 1e-6


def test_the_index_names_every_file(folder: Path) -> None:
    index = (folder / "figures.md").read_text(encoding="utf-8")
    assert all(f"[{name}.png]({name}.png)" in index for name in NAMES)
    assert "Near points are alike under the kernel." in index


def test_the_same_page_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        settings = FigureSettings(("png", "svg", "pdf"))
        write_figures(shrink(make_document(n_points=80)), tmp_path / name, settings)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_hostile_texts_make_sound_files(tmp_path: Path) -> None:
    document = shrink(make_document(text=HOSTILE, n_points=80))
    files = write_figures(document, tmp_path, FigureSettings(("svg",)))
    words = "".join(text_of(path) for path in files if path.suffix == ".svg")
    assert '<b>&"$x_{1}$' in words
    index = (tmp_path / "figures.md").read_text(encoding="utf-8")
    assert "<b>" not in index.replace("\\<b\\>", "")
    assert "\x00" not in index


def test_grey_figures_are_grey(tmp_path: Path) -> None:
    document = shrink(make_document(n_points=80))
    write_figures(document, tmp_path, FigureSettings(("png",), is_grey=True))
    for path in tmp_path.glob("*.png"):
        with Image.open(path) as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert np.ptp(pixels, axis=2).max() <= 2, path.name


def test_names_that_cannot_name_files(tmp_path: Path) -> None:
    table = make_document().sections[2].panels[0]
    for name in ("../up", "a b", ""):
        panel = replace(table, name=name)
        document = replace(make_document(), sections=(Section("s", "S", (panel,)),))
        with pytest.raises(ArgumentError, match="letters, digits and hyphens"):
            write_figures(document, tmp_path)
    twice = replace(make_document(), sections=(Section("s", "S", (table, table)),))
    with pytest.raises(ArgumentError, match="each once"):
        write_figures(twice, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="is a file; name a folder"):
        write_figures(make_document(), tmp_path / "file")
