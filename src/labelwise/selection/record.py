"""The record of a selection: what was asked for, what came out, and how long it took."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

from labelwise.errors import LabelwiseWarning, ReadError
from labelwise.potentials import Potential, find_model_file
from labelwise.runtime.files import hash_file
from labelwise.runtime.provenance import package_versions
from labelwise.selection.results import Acquisition, Pick
from labelwise.selection.settings import AcquisitionSettings
from labelwise.structures.reading import expand_specs

#: Number, bytes and times of a file; None for one that is not there.
Mark: TypeAlias = tuple[int, int, int, int] | None

FORMAT_VERSION = 1
_LARGEST_HASHED = 10**9  # bytes


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
        Keys ``format_version``, ``inputs``, ``settings``, ``model``, ``versions``,
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


def describe_files(specs: Sequence[str]) -> list[dict[str, Any]]:
    """Return name, size and content hash of the files that some specs mean.

    Args:
        specs: As ``expand_specs`` takes them.

    Returns:
        Keys ``file``, ``bytes`` and ``blake2b``, of which the last is None for folders and for
        files above 1 GB, which are not read for it.

    Raises:
        ReadError: A file is missing or cannot be read.
    """
    return _describe_paths([part.path for part in expand_specs(specs)] if specs else [])


def describe_model(spec: str | None) -> list[dict[str, Any]]:
    """Return the same of a model's file; nothing of one that is known by its name, or of none."""
    path = None if spec is None else find_model_file(spec)
    return _describe_paths([] if path is None else [path])


def _describe_paths(paths: Iterable[Path]) -> list[dict[str, Any]]:
    described = []
    for path in dict.fromkeys(paths):
        size = path.stat().st_size if path.is_file() else None
        is_read = size is not None and size <= _LARGEST_HASHED
        digest = hash_file(path, "blake2b") if is_read else None
        described.append({"file": str(path), "bytes": size, "blake2b": digest})
    return described


def mark_files(described: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, Mark]:
    """Return by which files are known to be as they were without reading them, by name.

    Args:
        described: What ``describe_files`` found just now, by role.
    """
    names = [str(file["file"]) for files in described.values() for file in files]
    return {name: _mark(name) for name in names}


def warn_of_changes(
    described: Mapping[str, Sequence[Mapping[str, Any]]], marks: Mapping[str, Mark]
) -> None:
    """Say which files are no longer what ``describe_files`` found; few are read again.

    Args:
        described: Lists of files by role.
        marks: What ``mark_files`` found then.

    Warns:
        LabelwiseWarning: Names the files; what is recorded of them is how they were before.
    """
    changed = [
        str(file["file"])
        for files in described.values()
        for file in files
        if _mark(file["file"]) != marks[file["file"]] and _has_changed(file)
    ]
    if changed:
        warnings.warn(
            f"{', '.join(changed[:5])} changed while the structures were read; the summary "
            "records what was there before",
            LabelwiseWarning,
            stacklevel=2,
        )


def _mark(name: str) -> Mark:
    with suppress(OSError):
        found = Path(name).stat()
        return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
    return None


def _has_changed(file: Mapping[str, Any]) -> bool:
    try:
        return describe_files([file["file"]]) != [file]
    except ReadError:  # it is gone
        return True


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
