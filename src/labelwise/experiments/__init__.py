"""Protocols that compare methods on labelled structures."""

from labelwise.experiments.weight_results import (
    BatchErrors,
    BlockStudy,
    StudyReference,
    WeightScore,
    WeightStudy,
    WeightStudySettings,
)
from labelwise.experiments.weight_study import study_weights

__all__ = [
    "BatchErrors",
    "BlockStudy",
    "StudyReference",
    "WeightScore",
    "WeightStudy",
    "WeightStudySettings",
    "study_weights",
]
