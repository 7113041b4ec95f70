"""The example of the guide to representations, run as it stands."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from labelwise.features.representations import base

GUIDE = Path(__file__).parents[3] / "docs" / "adding_a_representation.md"


def test_the_guides_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with ``check_representation`` of both kinds."""
    monkeypatch.setattr(base, "_FACTORIES", dict(base._FACTORIES))
    names: dict[str, Any] = {"__name__": "documented"}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    for code in blocks:
        exec(compile(code, str(GUIDE), "exec"), names)  # our own documentation
    assert "check_representation" in names
    assert {"distances", "force-sizes"} <= set(base.list_representations())
