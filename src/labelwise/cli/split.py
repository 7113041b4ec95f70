"""``labelwise split``: training, validation and test sets that do not leak into each other."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import typer
from ase import Atoms

from labelwise.cli import console, data_sets
from labelwise.cli.commands.split import COVER, KERNEL, RANDOM, SplitCommand
from labelwise.cli.tables import show_rows
from labelwise.errors import ArgumentError, WriteError
from labelwise.kernels.base import Kernel
from labelwise.runtime.files import hash_file
from labelwise.runtime.provenance import to_json
from labelwise.selection.rules import Selection
from labelwise.structures.reading import expand_specs
from labelwise.studies.curation.data_set import DataSet
from labelwise.studies.curation.leakage import Leakage, measure_leakage
from labelwise.studies.curation.neighbours import renumber, single_linkage
from labelwise.studies.curation.split_files import MANIFEST, check_free, write_split
from labelwise.studies.curation.splitting import (
    PARTS,
    TRAIN,
    Split,
    misfit,
    split_by_distance,
    split_to_cover,
    split_units,
    units_of_groups,
    wanted_sizes,
)
from labelwise.studies.curation.summarising import (
    CoverageMeter,
    assign_to,
    average_coverage,
    check_rule,
)

_N_RANDOM = 3
_QUANTILES = ("least", "5 %", "median", "95 %", "largest")


def run_split(args: SplitCommand) -> None:
    """Run ``labelwise split``."""
    # Tells wrong fractions before anything is read.
    wanted_sizes(10**6, args.valid_fraction, args.test_fraction)
    data_sets.is_possible(args)  # tells a wrong name
    if args.by in (KERNEL, COVER):
        data_sets.require_kernel(args)
    check_rule(args.rule)
    if args.distance is not None and args.by != KERNEL:
        raise ArgumentError(f"--distance is for --by kernel, not for --by {args.by}")
    _check_folder(args.out, args.pool, force=args.force)
    talkative = not (args.quiet or args.as_json)
    data, kernel, potential = data_sets.load(args, strict=args.strict, talkative=talkative)
    key = (
        args.group_by
        if args.group_by is not None or args.by in (RANDOM, KERNEL, COVER)
        else args.by
    )
    groups = None if key is None else data.groups(key)
    with console.show_status("splitting", enabled=talkative):
        made = _make(data, kernel, args)
        leaks = measure_leakage(
            made, data.first_equal, groups=groups, kernel=kernel, seed=args.kernel.seed
        )
    record = {
        "inputs": [
            {"spec": spec, "file": str(part.path), "sha256": hash_file(part.path)}
            for spec in args.pool
            for part in expand_specs(spec)
            if part.path.is_file()
        ],
        "settings": {
            "by": args.by,
            "valid": args.valid_fraction,
            "test": args.test_fraction,
            "distance": args.distance,
            "rule": args.rule if args.by == COVER else None,
            "seed": args.kernel.seed,
            "group_by": key,
            "model": args.model.path,
        },
        **data_sets.describe(data, args, potential, with_kernel=kernel is not None),
        "split": {
            "sizes": dict(zip(PARTS, made.sizes, strict=True)),
            "wanted": dict(zip(PARTS, made.wanted, strict=True)),
            "misplaced": misfit(made),
            "units": int(made.unit.max()) + 1,
            "largest_unit": int(np.bincount(made.unit).max()),
            "kept_distance": made.distance,
        },
        "coverage": {} if kernel is None else _measure_coverage(made, kernel, args.kernel.seed),
        "leakage": [_describe_leak(leak) for leak in leaks],
        "indices": {
            name: data.indices[made.members(part)].tolist() for part, name in enumerate(PARTS)
        },
    }
    manifest = write_split(args.out, _parts(data, made), record, force=args.force)
    if args.as_json:
        typer.echo(to_json(manifest), nl=False)
    elif talkative:
        _show(manifest, data, leaks, args.out)


def _make(data: DataSet, kernel: Kernel | None, args: SplitCommand) -> Split:
    """Make the split that the flags ask for."""
    wanted = wanted_sizes(len(data), args.valid_fraction, args.test_fraction)
    seed = args.kernel.seed
    first_equal = data.first_equal
    if args.by == KERNEL and kernel is not None:
        tree = single_linkage(kernel)
        return split_by_distance(tree, first_equal, wanted, distance=args.distance, seed=seed)
    if args.by == COVER and kernel is not None:
        return split_to_cover(kernel, first_equal, wanted, rule=args.rule, seed=seed)
    if args.by == RANDOM:
        return split_units(renumber(first_equal), wanted, seed=seed)
    groups = data.groups(args.by, required=True)
    return split_units(units_of_groups(groups, first_equal), wanted, seed=seed)


def _measure_coverage(made: Split, kernel: Kernel, seed: int) -> dict[str, Any]:
    """Return how well test and validation sets stand for all structures, and random ones."""
    meter = CoverageMeter(kernel)
    found = {}
    for part, name in enumerate(PARTS):
        idx = made.members(part)
        if part == TRAIN or len(idx) == 0:
            continue
        figures = meter.measure(assign_to(kernel, Selection(idx, np.zeros(len(idx)))))
        random = meter.measure_random(len(idx), range(seed + 1, seed + 1 + _N_RANDOM))
        usual = {figure: each["mean"] for figure, each in average_coverage(random).items()}
        found[name] = {"figures": asdict(figures), "random": usual}
    return found


def _check_folder(folder: Path, pool: list[str], *, force: bool) -> None:
    """Refuse what cannot or must not be written, before anything is computed."""
    if folder.exists() and not folder.is_dir():
        raise WriteError(f"--out {folder} is a file; give a folder")
    sources = {part.path.resolve() for part in expand_specs(pool)}
    for name in (*(f"{part}.extxyz" for part in PARTS), MANIFEST):
        if (folder / name).resolve() in sources:
            raise WriteError(f"{folder / name} is one of the inputs; choose another --out")
    if not force:
        check_free(folder)


def _parts(data: DataSet, made: Split) -> dict[str, list[Atoms]]:
    """Return the structures of each part in the order of the pool, isolated atoms in train."""
    numbered: dict[str, list[tuple[int, Atoms]]] = {
        name: [(int(data.indices[i]), data.structures[i]) for i in made.members(part)]
        for part, name in enumerate(PARTS)
    }
    for item, atoms in zip(data.screened, data.aside, strict=True):
        if item.reason == "isolated-atom":
            numbered[PARTS[TRAIN]].append((item.index, atoms))
    return {
        name: [atoms for _, atoms in sorted(members, key=lambda member: member[0])]
        for name, members in numbered.items()
    }


def _describe_leak(leak: Leakage) -> dict[str, Any]:
    content = asdict(leak)
    for name in ("distance", "random_distance"):
        if content[name] is not None:
            content[name] = dict(zip(_QUANTILES, content[name], strict=True))
    return content


def _show(manifest: dict[str, Any], data: DataSet, leaks: tuple[Leakage, ...], out: Path) -> None:
    found = manifest["split"]
    rows = [
        (name, str(found["sizes"][name]), str(found["wanted"][name]))
        for name in PARTS
        if found["wanted"][name] or found["sizes"][name]
    ]
    show_rows(("set", "structures", "asked for"), rows)
    columns = ("nearest in", "equal", "shared groups", *_QUANTILES[:3], "random split")
    show_rows(columns, map(_leak_cells, leaks))
    lines = [
        f"{found['units']} units that stay together, the largest of {found['largest_unit']}",
        None
        if found["kept_distance"] is None
        else f"any two sets are more than {found['kept_distance']:.4g} apart under the kernel",
        *(
            f"{name}: {_compare(entry, 'moment_mmd')} the difference in moments from the whole "
            f"set, and {_compare(entry, 'max_distance')} the covering radius, of random sets"
            for name, entry in manifest["coverage"].items()
        ),
        data_sets.say_set_aside(data),
        None
        if manifest["kernel"] is not None
        else "no kernel distances: give --model, or a representation that needs none",
        f"files: {', '.join(str(out / name) for name in manifest['files'])}, {out / MANIFEST}",
    ]
    n_isolated = Counter(item.reason for item in data.screened)["isolated-atom"]
    if n_isolated:
        lines.insert(-1, f"{n_isolated} isolated atoms were added to the training set")
    console.tell(*lines)


def _compare(entry: dict[str, Any], name: str) -> str:
    """Return a figure as a multiple of that of random sets."""
    usual = entry["random"][name]
    return f"{entry['figures'][name] / usual:.2f} times" if usual > 0 else "(undefined)"


def _leak_cells(leak: Leakage) -> list[str]:
    cells = [f"{value:.3g}" for value in (leak.distance or ())[:3]] or ["-"] * 3
    usual = "-" if leak.random_distance is None else f"{leak.random_distance[2]:.3g}"
    shared = "-" if leak.shared_groups is None else str(len(leak.shared_groups))
    return [f"{leak.held_out} → {leak.seen}", str(leak.n_equal), shared, *cells, usual]
