"""Bars on a terminal, and nothing elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from labelwise.cli import console


@pytest.mark.parametrize(("is_terminal", "enabled"), [(True, True), (True, False), (False, True)])
def test_bars_are_drawn_on_terminals_only(
    is_terminal: bool, enabled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    drawn = Console(file=written, force_terminal=is_terminal, width=100)
    monkeypatch.setattr(console, "errors", drawn)
    with console.show_progress(enabled=enabled, totals={"read pool": 7}) as report:
        report("read pool", 3, None)
        report("select", 2, 5)
    text = written.getvalue()
    assert ("read pool" in text and "3/3" in text and "2/2" in text) == (is_terminal and enabled)
    assert bool(text) == (is_terminal and enabled)
