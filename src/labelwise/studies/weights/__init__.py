"""Protocols that compare methods on labelled structures."""

from labelwise.studies.weights.results import (
    BatchErrors,
    BlockStudy,
    StudyReference,
    WeightScore,
    WeightStudy,
    WeightStudySettings,
)
from labelwise.studies.weights.study import study_weights

__all__ = [
    "BatchErrors",
    "BlockStudy",
    "StudyReference",
    "WeightScore",
    "WeightStudy",
    "WeightStudySettings",
    "study_weights",
]
