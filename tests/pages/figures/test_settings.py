from __future__ import annotations

from typing import Any

import pytest

from labelwise.errors import ArgumentError
from labelwise.pages.figures.settings import FigureSettings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"formats": ()}, "formats are none"),
        ({"formats": ("png", "gif")}, "format is 'gif'; allowed are png, svg, pdf"),
        ({"formats": ("png", "png")}, "each once"),
        ({"width": 39.0}, "width is 39.0 mm; allowed are 40 to 400"),
        ({"width": float("nan")}, "width is nan mm"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ArgumentError, match=words):
        FigureSettings(**settings)
