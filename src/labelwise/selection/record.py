"""The record of a selection: what was asked for, what came out, and how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

from labelwise.potentials import Potential, find_model_file
from labelwise.runtime.provenance import package_versions
from labelwise.selection.input_files import describe_paths
from labelwise.selection.options import RuleFacts
from labelwise.selection.picks import Pick
from labelwise.selection.results import Acquisition
from labelwise.selection.rules import get_rule
from labelwise.selection.settings import AcquisitionSettings

FORMAT_VERSION = 1


def summarise_acquisition(
    acquisition: Acquisition,
    settings: AcquisitionSettings,
    potential: Potential | None,
    *,
    inputs: Mapping[str, Any],
) -> dict[str, Any]:
    """Return the summary of a selection as plain data, ready for JSON.

    Args:
        acquisition: What was chosen.
        settings: How it was chosen.
        potential: The model, if one was used.
        inputs: Files and other words of the caller, recorded as given.

    Returns:
        Keys ``format_version``, ``inputs``, ``settings``, ``rule``, ``model``, ``versions``,
        ``counts``, ``stages`` (seconds, structures, structures per second), ``extraction``
        (what was done to fill a feature store, or None), ``groups``,
        ``picks`` and ``screened``. Scores and distances are dimensionless.
    """
    reasons: dict[str, int] = {}
    for item in acquisition.screened:
        reasons[item.reason] = reasons.get(item.reason, 0) + 1
    return {
        "format_version": FORMAT_VERSION,
        "inputs": dict(inputs),
        "settings": {
            **asdict(settings),
            "regularisation": settings.resolved_regularisation,
            "normalise": settings.resolved_normalise,
        },
        "rule": _describe_rule(settings.rule),
        "model": None if potential is None else describe_potential(potential),
        "versions": package_versions(),
        "counts": {
            "pool": acquisition.n_pool,
            "train": acquisition.n_train,
            "selected": len(acquisition.picks),
            "screened": len(acquisition.screened),
            "screened_by_reason": reasons,
            "features": acquisition.n_features,
            "remarks": dict(acquisition.remarks),
        },
        "stages": [
            {
                "name": stage.name,
                "seconds": round(stage.seconds, 4),
                "structures": stage.n_structures,
                "structures_per_second": round(stage.structures_per_second, 1),
            }
            for stage in acquisition.stages
        ],
        "extraction": None
        if acquisition.extraction is None
        else {
            "frames_read": acquisition.extraction.n_read,
            "rows_computed": acquisition.extraction.n_computed,
            "lots_sent_again": acquisition.extraction.n_lost,
            "worker_seconds": {
                name: round(seconds, 4) for name, seconds in acquisition.extraction.seconds.items()
            },
        },
        "groups": {
            name: {"selected": selected, "pool": offered}
            for name, (selected, offered) in acquisition.groups.items()
        },
        "picks": [_describe_pick(pick) for pick in acquisition.picks],
        "screened": [
            {
                "role": item.role,
                "index": item.index,
                "file": item.source.file,
                "frame": item.source.frame,
                "reason": item.reason,
                "detail": item.detail,
            }
            for item in acquisition.screened
        ],
    }


def describe_model(spec: str | None) -> list[dict[str, Any]]:
    """Return what ``describe_files`` says of a model's file; nothing of one known by its name."""
    path = None if spec is None else find_model_file(spec)
    return describe_paths([] if path is None else [path])


def describe_potential(potential: Potential) -> dict[str, Any]:
    """Return a model's name, content hash and what it can take.

    Args:
        potential: The model; its cutoff is in Å.
    """
    return {
        "name": potential.name,
        "content_hash": potential.content_hash,
        "elements": list(potential.elements),
        "cutoff_angstrom": potential.cutoff,
        "dtype": str(potential.dtype).removeprefix("torch."),
        "device": str(potential.device),
        "head": potential.head,
    }


def _describe_rule(rule: str) -> dict[str, Any]:
    """Return what a page says of a rule."""
    names = [field.name for field in fields(RuleFacts) if field.name != "name"]
    return {name: getattr(get_rule(rule), name) for name in names}


def _describe_pick(pick: Pick) -> dict[str, Any]:
    return {
        "rank": pick.rank,
        "pool_index": pick.pool_index,
        "file": pick.source.file,
        "frame": pick.source.frame,
        "score": pick.score,
        "nearest_train": None if pick.nearest_train is None else str(pick.nearest_train),
        "nearest_distance": pick.nearest_distance,
    }
