"""A SLURM of one node, for tests: a controller and a node's daemon of one's own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "scancel")
PLUGINS = Path("/usr/lib/x86_64-linux-gnu/slurm-wlm")
CONFIGURATION = """\
ClusterName=t
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/log/slurmctld.log
SlurmdLogFile={folder}/log/slurmd.log
{plugins}
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
MpiDefault=none
MinJobAge={min_job_age}
SchedulerParameters=batch_sched_delay=0,sched_interval=1,sched_min_interval=0,bf_interval=1
ReturnToService=2
KillWait=1
DefMemPerCPU=200
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 RealMemory=2000 State=UNKNOWN
PartitionName=p Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def find_obstacle() -> str:
    """Return why there can be no SLURM here; empty if there can."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    missing = [name for name in PROGRAMS if shutil.which(name, path=path) is None]
    if missing:
        return f"SLURM is not installed ({', '.join(missing)})"
    return "" if os.getuid() == 0 else "SLURM's daemons need root to run without munge"


class Cluster:
    """A controller and a node.

    Args:
        folder: For what the daemons write.
        min_job_age: Seconds for which the controller remembers a job that has ended.
    """

    def __init__(self, folder: Path, min_job_age: int = 86400) -> None:
        for name in ("state", "spool", "log"):
            (folder / name).mkdir(parents=True)
        self.folder = folder
        self.conf = folder / "slurm.conf"
        plugins = f"PluginDir={PLUGINS}" if PLUGINS.is_dir() else ""
        self.conf.write_text(
            CONFIGURATION.format(
                folder=folder, ports=_free_ports(2), plugins=plugins, min_job_age=min_job_age
            )
        )

    def start(self) -> None:
        self._run("slurmctld", "-f", str(self.conf))
        self._run("slurmd", "-f", str(self.conf))
        self.wait(lambda: "idle" in self.run("sinfo", "-h", "-o", "%t"), "the node is not idle")

    def stop_controller(self) -> None:
        _end(self.folder / "slurmctld.pid")

    def start_controller(self) -> None:
        self._run("slurmctld", "-f", str(self.conf))

    def stop(self) -> None:
        self.run("scancel", "--user=root")
        time.sleep(0.5)
        _end(self.folder / "slurmd.pid")
        self.stop_controller()

    def run(self, *words: str) -> str:
        """Run a command of SLURM and return what it prints, whatever its exit code."""
        return self._run(*words, check=False)

    def list_jobs(self) -> list[str]:
        """Return name, state and reason of every job that waits or runs."""
        return self.run("squeue", "-h", "-r", "-o", "%j %T %r").split("\n")[:-1]

    def wait(self, is_so: Callable[[], bool], otherwise: str, limit_s: float = 240.0) -> None:
        began = time.perf_counter()
        while not is_so():
            assert time.perf_counter() - began < limit_s, otherwise
            time.sleep(0.1)

    def _run(self, *words: str, check: bool = True) -> str:
        environment = {**os.environ, "SLURM_CONF": str(self.conf)}
        environment["PATH"] = f"{environment['PATH']}:/usr/sbin:/sbin"
        done = subprocess.run(
            words, env=environment, check=check, text=True, stdout=subprocess.PIPE, timeout=120
        )
        return done.stdout


def _free_ports(n: int) -> list[int]:
    sockets = [socket.socket() for _ in range(n)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def _end(pid_file: Path) -> None:
    """End a daemon that we started and wait until it is gone."""
    if not pid_file.exists():
        return
    pid = int(pid_file.read_text())
    os.kill(pid, 15)
    began = time.perf_counter()
    while Path(f"/proc/{pid}").exists() and time.perf_counter() - began < 20.0:
        time.sleep(0.1)
