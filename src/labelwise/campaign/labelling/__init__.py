"""Labellers: where the energy and the forces of a chosen structure come from."""

from labelwise.campaign.labelling.base import (
    Failure,
    Label,
    Labeller,
    LabellingError,
    LabelsPending,
    Outcome,
    Task,
)
from labelwise.campaign.labelling.calculator import CalculatorLabeller, CalculatorSpec
from labelwise.campaign.labelling.checks import LabelChecks
from labelwise.campaign.labelling.files import FilesLabeller
from labelwise.campaign.labelling.replay import ReplayLabeller

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
