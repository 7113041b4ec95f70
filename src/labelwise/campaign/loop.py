"""The campaign: ``step`` takes it from one stage to the next, ``run`` repeats that."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from labelwise.campaign.atomic_io import (
    append_line,
    read_json,
    read_log,
    repair_log,
    write_json,
)
from labelwise.campaign.config import read_config
from labelwise.campaign.context import CampaignContext, timed
from labelwise.campaign.datasets import choose_split, open_given_sets
from labelwise.campaign.errors import CampaignError, ChangedInputsError, ConfigError
from labelwise.campaign.inputs import describe_inputs, digest_inputs, list_differences
from labelwise.campaign.inventory import take_inventory
from labelwise.campaign.labelling.base import LabellingError, LabelsPending
from labelwise.campaign.lock import campaign_lock
from labelwise.campaign.rounds import (
    SPLITS,
    UNDETERMINED,
    RoundRecord,
    explain_undetermined,
    has_stress_errors,
    sum_stages,
)
from labelwise.campaign.shared_cache import SharedCache
from labelwise.campaign.stages.finetune import check_recipe, run_finetune
from labelwise.campaign.stages.label import cancel_labels, check_labeller, run_label
from labelwise.campaign.stages.measure import run_measure
from labelwise.campaign.stages.select import run_select
from labelwise.campaign.state import (
    FINETUNE,
    INPUTS,
    INVENTORY,
    JOURNAL,
    LABELS,
    MANIFEST,
    MEASURE,
    ROUNDS,
    SPLIT,
    CampaignState,
    read_state,
    verify_files,
)
from labelwise.campaign.stopping import find_reason_to_stop, remind_of_failures
from labelwise.campaign.survey import survey_campaign
from labelwise.campaign.yaml_files import OVERRIDES, read_settings
from labelwise.runtime.files import hash_file, write_bytes
from labelwise.runtime.provenance import package_versions
from labelwise.runtime.timing import ProgressCallback, ignore_progress

_log = logging.getLogger(__name__)

_RUNNERS: dict[str, Callable[[CampaignState, CampaignContext], None]] = {
    "select": run_select,
    "label": run_label,
    "finetune": run_finetune,
    "measure": run_measure,
}
_NOT_HASHED = ("to_label", "labelled", ".")


@dataclass(frozen=True)
class RunOptions:
    """What a single run may do.

    Attributes:
        n_rounds: Rounds after round 0, in place of ``stop.rounds``.
        accept_changes: Go on although configuration, model or data changed.
        retry_failed: Let structures that were set aside be chosen again.
        break_lock: Take the campaign from a holder that may be alive.
        survey: Measure after each round, and at the end, what the page shows of the pool.
        wait: Wait for labels that a queue makes; else ``LabelsPending`` is raised when all is
            submitted.

    Example:
        >>> from labelwise import RunOptions
        >>> RunOptions(n_rounds=3).wait
        True
    """

    n_rounds: int | None = None
    accept_changes: bool = False
    retry_failed: bool = False
    break_lock: bool = False
    survey: bool = False
    wait: bool = True


def _do_nothing(_state: CampaignState) -> None:
    """Do nothing when a round is finished."""


def run_campaign(
    directory: Path,
    options: RunOptions | None = None,
    *,
    progress: ProgressCallback = ignore_progress,
    shared: SharedCache | None = None,
    after_round: Callable[[CampaignState], None] = _do_nothing,
) -> str:
    """Go on with a campaign from wherever it stopped until there is a reason to stop.

    Killed at any moment, the next run gives what an uninterrupted one gives. What happens is told
    to the logger ``labelwise``, level INFO.

    Args:
        directory: The campaign.
        options: What this run may do.
        progress: Called with stage, done, total.
        shared: What other campaigns of this process have made already; None for nothing.
        after_round: Called when a round is finished, with the campaign as it is then. What it
            raises ends the run, which loses nothing.

    Returns:
        Why it stopped, in words.

    Example:
        In a folder ``demo`` that ``labelwise demo`` made:

        >>> from pathlib import Path
        >>> import labelwise as lw
        >>> settings = '''
        ... model: {path: demo}
        ... data:
        ...   pool: ["pool.extxyz@:20"]
        ...   train: ["train.extxyz@:4"]
        ...   test: {files: ["test.extxyz@:4"]}
        ... selection: {batch_size: 3}
        ... labeller: {kind: replay}
        ... finetune: {max_updates: 2}
        ... stop: {rounds: 1}
        ... '''
        >>> Path("demo/campaign.yaml").write_text(settings) > 0
        True
        >>> lw.run_campaign(Path("demo"))
        '1 rounds are done'

    Raises:
        LockedError: Another process has the campaign.
        ConfigError: The configuration is wrong.
        ChangedInputsError: Configuration, model or data changed; the message lists how.
        LeakageError: Train, validation, test and pool have structures in common.
        LabelsPending: Labels are made elsewhere: by a person (``files``), or in a queue that is
            not waited for.
        LabellingError: No label can be made at all.
        WriteError: The disk is full or the directory cannot be written to; nothing is lost.
        DamagedStateError: A file is not what the campaign wrote.
    """
    options = options if options is not None else RunOptions()
    read_config(directory)  # a wrong configuration is no reason to take the lock
    with campaign_lock(directory, break_lock=options.break_lock):
        for name in (LABELS, ROUNDS, JOURNAL):
            repair_log(directory / name)
        state = read_state(directory)
        _sweep(state)
        verify_files(state)
        _write_manifest(state)
        _check_inputs(state, accept=options.accept_changes)
        state = _pardon(state) if options.retry_failed else read_state(directory)
        n_failed = len(state.failures)
        if n_failed:
            _log.info("%s", remind_of_failures(state))
        if state.n_round == 0 and state.stage in ("select", "label"):
            check_labeller(state)
        context = make_context(state, progress=progress, shared=shared)
        check_recipe(state, context)
        context.prepare_known(state)
        context.wait = options.wait
        try:
            while True:
                n_left = context.n_left(state)
                reason = find_reason_to_stop(state, n_left=n_left, n_rounds=options.n_rounds)
                if reason is not None:
                    break
                n_round = state.n_round
                state = step(state, context)
                if state.n_round > n_round:
                    _survey(state, context, options)
                    after_round(state)
        except (LabelsPending, LabellingError):
            _survey(read_state(directory), context, options)
            raise
        if n_left <= 0 and len(state.failures) > n_failed:
            _log.info("%s", remind_of_failures(state))
        _survey(state, context, options)
        return reason


def cancel_campaign(directory: Path, *, break_lock: bool = False) -> None:
    """Cancel the jobs that a campaign has in a queue; the next run submits again what is left.

    Args:
        directory: The campaign.
        break_lock: Take it from a holder that may be alive.

    Raises:
        ArgumentError: Its labels do not come from a queue.
        LockedError: Another process has the campaign.
        LabellingError: The queue does not take it.
    """
    with campaign_lock(directory, break_lock=break_lock):
        cancel_labels(read_state(directory))


def _survey(state: CampaignState, context: CampaignContext, options: RunOptions) -> None:
    """Measure what the page shows of the pool; a campaign goes on whatever keeps it from that."""
    if not options.survey:
        return
    try:
        survey_campaign(state, context)
    except Exception as error:  # no mistake of a page may end a campaign
        _log.warning("no map of the pool: %s", error or type(error).__name__)


def step(state: CampaignState, context: CampaignContext) -> CampaignState:
    """Do the next stage.

    A stage reads files, and its last act is to write one; nothing else passes from one to
    the next, so that every step is a resumption.

    Returns:
        The campaign as it is on disk afterwards.
    """
    stage = state.stage
    if stage == "commit":
        _commit(state)
        _log.info("%s", _describe_round(read_state(state.directory)))
    else:
        with timed(state, stage):
            _RUNNERS[stage](state, context)
    return read_state(state.directory)


def make_context(
    state: CampaignState,
    *,
    progress: ProgressCallback = ignore_progress,
    shared: SharedCache | None = None,
) -> CampaignContext:
    """Read what all stages need: the given structures and the pool's inventory.

    Both are made once for the same inputs and kept in files.
    """
    split, path = state.directory / SPLIT, state.directory / INVENTORY
    if not split.exists():
        write_json(split, choose_split(state.directory, state.config))
    digest = digest_inputs(read_json(state.directory / INPUTS))
    inventory = read_json(path) if path.exists() else {}
    shared = SharedCache() if shared is None else shared
    context = CampaignContext(open_given_sets(state), inventory, progress, shared)
    if inventory.get("inputs") != digest:
        _log.info("reading the pool")
        found = take_inventory(
            state,
            context.given,
            context.pretrained(state),
            retained=context.pretraining_set(state, "retain"),
            read=shared.iter_frames,
        )
        n_used = len(state.labels) + len(state.failures)
        context.inventory = {"inputs": digest, **found, "n_used": n_used}
        write_json(path, context.inventory)
    return context


def override_campaign(
    directory: Path, changes: Mapping[str, Any], options: RunOptions | None = None
) -> None:
    """Keep settings in place of those of ``campaign.yaml``, in ``overrides.yaml`` beside it.

    Args:
        directory: The campaign.
        changes: Settings by dotted key.
        options: What the run may do for which they are given.

    Raises:
        ConfigError: The campaign's settings would be wrong; they stay as they were.
        ChangedInputsError: It was begun with other settings; they stay as they were.
        LockedError: Another process has the campaign.
        WriteError: The file cannot be written.
    """
    options = options if options is not None else RunOptions()
    path = directory / OVERRIDES
    with campaign_lock(directory, break_lock=options.break_lock):
        former = path.read_bytes() if path.exists() else None
        known = {} if former is None else read_settings(path, error=ConfigError, hint="remove it")
        content = yaml.safe_dump({**known, **changes}, sort_keys=False, allow_unicode=True)
        write_bytes(path, content.encode(), durable=True)
        try:
            state = read_state(directory)
            if state.has_begun and not options.accept_changes:
                _check_inputs(state, accept=False)
        except CampaignError:
            if former is None:
                path.unlink()
            else:
                write_bytes(path, former, durable=True)
            raise


def _check_inputs(state: CampaignState, *, accept: bool) -> None:
    """See that the campaign goes on with what it was begun with.

    Until something was chosen there is nothing to be at odds with.
    """
    path = state.directory / INPUTS
    known = read_json(path) if path.exists() else None
    present = describe_inputs(state.directory, state.config, known)
    if known is not None and digest_inputs(known) != digest_inputs(present):
        differences = list_differences(known, present)
        listed = "\n".join(f"  {line}" for line in differences)
        if state.has_begun and not accept:
            raise ChangedInputsError(
                f"{state.directory} was begun with other inputs:\n{listed}\nPut them back, or "
                "go on with --accept-changes: rounds that are finished stay as they are"
            )
        if state.has_begun:
            _log.info("going on with other inputs:\n%s", listed)
            event = {"event": "accepted changes", "round": state.n_round, "changes": differences}
            append_line(state.directory / JOURNAL, event)
            if state.n_failed_in_a_row or state.trials:  # what comes is another calculation
                append_line(state.directory / LABELS, event)
            _forget_models(state)
        else:
            (state.directory / SPLIT).unlink(missing_ok=True)
    if present != known:
        write_json(path, present)


def _sweep(state: CampaignState) -> None:
    """Remove the unfinished files that a killed process left behind."""
    for folder in (state.directory, state.folder):
        for pattern in (".*.json.*", ".*.jsonl.*", ".*.extxyz.*", ".*.pt.*", "*.partial"):
            for path in folder.glob(pattern):
                path.unlink(missing_ok=True)


def _forget_models(state: CampaignState) -> None:
    """Remove models of an unfinished stage, which were made with the former inputs."""
    if not (state.folder / FINETUNE).exists() and state.folder.exists():
        for path in state.folder.glob("*.pt"):
            path.unlink()


def _pardon(state: CampaignState) -> CampaignState:
    """Let every structure that was set aside be chosen again."""
    for key in state.failures:
        append_line(state.directory / LABELS, {"key": key, "pardoned": True})
    return read_state(state.directory)


def _commit(state: CampaignState) -> None:
    """Finish a round: its line in the record makes it final."""
    folder = state.folder
    labels = state.directory / LABELS
    n_bytes = labels.stat().st_size if labels.exists() else 0
    measured = read_json(folder / MEASURE)
    fitted = read_json(folder / FINETUNE)
    record = RoundRecord(
        state.n_round,
        fitted["n_train"],
        len(state.labels),
        len(state.failures),
        measured["errors"],
        sum_stages(read_log(state.directory / JOURNAL), state.n_round),
        {path.name: hash_file(path) for path in _own_files(folder)},
        {"bytes": n_bytes, "sha256": hash_file(labels, n_bytes=n_bytes) if n_bytes else ""},
        measured.get(SPLITS, {}),
        measured.get(UNDETERMINED, {}),
        measured["weights"],
        fitted["best_epoch"],
        package_versions(),
    )
    append_line(state.directory / ROUNDS, record.as_line())
    _write_manifest(read_state(state.directory))


def _own_files(folder: Path) -> list[Path]:
    """Return what the campaign wrote into a round's folder, not what was returned to it."""
    paths = (path for path in folder.iterdir() if path.is_file())
    return sorted(path for path in paths if not path.name.startswith(_NOT_HASHED))


