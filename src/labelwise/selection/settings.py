"""How a batch is chosen: the settings, checked before any structure is read."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np

from labelwise.errors import ArgumentError
from labelwise.features.extractor import RowKind
from labelwise.features.fill import RowRecipe
from labelwise.features.representations import (
    Representation,
    make_representation,
)
from labelwise.features.representations.joint_rows import JointRows
from labelwise.features.representations.reductions import check_reduction
from labelwise.kernels.building import check_kernel
from labelwise.potentials.base import Potential
from labelwise.selection.options import SelectionOptions
from labelwise.selection.rules import JOINT_RULE, get_rule

_JOINT_REPRESENTATIONS = ("ntk-e", "ntk-ef")


@dataclass(frozen=True, kw_only=True)
class AcquisitionSettings(SelectionOptions):
    """How a batch is chosen: ``SelectionOptions``, and how many.

    Attributes:
        n_select: Structures to choose.
        strict: Raise when a structure has to be set aside.
        required_labels: Info or array keys that every labelled structure must have.
        group_by: Info key by which chosen and offered structures are counted.

    Example:
        >>> from labelwise import AcquisitionSettings
        >>> settings = AcquisitionSettings(n_select=10, rule="pv")
        >>> settings.representation, settings.resolved_regularisation
        ('ntk-e', 0.001)
    """

    n_select: int
    strict: bool = False
    required_labels: tuple[str, ...] = ()
    group_by: str | None = None

    @property
    def needs_features(self) -> bool:
        """Whether the rule looks at the structures at all."""
        return not get_rule(self.rule).is_random or self.shortlist is not None

    @property
    def needs_potential(self) -> bool:
        """Whether a model is needed to choose."""
        return self.needs_features and self.make_representation().needs_model

    def check(self) -> None:
        """Find what can be found wrong before any structure is read.

        Raises:
            ArgumentError: A name is unknown or a number out of range.
        """
        get_rule(self.rule)
        check_kernel(self.make_representation(), self.resolved_normalise)
        check_reduction(self.options)
        if self.rule == JOINT_RULE:
            self._check_joint()
        if self.n_select < 1:
            raise ArgumentError(f"n_select is {self.n_select}; it must be at least 1")
        if self.shortlist is not None and self.shortlist < self.n_select:
            raise ArgumentError(
                f"shortlist is {self.shortlist}, below the {self.n_select} structures to select"
            )
        if self.max_atoms is not None and self.max_atoms < 1:
            raise ArgumentError(f"max_atoms is {self.max_atoms}; it must be at least 1")
        value = self.regularisation
        if value is not None and not (np.isfinite(value) and value > 0):
            raise ArgumentError(f"regularisation is {value}; it must be finite and above 0")

    def check_model(self, potential: Potential | None) -> None:
        """Find what the model cannot do before any structure is read.

        Raises:
            ArgumentError: There is no model where one is needed, or it has not the block of
                weights that is asked for.
        """
        if not self.needs_potential:
            return
        if potential is None:
            raise ArgumentError(self.explain_need_of_model())
        potential.check_block(self.parameters)

    def _check_joint(self) -> None:
        if self.representation not in _JOINT_REPRESENTATIONS:
            raise ArgumentError(
                f"the rule {JOINT_RULE} takes the gradients of energies and forces themselves: "
                f"leave out the representation ({self.representation!r} was given)"
            )
        JointRows(self.options)
        if not 0.0 <= self.energy_weight <= 1.0:
            raise ArgumentError(
                f"energy_weight is {self.energy_weight}; it must be between 0 and 1"
            )

    @property
    def resolved_regularisation(self) -> float:
        """λ as given, or the rule's default."""
        given = self.regularisation
        return get_rule(self.rule).regularisation if given is None else given

    @property
    def resolved_normalise(self) -> str:
        """The normalisation as given, or the rule's default."""
        return get_rule(self.rule).normalise if self.normalise is None else self.normalise

    def make_kind(self, *, is_measured: bool = False) -> RowKind:
        """Return what rows are made of: the representation, the joint rows, or None.

        Args:
            is_measured: Whether rows are wanted although the rule looks at none.
        """
        if not (self.needs_features or is_measured):
            return None
        return JointRows(self.options) if self.rule == JOINT_RULE else self.make_representation()

    def make_recipe(
        self, memory_bytes: int | None = None, *, is_measured: bool = False
    ) -> RowRecipe:
        """Return how rows are made.

        Args:
            memory_bytes: What the process may occupy; None for all that is free.
            is_measured: Whether rows are wanted although the rule looks at none.
        """
        return RowRecipe(
            partial(self.make_kind, is_measured=is_measured),
            self.batch_atoms,
            self.group_by,
            self.max_atoms,
            memory_bytes,
        )

    def make_representation(self) -> Representation:
        """Return the representation with its options.

        Raises:
            ArgumentError: Unknown name, or an option out of range.
        """
        return make_representation(self.representation, self.options)
