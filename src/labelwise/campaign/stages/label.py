"""The stage ``label``: every outcome is safe on the disk before the next is asked for."""

from __future__ import annotations

import logging
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms

from labelwise.campaign.atomic_io import (
    SpareSpace,
    append_line,
    read_json,
    write_json,
)
from labelwise.campaign.config import CampaignConfig
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.errors import CampaignError, ChangedInputsError
from labelwise.campaign.inputs import shorten
from labelwise.campaign.labelling import (
    CalculationSettings,
    Failure,
    FilesLabeller,
    Label,
    LabelChecks,
    Labeller,
    LabellingError,
    LabellingRound,
    LabelsPending,
    Outcome,
    Precheck,
    Task,
    Withdrawal,
    cancel,
    make_labeller,
)
from labelwise.campaign.labelling.encoding import encode_extra, encode_structure
from labelwise.campaign.stages.select import choose_candidates
from labelwise.campaign.state import (
    BATCH,
    BATCH_STRUCTURES,
    JOURNAL,
    LABELS,
    PICKS,
    TRIAL,
    CampaignState,
    read_state,
)
from labelwise.campaign.stopping import remind_of_failures
from labelwise.errors import ShortPoolError
from labelwise.runtime.files import sync_folder
from labelwise.structures import Source, hash_structure, read_sources, write_structures
from labelwise.structures.identity import hash_geometry
from labelwise.structures.labels import get_energy, stress_keys
from labelwise.structures.levels import LevelCheck

_log = logging.getLogger(__name__)


def run_label(state: CampaignState, context: CampaignContext) -> None:
    """Label the batch; failed calculations are replaced by the next candidates.

    Which candidates become the batch depends on their outcomes alone and not on the order
    in which calculations end: candidates are started in order of choice, and a further one
    only when one has failed. If they run out, more are chosen. If the pool runs out, the
    batch is smaller.

    If round 0 labels nothing, a calculator is tried on a structure of the pool before time is
    spent on a fine-tuning: on others if that one fails, until one succeeds or so many have failed
    in a row that none will. That label is used if the structure is chosen later.
    """
    picks = read_json(state.folder / PICKS)
    roles = picks["wanted"]
    _require_one_level(state, context)
    if not any(roles.values()) and isinstance(state.config.labeller, CalculationSettings):
        state = _try_calculator(state, context)
    candidates = _collect(state, context, roles, picks)
    _finish(read_state(state.directory), roles, candidates)


def check_labeller(state: CampaignState) -> None:
    """See that the configured labeller will work, as far as it can be told without a calculation.

    Raises:
        LabellingError: It will not: the calculator cannot be imported and made, say.
    """
    labeller = _make_labeller(state, [], wait=True)
    if isinstance(labeller, Precheck):
        labeller.check()


def cancel_labels(state: CampaignState) -> None:
    """End calculations of the round under way, and of earlier ones, that go on in a queue.

    Raises:
        ArgumentError: Labels do not come from a queue.
        LabellingError: It does not take that.
    """
    for n_round in range(state.n_round + 1):
        cancel(_make_labeller(state, [], wait=False, n_round=n_round))


def _require_one_level(state: CampaignState, context: CampaignContext) -> None:
    """See that what is labelled now is of the level of theory of what is labelled already.

    Raises:
        LabelError: It is not.
    """
    check = LevelCheck()
    given = context.given
    for frame in (*given.train, *given.valid, *given.test):
        check.add(frame.atoms, str(frame.source))
    for key, record in state.labels.items():
        if "level" in record:
            check.add_level(record["level"], f"the structure {key} in {LABELS}")
    level = _find_level(state.config)
    if level is not None:
        check.add_level(level, "what campaign.yaml asks for")


def _try_calculator(state: CampaignState, context: CampaignContext) -> CampaignState:
    _collect(state, context, {TRIAL: 1}, {"candidates": {}})
    state = read_state(state.directory)
    if state.failures and not state.trials:
        raise CampaignError(
            f"the calculator failed on every structure of the pool; {remind_of_failures(state)}"
        )
    return state


