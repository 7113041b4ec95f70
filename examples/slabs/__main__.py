"""Make an example in the manner of OC20: adsorbates on metal slabs, labelled with EMT.

Run: ``python examples/slabs FOLDER``; 20,000 structures take about three minutes. The model
``demo-slabs`` knows their elements.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))
from examples.slabs import write_slab_example
from labelwise.errors import LabelwiseError


def main() -> int:
    """Read the command line and write the files; return the exit code."""
    parser = argparse.ArgumentParser(prog="python examples/slabs", description=__doc__)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("slabs"))
    parser.add_argument("--size", type=int, default=20_000, help="structures of the pool, >= 20")
    parser.add_argument("--seed", type=int, default=0, help="decides everything")
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    args = parser.parse_args()
    try:
        paths = write_slab_example(
            args.folder, n_pool=args.size, seed=args.seed, replace=args.force
        )
    except LabelwiseError as error:
        sys.exit(f"error: {error}")
    print(*paths, sep="\n")
    print(
        f"now try: labelwise select --model demo-slabs --train {args.folder}/train.extxyz --pool "
        f"{args.folder}/pool.extxyz -n 100 --group-by adsorbate --out {args.folder}/batch.extxyz",
        file=sys.stderr,
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
