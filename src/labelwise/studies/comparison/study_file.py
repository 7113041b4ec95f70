"""The file of a study, before what it says is checked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from labelwise.campaign.yaml_files import read_settings
from labelwise.errors import ArgumentError

STUDY_FILE = "study.yaml"


class StudyError(ArgumentError):
    """``study.yaml`` is missing, not YAML, or has wrong keys or values."""


def read_study_settings(path: Path) -> dict[str, Any]:
    """Read a study's settings as they stand.

    Args:
        path: The file, or a folder that has one.

    Raises:
        StudyError: The file is missing, is not YAML or holds no settings.
    """
    file = path / STUDY_FILE if path.is_dir() else path
    hint = "write one, or begin with: labelwise compare --preset reaction-natural --out DIR"
    return read_settings(file, error=StudyError, hint=hint)