def _collect(
    state: CampaignState, context: CampaignContext, roles: dict[str, int], picks: dict[str, Any]
) -> dict[str, list[dict[str, Any]]]:
    """Label until each role has what it wants or the pool has no others; return who was asked."""
    n_list = 1
    candidates: dict[str, list[dict[str, Any]]] = {role: [] for role in roles}
    while True:
        for role, added in picks["candidates"].items():
            candidates[role] += added
        _Collection(state, context, roles, candidates).run()
        state = read_state(state.directory)
        missing = _missing(state, roles, candidates)
        if not missing or context.n_left(state) == 0:
            return candidates
        n_list += 1
        picks = _further_picks(state, context, missing, n_list)


def further_picks_path(folder: Path, n_list: int) -> Path:
    """Return where a further list of candidates lies, n_list >= 2."""
    return folder / f"picks_{n_list}.json"


def _missing(
    state: CampaignState, roles: dict[str, int], candidates: dict[str, list[dict[str, Any]]]
) -> dict[str, int]:
    """Return for each role how many labels are still wanted."""
    found = {
        role: n - sum(state.has_label(role, each["key"]) for each in candidates[role])
        for role, n in roles.items()
    }
    return {role: n for role, n in found.items() if n > 0}


def _further_picks(
    state: CampaignState, context: CampaignContext, missing: dict[str, int], n_list: int
) -> dict[str, Any]:
    path = further_picks_path(state.folder, n_list)
    while not path.exists():
        left = context.n_left(state)
        wanted = {}
        for role, n in missing.items():
            wanted[role] = min(n, left)
            left -= wanted[role]
        wanted = {role: n for role, n in wanted.items() if n > 0}
        with suppress(ShortPoolError):  # the count is corrected: fewer are wanted
            write_json(path, choose_candidates(state, context, wanted, n_list=n_list))
    return read_json(path)


def _finish(
    state: CampaignState,
    roles: dict[str, int],
    candidates: dict[str, list[dict[str, Any]]],
) -> None:
    """Write down which candidates became the batch."""
    batch, failed = {}, []
    for role, n in roles.items():
        keys = [each["key"] for each in candidates[role]]
        batch[role] = [key for key in keys if key in state.labels][:n]
        failed += [key for key in keys if key in state.failures]
    if not any(batch.values()) and any(roles.values()):
        raise CampaignError(
            f"no structure of round {state.n_round} could be labelled and the pool has no "
            f"others; the reasons are in {state.directory / LABELS}; "
            f"{remind_of_failures(state)}"
        )
    labelled = [state.labelled_atoms(key) for keys in batch.values() for key in keys]
    for atoms in labelled:
        atoms.info["labelwise_round"] = state.n_round
    write_structures(state.folder / BATCH_STRUCTURES, labelled)
    sync_folder(state.folder)
    write_json(state.folder / BATCH, {"round": state.n_round, "batch": batch, "failed": failed})


