"""Which energies a round's labels do not determine, and what the fits had to say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers
from jaxtyping import Float64

from labelwise.campaign.atomic_io import read_json
from labelwise.campaign.context import CampaignContext
from labelwise.campaign.state import FINETUNE, UNDETERMINED, CampaignState, round_folder
from labelwise.potentials.torch_potential import TorchPotential
from labelwise.structures import Frame
from labelwise.structures.atom_energies import count_elements, in_row_space
from labelwise.structures.labels import get_energy

#: Reference energies that differ by more from those of the pretrained model were fitted, eV.
_NOTABLE_SHIFT = 0.1
#: A total energy that is farther off may be so for want of a reference energy, eV.
_NOTABLE_ERROR = 1.0
_FITTED = ("auto", "refit", "labelled")


def count_undetermined(
    state: CampaignState,
    context: CampaignContext,
    frames: Sequence[Frame],
    energies: Float64[np.ndarray, " n"],
) -> int:
    """Count the structures whose energies the labelled ones do not determine, and are far off.

    Where reference energies are fitted to labels of another level of theory, the energy of a
    composition that is no combination of the labelled ones may be off by any constant.

    Args:
        state: A campaign whose round under way is fine-tuned.
        context: Model and structures.
        frames: The n structures that errors are measured on.
        energies: (n,) float64, eV, what the round's model predicts of them.

    Returns:
        0 if reference energies were kept, or those of isolated atoms are known.

    Raises:
        DamagedStateError: The record of the fit cannot be read.
    """
    mode = state.config.finetune.reference_energies
    if mode not in _FITTED or context.given.isolated_atoms or not _is_fitted(state, context):
        return 0
    known = context.train_frames(state)
    if mode == "labelled":
        known += context.held_out_frames(state, "valid")
    numbers = [frame.atoms.numbers for frame in (*known, *frames)]
    counts = count_elements(numbers, np.unique(np.concatenate(numbers)).tolist())
    is_reached = in_row_space(counts[: len(known)], counts[len(known) :])
    key = state.config.data.energy_key
    labels = [get_energy(frame.atoms, str(frame.source), key) for frame in frames]
    is_far = np.abs(energies - np.array(labels)) > _NOTABLE_ERROR
    return int((is_far & ~is_reached).sum())


def is_undetermined(record: Mapping[str, Any]) -> bool:
    """Return whether the energy errors that are shown of a round say nothing about the model.

    Args:
        record: A line of ``rounds.jsonl``.
    """
    role = "test" if "test" in record["errors"] else "valid"
    return bool(record.get(UNDETERMINED, {}).get(role))


def explain_undetermined(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Say of which rounds the energy errors are no result; empty if there are none.

    Args:
        rounds: Lines of ``rounds.jsonl``.
    """
    found = [record for record in rounds if is_undetermined(record)]
    if not found:
        return ""
    numbers = ", ".join(str(record["round"]) for record in found)
    role = "test" if "test" in found[-1]["errors"] else "valid"
    count, total = found[-1][UNDETERMINED][role], found[-1]["errors"][role]["n_structures"]
    return (
        f"* The energy errors of round{'s' if len(found) > 1 else ''} {numbers} are no measure of "
        f"the model: {count} of {total} structures, whose energies are off by more than "
        f"{_NOTABLE_ERROR:g} eV, have compositions whose reference energies the labelled "
        "structures do not determine. Label structures of other compositions, or give "
        "data.isolated_atoms"
    )


def read_messages(directory: Path, n_rounds: int) -> dict[int, list[str]]:
    """Return what the fits of the rounds had to say, by round; rounds with nothing are left out.

    Args:
        directory: The campaign.
        n_rounds: So many rounds are looked at, from round 0.

    Raises:
        DamagedStateError: The record of a fit cannot be read.
    """
    found = {}
    for n_round in range(n_rounds):
        path = round_folder(directory, n_round) / FINETUNE
        messages = read_json(path).get("messages") if path.exists() else None
        if messages:
            found[n_round] = [str(message) for message in messages]
    return found


def _is_fitted(state: CampaignState, context: CampaignContext) -> bool:
    """Return whether the round's reference energies are others than the pretrained model's."""
    start = context.pretrained(state)
    if not isinstance(start, TorchPotential):
        return False
    known = dict(zip(start.elements, start.reference_energies.tolist(), strict=True))
    fitted = read_json(state.folder / FINETUNE)["reference_energies"]
    return any(
        abs(energy - known[atomic_numbers[symbol]]) > _NOTABLE_SHIFT
        for symbol, energy in fitted.items()
    )
