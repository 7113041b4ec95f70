"""The example jobs run a command that exists."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from typer.main import get_command

from labelwise.cli.app import app

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def read_slurm_command() -> list[str]:
    text = (EXAMPLES / "ray_slurm.sh").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^srun ray symmetric-run .*$", text, flags=re.MULTILINE)
    return shlex.split(line)


def read_kuberay_command() -> list[str]:
    manifest = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())
    return shlex.split(manifest["spec"]["entrypoint"])


@pytest.mark.parametrize("read_command", [read_slurm_command, read_kuberay_command])
def test_the_command_has_options_that_exist(read_command: object) -> None:
    assert callable(read_command)
    words = read_command()
    words = words[words.index("labelwise") :]
    assert words[:2] == ["labelwise", "select"]
    select = get_command(app).commands["select"]  # type: ignore[attr-defined]
    known = {name for parameter in select.params for name in parameter.opts}
    given = {word for word in words if word.startswith("--")}
    assert given <= known
    assert {"--store", "--ray"} <= given
    assert words[words.index("--ray") + 1] == "auto"


def test_both_run_the_same_options() -> None:
    slurm, kuberay = read_slurm_command(), read_kuberay_command()
    slurm = slurm[slurm.index("labelwise") :]
    assert slurm == [word.removeprefix("/data/") for word in kuberay]


def test_the_script_is_one_that_bash_understands() -> None:
    bash = shutil.which("bash")
    assert bash is not None
    subprocess.run([bash, "-n", EXAMPLES / "ray_slurm.sh"], check=True)


def test_the_manifest_mounts_what_the_command_reads() -> None:
    spec = yaml.safe_load((EXAMPLES / "kuberay.yaml").read_text())["spec"]["rayClusterSpec"]
    pods = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    for pod in (group["template"]["spec"] for group in pods):
        (container,) = pod["containers"]
        assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/data"]
        assert {mount["name"] for mount in container["volumeMounts"]} == {
            volume["name"] for volume in pod["volumes"]
        }
