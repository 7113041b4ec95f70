from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from ase.build import bulk
from ase.io import write

from labelwise.cli import main
from labelwise.cli.tables import format_seconds


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    assert main(["demo", str(tmp_path / "demo")]) == 0
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, capsys: pytest.CaptureFixture[str]):
    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(["plan", "--pool", "demo/pool.extxyz", "--seconds", "0.2", *words])
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return call


def test_plan_says_what_the_demo_needs(run, folder: Path) -> None:
    words = ["--model", "demo", "--train", "demo/train.extxyz", "-n", "25", "--shortlist", "500"]
    words += ["--store-dtype", "float16", "--memory", "2GB", "--price-per-hour", "3.6"]
    began = time.perf_counter()
    code, out, _ = run(*words, "--seconds", "1", "--hours", "1", "--currency", "EUR", "--json")
    took_s = time.perf_counter() - began
    assert code == 0
    plan = json.loads(out)
    assert (plan["pool_structures"], plan["train_structures"]) == (2467, 10)
    assert [stage["name"] for stage in plan["stages"]] == [
        "load the model", "read and screen", "represent", "read the batch",
    ]  # fmt: skip
    assert all(s["low_seconds"] <= s["seconds"] <= s["high_seconds"] for s in plan["stages"])
    total_s = plan["total"]["seconds"]
    assert total_s == pytest.approx(sum(stage["seconds"] for stage in plan["stages"]))
    assert (plan["cost"], plan["currency"]) == (pytest.approx(total_s / 1000), "EUR")
    assert plan["probe"]["width"] == 256 and plan["probe"]["represent_structures_per_second"] > 1
    assert plan["store_bytes"] > 2477 * 256 * 2
    assert plan["peak_memory_bytes"] <= plan["memory_bound_bytes"] == 2_000_000_000
    assert plan["largest_pool_structures"]["in_hours"] > 2467
    assert plan["model"]["name"] == "demo"
    assert plan["probe"]["seconds"] < took_s
    assert sorted(path.name for path in folder.iterdir()) == ["demo"]


def test_plan_is_shown_as_a_table(run) -> None:
    code, out, _ = run("-r", "random", "--rule", "k-center", "--n-structures", "1000000")
    assert code == 0
    assert "1,000,000 structures of 9.1 atoms" in out
    for words in ("read and screen", "represent", "choosing come on top", "total", "largest pool"):
        assert words in out
    assert "cost" not in out


def test_the_time_of_a_pool_grows_with_it(run) -> None:
    def total_s(n: str) -> float:
        code, out, _ = run("-r", "random", "--n-structures", n, "-n", "10", "--json")
        assert code == 0
        return json.loads(out)["total"]["seconds"]

    assert total_s("10000000") > 20 * total_s("100000")


def test_gpus_need_a_speed_that_was_measured(run) -> None:
    words = ["--model", "demo", "--device", "cpu", "-n", "25", "--n-gpus", "4"]
    code, _, err = run(*words)
    assert code == 1 and "--structures-per-second" in " ".join(err.split())
    code, out, _ = run(*words, "--structures-per-second", "1000", "--json")
    assert code == 0
    stages = {stage["name"]: stage["seconds"] for stage in json.loads(out)["stages"]}
    kept = 2467 * json.loads(out)["probe"]["kept_fraction"]
    assert stages["represent"] == pytest.approx(kept / 4000, rel=1e-3)


def test_what_does_not_fit_is_said(run) -> None:
    code, out, _ = run("-r", "random", "-n", "10", "--memory", "1MB")
    assert code == 0 and "this does not fit" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["-n", "5"], "needs a model"),
        (["-r", "soap", "-n", "5"], "one dense row"),
        (["-r", "random", "-n", "5000"], "1 to 2467"),
        (["-r", "random", "-n", "5", "--memory", "much"], "4GB"),
        (["-r", "random", "-n", "5", "--hours", "-1"], "hours is -1.0; allowed is > 0"),
        (["-r", "random", "-n", "5", "--train", "nowhere.extxyz"], "no such file"),
    ],
)
def test_mistakes_are_named(run, words: list[str], said: str) -> None:
    code, _, err = run(*words)
    assert code == 1 and said in " ".join(err.split())


def test_pool_and_option_are_one(run) -> None:
    words = ["--pool", "demo/valid.extxyz", "demo/test.extxyz", "-r", "random", "-n", "5"]
    code, out, _ = run(*words, "--json")
    assert code == 0
    assert json.loads(out)["pool_structures"] == 2467 + 50 + 455


def test_a_pool_is_taken_without_its_option(folder: Path) -> None:
    assert main(["plan", "demo/train.extxyz", "-r", "random", "-n", "5", "--seconds", "0.1"]) == 0


def test_a_pool_is_asked_for(capsys) -> None:
    assert main(["plan", "-r", "random", "-n", "5"]) == 1
    assert "no pool was given" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (12.3, "12 s"), (150.0, "2.5 min"), (3600.0, "60 min"), (9000.0, "2.5 h")],
)
def test_times_are_short(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text


def test_plan_names_the_largest_structure(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(folder / "large.extxyz", bulk("C", "diamond", a=3.57, cubic=True).repeat(5))
    words = ["plan", "large.extxyz", "--seconds", "0.2", "--model", "demo", "-n", "1"]
    assert main([*words, "--max-atoms", "900"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "largest: 1,000 atoms, in large.extxyz, takes about" in shown
    assert "it will be set aside: 1,000 atoms, more than the 900 allowed" in shown
