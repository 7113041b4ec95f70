"""Make the files of the study of crystals: a pool, and 60 of its structures for validation.

``python benchmarks/crystals.py DFT_CRYSTALS FOLDER`` with a folder that has pool.extxyz and
test.extxyz of the alloy Nb-Mo-Ta-W (Li et al., npj Computational Materials 6 (2020) 70), energies
and forces as REF_energy and REF_forces; then ``labelwise compare FOLDER`` with study.yaml of
``benchmarks/results/crystals`` in it.
"""

from __future__ import annotations

import argparse
import random
import shutil
from pathlib import Path

N_VALID = 60


def main() -> None:
    """Write pool.extxyz, valid.extxyz and test.extxyz."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    asked = parser.parse_args()
    frames = read_frames(asked.data / "pool.extxyz")
    order = list(range(len(frames)))
    random.seed(1)
    random.shuffle(order)
    held = set(order[:N_VALID])
    asked.folder.mkdir(parents=True, exist_ok=True)
    for name, is_valid in (("pool", False), ("valid", True)):
        chosen = [frame for i, frame in enumerate(frames) if (i in held) == is_valid]
        (asked.folder / f"{name}.extxyz").write_text("".join(chosen))
    shutil.copyfile(asked.data / "test.extxyz", asked.folder / "test.extxyz")


def read_frames(path: Path) -> list[str]:
    """Return the text of each frame."""
    lines = path.read_text().splitlines(keepends=True)
    frames = []
    while lines and lines[0].strip():
        end = int(lines[0]) + 2
        frames.append("".join(lines[:end]))
        lines = lines[end:]
    return frames


if __name__ == "__main__":
    main()
