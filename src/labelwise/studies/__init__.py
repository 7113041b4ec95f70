"""Comparisons, calibration, geometry and data sets as such."""
