"""Labellers: where the energy and the forces of a chosen structure come from."""

from labelwise.labelling.base import (
    Failure,
    Label,
    Labeller,
    LabellingError,
    LabelsPending,
    Outcome,
    Task,
)
from labelwise.labelling.calculator import CalculatorLabeller, CalculatorSpec
from labelwise.labelling.checks import LabelChecks
from labelwise.labelling.files import FilesLabeller
from labelwise.labelling.replay import ReplayLabeller

__all__ = [
    "CalculatorLabeller",
    "CalculatorSpec",
    "Failure",
    "FilesLabeller",
    "Label",
    "LabelChecks",
    "Labeller",
    "LabellingError",
    "LabelsPending",
    "Outcome",
    "ReplayLabeller",
    "Task",
]
