"""Published data sets: memory and time of looking at 2 GB, structures a second of building pools.

The files are synthetic and laid out as the publishers' are: Transition1x with 14 atoms (HDF5),
OC20 with 40 atoms (LMDB of pickles), OMol25 with 20 atoms (LMDB of JSON). Each measurement runs in
a process of its own; peak memory is what the system counted (VmHWM), Python and torch
included. Seconds are those of one core; the rate is of the whole build: looking, drawing,
reading, checking, searching copies, writing.

Run: ``python benchmarks/data_sets.py --folder FOLDER``
"""

from __future__ import annotations

import argparse
import json
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import lmdb
import numpy as np

from labelwise.structures.datasets import omol
from labelwise.structures.datasets.base import Entry, LabelledStructure, make_structure
from labelwise.structures.datasets.builds import OOD_SPLITS

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from selection import describe_machine
from tests.structures.datasets.oc20_files import Frame, make_fields, pickle_data

RESULTS = Path(__file__).parent / "results" / "data_sets.md"
GIGABYTE = 1_000_000_000
CODE = """
import json, resource, sys
from labelwise.cli import main
code = main(sys.argv[1:])
used = resource.getrusage(resource.RUSAGE_SELF)
peak = int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) * 1024
print(json.dumps([code, used.ru_utime + used.ru_stime, peak]))
"""


