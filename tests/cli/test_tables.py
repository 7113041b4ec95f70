"""Tables at 80 columns and less: no number and no name is cut."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich import box
from rich.console import Console
from rich.table import Table

from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.rounds import RoundRecord
from labelwise.campaign.saved import SavedCampaign
from labelwise.campaign.state import CampaignState
from labelwise.cli import campaign as campaign_command
from labelwise.cli import console
from labelwise.cli.app import run
from labelwise.cli.tables import format_figure, show_table
from tests.campaign.building import make_config


def shown_at(width: int, table: Table) -> str:
    written = io.StringIO()
    show_table(table, on=Console(file=written, width=width, highlight=False))
    return written.getvalue()


@given(
    cells=st.lists(
        st.lists(st.integers(-(10**15), 10**15).map(str), min_size=9, max_size=9),
        min_size=1,
        max_size=4,
    ),
    width=st.integers(40, 120),
    padding=st.sampled_from([0, (0, 1)]),
)
def test_numbers_are_whole_at_every_width(cells: list[list[str]], width: int, padding: Any) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=padding)
    for place in range(9):
        table.add_column(f"column {place}", justify="right" if place else "left")
    for row in cells:
        table.add_row(*row)
    shown = shown_at(width, table)
    assert all(len(line) <= width for line in shown.splitlines())
    words = shown.split()
    for row in cells:
        for cell in row:
            assert cell in words, f"{cell} is cut"


def test_a_table_that_fits_is_shown_as_rich_shows_it() -> None:
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("stage")
    table.add_column("time", justify="right")
    table.add_row("represent", "1.0 s", end_section=True)
    table.add_row("[red]total[/]", "12.5 s")
    written = io.StringIO()
    Console(file=written, width=80).print(table)
    assert shown_at(80, table) == written.getvalue()
    assert len(table.rows) == 2
    assert table.columns[0].width is None, "the table itself is left as it was"


def test_texts_are_broken_between_words() -> None:
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("name", "what it is"):
        table.add_column(name)
    table.add_row("mace-mp-mace-matpes-r2scan-0", "a model " * 12)
    shown = shown_at(60, table)
    assert "mace-mp-mace-matpes-r2scan-0" in shown
    assert "…" not in shown
    assert shown.split().count("model") == 12


def test_a_long_name_gives_way_to_a_number() -> None:
    table = Table("family", box=box.SIMPLE_HEAD)
    table.add_column("chosen", justify="right")
    table.add_row("C" * 38, "1234567890")
    shown = shown_at(40, table)
    assert "1234567890" in shown.split()
    assert shown.count("C") == 38
    assert max(map(len, shown.splitlines())) <= 40


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0"), (987.66, "987.7"), (99_999.9, "99999.9"), (3_561_295.0, "3.56e+06")],
)
def test_figures_are_short(value: float, text: str) -> None:
    assert format_figure(value) == text


def wide_status(folder: Path) -> SavedCampaign:
    """Return what a campaign of large errors, many labels and long times shows."""
    names = ("energy_rmse", "energy_mae", "forces_mae", "forces_rmse")
    errors = dict.fromkeys(names, 3_561_295.123) | {"n_structures": 1000}
    stages = {"finetune": {"seconds": 1.0e6, "peak_mib": 123_456.0}}
    rounds = tuple(
        RoundRecord(n_round, 123_456, 123_456, 12_345, {"valid": errors}, stages, {}, {})
        for n_round in (10, 11)
    )
    config = CampaignConfig.model_validate(make_config(folder))
    state = CampaignState(folder, config, {}, {}, rounds)
    return SavedCampaign(
        state,
        inventory={},
        histories={},
        stages={},
        seconds={},
        calculation_hours=98_765.4,
        waiting_file="",
        n_waiting=0,
        holder="",
        is_running=False,
        stopped="",
        damage=(),
        queue=None,
    )


@pytest.mark.parametrize("width", [80, 72])
def test_a_campaign_of_wide_numbers_is_not_cut(
    width: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    monkeypatch.setattr(console, "output", Console(file=written, width=width, highlight=False))
    campaign_command._show(wide_status(tmp_path))
    shown = written.getvalue()
    assert "…" not in shown
    table = shown.split("errors in")[0]
    for text in ("123456", "12345", "3.56e+06", "277.8 h", "123456 MiB", "labelled", "E RMSE"):
        assert text in table, f"{text} is cut:\n{table}"
    assert max(map(len, table.splitlines())) <= width


@pytest.mark.parametrize("columns", ["80", "60", None])
def test_names_of_models_can_be_copied(
    columns: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    assert run(["models"]) == 0
    shown = capsys.readouterr().out
    assert "mace-matpes-r2scan-0" in shown.split()
    assert not re.search("…", shown)
