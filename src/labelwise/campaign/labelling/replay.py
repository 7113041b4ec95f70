"""Labels that the pool holds already: studies without a single calculation."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from labelwise.campaign.labelling.base import Failure, Label, Outcome, Task, register_labeller
from labelwise.errors import LabelError
from labelwise.structures.convergence import find_unconverged_in
from labelwise.structures.labels import DEFAULT_ENERGY_KEY, DEFAULT_FORCES_KEY, get_labels


class ReplayLabeller:
    """Reveals the labels of the pool's own structures."""

    name = "replay"

    def __init__(
        self,
        *,
        energy_key: str = DEFAULT_ENERGY_KEY,
        forces_key: str = DEFAULT_FORCES_KEY,
        stress_key: str | None = None,
    ) -> None:
        """Name the keys.

        Args:
            energy_key: Info key of the total energy, eV.
            forces_key: Array key of the forces, eV/Å.
            stress_key: Info key of the stress, where there is one; None does not look for any.
        """
        self._keys: dict[str, Any] = {
            "energy_key": energy_key,
            "forces_key": forces_key,
            "stress_key": stress_key,
        }

    def label(self, queue: deque[Task]) -> Iterator[Outcome]:
        """Yield the outcomes in the order of the queue; see ``Labeller``."""
        while queue:
            task = queue.popleft()
            unconverged = find_unconverged_in(task.atoms)
            if unconverged:
                yield Failure(task.key, "not-converged", f"{task.source}: {unconverged}")
                continue
            try:
                labels = get_labels(task.atoms, str(task.source), **self._keys)
            except LabelError as error:
                yield Failure(task.key, "no-label", str(error))
            else:
                yield Label(task.key, labels.energy, labels.forces, stress=labels.stress)


register_labeller(
    "replay",
    lambda _, where: ReplayLabeller(
        energy_key=where.energy_key, forces_key=where.forces_key, stress_key=where.stress_key
    ),
)
