"""What is kept of the files that a command writes: one function for each kind of file.

Where a file of the command line changes its keys, the function that reads it follows here; the
recorded outcomes stay as they are. Times, memory, versions and paths are left out.
"""

from __future__ import annotations

import csv
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ase.io
import numpy as np

Outcome = dict[str, Any]

#: Keys of JSON records, and columns of tables, that differ from run to run or place to place.
_VARYING = re.compile(
    r"seconds|versions|peak_|memory|processor|inputs|^file$|^files$|sources|sha256|format_version"
    r"|model_details|^model$|settings|resumed|messages|warnings|notes|^detail$"
)


def read_batch(summary: Path) -> Outcome:
    """Return picks, scores and what was set aside, of the summary that ``select`` writes."""
    record = _read_json(summary)
    picks = record["picks"]
    return {
        "pool_index": [pick["pool_index"] for pick in picks],
        "score": [pick["score"] for pick in picks],
        "nearest": [_frame_of(pick["nearest_train"]) for pick in picks],
        "nearest_distance": [pick["nearest_distance"] for pick in picks],
        "counts": _read_counts(record["counts"]),
        "screened": [[item["frame"], item["reason"]] for item in record["screened"]],
        "groups": [[name, *count.values()] for name, count in _groups_of(record).items()],
    }


def read_picked_frames(summary: Path) -> Outcome:
    """Return file name and frame of each pick, where a pool has several files."""
    picks = _read_json(summary)["picks"]
    return {"frames": [f"{Path(pick['file']).name}@{pick['frame']}" for pick in picks]}


def read_force_std(batch: Path) -> Outcome:
    """Return the predicted standard deviations of the chosen structures and of their atoms."""
    chosen = ase.io.read(batch, ":")
    return {
        "force_std": [float(atoms.info["labelwise_force_std"]) for atoms in chosen],
        "atom_std_sum": [float(atoms.arrays["labelwise_force_std"].sum()) for atoms in chosen],
    }


def read_features(path: Path) -> Outcome:
    """Return what tells rows apart: a digest of their bits, and two sums of each row."""
    with np.load(path) as content:
        rows = content["features"]
    exact = np.asarray(rows, dtype=np.float64)
    waves = np.cos(np.arange(rows.shape[1], dtype=np.float64))
    return {
        "shape": list(rows.shape),
        "dtype": str(rows.dtype),
        "bits_sha256": hashlib.sha256(rows.astype("<f4").tobytes()).hexdigest(),
        "norms": np.linalg.norm(exact, axis=1).tolist(),
        "wave_sums_over_norms": (exact @ waves / np.linalg.norm(exact, axis=1)).tolist(),
    }


def read_campaign(directory: Path) -> Outcome:
    """Return picks, scores, errors and the course of the fits of each round of a campaign."""
    rounds = [json.loads(line) for line in (directory / "rounds.jsonl").read_text().splitlines()]
    folders = sorted(directory.glob("round_*"))
    return {
        "rounds": [_read_round(record) for record in rounds],
        "candidates": [_read_candidates(folder / "picks.json") for folder in folders],
        "fits": [_read_fit(folder / "finetune.json") for folder in folders],
    }


def read_study(folder: Path) -> Outcome:
    """Return the numbers of a study's tables, of its page and of its campaigns."""
    return {
        **{f"{name}.csv": _read_table(folder / f"{name}.csv") for name in _STUDY_TABLES},
        "results.md": _read_page_tables(folder / "results.md"),
        "cells": {
            str(path.parent.relative_to(folder / "cells")): _read_picked(path.parent)
            for path in sorted((folder / "cells").rglob("rounds.jsonl"))
        },
    }


def read_geometry(folder: Path) -> Outcome:
    """Return the tables of ``geometry``, and which structures it sampled."""
    return {
        "idx": _read_json(folder / "geometry.json")["idx"],
        "geometry.csv": _read_table(folder / "geometry.csv"),
        "families.csv": _read_table(folder / "families.csv"),
    }


def read_calibration(folder: Path) -> Outcome:
    """Return the table of ``calibrate``, and the course of each kernel's labels."""
    kernels = _read_json(folder / "calibration.json")["kernels"]
    return {
        "calibration.csv": _read_table(folder / "calibration.csv"),
        "kernels": {kernel["kernel"]: _steady(kernel["replays"]) for kernel in kernels},
    }


def read_record(path: Path) -> Outcome:
    """Return all of a JSON record but what differs from place to place."""
    record = _steady(_read_json(path))
    record.pop("kernel", None)  # the settings once more
    return record


