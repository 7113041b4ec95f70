"""Files laid out as those of OC20, for tests; torch-geometric is stood in for."""

from __future__ import annotations

import lzma
import pickle
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import lmdb
import numpy as np
import torch

Layout = Literal["store", "slots"]
NUMBERS = [29, 29, 78, 6, 8, 1]


@dataclass(frozen=True)
class Frame:
    """A structure: arrays in float32, as OC20's LMDB files have them."""

    numbers: np.ndarray
    positions: np.ndarray
    forces: np.ndarray
    cell: np.ndarray
    energy: float
    tags: np.ndarray
    fixed: np.ndarray
    sid: int
    fid: int
    reference: float


def make_frames(n: int, seed: int = 0, n_atoms: int = 6) -> list[Frame]:
    rng = np.random.default_rng(seed)
    numbers = np.resize(NUMBERS, n_atoms)
    tags = np.where(np.isin(numbers, (1, 6, 8)), 2, np.arange(n_atoms) % 2)
    return [
        Frame(
            numbers,
            rng.normal(size=(n_atoms, 3), scale=5).astype(np.float32),
            rng.normal(size=(n_atoms, 3)).astype(np.float32),
            (np.diag([9.0, 8.5, 20.0]) + rng.normal(size=(3, 3))).astype(np.float32),
            float(rng.normal(-300, 50)),
            tags,
            (tags == 0).astype(np.int64),
            1000 + i // 3,
            10 * (i % 3),
            float(rng.normal(-290, 50)),
        )
        for i in range(n)
    ]


def make_fields(frame: Frame, *, old: bool = False) -> dict[str, Any]:
    """Return the fields of a Data object, of now or of before torch-geometric 2."""
    energy, forces = ("y", "force") if old else ("energy", "forces")
    return {
        "edge_index": torch.zeros(2, 40, dtype=torch.int64),
        "pos": torch.tensor(frame.positions),
        "cell": torch.tensor(frame.cell)[None],
        "atomic_numbers": torch.tensor(frame.numbers, dtype=torch.float32 if old else torch.uint8),
        "natoms": len(frame.numbers),
        "tags": torch.tensor(frame.tags),
        "fixed": torch.tensor(frame.fixed, dtype=torch.float32 if old else torch.int32),
        "sid": frame.sid,
        "fid": frame.fid,
        energy: frame.energy,
        forces: torch.tensor(frame.forces),
    }


@contextmanager
def stand_in_geometric() -> Iterator[dict[str, type]]:
    """Give classes that pickle under torch-geometric's names."""
    names = {"Data": "data.data", "DataEdgeAttr": "data.data", "GlobalStorage": "data.storage"}
    classes: dict[str, type] = {}
    before = {name: found for name, found in sys.modules.items() if "torch_geometric" in name}
    for parent in ("torch_geometric", "torch_geometric.data"):
        sys.modules[parent] = ModuleType(parent)
    for name, place in names.items():
        module = f"torch_geometric.{place}"
        classes[name] = type(name, (), {"__module__": module})
        setattr(sys.modules.setdefault(module, ModuleType(module)), name, classes[name])
    try:
        yield classes
    finally:
        for name in [name for name in sys.modules if name.startswith("torch_geometric")]:
            del sys.modules[name]
        sys.modules.update(before)


def pickle_data(fields: dict[str, Any], layout: Layout = "store") -> bytes:
    """Return a pickled Data object of torch-geometric 2 (store) or 1 (slots)."""
    with stand_in_geometric() as classes:
        data = classes["Data"]()
        if layout == "slots":
            data.__dict__.update({"x": None, "edge_attr": None, "face": None, **fields})
        else:
            store = classes["GlobalStorage"]()
            store.__dict__.update({"_mapping": fields, "_parent": data})
            data.__dict__.update({"_store": store, "_edge_attr_cls": classes["DataEdgeAttr"]})
        return pickle.dumps(data, protocol=-1)


def write_lmdb(path: Path, values: Sequence[bytes], *, count: object = "all") -> Path:
    """Write a shard; count None leaves the key out."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = lmdb.open(str(path), map_size=1 << 28, subdir=False, meminit=False, lock=False)
    with environment.begin(write=True) as transaction:
        for number, value in enumerate(values):
            transaction.put(str(number).encode(), value)
        if count is not None:
            number = len(values) if count == "all" else count
            transaction.put(b"length", pickle.dumps(number, protocol=-1))
    environment.sync()
    environment.close()
    return path


def write_frames_lmdb(path: Path, frames: Iterable[Frame], layout: Layout = "store") -> Path:
    fields = [make_fields(frame, old=layout == "slots") for frame in frames]
    return write_lmdb(path, [pickle_data(each, layout) for each in fields])


def format_raw(frame: Frame) -> str:
    """Return a frame as the publishers wrote it, eight decimals by ASE's writer of old."""
    from ase.data import chemical_symbols

    lattice = " ".join(f"{x:.8f}" for x in frame.cell.ravel())
    lines = [
        f"{chemical_symbols[number]:<8s} {x:16.8f} {y:16.8f} {z:16.8f} {'FT'[int(not fixed)]:>4s} "
        f"{tag:8d} {fx:16.8f} {fy:16.8f} {fz:16.8f}"
        for number, (x, y, z), fixed, tag, (fx, fy, fz) in zip(
            frame.numbers, frame.positions, frame.fixed, frame.tags, frame.forces, strict=True
        )
    ]
    properties = "species:S:1:pos:R:3:move_mask:L:1:tags:I:1:forces:R:3"
    comment = (
        f'Lattice="{lattice}" Properties={properties} energy={frame.energy!r} '
        f'free_energy={frame.energy!r} pbc="T T T"'
    )
    return "\n".join([str(len(frame.numbers)), comment, *lines]) + "\n"


def format_record(frame: Frame) -> str:
    return f"random{frame.sid},frame{frame.fid},{frame.reference!r}\n"


def write_raw(folder: Path, frames: Sequence[Frame], number: int = 0, *, xz: bool = True) -> Path:
    """Write a shard and its text, and return the shard."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"{number}.txt{'.xz' if xz else ''}", map(format_record, frames))
    return write_text(folder / f"{number}.extxyz{'.xz' if xz else ''}", map(format_raw, frames))


def write_text(path: Path, parts: Iterable[str]) -> Path:
    content = "".join(parts).encode()
    path.write_bytes(lzma.compress(content, preset=0) if path.suffix == ".xz" else content)
    return path