def make_transition1x(path: Path) -> None:
    """Write reactions of 2,000 images of 14 atoms until there are 2 GB."""
    rng = np.random.default_rng(0)
    numbers = np.array([6] * 4 + [8] * 2 + [1] * 8)
    energy = 4 * -1029.4 + 2 * -2041.8 + 8 * -13.6
    n_images, n_atoms = 2_000, len(numbers)
    with h5py.File(path, "w") as file:
        data, train = file.create_group("data"), file.create_group("train")
        for name in ("val", "test"):
            file.create_group(name)
        formula = data.create_group("C4H8O2")
        train["C4H8O2"] = h5py.SoftLink("/data/C4H8O2")
        for reaction in range(2 * GIGABYTE // (n_images * (6 * n_atoms + 1) * 8) + 1):
            group = formula.create_group(f"rxn{reaction:04}")
            group["atomic_numbers"] = numbers
            group["positions"] = rng.normal(size=(n_images, n_atoms, 3))
            group["wB97x_6-31G(d).energy"] = energy + rng.normal(size=n_images)
            group["wB97x_6-31G(d).forces"] = rng.normal(size=(n_images, n_atoms, 3))


def make_oc20(folder: Path) -> None:
    """Write 20,000 structures of 40 atoms to train and 500 to each validation split."""
    for number, split in enumerate(("train", *OOD_SPLITS)):
        values = [_oc20_value(seed) for seed in _seeds(number, 20_000 if number == 0 else 500)]
        _write_lmdb(folder / split / "data.0000.lmdb", values, len(values))


def make_large_oc20(folder: Path) -> None:
    """Write 2 GB of 2,000 structures, again and again."""
    values = [_oc20_value(seed) for seed in _seeds(9, 2_000)]
    n = int(2 * GIGABYTE / np.mean([len(value) for value in values])) + 1
    _write_lmdb(folder / "train" / "data.0000.lmdb", values, n)


def make_omol(path: Path) -> None:
    """Write 15,000 rows of 20 atoms with the writer of Labelwise."""
    omol.write_omol(path, (_omol_row(number) for number in range(15_000)))


def _seeds(first: int, n: int) -> range:
    return range(first * 1_000_000, first * 1_000_000 + n)


def _oc20_value(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    n_atoms = 40
    tags = np.array([0] * 18 + [1] * 18 + [2] * 4)
    frame = Frame(
        np.array([29] * 36 + [6, 8, 1, 1]),
        rng.normal(size=(n_atoms, 3), scale=5).astype(np.float32),
        rng.normal(size=(n_atoms, 3)).astype(np.float32),
        np.diag([10.0, 10.0, 25.0]).astype(np.float32),
        float(rng.normal(-150, 5)),
        tags,
        (tags == 0).astype(np.int64),
        seed // 50,
        seed % 50,
        0.0,
    )
    fields = make_fields(frame)
    del fields["edge_index"]
    return pickle_data(fields)


def _write_lmdb(path: Path, values: list[bytes], n: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(path), map_size=4 * GIGABYTE, subdir=False, lock=False)
    with environment.begin(write=True) as transaction:
        for number in range(n):
            transaction.put(str(number).encode(), values[number % len(values)])
        transaction.put(b"length", pickle.dumps(n))
    environment.close()


def _omol_row(number: int) -> LabelledStructure:
    rng = np.random.default_rng(number)
    numbers = [6] * 6 + [7] + [8] + [1] * 12
    source = f"pmechdb/r_{number // 10}_step{number % 10}_0_1/orca.tar.zst"
    return make_structure(
        Entry(number, source, subset="pmechdb", charge=0, spin=1),
        source,
        numbers=numbers,
        positions=rng.normal(size=(20, 3)),
        energy=6 * -1029.4 - 1484.9 - 2041.8 + 12 * -13.6 + rng.normal(),
        forces=rng.normal(size=(20, 3)),
        info={"source": source, "data_id": "reactivity"},
    )


def measure(*words: str) -> tuple[float, int, str]:
    """Run a command in a process of its own; return CPU seconds, peak bytes and output."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False
    )
    *output, last = done.stdout.strip().splitlines()
    code, seconds, peak = json.loads(last)
    if code:
        raise SystemExit(done.stderr)
    return seconds, peak, "\n".join(output)


def main() -> None:
    """Make what is missing, measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--folder", type=Path, required=True, help="for 5 GB of synthetic files")
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    makers: dict[str, Callable[[Path], None]] = {
        "Transition1x.h5": make_transition1x,
        "oc20": make_oc20,
        "oc20-large": make_large_oc20,
        "omol.aselmdb": make_omol,
    }
    for name, make in makers.items():
        if not (folder / name).exists():
            make(folder / name)
    idle, base, _ = measure("data", "list", "--json")
    start = f"{idle:.1f} s and {base / 1e6:.0f} MB"
    lines = [
        f"""# Published data sets

`python benchmarks/data_sets.py --folder FOLDER`; {describe_machine(1)}.
What is measured: the head of the script. Starting Python, torch and the command line takes {start},
which are in the memory below and not in the seconds.
""",
        "| looked at | size | structures | of which read and checked | seconds | peak memory |",
        "|---|---|---|---|---|---|",
    ]
    for name in ("Transition1x.h5", "oc20-large"):
        seconds, peak, text = measure("data", "inspect", str(folder / name), "--json")
        found = json.loads(text)
        files = [folder / name, *(folder / name).rglob("*")]
        size = sum(file.stat().st_size for file in files if file.is_file())
        lines.append(
            f"| {found['format_name']} | {size / 1e9:.2f} GB | {found['n_structures']:,} | "
            f"{found['n_read']:,} | {seconds - idle:.1f} | {peak / 1e6:.0f} MB |"
        )
    lines += ["", "| built | atoms | structures | seconds | structures/s | peak memory |"]
    lines += ["|---|---|---|---|---|---|"]
    for build, name, n_atoms, more in (
        ("t1x-mixed", "Transition1x.h5", 14, []),
        ("omol-pmechdb", "omol.aselmdb", 20, []),
        ("oc20", "oc20", 40, ["--size", "18000"]),
    ):
        out = folder / "built" / build
        shutil.rmtree(out, ignore_errors=True)
        words = ["data", "build", build, str(folder / name), "--out", str(out), "--json", *more]
        seconds, peak, text = measure(*words)
        n = sum(sum(pool["counts"].values()) for pool in json.loads(text)["pools"])
        seconds -= idle
        numbers = f"{n:,} | {seconds:.1f} | {n / seconds:,.0f} | {peak / 1e6:.0f} MB"
        lines.append(f"| {build} | {n_atoms} | {numbers} |")
        shutil.rmtree(out)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
