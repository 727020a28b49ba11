"""A Slurm of its own on this machine: its daemons, with two nodes, one of which has pretend GPUs.

The nodes advertise more processors than there are, and their GPUs are links to /dev/null: Slurm hands them out as it
would real ones. Nothing outside the folder is touched, so that it runs as any user.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Programs that it needs: Debian's slurmctld, slurmd, slurm-client, munge and slurm-wlm-basic-plugins.
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol", "srun")

#: Daemons are in folders that a user's PATH may lack.
SBIN = os.pathsep.join([os.environ["PATH"], "/usr/sbin", "/sbin"])

#: Seconds until all daemons must be there.
PATIENCE = 60

NODES = {"cpu0": "", "cpu1": "", "gpu0": "Gres=gpu:a100:{gpus}"}

CONF = """\
ClusterName=sandbox
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.%n.log
# neither cgroups nor real processors to bind to
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,bf_interval=2
# what no node can ever run is refused, instead of waiting
EnforcePartLimits=ALL
# records of finished jobs stay for the tests to read
MinJobAge=3600
KillWait=5
InactiveLimit=0
ReturnToService=2
MessageTimeout=30
SlurmdTimeout=30
GresTypes=gpu
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
PartitionName=cpu Nodes=cpu0,cpu1 Default=YES MaxTime=120 State=UP
PartitionName=gpu Nodes=gpu0 MaxTime=120 State=UP
"""


@dataclass
class Slurm:
    """A cluster in a folder.

    Attributes
    ----------
    folder : Path
    cpus, memory_mb : int
        Advertised by each node.
    gpus : int
        Of the node `gpu0`.
    """

    folder: Path
    cpus: int = 8
    memory_mb: int = 16000
    gpus: int = 2

    def environment(self) -> dict[str, str]:
        """For processes that use it."""
        path = os.pathsep.join([str(self.folder / "bin"), SBIN])
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": path}

    def start(self) -> None:
        """Start the daemons and wait for the nodes."""
        for name in ("state", "bin", "dev", *(f"spool.{node}" for node in NODES)):
            (self.folder / name).mkdir(parents=True)
        self.folder.chmod(0o755)
        self._munge()
        self._configure()
        # the step inside a job drops SLURM_CONF, and would look for it in /etc
        for name in ("srun", "scontrol"):
            wrapper = self.folder / "bin" / name
            found = shutil.which(name, path=SBIN)
            wrapper.write_text(f'#!/bin/sh\nSLURM_CONF={self.folder}/slurm.conf exec {found} "$@"\n')
            wrapper.chmod(0o755)
        self.run("slurmctld", "-i")
        for node in NODES:
            self.run("slurmd", "-N", node)
        self.wait(lambda: set(self.run("sinfo", "-h", "-N", "-o", "%T").split()) == {"idle"}, PATIENCE)

    def stop(self) -> None:
        """End the daemons, and what is left of jobs: a node that is down is not told to end any."""
        for file in self.folder.glob("*.pid"):
            try:
                os.kill(int(file.read_text()), signal.SIGTERM)
            except (ProcessLookupError, ValueError):
                continue
        self.wait(lambda: not any(map(_alive, self.folder.glob("*.pid"))), PATIENCE)
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if str(self.folder).encode() in (process / "environ").read_bytes():
                    os.kill(int(process.name), signal.SIGKILL)
            except OSError:  # it has ended, or is another user's
                continue

    def run(self, *command: str) -> str:
        """Standard output of one of its programs."""
        done = subprocess.run(command, env=self.environment(), capture_output=True, text=True, timeout=PATIENCE)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr or done.stdout}")
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """Records of all jobs, running and finished, as `scontrol` tells them."""
        text = self.run("scontrol", "show", "jobs", "--details", "--oneliner")
        return [
            dict(word.partition("=")[::2] for word in line.split() if "=" in word)
            for line in text.splitlines()
            if line.startswith("JobId=")
        ]

    def wait(self, ready: Callable[[], bool], seconds: float) -> None:
        """Until something holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                if ready():
                    return
            except (RuntimeError, subprocess.TimeoutExpired):
                pass
            time.sleep(0.2)
        logs = "".join(f"{log}:\n{log.read_text()[-1500:]}\n" for log in self.folder.glob("*.log"))
        raise TimeoutError(f"not within {seconds} s; {logs}")

    def _munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(1024))
        key.chmod(0o400)
        files = {"key-file": key.name, "socket": "munge.socket", "pid-file": "munge.pid", "log-file": "munge.log"}
        options = [f"--{option}={self.folder / name}" for option, name in files.items()]
        self.run("munged", "--force", f"--seed-file={self.folder / 'munge.seed'}", *options)

    def _configure(self) -> None:
        host, user, port = socket.gethostname().split(".")[0], _user(), _free_ports(1 + len(NODES))
        text = CONF.format(host=host, user=user, port=port, folder=self.folder)
        for number, (node, gres) in enumerate(NODES.items(), 1):
            text += (
                f"NodeName={node} NodeHostname={host} NodeAddr=127.0.0.1 Port={port + number} CPUs={self.cpus} "
                f"RealMemory={self.memory_mb} {gres.format(gpus=self.gpus)} State=UNKNOWN\n"
            )
        (self.folder / "slurm.conf").write_text(text)
        for index in range(self.gpus):  # Slurm wants a device file of each
            (self.folder / "dev" / f"gpu{index}").symlink_to("/dev/null")
        files = f"{self.folder}/dev/gpu[0-{self.gpus - 1}]"
        gres = f"AutoDetect=off\nNodeName=gpu0 Name=gpu Type=a100 File={files}\n"
        (self.folder / "gres.conf").write_text(gres)


def missing() -> list[str]:
    """Programs that are not installed."""
    return [name for name in PROGRAMS if shutil.which(name, path=SBIN) is None]


def _user() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True).stdout.strip()


def _alive(pid_file: Path) -> bool:
    try:
        os.kill(int(pid_file.read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _free_ports(number: int) -> int:
    """The first of some consecutive ports that nobody listens on."""
    for first in range(26800, 30000, number):
        try:
            for port in range(first, first + number):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", port))
        except OSError:
            continue
        return first
    raise RuntimeError("no free ports")
