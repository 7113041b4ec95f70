from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.constraints import FixAtoms

from labelwise.cli import main
from labelwise.runtime.files import hash_file
from labelwise.selection.acquire import acquire
from labelwise.structures import read_structures, write_structures


@pytest.fixture
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    for atoms in rattled_molecules:
        atoms.info["REF_energy"] = -1.5
        atoms.arrays["REF_forces"] = np.full((len(atoms), 3), 0.25)
    write_structures(tmp_path / "train.extxyz", rattled_molecules[:5])
    write_structures(tmp_path / "pool_a.extxyz", rattled_molecules[5:20])
    write_structures(tmp_path / "pool_b.extxyz", rattled_molecules[20:])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(folder: Path, model_path: Path):
    def call(*words: str, model: bool = True) -> int:
        chosen = ["--model", str(model_path), "--trust-model"] if model else []
        return main(["select", *chosen, *words])

    return call


def test_batch_is_read_by_ase_as_it_is(run, folder: Path) -> None:
    code = run("--train", "train.extxyz", "--pool", "pool_a.extxyz", "pool_b.extxyz", "-n", "6")
    assert code == 0
    batch = ase.io.read(folder / "batch.extxyz", ":")
    pool = read_structures(["pool_a.extxyz", "pool_b.extxyz"])
    assert [atoms.info["labelwise_rank"] for atoms in batch] == list(range(6))
    for atoms in batch:
        original = pool[atoms.info["labelwise_pool_index"]]
        file, frame = atoms.info["labelwise_source"].split("@")
        assert original == read_structures(f"{file}@{frame}")[0]
        assert atoms == original
        added = {key for key in atoms.info if key.startswith("labelwise_")}
        assert added == {
            "labelwise_rank", "labelwise_pool_index", "labelwise_source", "labelwise_score",
            "labelwise_nearest_train",
        }  # fmt: skip
        assert {k: v for k, v in atoms.info.items() if k not in added} == original.info
        assert np.array_equal(atoms.arrays["REF_forces"], original.arrays["REF_forces"])


def test_summary_records_the_run(run, folder: Path) -> None:
    write_structures("extra.extxyz", [Atoms("H"), *read_structures("train.extxyz@0")])
    words = ["--rule", "pv", "--regularisation", "0.01", "--out", "out/batch.xyz", "-n", "3"]
    assert run("--train", "train.extxyz", "--pool", "pool_a.extxyz", "extra.extxyz", *words) == 0
    summary = json.loads((folder / "out" / "batch.json").read_text())
    assert summary["settings"]["rule"] == "pv"
    assert summary["settings"]["regularisation"] == 0.01
    assert summary["counts"]["pool"] == 17
    assert summary["counts"]["screened_by_reason"] == {"isolated-atom": 1, "duplicate-of-train": 1}
    assert [(s["file"], s["frame"]) for s in summary["screened"]] == [
        ("extra.extxyz", 0), ("extra.extxyz", 1),
    ]  # fmt: skip
    assert len(summary["model"]["content_hash"]) == 64
    assert summary["versions"]["torch"]
    stages = {stage["name"]: stage for stage in summary["stages"]}
    assert stages["read pool"]["structures"] == 17
    assert [pick["rank"] for pick in summary["picks"]] == [0, 1, 2]


def test_force_tangents_are_chosen_by_and_recorded(run, folder: Path) -> None:
    words = ["-r", "ntk-ef", "--reduction", "fields", "--n-probes", "2", "--energy-weight", "0.3"]
    words += ["--normalise", "none", "--train", "train.extxyz", "--pool", "pool_a.extxyz"]
    assert run(*words, "-n", "3", "-q") == 0
    settings = json.loads((folder / "batch.json").read_text())["settings"]
    wanted = {
        "representation": "ntk-ef", "reduction": "fields", "n_probes": 2, "energy_weight": 0.3,
        "normalise": "none",
    }  # fmt: skip
    assert {key: settings[key] for key in wanted} == wanted
    words[1:6] = ["ntk-f", "--reduction", "force-norm", "--n-probes", "exact"]
    assert run(*words, "-n", "3", "-q") == 0
    assert json.loads((folder / "batch.json").read_text())["settings"]["n_probes"] is None


