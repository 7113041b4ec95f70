"""Files that somebody sent run no code, whichever command meets them, unless they are trusted."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from ase import Atoms

from labelwise.campaign.page import gather_campaign
from labelwise.cli import main
from labelwise.structures import write_structures
from tests.campaign.building import write_campaign, write_data
from tests.potentials.hostile import write_hostile

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")
REMEDY = "pass --trust-model"
POOL = ["--pool", "pool.extxyz"]
SETS = [*POOL, "--valid", "train.extxyz", "--test", "train.extxyz", "--out", "out"]
COMMANDS = {
    "select": [*POOL, "-n", "2"],
    "represent": [*POOL, "--out", "rows.npz"],
    "plan": ["pool.extxyz", "-n", "2"],
    "finetune": ["--train", "train.extxyz", "--valid", "train.extxyz"],
    "calibrate": SETS,
    "geometry": [*POOL, "--group-by", "family", "--out", "out"],
    "summarise": [*POOL, "-n", "2", "--out", "out.extxyz"],
    "split": [*POOL, "--out-dir", "out"],
    "check-data": POOL,
    "compare": ["--preset", "scratch", "--seeds", "0", "--rounds", "1", "--out", "out"],
}
FILES = {"archive": "x.model", "legacy": "x.npz", "plain-pickle": "x.pkl", "checkpoint": "x.pth"}


@pytest.fixture
def folder(tmp_path: Path, rattled_molecules: list[Atoms], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_data(tmp_path, n_pool=10)
    return tmp_path


def runs() -> Iterator[Any]:
    """Yield files and commands; a comparison starts workers before it reads the model."""
    for kind in FILES:
        for command in COMMANDS:
            costs = command == "compare" and kind != "plain-pickle"
            yield pytest.param(kind, command, marks=[pytest.mark.thorough] if costs else [])


@pytest.mark.parametrize(("kind", "command"), list(runs()))
def test_no_command_runs_a_model_that_is_not_trusted(
    folder: Path, command: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hostile(folder / FILES[kind], kind, folder / "ran")
    assert main([command, *COMMANDS[command], "--model", FILES[kind]]) == 1
    said = " ".join(capsys.readouterr().err.split())
    assert f"{FILES[kind]} is a pickle, and loading it runs code" in said
    assert REMEDY in said
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_runs_a_pt_file_whatever_is_trusted(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_hostile(folder / "x.pt", "archive", folder / "ran")
    words = [command, *COMMANDS[command], "--model", "x.pt", "--trust-model"]
    assert main(words) == 1
    assert "read as weights alone" in " ".join(capsys.readouterr().err.split())
    assert not (folder / "ran").exists()


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A campaign of one round after round 0, with its data and its model inside."""
    directory = tmp_path_factory.mktemp("own")
    write_data(directory, n_pool=10)
    data = {"pool": ["pool.extxyz"], "train": ["train.extxyz"]}
    held = {role: {"files": [f"{role}.extxyz"]} for role in ("valid", "test")}
    write_campaign(
        directory,
        directory,
        model={"path": "small.model"},
        data={**data, **held},
        stop={"rounds": 1},
    )
    assert main(["campaign", "run", str(directory), "--quiet"]) == 0
    return directory


@pytest.fixture
def received(own: Path, tmp_path: Path) -> Path:
    """The same in the hands of somebody else."""
    directory = tmp_path / "received"
    shutil.copytree(own, directory)
    return directory


def note_content(directory: Path, file: str) -> None:
    """Write a file's content hash wherever the campaign notes it, as a sender could."""
    digest = hashlib.sha256((directory / file).read_bytes()).hexdigest()
    rounds = [json.loads(line) for line in (directory / "rounds.jsonl").read_text().splitlines()]
    folder, _, name = file.rpartition("/")
    if folder:
        rounds[int(folder.removeprefix("round_"))]["files"][name] = digest
    lines = "".join(f"{json.dumps(record)}\n" for record in rounds)
    (directory / "rounds.jsonl").write_text(lines)
    inputs = json.loads((directory / "inputs.json").read_text())
    if f"model: {file}" in inputs["files"]:
        inputs["files"][f"model: {file}"]["sha256"] = digest
    (directory / "inputs.json").write_text(json.dumps(inputs))


