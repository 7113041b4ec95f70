"""``labelwise campaign`` as a user calls it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelwise.cli import main
from labelwise.structures import read_structures, write_structures
from tests.campaign.building import label, result_of, write_campaign, write_data

pytestmark = pytest.mark.filterwarnings("ignore::labelwise.errors.LabelwiseWarning")


def test_init_run_status_export(tmp_path: Path, data: Path, finished: Path, capsys) -> None:
    directory = tmp_path / "c"
    assert main(["campaign", "init", str(directory), "--template"]) == 0
    assert (directory / "campaign.yaml").exists()
    assert main(["campaign", "init", str(directory), "--template"]) == 1
    assert "exists" in capsys.readouterr().err

    write_campaign(directory, data)
    assert main(["campaign", "init", str(directory)]) == 0
    assert main(["campaign", "run", str(directory), "--rounds", "1", "--quiet"]) == 0
    assert main(["campaign", "run", str(directory)]) == 0
    shown = capsys.readouterr()
    assert "stopped: 2 rounds are done" in shown.err
    assert "finished: 2 rounds are done; to go on: labelwise campaign run" in shown.out
    assert "one more batch: forces RMSE" in shown.out
    assert (directory / "curves.png").exists()
    assert result_of(directory) == result_of(finished)

    assert main(["campaign", "status", str(directory), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["n_labels"] == 6
    assert main(["campaign", "export", str(directory), "--best"]) == 0
    assert {path.name for path in (directory / "export").iterdir()} == {
        "potential.model", "training_set.extxyz", "export.json",
    }  # fmt: skip
    assert main(["campaign", "export", str(directory)]) == 1
    assert "--best and --round" in capsys.readouterr().err


def test_waiting_has_an_exit_code_of_its_own(tmp_path: Path, capsys) -> None:
    write_data(tmp_path / "data", labelled=False)
    directory = write_campaign(
        tmp_path / "c", tmp_path / "data", labeller={"kind": "files"}, stop={"rounds": 1}
    )
    assert main(["campaign", "run", str(directory), "--quiet"]) == 4
    assert "3 structures wait for labels in" in capsys.readouterr().err
    assert main(["campaign", "status", str(directory)]) == 0
    assert "waiting: 3 structures" in capsys.readouterr().out.replace("\n", "")
    asked = read_structures(directory / "round_001" / "to_label.extxyz")
    for atoms in asked:
        label(atoms)
    write_structures(directory / "round_001" / "labelled.extxyz", asked)
    assert main(["campaign", "run", str(directory), "--quiet"]) == 0


def test_errors_are_one_line(tmp_path: Path, data: Path, capsys) -> None:
    assert main(["campaign", "run", str(tmp_path)]) == 1
    assert "campaign.yaml does not exist" in capsys.readouterr().err
    directory = write_campaign(tmp_path / "c", data, stop={"rounds": 0})
    assert main(["campaign", "run", str(directory), "--quiet"]) == 0
    write_campaign(directory, data, stop={"rounds": 0}, selection={"batch_size": 4})
    assert main(["campaign", "run", str(directory), "--quiet"]) == 1
    assert "selection.batch_size: 3 → 4" in capsys.readouterr().err
    assert main(["campaign", "run", str(directory), "--quiet", "--accept-changes"]) == 0


def test_sigterm_gives_the_lock_back_and_a_second_process_is_refused(
    tmp_path: Path, data: Path, capsys
) -> None:
    """SIGTERM is what a batch system sends when the time is over."""
    directory = write_campaign(tmp_path / "c", data, finetune={"max_updates": 100_000})
    code = (
        "import sys, warnings; warnings.simplefilter('ignore')\n"
        "import labelwise.cli.campaign\nfrom labelwise.cli import main\nsys.exit(main())"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, "campaign", "run", str(directory), "--quiet"],
        stderr=subprocess.PIPE,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    began = time.perf_counter()
    while not (directory / "round_000" / "batch.json").exists():
        assert time.perf_counter() - began < 120
        time.sleep(0.05)
    assert main(["campaign", "run", str(directory), "--quiet"]) == 1
    assert f"process {process.pid} on" in capsys.readouterr().err
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert b"interrupted" in said
    assert not (directory / "lock.json").exists()