def test_joint_posterior_and_force_errors(run, folder: Path) -> None:
    words = ["--rule", "joint-pv", "--n-probes", "2", "--force-std", "-n", "3"]
    assert run("--train", "train.extxyz", "--pool", "pool_a.extxyz", *words, "-q") == 0
    for atoms in ase.io.read(folder / "batch.extxyz", ":"):
        by_atom = atoms.arrays["labelwise_force_std"]
        assert by_atom.shape == (len(atoms),)
        whole = atoms.info["labelwise_force_std"]
        np.testing.assert_allclose(np.sqrt(np.mean(by_atom**2)), whole, rtol=1e-5)
        assert whole > 0
    settings = json.loads((folder / "batch.json").read_text())["settings"]
    assert settings["rule"] == "joint-pv" and settings["regularisation"] == 0.3


def test_force_errors_leave_out_what_the_selection_set_aside(run, folder: Path) -> None:
    """An element that the model does not know must not cost the batch."""
    train = read_structures("train.extxyz")
    foreign = Atoms("XeH", [[0, 0, 0], [0, 0, 1.7]])
    foreign.arrays["REF_forces"] = np.zeros((2, 3))
    write_structures("mixed.extxyz", [foreign, *train])
    words = ["--pool", "pool_a.extxyz", "-n", "2", "--force-std", "-q"]
    assert run("--train", "mixed.extxyz", *words) == 0
    for atoms in ase.io.read(folder / "batch.extxyz", ":"):
        assert atoms.info["labelwise_force_std"] > 0


def test_same_command_twice_gives_the_same_files(run, folder: Path) -> None:
    words = ("--train", "train.extxyz", "--pool", "pool_*.extxyz", "-n", "5", "--quiet")
    assert run(*words) == 0
    first = (folder / "batch.extxyz").read_bytes()
    assert run(*words) == 0
    assert (folder / "batch.extxyz").read_bytes() == first


def test_selecting_from_an_earlier_batch(run, folder: Path) -> None:
    assert run("--pool", "pool_a.extxyz", "-n", "8", "--out", "one.extxyz", "-q") == 0
    assert run("--pool", "one.extxyz", "-n", "3", "--out", "two.extxyz", "-q") == 0
    batch = read_structures("two.extxyz")
    assert [atoms.info["labelwise_rank"] for atoms in batch] == [0, 1, 2]
    assert all(atoms.info["labelwise_source"].startswith("one.extxyz@") for atoms in batch)