class _Collection:
    """One pass over the candidates of a round."""

    def __init__(
        self,
        state: CampaignState,
        context: CampaignContext,
        roles: dict[str, int],
        candidates: dict[str, list[dict[str, Any]]],
    ) -> None:
        self._state = state
        self._context = context
        self._waiting = {role: deque(candidates[role]) for role in roles}
        self._n_open = dict(roles)
        self._n_running = dict.fromkeys(roles, 0)
        self._role_of: dict[str, str] = {}
        self._tasks = self._read_tasks([c for each in candidates.values() for c in each])
        self._queue: deque[Task] = deque()
        self._n_failed_in_a_row = state.n_failed_in_a_row
        self._last_failure: Failure | None = None
        self._n_done = 0

    def run(self) -> None:
        """Label until every role has its batch or no candidate is left.

        Raises:
            LabellingError: So many calculations failed in a row that no other should be begun.
            LabelsPending: The ``files`` labeller waits for a file.
        """
        if not any(self._waiting.values()):
            return
        self._spare = SpareSpace(self._state.directory)
        try:
            self._top_up()
            if self._queue:
                self._label()
        finally:
            self._spare.release()

    def _label(self) -> None:
        done = [
            task
            for key, task in self._tasks.items()
            if key in self._state.labels or key in self._state.failures
        ]
        labeller = _make_labeller(self._state, done, wait=self._context.wait)
        checks = _make_checks(self._state, self._context)
        try:
            for outcome in labeller.label(self._queue):
                task = self._tasks[outcome.key]
                if isinstance(outcome, Label):
                    outcome = checks.check(task.atoms, outcome)
                self._record(task, outcome)
                # What was returned in files is paid for: all of it is taken before the stop.
                if not self._is_hopeless:
                    self._top_up()
                elif not isinstance(labeller, FilesLabeller):
                    _withdraw(labeller)
                    break
        except LabelsPending:
            self._refuse_hopeless()
            raise
        self._refuse_hopeless()

    def _top_up(self) -> None:
        """Queue as many candidates as labels are wanted and not under way."""
        for role, waiting in self._waiting.items():
            while waiting and self._n_running[role] < self._n_open[role] and self._may_begin:
                key = waiting.popleft()["key"]
                if self._state.has_label(role, key):
                    self._n_open[role] -= 1
                elif key in self._state.trials:
                    self._adopt(role, key)
                elif key not in self._state.failures:
                    self._role_of[key] = role
                    self._n_running[role] += 1
                    self._queue.append(self._tasks[key])

    def _adopt(self, role: str, key: str) -> None:
        """Take the label that was made when the calculator was tried."""
        trial = self._state.trials[key]
        forces = np.array(trial["forces"], dtype=np.float64).reshape(-1, 3)
        self._role_of[key] = role
        self._n_running[role] += 1
        stress = np.array(trial["stress"]) if "stress" in trial else None
        label = Label(key, trial["energy"], forces, n_tries=0, stress=stress)
        self._record(self._tasks[key], label)

    @property
    def _may_begin(self) -> bool:
        """Whether a further calculation may be begun.

        One that is under way may fail, so it counts here as if it had: then no more than the
        limit are begun without a label between them, whatever the number of workers.
        """
        labeller = self._state.config.labeller
        if not isinstance(labeller, CalculationSettings):
            return True
        n_running = sum(self._n_running.values())
        most = max(self._max_failures, labeller.n_at_once)
        return n_running == 0 or self._n_failed_in_a_row + n_running < most

    @property
    def _max_failures(self) -> int:
        config = self._state.config
        return config.labeller.count_failures_allowed(config.selection.batch_size)

    @property
    def _is_hopeless(self) -> bool:
        """Whether nothing but failures comes: then the calculation as such is wrong.

        After a run that was stopped by it, one further failure is enough.
        """
        is_over = self._n_failed_in_a_row >= self._max_failures
        return self._last_failure is not None and is_over

    def _refuse_hopeless(self) -> None:
        last = self._last_failure
        if last is None or not self._is_hopeless:
            return
        raise LabellingError(
            f"{self._n_failed_in_a_row} calculations in a row failed, the last one with: "
            f"{last.reason} ({last.detail}). Mend what is wrong and run again with "
            "--retry-failed, or without it to leave these structures out; if so many failures are "
            "to be expected, raise labeller.max_failures_in_a_row, now "
            f"{self._max_failures}"
        )

    def _record(self, task: Task, outcome: Outcome) -> None:
        """Append the outcome to the log before anything else is done with it."""
        directory = self._state.directory
        role = self._role_of[task.key]
        record: dict[str, Any] = {
            "key": task.key,
            "round": self._state.n_round,
            "role": role,
            "source": [task.source.file, task.source.frame],
        }
        if isinstance(outcome, Label):
            record |= {"energy": outcome.energy, "forces": outcome.forces.tolist()}
            if outcome.stress is not None:
                record["stress"] = outcome.stress.tolist()
            level = _find_level(self._state.config)
            record |= {} if level is None else {"level": level}
        else:
            record |= {"failed": outcome.reason, "detail": outcome.detail}
        record["structure"] = {
            **encode_structure(task.atoms),
            **self._encode_extra(task.atoms, outcome),
        }
        self._spare.append_line(directory / LABELS, record)
        cost = {
            "event": "calculation",
            "round": self._state.n_round,
            "key": task.key,
            "seconds": round(outcome.seconds, 3),
            "n_tries": outcome.n_tries,
        }
        if outcome.n_tries:  # a label that was there already costs nothing
            append_line(directory / JOURNAL, cost)
        self._n_running[role] -= 1
        self._n_done += 1
        self._context.progress("label", self._n_done, None)
        if isinstance(outcome, Failure):
            _log.info("set aside %s: %s (%s)", task.source, outcome.reason, outcome.detail)
            self._n_failed_in_a_row += 1
            self._last_failure = outcome
        else:
            self._n_open[role] -= 1
            self._n_failed_in_a_row = 0
            self._last_failure = None

    def _encode_extra(self, atoms: Atoms, outcome: Outcome) -> dict[str, Any]:
        config = self._state.config
        keys: tuple[str, ...] = (config.data.energy_key, config.data.forces_key)
        is_replay = config.labeller.kind == "replay"
        if not is_replay or (isinstance(outcome, Label) and outcome.stress is not None):
            keys += stress_keys(config.data.stress_key)
        return encode_extra(atoms, left_out=keys, with_results=is_replay)

    def _read_tasks(self, candidates: list[dict[str, Any]]) -> dict[str, Task]:
        """Read the candidates' structures from the pool again, and see that they are the same."""
        directory = self._state.directory
        sources = [Source(str(directory / each["file"]), each["frame"]) for each in candidates]
        tasks = {}
        for each, source, atoms in zip(candidates, sources, read_sources(sources), strict=True):
            # Earlier versions named charged structures by their geometry alone.
            if each["key"] not in (hash_structure(atoms), hash_geometry(atoms)):
                raise ChangedInputsError(
                    f"{source} is no longer the structure that round {self._state.n_round} "
                    "chose; put the file back until the round is finished"
                )
            short = Source(shorten(directory, source.file), source.frame)
            tasks[each["key"]] = Task(each["key"], atoms, short)
        return tasks


