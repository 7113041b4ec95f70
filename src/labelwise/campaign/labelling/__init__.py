"""Labellers: where the energy and the forces of a chosen structure come from."""

from labelwise.campaign.labelling.base import (
    Failure,
    Label,
    Labeller,
    LabellerSettings,
    LabellingError,
    LabellingRound,
    LabelsPending,
    Outcome,
    Task,
    list_labellers,
    make_labeller,
    register_labeller,
)
from labelwise.campaign.labelling.calculator import (
    CalculatorLabeller,
    CalculatorSettings,
)
from labelwise.campaign.labelling.checks import LabelChecks
from labelwise.campaign.labelling.files import FilesLabeller, FilesSettings
from labelwise.campaign.labelling.replay import ReplayLabeller

__all__ = [
    "CalculatorLabeller",
    "CalculatorSettings",
    "Failure",
    "FilesLabeller",
    "FilesSettings",
    "Label",
    "LabelChecks",
    "Labeller",
    "LabellerSettings",
    "LabellingError",
    "LabellingRound",
    "LabelsPending",
    "Outcome",
    "ReplayLabeller",
    "Task",
    "list_labellers",
    "make_labeller",
    "register_labeller",
]
