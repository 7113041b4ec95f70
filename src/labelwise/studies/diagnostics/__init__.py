"""Whether kernels know where a model errs, and what they tell apart."""

from labelwise.studies.diagnostics.calibration import calibrate
from labelwise.studies.diagnostics.calibration_results import (
    Calibration,
    CalibrationSets,
    CalibrationSettings,
)
from labelwise.studies.diagnostics.geometry import KernelGeometry, measure_geometry
from labelwise.studies.diagnostics.geometry_study import (
    GeometryStudy,
    sample_families,
    study_geometry,
)

__all__ = [
    "Calibration",
    "CalibrationSets",
    "CalibrationSettings",
    "GeometryStudy",
    "KernelGeometry",
    "calibrate",
    "measure_geometry",
    "sample_families",
    "study_geometry",
]
