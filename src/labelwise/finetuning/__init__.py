"""Fitting a potential to labelled structures."""

from labelwise.finetuning.evaluation import Evaluation, evaluate
from labelwise.finetuning.export import save_potential
from labelwise.finetuning.loop import EpochRecord
from labelwise.finetuning.recipe import Recipe, Schedule, resolve_schedule
from labelwise.finetuning.training import FineTuned, finetune

__all__ = [
    "EpochRecord",
    "Evaluation",
    "FineTuned",
    "Recipe",
    "Schedule",
    "evaluate",
    "finetune",
    "resolve_schedule",
    "save_potential",
]
