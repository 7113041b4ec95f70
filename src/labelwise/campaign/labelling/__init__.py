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
    Precheck,
    Task,
    Withdrawal,
    cancel,
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
from labelwise.campaign.labelling.level import CalculationSettings
from labelwise.campaign.labelling.replay import ReplayLabeller
from labelwise.campaign.labelling.slurm.labeller import SlurmLabeller
from labelwise.campaign.labelling.slurm.settings import SlurmSettings
from labelwise.campaign.labelling.store import LabelStore

__all__ = [
    "CalculationSettings",
    "CalculatorLabeller",
    "CalculatorSettings",
    "Failure",
    "FilesLabeller",
    "FilesSettings",
    "Label",
    "LabelChecks",
    "LabelStore",
    "Labeller",
    "LabellerSettings",
    "LabellingError",
    "LabellingRound",
    "LabelsPending",
    "Outcome",
    "Precheck",
    "ReplayLabeller",
    "SlurmLabeller",
    "SlurmSettings",
    "Task",
    "Withdrawal",
    "cancel",
    "list_labellers",
    "make_labeller",
    "register_labeller",
]