READERS: dict[str, Callable[[Path], list[str]]] = {
    "export": lambda path: ["campaign", "export", str(path), "--round", "1"],
    "best": lambda path: ["campaign", "export", str(path), "--best"],
    "status": lambda path: ["campaign", "status", str(path)],
    "report": lambda path: ["report", str(path), "--device", "cpu"],
    "figures": lambda path: ["figures", str(path), "--out", str(path.parent / "f")],
    "geometry": lambda path: [
        "geometry", "--campaign", str(path), "--pool", str(path / "pool.extxyz"),
        "--group-by", "family", "--out", str(path.parent / "g"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("is_noted", [False, True])
@pytest.mark.parametrize("file", ["round_001/model.pt", "small.model"])
def test_nothing_runs_of_a_campaign_that_was_sent(
    received: Path, reader: str, file: str, is_noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not even if its hashes are those of the hostile file and it calls itself trusted."""
    marker = received.parent / "ran"
    write_hostile(received / file, "archive", marker)
    if is_noted:
        note_content(received, file)
    (received / "inventory.json").write_text("{}")  # which a run would take again
    assert yaml.safe_load((received / "campaign.yaml").read_text())["model"]["trust"]
    code = main(READERS[reader](received))
    said = " ".join(capsys.readouterr().err.split())
    assert not marker.exists()
    is_read = not (file == "small.model" and reader in ("export", "best"))
    if reader in ("report", "figures"):  # they load no model at all
        assert code == 0
        assert ("is not what the campaign wrote" in said) == (
            file == "round_001/model.pt" and not is_noted
        )
        assert REMEDY not in said
        return
    if reader == "status":  # it reads no model, and looks whether files are what a run wrote
        assert code == (1 if file == "round_001/model.pt" and not is_noted else 0)
        return
    if not is_read:
        assert code == 0
    elif not is_noted:
        assert "is not what the campaign wrote" in said or "was begun with" in said
    else:
        assert REMEDY in said or "read as weights alone" in said
    assert code == (1 if is_read else 0)


def test_a_calculator_of_a_campaign_that_was_sent_is_not_imported(received: Path) -> None:
    marker = received.parent / "ran"
    for name in ("sent.py", "sitecustomize.py"):
        (received / name).write_text(f"open({str(marker)!r}, 'w').close()\n")
    path = received / "campaign.yaml"
    content = yaml.safe_load(path.read_text())
    content["labeller"] = {"kind": "calculator", "calculator": "sent:make"}
    path.write_text(yaml.safe_dump(content))
    for reader in READERS.values():
        main(reader(received))
    assert main(["campaign", "init", str(received)]) == 0
    assert not marker.exists()
    assert "sent" not in sys.modules


def test_a_campaign_that_is_run_believes_itself_for_its_page(own: Path) -> None:
    assert (own / "report" / "rows").exists()  # what only the pretrained model gives


def test_a_page_of_a_campaign_that_was_sent_needs_no_word(
    received: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(received)]) == 0
    assert "warning:" not in capsys.readouterr().err
    notes = gather_campaign(received).notes
    assert not any(note.startswith("Without") for note in notes)


@pytest.fixture
def selection(folder: Path) -> Path:
    words = ["--model", "small.model", "--trust-model", "--out", "batch.extxyz", "--quiet"]
    assert main(["select", *POOL, "-n", "2", *words, "--report"]) == 0
    return folder / "batch.json"


@pytest.mark.parametrize("command", ["report", "figures"])
def test_a_selection_that_was_sent_runs_nothing(
    selection: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [command, str(selection), *(["--out", "f"] if command == "figures" else [])]
    marker = selection.parent / "ran"
    write_hostile(selection.parent / "small.model", "archive", marker)
    assert main(words) == 0  # a page is made of what the run measured: no model is loaded
    assert REMEDY not in capsys.readouterr().err
    assert not marker.exists()


def test_a_file_called_like_a_known_model_is_not_taken_for_it(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["--model", "demo", "--out", "batch.extxyz", "--quiet"]
    write_structures("pool.extxyz", [Atoms("CO", [[0, 0, 0], [0, 0, z]]) for z in (1.1, 1.2, 1.4)])
    assert main(["select", *POOL, "-n", "2", *words]) == 0
    write_hostile(folder / "demo", "archive", folder / "ran")
    monkeypatch.chdir("/")
    assert main(["report", str(tmp_path / "batch.json"), "--trust-model"]) == 0
    assert not (folder / "ran").exists()
