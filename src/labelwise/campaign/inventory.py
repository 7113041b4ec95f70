"""What the pool holds, and that train, validation, test and pool have nothing in common."""

from __future__ import annotations

from collections import Counter
from typing import Any

from labelwise.campaign.datasets import GivenSets, ReadFrames, iter_pool
from labelwise.campaign.errors import LeakageError
from labelwise.campaign.state import CampaignState
from labelwise.errors import StructureError
from labelwise.finetuning.pretraining_set import PretrainingSet
from labelwise.potentials import Potential
from labelwise.structures import DuplicateIndex, Frame, iter_unscreened
from labelwise.structures.screening import Screen

_N_LISTED = 5


def take_inventory(
    state: CampaignState,
    given: GivenSets,
    potential: Potential,
    *,
    retained: PretrainingSet | None = None,
    read: ReadFrames = iter_unscreened,
) -> dict[str, Any]:
    """Read everything once: count, screen, and see that the sets are disjoint.

    Structures that the campaign has labelled or set aside are not counted.

    Returns:
        ``n_pool`` (as read), ``n_usable`` (that can be chosen), ``screened`` (count by
        reason), ``n_train``, ``n_valid`` and ``n_test``.

    Raises:
        ArgumentError: The model lacks what the selection asks for.
        LeakageError: A structure is in two sets.
        StructureError: The model cannot take a labelled structure.
        ReadError: A file cannot be read.
    """
    selection = state.config.selection
    settings = selection.settings(1, seed=0)
    settings.check_model(potential)
    screen = settings.make_recipe().make_screen(potential)
    index = _check_disjoint(given)
    held = [str(frame.source) for frame in _held_out(given)]
    if retained is not None:
        for number, atoms in enumerate(retained.labelled.structures, start=len(held)):
            index.add(atoms, number)
        held += retained.labelled.names
    _check_usable(given, screen)
    gone = DuplicateIndex()
    for frame in state.recorded_frames():
        gone.add(frame.atoms, 0)
    reasons: Counter[str] = Counter()
    n_pool = n_usable = 0
    leaks = []
    for frame in iter_pool(state, read=read):
        n_pool += 1
        found = screen.check_pool(frame)
        if found is not None:
            reasons[found.reason] += 1
            continue
        other = index.find(frame.atoms)
        if other is not None:
            leaks.append(f"{frame.source} equals {held[other]}")
        elif gone.find(frame.atoms) is None:
            n_usable += 1
    _refuse(leaks, "the pool and the structures held out for validation or test, or retained,")
    return {
        "n_pool": n_pool,
        "n_usable": n_usable,
        "screened": dict(sorted(reasons.items())),
        "n_train": len(given.train),
        "n_valid": len(given.valid),
        "n_test": len(given.test),
    }


def _check_usable(given: GivenSets, screen: Screen) -> None:
    """Raise ``StructureError`` if the model cannot take a labelled structure."""
    for role in ("train", "valid", "test"):
        for frame in getattr(given, role):
            found = screen.check_train(frame) if role == "train" else screen.check_content(frame)
            if found is not None and found.reason != "isolated-atom":
                raise StructureError(
                    f"data.{role}: {found.source}: {found.reason} ({found.detail})"
                )


def _held_out(given: GivenSets) -> tuple[Frame, ...]:
    return (*given.valid, *given.test)


def _check_disjoint(given: GivenSets) -> DuplicateIndex:
    """Return an index of what is held out; numbers count validation, then test.

    Raises:
        LeakageError: Train, validation and test have structures in common.
    """
    held = DuplicateIndex()
    leaks = []
    for number, frame in enumerate(_held_out(given)):
        other = held.find(frame.atoms)
        is_test = number >= len(given.valid)
        if is_test and other is not None and other < len(given.valid):
            leaks.append(f"{frame.source} (test) equals {given.valid[other].source} (validation)")
        if other is None:
            held.add(frame.atoms, number)
    for frame in given.train:
        other = held.find(frame.atoms)
        if other is not None:
            leaks.append(f"{frame.source} (train) equals {_held_out(given)[other].source}")
    _refuse(leaks, "train, validation and test")
    return held


def _refuse(leaks: list[str], sets: str) -> None:
    if leaks:
        shown = "; ".join(leaks[:_N_LISTED])
        more = f" and {len(leaks) - _N_LISTED} more" if len(leaks) > _N_LISTED else ""
        raise LeakageError(
            f"{sets} have {len(leaks)} structures in common, so that errors would look too "
            f"small: {shown}{more}. Take them out of one of the files"
        )
