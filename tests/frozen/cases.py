"""The command lines whose outcomes are frozen, in groups.

All run in one folder, in which ``labelwise demo`` has written the embedded reactions and
``natural_0`` leads to the development data of that name, if they are there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import yaml

from tests.frozen import numbers
from tests.frozen.numbers import Outcome

Words = tuple[str, ...]

NATURAL = "natural_0"
_KERNEL_RULES = ("pv", "lcmd", "k-center", "top")
#: One that takes no representation, and one that takes rows of its own.
_OTHER_RULES = ("random", "joint-pv")
RULES = (*_KERNEL_RULES, "random")
REPRESENTATIONS = (
    "activation",
    "ntk-e",
    "ntk-f",
    "ntk-ef",
    "activation-random",
    "ntk-random",
    "soap",
    "morgan",
    "random",
)
#: What the selection from a store may occupy; what is free would depend on the machine.
_MEMORY = "4GB"
_PART = "pool.extxyz@::40"

#: Names of representations with other options than their defaults, and these options.
_VARIANTS: dict[str, Words] = {
    "ntk-e readout": ("-r", "ntk-e", "--parameters", "readout"),
    "ntk-e products": ("-r", "ntk-e", "--parameters", "products", "--sketch-dim", "512"),
    "ntk-e all": ("-r", "ntk-e", "--parameters", "all", "--sketch-dim", "512", "--seed", "3"),
    "ntk-f rms": ("-r", "ntk-f", "--reduction", "rms"),
    "ntk-f element-rms": ("-r", "ntk-f", "--reduction", "element-rms"),
    "ntk-f force-norm": ("-r", "ntk-f", "--reduction", "force-norm"),
    "ntk-f moments": ("-r", "ntk-f", "--reduction", "moments"),
    "ntk-f rms exact": ("-r", "ntk-f", "--reduction", "rms", "--n-probes", "exact"),
    "ntk-f readout": ("-r", "ntk-f", "--parameters", "readout", "--sketch-dim", "512"),
    "ntk-ef 0.9": ("-r", "ntk-ef", "--energy-weight", "0.9"),
    "ntk-ef rms exact": ("-r", "ntk-ef", "--reduction", "rms", "--n-probes", "exact"),
}
#: Cases of the test that runs each time, and their group.
QUICK_GROUP = "demo_rules"
QUICK = (
    "activation pv",
    "ntk-e lcmd",
    "ntk-e lcmd store",
    "soap k-center",
)


@dataclass(frozen=True)
class Case:
    """One outcome: command lines, and what is read of the files that they write.

    Attributes:
        name: Of the case in its group.
        commands: Run one after another, until one fails.
        read: Takes what the last command printed; called if all went well.
        files: Written before, name to text.
    """

    name: str
    commands: tuple[Words, ...]
    read: Callable[[str], Outcome]
    files: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Group:
    """Cases that are recorded in one file.

    Attributes:
        list_cases: The cases.
        needs_natural: Whether the development data are needed.
    """

    list_cases: Callable[[], Iterator[Case]]
    needs_natural: bool = False


def _select(name: str, folder: str, n: int, words: Words, *, more: Words = ()) -> Case:
    """Return the case of one selection with the embedded model."""
    batch = f"{folder}/{name.replace(' ', '_')}"
    start = ("select", "--model", "demo", "-n", str(n), "-q", "-o", f"{batch}.extxyz")

    def read(_printed: str) -> Outcome:
        found = numbers.read_batch(Path(f"{batch}.json"))
        if "--force-std" in words:
            found |= numbers.read_force_std(Path(f"{batch}.extxyz"))
        if len([word for word in words if ".extxyz" in word]) > 2:
            found |= numbers.read_picked_frames(Path(f"{batch}.json"))
        return found

    return Case(name, ((*start, *words, *more),), read)


def _grid(
    folder: str,
    n: int,
    files: Words,
    names: tuple[str, ...],
    *,
    rules: tuple[str, ...],
) -> Iterator[Case]:
    """Yield the selections by each rule from each representation, in memory and from a store."""
    for name in names:
        stored = ("--store", f"stores/{folder}/{name}", "--memory", _MEMORY)
        for rule in rules:
            words = (*files, "-r", name, "--rule", rule)
            yield _select(f"{name} {rule}", folder, n, words)
            yield _select(f"{name} {rule} store", folder, n, words, more=stored)


_TRAIN = ("--train", "train.extxyz")


def _demo_rules() -> Iterator[Case]:
    files = ("--pool", _PART, *_TRAIN)
    yield from _grid("rules", 15, files, REPRESENTATIONS, rules=_KERNEL_RULES)
    yield from _grid("rules", 15, files, ("activation", "ntk-e", "ntk-ef"), rules=_OTHER_RULES)


def _demo_whole() -> Iterator[Case]:
    files = ("--pool", "pool.extxyz", *_TRAIN)
    yield from _grid("whole", 25, files, ("activation", "ntk-e"), rules=RULES)


def _demo_options() -> Iterator[Case]:
    files = ("--pool", _PART, *_TRAIN)
    select = partial(_select, folder="options", n=15)
    store = ("--store", "stores/options", "--memory", _MEMORY)
    for rule in _KERNEL_RULES:
        words = (*files, "--rule", rule)
        for extra, more in _extras(rule).items():
            yield select(f"{rule} {extra}", words=(*words, *more))
            yield select(f"{rule} {extra} store", words=(*words, *more), more=store)
    for name, options in _JOINT.items():
        yield select(f"joint-pv {name}", words=(*files, "--rule", "joint-pv", *options))
    for name, words in _SINGLE.items():
        yield select(name, words=words)
        if name in _SINGLE_STORED:
            yield select(f"{name} store", words=words, more=store)


def _extras(rule: str) -> dict[str, Words]:
    extras: dict[str, Words] = {
        "shortlist": ("--shortlist", "30"),
        "not normalised": ("--normalise", "none"),
    }
    if rule in ("pv", "top"):
        extras["regularised"] = ("--regularisation", "0.1")
    return extras


_JOINT: dict[str, Words] = {
    "energies": ("--energy-weight", "1"),
    "forces": ("--energy-weight", "0"),
    "exact": ("--n-probes", "exact"),
    "cosine": ("--normalise", "cosine"),
    "regularised": ("--regularisation", "0.01"),
    "readout": ("--parameters", "readout", "--sketch-dim", "512"),
    "shortlist": ("--shortlist", "30"),
}
_SINGLE: dict[str, Words] = {
    "force-std": ("--pool", _PART, *_TRAIN, "--force-std"),
    "force-std activation": ("--pool", _PART, *_TRAIN, "--force-std", "-r", "activation"),
    "force-std joint-pv": ("--pool", _PART, *_TRAIN, "--force-std", "--rule", "joint-pv"),
    "group-by": ("--pool", _PART, *_TRAIN, "--group-by", "reaction"),
    "without train": ("--pool", _PART, "--rule", "pv"),
    "without train lcmd": ("--pool", _PART, "--rule", "lcmd"),
    "without train k-center": ("--pool", _PART, "--rule", "k-center"),
    "two files": ("--pool", "train.extxyz", "pool.extxyz@5::40", *_TRAIN),
    "seed": ("--pool", _PART, *_TRAIN, "--rule", "random", "--seed", "7"),
    "random shortlist": ("--pool", _PART, *_TRAIN, "--rule", "random", "--shortlist", "30"),
    "float64": ("--pool", _PART, *_TRAIN, "--dtype", "float64"),
    "small batches": ("--pool", _PART, *_TRAIN, "--batch-atoms", "50"),
    "max atoms": ("--pool", _PART, *_TRAIN, "--max-atoms", "10"),
    "set aside": ("--pool", "odd.extxyz", _PART, *_TRAIN),
    "strict": ("--pool", "odd.extxyz", _PART, *_TRAIN, "--strict"),
}
_SINGLE_STORED = ("force-std", "group-by", "without train lcmd", "two files", "set aside")


def _natural() -> Iterator[Case]:
    files = ("--pool", f"{NATURAL}/pool.extxyz", "--train", f"{NATURAL}/valid.extxyz")
    part = ("--pool", f"{NATURAL}/pool.extxyz@::8", *files[2:])
    whole = ("activation", "ntk-e")
    yield from _grid("natural", 50, files, whole, rules=_KERNEL_RULES)
    words = (*files, "-r", "activation", "--rule", "random")
    yield _select("activation random", "natural", 50, words)
    yield from _grid("natural_part", 50, part, ("ntk-f", "ntk-ef"), rules=_KERNEL_RULES)
    for rule in ("pv", "lcmd"):
        words = (*files, "--rule", rule, "--shortlist", "200")
        yield _select(f"{rule} shortlist", "natural", 50, words)
    grouped = (*files, "--group-by", "reaction", "--force-std")
    yield _select("grouped force-std", "natural", 50, grouped)


def _rows() -> Iterator[Case]:
    plain = {name: ("-r", name) for name in REPRESENTATIONS}
    for name, options in {**plain, **_VARIANTS}.items():
        out = f"rows/{name.replace(' ', '_')}.npz"
        words = ("represent", "--model", "demo", "--pool", "pool.extxyz@::62", "-q", "-o", out)
        read = partial(numbers.read_features, Path(out))
        yield Case(name, ((*words, *options),), _after(read))


def _after(read: Callable[[], Outcome]) -> Callable[[str], Outcome]:
    """Return a reader that has no use for what was printed."""
    return lambda _printed: read()


_DATA: dict[str, Any] = {
    "pool": ["../../pool.extxyz@::20"],
    "train": ["../../train.extxyz"],
    "valid": {"files": ["../../valid.extxyz@::5"]},
    "test": {"files": ["../../test.extxyz@::15"]},
}
_FINETUNE = {"max_updates": 4, "batch_size": 5, "max_validations": 1}
_CAMPAIGNS: dict[str, dict[str, Any]] = {
    "lcmd": {"selection": {"rule": "lcmd", "representation": "ntk-e", "batch_size": 5}},
    "pv from nothing": {
        "data": {**_DATA, "train": [], "valid": {"from_pool": 6}, "test": {"from_pool": 8}},
        "selection": {
            "rule": "pv",
            "representation": "activation",
            "batch_size": 5,
            "initial_size": 8,
            "initial_rule": "k-center",
            "model": "pretrained",
        },
    },
    "joint-pv": {
        "selection": {"rule": "joint-pv", "batch_size": 4},
        "finetune": {**_FINETUNE, "start": "last"},
    },
    "committee-e": {
        "selection": {
            "rule": "committee-e",
            "members": 2,
            "diversity": "bootstrap",
            "batch_size": 5,
        }
    },
    "soap k-center": {
        "selection": {"rule": "k-center", "representation": "soap", "batch_size": 5},
        "seed": 1,
    },
}


def _campaigns() -> Iterator[Case]:
    for name, changes in _CAMPAIGNS.items():
        folder = Path("campaigns", name.replace(" ", "_"))
        config = {
            "seed": 0,
            "model": {"path": "demo", "device": "cpu"},
            "data": _DATA,
            "labeller": {"kind": "replay"},
            "finetune": _FINETUNE,
            "stop": {"rounds": 2},
            **changes,
        }
        run = ("campaign", "run", str(folder), "--no-report", "-q")
        yield Case(
            name,
            (("campaign", "init", str(folder)), run),
            _after(partial(numbers.read_campaign, folder)),
            ((str(folder / "campaign.yaml"), yaml.safe_dump(config)),),
        )


def _studies() -> Iterator[Case]:
    folder = Path("studies/small")
    study = {
        "title": "Frozen",
        "model": {"path": "demo", "device": "cpu"},
        "pools": {"demo": _DATA},
        "methods": ["random", "ntk-lcmd", "activation-pv", "committee-f"],
        "seeds": [0, 1],
        "selection": {"batch_size": 5, "n_reserve": 2, "members": 2},
        "finetune": {"max_updates": 3, "batch_size": 5, "max_validations": 1},
        "rounds": 2,
    }
    yield Case(
        "small",
        (("compare", str(folder), "-j", "1", "--no-report", "-q"),),
        _after(partial(numbers.read_study, folder)),
        ((str(folder / "study.yaml"), yaml.safe_dump(study)),),
    )


_MODEL = ("--model", "demo")
_TWENTIETH = ("--pool", "pool.extxyz@::20")


def _others() -> Iterator[Case]:
    yield from _geometries()
    yield from _calibrations()
    yield from _curations()
    for name in ("activation", "ntk-e", "ntk-f"):
        start = ("plan", *_MODEL, *_TWENTIETH, "-n", "20", "--seconds", "1", "--json")
        words = (*start, "--n-structures", "100000", "-r", name)
        yield Case(f"plan {name}", (words,), numbers.read_plan)


def _geometries() -> Iterator[Case]:
    by = ("--group-by", "reaction", "--order-by", "frame", "--max-structures", "90")
    words = ("geometry", *_MODEL, *_TWENTIETH, *by, "-o", "others/geometry", "-q")
    read = partial(numbers.read_geometry, Path("others/geometry"))
    yield Case("geometry", (words,), _after(read))


def _calibrations() -> Iterator[Case]:
    held_out = ("--valid", "valid.extxyz", "--test", "test.extxyz@::5")
    kernels = (
        "--representations",
        "activation,ntk-e,soap",
        "--max-labels",
        "30",
        "--n-repeats",
        "2",
    )
    start = ("calibrate", *_MODEL, *_TWENTIETH, *held_out, *kernels, "-q")
    for name, more in (("total", ()), ("per atom", ("--per-atom", "--with-noise"))):
        folder = f"others/calibration_{name.replace(' ', '_')}"
        read = partial(numbers.read_calibration, Path(folder))
        yield Case(f"calibrate {name}", ((*start, *more, "--out", folder),), _after(read))


def _curations() -> Iterator[Case]:
    for rule in ("herding", "lcmd", "k-center", "pv", "random"):
        out = f"others/summary_{rule}"
        start = ("summarise", *_MODEL, *_TWENTIETH, "-n", "10", "-q", "--group-by", "reaction")
        words = (*start, "--rule", rule, "-o", f"{out}.extxyz")
        yield Case(
            f"summarise {rule}", (words,), _after(partial(numbers.read_record, Path(f"{out}.json")))
        )
    for by in ("random", "kernel", "cover", "reaction"):
        out = f"others/sets_{by}"
        words = ("split", *_MODEL, *_TWENTIETH, "--by", by, "-q", "--out", out)
        yield Case(f"split {by}", (words,), _after(partial(numbers.read_split, Path(out))))
    doubled = ("--pool", "odd.extxyz", "train.extxyz", "train.extxyz", "pool.extxyz@::12")
    near = ("--near", "0.1")  # closer ones are apart by rounding only
    for name in ("activation", "ntk-e", "soap"):
        out = f"others/checked_{name}.json"
        words = ("check-data", *_MODEL, *doubled, *near, "-q", "-r", name, "--summary", out)
        yield Case(f"check-data {name}", (words,), _after(partial(numbers.read_record, Path(out))))


GROUPS: dict[str, Group] = {
    "demo_rules": Group(_demo_rules),
    "demo_whole": Group(_demo_whole),
    "demo_options": Group(_demo_options),
    "natural": Group(_natural, needs_natural=True),
    "rows": Group(_rows),
    "campaigns": Group(_campaigns),
    "studies": Group(_studies),
    "others": Group(_others),
}

#: Structures that are set aside for several reasons, and two that are equal.
ODD_STRUCTURES = """\
3
Properties=species:S:1:pos:R:3 pbc="F F F"
O 0.0 0.0 0.119262
H 0.0 0.763239 -0.477047
H 0.0 -0.763239 -0.477047
3
Properties=species:S:1:pos:R:3 pbc="F F F"
O 0.0 0.0 0.119262
H 0.0 0.763239 -0.477047
H 0.0 -0.763239 -0.477047
2
Properties=species:S:1:pos:R:3 pbc="F F F"
Fe 0.0 0.0 0.0
O 0.0 0.0 1.6
2
Properties=species:S:1:pos:R:3 pbc="F F F"
C 0.0 0.0 0.0
O 0.0 0.0 0.001
2
Properties=species:S:1:pos:R:3 pbc="F F F"
C 0.0 0.0 0.0
O 0.0 nan 1.1
1
Properties=species:S:1:pos:R:3 pbc="F F F"
H 0.0 0.0 0.0
"""
