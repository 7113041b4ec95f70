from __future__ import annotations

from dataclasses import replace

from labelwise.campaign.page.facts import describe_campaign, make_facts, make_notes
from labelwise.campaign.saved import SavedCampaign


def test_headline_numbers_are_those_of_the_records(saved: SavedCampaign) -> None:
    facts = {fact.label: fact for fact in make_facts(saved)}
    assert list(facts) == [
        "state", "rounds", "labels", "set aside", "force RMSE", "energy RMSE", "time",
    ]  # fmt: skip
    failed = len(saved.state.failures)
    assert (facts["set aside"].value, facts["set aside"].note) == (
        str(failed),
        f"{failed} no-label",
    )
    recorded = saved.state.rounds[-1].errors["test"]["forces_rmse"]
    assert facts["force RMSE"].value == f"{recorded:.0f} meV/Å"
    assert "12 structures to train on" in facts["labels"].note


def test_a_campaign_without_rounds(saved: SavedCampaign) -> None:
    state = replace(saved.state, rounds=(), labels={}, failures={})
    facts = {fact.label: fact.value for fact in make_facts(replace(saved, state=state))}
    assert facts["rounds"] == "none"
    assert "force RMSE" not in facts


def test_what_is_done_in_a_line(saved: SavedCampaign) -> None:
    assert describe_campaign(saved).startswith(
        "pv on ntk-e, 4 structures a round, labels by replay"
    )
    selection = saved.config.selection.model_copy(update={"rule": "random", "batch_size": 1})
    config = saved.config.model_copy(update={"selection": selection})
    random = replace(saved, state=replace(saved.state, config=config))
    assert describe_campaign(random).startswith("random, 1 structure a round")


def test_small_print_counts_the_sets(saved: SavedCampaign) -> None:
    notes = " ".join(make_notes(saved))
    assert "The pool had 24 structures" in notes
    assert "4 structures to train on, 4 for validation and 20 for the test" in notes
    assert "torch" in notes
