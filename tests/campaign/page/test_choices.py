from __future__ import annotations

from collections import Counter
from dataclasses import replace

from labelwise.campaign.page.choices import make_choice_tables, make_failure_table
from labelwise.campaign.saved import SavedCampaign


def test_tables_list_what_was_chosen_without_a_map(saved: SavedCampaign) -> None:
    choice = make_choice_tables(saved, (), None)
    assert choice is not None
    assert [name for name, _ in choice.options] == ["round 1", "round 2"]
    for n_round, (_, table) in enumerate(choice.options, start=1):
        fates = Counter(
            each.fate for each in saved.candidates
            if each.n_round == n_round and each.fate != "reserve"
        )  # fmt: skip
        assert Counter(row[-1] for row in table.rows) == fates
        assert table.points == ()
        assert all(row[5] is None for row in table.rows)  # nobody has predicted anything


def test_failures_say_why(saved: SavedCampaign) -> None:
    table = make_failure_table(saved, None)
    assert table is not None
    assert {row[2] for row in table.rows} == {"no-label"}
    assert all("REF_energy" in row[3] for row in table.rows)
    assert make_failure_table(replace(saved, state=replace(saved.state, failures={})), None) is None