def _make_labeller(
    state: CampaignState, done: list[Task], *, wait: bool, n_round: int | None = None
) -> Labeller:
    """Make the configured labeller for a round; ``done`` have their outcome.

    Args:
        state: The campaign.
        done: Structures of the round that have their outcome already.
        wait: Whether to wait for labels that are made elsewhere.
        n_round: Which round; None for the one under way.
    """
    folder = state.folder if n_round is None else state.round_folder(n_round)
    data = state.config.data
    keys = (data.energy_key, data.forces_key, data.stress_key)
    where = LabellingRound(state.directory, folder, done, *keys, wait=wait)
    return make_labeller(state.config.labeller, where)


def _withdraw(labeller: Labeller) -> None:
    """End calculations that would go on although nobody waits for them."""
    if isinstance(labeller, Withdrawal):
        labeller.withdraw()


def _find_level(config: CampaignConfig) -> str | None:
    """Return the level of theory at which a campaign labels; None where nobody says it."""
    labeller = config.labeller
    if isinstance(labeller, CalculationSettings):
        return labeller.describe_level().name
    return None


def _make_checks(state: CampaignState, context: CampaignContext) -> LabelChecks:
    """Hold labels against those of finished rounds, whatever has come in this one."""
    config: CampaignConfig = state.config
    known, key = context.frames_with_energies(state), config.data.energy_key
    return LabelChecks(
        [frame.atoms for frame in known],
        [get_energy(frame.atoms, str(frame.source), key) for frame in known],
        isolated_atoms=context.given.isolated_atoms,
        max_force=config.labeller.max_force,
        max_energy_deviation=config.labeller.max_energy_deviation,
    )