def read_plan(printed: str) -> Outcome:
    """Return the numbers of a plan that do not depend on the machine."""
    record = json.loads(printed)
    return {
        "pool_structures": record["pool_structures"],
        "atoms_per_structure": record["atoms_per_structure"],
        "store_bytes": record["store_bytes"],
        "largest_atoms": record["largest_structure"]["n_atoms"],
        "largest_bytes": record["largest_structure"]["memory_bytes"],
        "width": record["probe"]["width"],
        "n_blocks": record["probe"]["n_blocks"],
    }


def read_split(folder: Path) -> Outcome:
    """Return the report of ``split``, and a digest of which structure went where."""
    sets = {path.stem: ase.io.read(path, ":") for path in sorted(folder.glob("*.extxyz"))}
    places = {
        name: [[str(atoms.info.get("reaction")), atoms.info.get("frame")] for atoms in members]
        for name, members in sets.items()
    }
    digests = {
        name: hashlib.sha256(json.dumps(members, default=int).encode()).hexdigest()
        for name, members in places.items()
    }
    return {**read_record(folder / "split.json"), "members": digests}


_STUDY_TABLES = ("errors", "errors_by_pool", "curves", "round_gain", "committees")


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _frame_of(source: str | None) -> int | None:
    return None if source is None else int(source.rsplit("@", 1)[1])


def _groups_of(record: dict[str, Any]) -> dict[str, dict[str, int]]:
    groups = record["groups"]
    return groups if groups is not None else {}


def _read_counts(counts: dict[str, Any]) -> dict[str, Any]:
    names = ("pool", "train", "selected", "screened", "screened_by_reason", "features", "remarks")
    return {name: counts[name] for name in names}


def _steady(content: Any) -> Any:
    """Leave out of a record, at any depth, what differs from run to run or place to place."""
    if isinstance(content, dict):
        kept = {key: value for key, value in content.items() if not _VARYING.search(key)}
        return {key: _steady(value) for key, value in kept.items()}
    if isinstance(content, list):
        return [_steady(value) for value in content]
    return content


def _read_table(path: Path) -> dict[str, list[Any]]:
    """Return the columns of a table, numbers as numbers."""
    with path.open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    names = [name for name in rows[0] if not _VARYING.search(name)] if rows else []
    return {name: [_to_number(row[name]) for row in rows] for name in names}


def _to_number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _read_page_tables(path: Path) -> list[str]:
    """Return the rows of a page's tables up to the costs, which are times."""
    page = path.read_text(encoding="utf-8")
    sections = re.split(r"^(?=#+ )", page, flags=re.MULTILINE)
    return [row for section in sections for row in _steady_rows(section)]


def _steady_rows(section: str) -> Iterator[str]:
    rows = [line for line in section.splitlines() if line.startswith("| ")]
    if rows and not re.search(r"\b(ms|s|MiB|seconds|hours|time)\b", rows[0]):
        yield from rows


def _read_round(record: dict[str, Any]) -> Outcome:
    errors = {name: _errors_of(record["errors"][name]) for name in sorted(record["errors"])}
    counts = {name: record[name] for name in ("round", "n_train", "n_labels", "n_failed")}
    return {**counts, "errors": errors, "best_epoch": record["best_epoch"]}


def _errors_of(errors: dict[str, Any]) -> dict[str, Any]:
    names = ("energy_mae", "energy_rmse", "forces_mae", "forces_rmse")
    return {name: errors[name] for name in names}


def _read_candidates(path: Path) -> Outcome:
    candidates: dict[str, Sequence[dict[str, Any]]] = _read_json(path)["candidates"]
    return {
        role: {
            "pool_index": [candidate["pool_index"] for candidate in chosen],
            "score": [candidate["score"] for candidate in chosen],
        }
        for role, chosen in candidates.items()
    }


def _read_fit(path: Path) -> Outcome:
    record = _read_json(path)
    return {
        "weights_sha256": record["weights"],
        "n_updates": record["n_updates"],
        "reference_energies": record["reference_energies"],
        "train_loss": [epoch["train_loss"] for epoch in record["history"]],
        "valid_loss": [epoch["valid_loss"] for epoch in record["history"]],
    }


def _read_picked(directory: Path) -> list[Outcome]:
    """Return the candidates of each round of a campaign that is part of a study."""
    return [_read_candidates(path) for path in sorted(directory.glob("round_*/picks.json"))]