def _write_manifest(state: CampaignState) -> None:
    """Write the content hashes of all finished rounds, unless they are there already.

    They are in the rounds' own lines, which decide; the manifest is the form in which
    other programs check a copied directory.
    """
    files = {
        f"{state.round_folder(record.n_round).name}/{name}": digest
        for record in state.rounds
        for name, digest in record.files.items()
    }
    manifest = {"algorithm": "sha256", "n_rounds": len(state.rounds), "files": files}
    path = state.directory / MANIFEST
    if state.rounds and (not path.exists() or read_json(path) != manifest):
        write_json(path, manifest)


def _describe_round(state: CampaignState) -> str:
    record, measure = state.rounds[-1], state.config.measure
    measured = ""
    if record.role:
        energy = f"{record.error(measure.energy_error):.1f} {measure.energy_unit}"
        mark = "*" if record.is_undetermined else ""
        measured = f", RMSE {energy}{mark} and {record.error('forces_rmse'):.1f} meV/Å"
        if has_stress_errors([record]):
            measured += f" and {record.error('stress_rmse'):.2f} meV/Å³"
    line = f"round {record.n_round}: {record.n_train} labelled{measured}, {record.seconds:.0f} s"
    return "\n".join(filter(None, (line, explain_undetermined([record]))))
