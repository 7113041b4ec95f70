"""The headline numbers of a campaign, and its small print."""

from __future__ import annotations

from labelwise.campaign.config import COMMITTEE_RULES
from labelwise.campaign.page.wording import write_change, write_error, write_seconds
from labelwise.campaign.rounds import has_stress_errors
from labelwise.campaign.saved import SavedCampaign
from labelwise.pages.document import Fact
from labelwise.selection.page.pool_columns import clean_text
from labelwise.selection.page.reasons import count

_HOUR = 3600.0
_SET_NAMES = {"test": "test set", "valid": "validation set"}


def make_facts(saved: SavedCampaign) -> tuple[Fact, ...]:
    """Return the headline numbers."""
    situation, failures = saved.situation, saved.failures
    failed = sum(failures.values())
    rounds = str(max(0, saved.n_finished - 1)) if saved.n_finished else "none"
    limit = saved.config.stop.rounds
    facts = [
        Fact("state", situation.word, clean_text(situation.detail, 200)),
        Fact("rounds", rounds, _note_rounds(saved.n_finished, limit)),
        Fact("labels", f"{len(saved.state.labels):,}", _note_labels(saved)),
    ]
    if failed:
        reasons = ", ".join(f"{n} {clean_text(reason)}" for reason, n in failures.items())
        facts.append(Fact("set aside", f"{failed:,}", reasons))
    facts += _error_facts(saved)
    seconds = float(sum(sum(stages.values()) for stages in saved.stages.values()))
    paid = float(sum(saved.seconds.values()))
    facts.append(
        Fact(
            "time",
            write_seconds(seconds),
            f"all stages; calculations {write_seconds(paid)}" if paid >= 1.0 else "all stages",
        )
    )
    return tuple(facts)


def _note_rounds(n_finished: int, limit: int | None) -> str:
    if n_finished == 0:
        return "round 0 is not finished"
    after = "after round 0"
    return after if limit is None else f"{after}, of {limit} in the configuration"


def _note_labels(saved: SavedCampaign) -> str:
    if not saved.n_finished:
        return ""
    n_train = saved.rounds[-1].n_train
    return f"made by the campaign; {count(n_train, 'structure')} to train on"


def _error_facts(saved: SavedCampaign) -> list[Fact]:
    """Return the errors now, and by how much they are below those of round 0."""
    role = saved.scored_role
    if not role:
        return []
    measured = [record for record in saved.rounds if role in record.errors]
    measure = saved.config.measure
    facts = []
    for label, name, unit in (
        ("force RMSE", "forces_rmse", "meV/Å"),
        ("energy RMSE", measure.energy_error, measure.energy_unit),
        *((("stress RMSE", "stress_rmse", "meV/Å³"),) if has_stress_errors(measured) else ()),
    ):
        first, last = measured[0].error(name, role), measured[-1].error(name, role)
        notes = [_SET_NAMES[role]]
        if name == measure.energy_error and saved.undetermined:
            notes.append("no measure of the model, see the small print")
        if len(measured) > 1:
            notes.append(write_change(first, last))
        note = ", ".join(part for part in notes if part)
        facts.append(Fact(label, f"{write_error(last)} {unit}", note))
    return facts


def describe_campaign(saved: SavedCampaign) -> str:
    """Return what is done by which rule with which model, in a line."""
    config = saved.config
    selection = config.selection
    rule = selection.rule
    looks = "" if rule in ("random", *COMMITTEE_RULES) else f" on {selection.representation}"
    return clean_text(
        f"{rule}{looks}, {count(selection.batch_size, 'structure')} a round, "
        f"labels by {config.labeller.kind}, model {config.model.path}, seed {config.seed}",
        300,
    )


def make_notes(saved: SavedCampaign) -> tuple[str, ...]:
    """Return the small print: sets, pool, versions."""
    found = saved.inventory
    notes = []
    if found:
        screened = found.get("screened", {})
        reasons = ", ".join(f"{n} {clean_text(str(reason))}" for reason, n in screened.items())
        aside = f", set aside by the screen: {reasons}" if reasons else ""
        notes.append(
            f"The pool had {count(int(found.get('n_pool', 0)), 'structure')}{aside}. Given were "
            f"{found.get('n_train', 0)} structures to train on, {found.get('n_valid', 0)} for "
            f"validation and {found.get('n_test', 0)} for the test."
        )
    if saved.config.measure.fixed_forces == "exclude":
        notes.append("Forces of fixed atoms are left out of all errors.")
    versions = saved.rounds[-1].versions if saved.rounds else {}
    if versions:
        listed = ", ".join(f"{name} {version}" for name, version in versions.items())
        notes.append(f"The last round was made with {clean_text(listed, 300)}.")
    area = saved.auc
    if area:
        measure = saved.config.measure
        units: dict[str, tuple[str, str]] = {
            "forces_rmse": ("force", "meV/Å"),
            measure.energy_error: ("energy", measure.energy_unit),
        }
        sums = [
            f"{units[name][0]} RMSE {write_error(value)} {units[name][1]}"
            for name, value in area.items()
        ]
        notes.append(f"Sum over all rounds: {', '.join(sums)}.")
    if saved.undetermined:
        why = saved.undetermined.removeprefix("* ")
        notes.append(f"{clean_text(why, 500)}. They are not summed up.")
    notes += [
        f"Fine-tuning of round {n_round}: {clean_text(message, 1000)}"
        for n_round, messages in sorted(saved.messages.items())[-1:]
        for message in messages
    ]
    return tuple(notes)
