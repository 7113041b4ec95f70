"""Record what the command line comes to, or compare with what was recorded.

    python -m tests.frozen.record [--only NAME] [--check | --missing]

NAME is a group, or a group and the beginning of cases' names: ``demo_rules:ntk-e pv``.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path

from tests.frozen.cases import GROUPS, NATURAL, ODD_STRUCTURES, Case
from tests.frozen.comparing import Comparison, Verdict, compare
from tests.frozen.numbers import Outcome

OUTCOMES = Path(__file__).with_name("outcomes")
VERSIONS_FILE = OUTCOMES / "versions.json"
NATURAL_FOLDER = Path(__file__).resolve().parents[3] / "shared" / "data" / "t1x_xtb" / NATURAL
#: Packages that decide on the last bits of a number.
_PACKAGES = ("torch", "numpy", "scipy", "mace-torch", "e3nn", "matscipy", "dscribe", "rdkit")
#: Characters of a refusal's message that are kept, for the reader; they are not compared.
_MOST_OF_WHY = 160


def has_natural() -> bool:
    """Tell whether the development data are here."""
    return (NATURAL_FOLDER / "pool.extxyz").is_file()


def list_cases(group: str, beginning: str = "") -> list[Case]:
    """Return the cases of a group whose names begin so."""
    return [case for case in GROUPS[group].list_cases() if case.name.startswith(beginning)]


def read_recorded(group: str) -> dict[str, Outcome]:
    """Return the recorded outcomes of a group; none if it was never recorded."""
    path = OUTCOMES / f"{group}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def installed_versions() -> dict[str, str]:
    """Return the versions of the packages that decide on the last bits of a number."""
    return {name: version(name) for name in _PACKAGES}


def recorded_versions() -> dict[str, str]:
    """Return those with which the outcomes were recorded."""
    return dict(json.loads(VERSIONS_FILE.read_text(encoding="utf-8")))


def prepare(folder: Path) -> None:
    """Write what all cases read into a folder."""
    with contextlib.chdir(folder):
        code, _, _ = _run(("demo", ".", "--force"))
    if code != 0:
        raise RuntimeError(f"'labelwise demo' failed with exit code {code}")
    (folder / "odd.extxyz").write_text(ODD_STRUCTURES, encoding="utf-8")
    if has_natural():
        (folder / NATURAL).symlink_to(NATURAL_FOLDER)


def run_case(case: Case, folder: Path) -> Outcome:
    """Run a case in the prepared folder and return its outcome."""
    with contextlib.chdir(folder):
        for name, text in case.files:
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text, encoding="utf-8")
        _make_folders(case)
        printed = ""
        for words in case.commands:
            code, printed, said = _run(words)
            if code != 0:
                return {"exit": code, "why": said.strip()[:_MOST_OF_WHY]}
        return {"exit": 0, **case.read(printed)}


def _make_folders(case: Case) -> None:
    """Make the folders of files that are named behind ``-o`` or ``--summary``."""
    for words in case.commands:
        for option, value in pairwise(words):
            if option in ("-o", "--summary"):
                Path(value).parent.mkdir(parents=True, exist_ok=True)


def _run(words: tuple[str, ...]) -> tuple[int, str, str]:
    """Run a command line here; return its exit code and what it wrote to both streams."""
    from labelwise.cli import main

    printed, said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(said):
        code = main(words)
    return code, printed.getvalue(), said.getvalue()


def main() -> int:
    """Record, or compare; return 1 if an outcome differs from the recorded one."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", metavar="NAME", help="A group, or group:beginning of names.")
    parser.add_argument("--check", action="store_true", help="Compare; write nothing.")
    parser.add_argument("--missing", action="store_true", help="Record what has no outcome yet.")
    given = parser.parse_args()
    only, _, beginning = ("" if given.only is None else given.only).partition(":")
    if only and only not in GROUPS:
        parser.error(f"no group {only!r}; there are {', '.join(GROUPS)}")
    _use_one_thread()
    if given.check and installed_versions() != recorded_versions():
        _say(f"recorded with {recorded_versions()},\nhere are {installed_versions()}")
    is_good = True
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        for name in _wanted(only):
            if given.check:
                is_good &= _check(name, beginning, Path(folder))
            else:
                _record(name, beginning, Path(folder), missing_only=given.missing)
    return 0 if is_good else 1


def _use_one_thread() -> None:
    """The order of sums depends on the number of threads."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    torch.set_num_threads(1)


def _wanted(only: str) -> Iterator[str]:
    for name, group in GROUPS.items():
        if only and name != only:
            continue
        if group.needs_natural and not has_natural():
            _say(f"{name}: left out, the development data are not here")
            continue
        yield name


def _record(name: str, beginning: str, folder: Path, *, missing_only: bool) -> None:
    """Run cases of a group and write each outcome at once; those of the others stay."""
    start = time.perf_counter()
    known = [case.name for case in GROUPS[name].list_cases()]
    outcomes = {key: value for key, value in read_recorded(name).items() if key in known}
    wanted = list_cases(name, beginning)
    for case in wanted:
        if not (missing_only and case.name in outcomes):
            outcomes[case.name] = run_case(case, folder)
            _write(name, {key: outcomes[key] for key in known if key in outcomes})
    seconds = time.perf_counter() - start
    _say(f"{name}: {len(outcomes)} of {len(known)} outcomes are recorded, {seconds:.0f} s")
    refused = [f"{key} ({value['exit']})" for key, value in outcomes.items() if value["exit"]]
    if refused:
        _say(f"  refused, with exit code: {', '.join(refused)}")


def _write(name: str, outcomes: dict[str, Outcome]) -> None:
    OUTCOMES.mkdir(exist_ok=True)
    lines = [f"{json.dumps(key)}: {_compact(outcome)}" for key, outcome in outcomes.items()]
    path = OUTCOMES / f"{name}.json"
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    versions = json.dumps(installed_versions(), indent=1) + "\n"
    VERSIONS_FILE.write_text(versions, encoding="utf-8")


def _compact(outcome: Outcome) -> str:
    return json.dumps(outcome, separators=(",", ":"), ensure_ascii=False)


def _check(name: str, beginning: str, folder: Path) -> bool:
    """Run a group, print how it compares, and tell whether nothing differs."""
    start = time.perf_counter()
    recorded = read_recorded(name)
    found: dict[str, Comparison] = {}
    for case in list_cases(name, beginning):
        if case.name in recorded:
            found[case.name] = compare(recorded[case.name], run_case(case, folder))
        else:
            _say(f"{name}: {case.name} was never recorded")
    counts = dict.fromkeys(Verdict, 0)
    for comparison in found.values():
        counts[comparison.verdict] += 1
    shown = ", ".join(f"{n:4d} {_WORDS[verdict]}" for verdict, n in counts.items())
    _say(f"{name:<13}{shown}   {time.perf_counter() - start:4.0f} s")
    for case_name, comparison in found.items():
        if comparison.verdict is not Verdict.EQUAL:
            _say(describe(case_name, comparison))
    return counts[Verdict.DIFFERENT] == 0


_WORDS = {
    Verdict.EQUAL: "equal to the bit",
    Verdict.CLOSE: "within 1e-6",
    Verdict.NOW_RUNS: "refused once",
    Verdict.DIFFERENT: "different",
}


def describe(case_name: str, comparison: Comparison) -> str:
    """Return one line on a case that is not equal to the bit."""
    where = f"{comparison.where}: {comparison.detail}"
    largest = f", at most {comparison.largest:.1e} relative" if comparison.largest else ""
    return f"  {_WORDS[comparison.verdict]:<17}{case_name}  {where}{largest}"


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
