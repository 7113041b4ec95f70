"""Replayed campaigns of several rules and seeds on one pool, and the table of their errors.

Each campaign is a directory of ``labelwise campaign``, so that a run that was stopped goes
on, and finished campaigns are only read.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from labelwise.campaign.template import TEMPLATE
from labelwise.cli import main as labelwise

_METRICS = ("energy_rmse", "forces_rmse")


def configure(args: argparse.Namespace, rule: str, seed: int) -> dict[str, Any]:
    """Return the template's configuration with the study's data, rule and seed."""
    config: dict[str, Any] = yaml.safe_load(TEMPLATE)
    folder = args.data.resolve()
    train = folder / "train.extxyz"
    config["seed"] = seed
    config["model"].update(path=args.model, trust=True)
    config["data"].update(
        pool=[str(folder / "pool.extxyz")],
        train=[str(train)] if train.exists() else [],
        valid={"files": [str(folder / "valid.extxyz")]},
        test={"files": [str(folder / "test.extxyz")]},
    )
    config["selection"].update(
        rule=rule, batch_size=args.batch_size, initial_size=0 if train.exists() else args.initial
    )
    config["stop"]["rounds"] = args.rounds
    return config


def run(args: argparse.Namespace, rule: str, seed: int) -> list[dict[str, Any]]:
    """Run one campaign to its end and return its rounds."""
    folder: Path = args.out / f"{rule}_{seed}"
    if not (folder / "campaign.yaml").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "campaign.yaml").write_text(yaml.safe_dump(configure(args, rule, seed)))
    rounds = read(folder)
    if len(rounds) <= args.rounds and labelwise(["campaign", "run", str(folder)]) != 0:
        raise SystemExit(f"{folder} did not finish")
    return read(folder)


def read(folder: Path) -> list[dict[str, Any]]:
    """Return the rounds that are finished."""
    path = folder / "rounds.jsonl"
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def table(results: dict[tuple[str, int], list[dict[str, Any]]]) -> str:
    """Return sums over rounds and final test RMSE, meV and meV/Å, and minutes, as Markdown.

    Round 0 is left out of the sums: it is the same for every rule.
    """
    lines = [
        "| rule | seed | rounds | labels | AUC E | AUC F | final E | final F | minutes |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for (rule, seed), rounds in results.items():
        curves = {name: [r["errors"]["test"][name] for r in rounds] for name in _METRICS}
        seconds = sum(s["seconds"] for r in rounds for s in r["stages"].values())
        sums = " | ".join(f"{sum(curve[1:]):.0f}" for curve in curves.values())
        last = " | ".join(f"{curve[-1]:.0f}" for curve in curves.values())
        lines.append(
            f"| {rule} | {seed} | {len(rounds)} | {rounds[-1]['n_train']} | {sums} | {last} "
            f"| {seconds / 60:.1f} |"
        )
    return "\n".join(lines)


def main() -> None:
    """Run what is not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of pool, valid, test")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--rules", nargs="+", default=["pv", "random"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=5)
    parser.add_argument("--initial", type=int, default=10, help="without a train.extxyz")
    parser.add_argument("--out", type=Path, required=True, help="folder of the campaigns")
    args = parser.parse_args()
    pairs = [(rule, seed) for seed in args.seeds for rule in args.rules]
    print(table({(rule, seed): run(args, rule, seed) for rule, seed in pairs}))


if __name__ == "__main__":
    main()