def test_json_is_all_that_standard_output_holds(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--pool", "pool_a.extxyz", "-n", "2", "--json") == 0
    captured = capsys.readouterr()
    assert json.loads(captured.out)["counts"]["selected"] == 2
    assert captured.err == ""


def test_quiet_prints_nothing(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--pool", "pool_a.extxyz", "-n", "2", "--quiet") == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_screen_shows_picks_groups_and_totals(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert (
        run(
            "--train", "train.extxyz", "--pool", "pool_a.extxyz", "-n", "12", "--group-by", "family"
        )
        == 0
    )
    out = capsys.readouterr().out
    assert "nearest labelled" in out
    assert "train.extxyz@" in out
    assert "chose 12 of 15 structures, 5 labelled already (2 more in the file)" in out
    assert "CH3CHO" in out
    assert "batch.json" in out


def test_random_needs_no_model(run, folder: Path) -> None:
    for seed in ("0", "0", "1"):
        assert run("--pool", "pool_a.extxyz", "-n", "5", "--rule", "random", "--seed", seed,
                   "-q", "--out", f"{seed}.extxyz", model=False) == 0  # fmt: skip
    assert read_structures("0.extxyz") != read_structures("1.extxyz")


def test_fixed_atoms_keep_their_forces(run, folder: Path) -> None:
    pool = read_structures("pool_a.extxyz")
    for atoms in pool:
        atoms.set_constraint(FixAtoms([0]))
    write_structures("fixed.extxyz", pool)
    assert run("--pool", "fixed.extxyz", "-n", "4", "-q") == 0
    for atoms in read_structures("batch.extxyz"):
        assert atoms.constraints[0].index.tolist() == [0]
        assert (atoms.arrays["REF_forces"] == 0.25).all()


@pytest.mark.parametrize(
    "words,code,message",
    [
        (["--pool", "absent.xyz", "-n", "1"], 1, "no such file: absent.xyz"),
        (["--pool", "no*.xyz", "-n", "1"], 1, "no file matches"),
        (["--pool", "pool_a.extxyz", "-n", "16"], 1, "but only 15 of the 15"),
        (["--pool", "pool_a.extxyz", "-n", "0"], 2, "-n"),
        (["--pool", "pool_a.extxyz"], 2, "-n"),
        (["-n", "3"], 2, "--pool"),
        (["--pool", "pool_a.extxyz", "-n", "three"], 2, "valid integer"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--rule", "best"], 2, "allowed are joint-pv"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--representation", "x"], 2, "allowed are"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--parameters", "x"], 2,
         "parameters is 'x'; allowed are embedding, readout, products, interaction, all"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--n-probes", "0"], 2, "--n-probes is '0'; give"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--n-probes", "few"], 2, "or 'exact'"),
        (["--pool", "pool_a.extxyz", "-n", "3", "-r", "ntk-f", "--reduction", "x"], 2,
         "allowed are rms, element-rms, force-norm, fields, moments"),
        (["--pool", "pool_a.extxyz", "-n", "3", "-r", "ntk-ef", "--energy-weight", "2"], 1,
         "between 0 and 1"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--normalise", "x"], 2, "cosine"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--rule", "joint-pv", "-r", "activation"], 1,
         "leave out the representation"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--force-std"], 1, "give --model and --train"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--force-std", "--train", "train.extxyz",
          "--forces-key", "f"], 1, "label 'f' is missing"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--shortlist", "2"], 1, "shortlist is 2, below"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--regularisation", "-1"], 1, "above 0"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--nonsense"], 2, "--nonsense"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--device", "tpu"], 2, "device is 'tpu'"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--head", "x"], 1, "head"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--out", "pool_a.extxyz"], 1, "one of the inputs"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--out", "."], 1, "is a directory"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--summary", "batch.extxyz"], 1, "the same file"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--out", "notes.txt"], 1, "was not written by"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--train", "train.extxyz", "--energy-key", "dft"],
         1, "train.extxyz@0: label 'dft' is missing"),
        (["--pool", "pool_a.extxyz", "-n", "3", "--train", "train.extxyz", "--forces-key", "f"],
         1, "label 'f' is missing"),
        (["--pool", "single.extxyz", "-n", "1", "--strict"], 3, "single.extxyz@0: isolated-atom"),
    ],
)  # fmt: skip
def test_mistakes_get_one_clear_line(
    run, words: list[str], code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("notes.txt").write_text("mine")
    write_structures("single.extxyz", [Atoms("H")])
    before = Path("pool_a.extxyz").read_bytes()
    assert run(*words) == code
    captured = capsys.readouterr()
    assert message in captured.err.replace("\n", " ")
    assert "Traceback" not in captured.err
    assert captured.out == ""
    assert Path("pool_a.extxyz").read_bytes() == before
    assert Path("notes.txt").read_text() == "mine"
    assert not Path("batch.extxyz").exists()


def test_a_pipe_is_refused_as_a_pool(run, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe.xyz")
    assert run("--pool", "pipe.xyz", "-n", "1") == 1
    assert "is not a regular file; a pool is read twice" in capsys.readouterr().err


def test_labels_that_are_there_are_accepted(run) -> None:
    assert run("--train", "train.extxyz", "--pool", "pool_a.extxyz", "-n", "3", "-q",
               "--energy-key", "REF_energy", "--forces-key", "REF_forces") == 0  # fmt: skip


def test_force_replaces_a_foreign_file(run, folder: Path) -> None:
    (folder / "notes.txt").write_text("mine")
    assert run("--pool", "pool_a.extxyz", "-n", "2", "--out", "notes.txt", "--force", "-q") == 0
    assert b"labelwise_rank" in (folder / "notes.txt").read_bytes()


def test_missing_model_is_asked_for(run, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--pool", "pool_a.extxyz", "-n", "2", model=False) == 1
    assert "needs a model" in capsys.readouterr().err


def test_interrupt_leaves_nothing_behind(folder: Path, model_path: Path) -> None:
    os.mkfifo("slow.xyz")
    words = ["select", "--model", str(model_path), "--trust-model", "-n", "5"]
    words += ["--train", "slow.xyz", "--pool", "pool_b.extxyz"]
    # A shell starts background jobs with SIGINT ignored, and children inherit that.
    heed = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)"
    code = f"{heed}; import sys; from labelwise.cli import main; sys.exit(main({words!r}))"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    with Path("slow.xyz").open("w") as writer:  # opens when the run begins to read
        writer.write(Path("pool_a.extxyz").read_text())
        writer.flush()
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted; nothing was left half-written" in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(path.name for path in folder.iterdir()) == [
        "pool_a.extxyz", "pool_b.extxyz", "slow.xyz", "train.extxyz",
    ]  # fmt: skip


def test_bonds_that_were_not_perceived_are_told(
    run, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_structures(folder / "metal.extxyz", [Atoms("Cu2", positions=[[0, 0, 0], [0, 0, 2.2]])])
    words = ("--pool", "pool_a.extxyz", "metal.extxyz", "-n", "3", "-r", "morgan", "--rule", "pv")
    assert run(*words, model=False) == 0
    assert "1 structures: no bond orders found: single bonds taken" in capsys.readouterr().out
    summary = json.loads((folder / "batch.json").read_text())
    assert summary["counts"]["remarks"] == {"no bond orders found: single bonds taken": 1}


def test_a_package_that_is_missing(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for package, name in (("dscribe", "soap"), ("rdkit", "morgan")):
        monkeypatch.setitem(sys.modules, package, None)
        assert run("--pool", "pool_a.extxyz", "-n", "3", "-r", name, model=False) == 1
        assert "pip install 'labelwise[descriptors]'" in capsys.readouterr().err


def test_a_pool_that_is_replaced_meanwhile_is_refused(
    run, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def then(change):
        def acquire_and_change(*words, **options):
            found = acquire(*words, **options)
            write_structures("pool_a.extxyz", change(read_structures("pool_a.extxyz")))
            return found

        monkeypatch.setattr("labelwise.cli.select.acquire", acquire_and_change)
        return run("--pool", "pool_a.extxyz", "-n", "4")

    before = hash_file(folder / "pool_a.extxyz", "blake2b")
    assert then(lambda frames: [*frames, frames[0]]) == 0
    assert "pool_a.extxyz changed while the structures were read" in capsys.readouterr().err
    record = json.loads((folder / "batch.json").read_text())
    assert record["inputs"]["files"]["pool"][0]["blake2b"] == before
    batch = (folder / "batch.extxyz").read_bytes()
    assert then(lambda frames: frames[::-1]) == 1
    assert "is no longer the structure that was read before" in capsys.readouterr().err
    assert (folder / "batch.extxyz").read_bytes() == batch
