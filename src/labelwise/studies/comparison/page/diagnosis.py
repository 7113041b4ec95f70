"""Kernels of a study and their reliability, as its run measured them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from labelwise.pages.document import Panel
from labelwise.studies.comparison.page.kernels import draw_kernels
from labelwise.studies.comparison.page.naming import Namer
from labelwise.studies.comparison.page.reliability import draw_reliability, show_ranking

#: Where results are kept, below the study's folder.
KEPT = "report"
DIAGNOSIS = f"{KEPT}/diagnosis.json"


@dataclass(frozen=True)
class Diagnosis:
    """Panels of kernels and of their reliability, and why some are missing.

    Attributes:
        kernels: Heat maps and their numbers.
        reliability: The diagram and its numbers.
        ranking: Whose variances rank the model's errors.
        notes: Why there is none, in sentences.
    """

    kernels: list[Panel] = field(default_factory=list)
    reliability: list[Panel] = field(default_factory=list)
    ranking: list[Panel] = field(default_factory=list)
    notes: tuple[str, ...] = ()


def read_diagnosis(folder: Path, namer: Namer) -> Diagnosis:
    """Draw what the run of a study measured of its kernels.

    What is missing is told in the notes, with the command that measures it.
    """
    path = folder / DIAGNOSIS
    again = f"to have them: labelwise compare {folder}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        pool = str(content["pool"])
        return Diagnosis(
            draw_kernels(content["kernels"], pool, namer),
            draw_reliability(content["reliability"], content["styles"], pool, namer),
            show_ranking(content.get("ranking", {}), pool),
            notes=tuple(map(str, content["notes"])),
        )
    except FileNotFoundError:
        return Diagnosis(notes=(f"No kernels: none were measured for the page; {again}.",))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        words = " ".join(str(error).split())
        return Diagnosis(notes=(f"No kernels: {path} cannot be read ({words:.100}); {again}.",))
