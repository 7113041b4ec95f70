"""Whether kernels know where a model errs, and what they tell apart."""

from labelwise.diagnostics.calibration import calibrate
from labelwise.diagnostics.calibration_results import (
    Calibration,
    CalibrationSets,
    CalibrationSettings,
)
from labelwise.diagnostics.geometry import KernelGeometry, measure_geometry
from labelwise.diagnostics.geometry_study import GeometryStudy, sample_families, study_geometry

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
