"""A SLURM of one node for as long as a `with` block lasts: munged, slurmctld and slurmd in, a `Cluster` out.

All that they need and write is in a temporary folder (configuration, key, sockets, state, logs), they listen on free
ports of 127.0.0.1, and all of it is gone when the block ends, however it ends. The node says that it has more cores
than this machine, and two GPUs, which are links to /dev/null and /dev/zero: SLURM hands them out and sets
CUDA_VISIBLE_DEVICES, while torch sees none. Needs root and the packages slurmctld, slurmd, slurm-client and munge.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from ccs.launch import __main__ as launch

DAEMONS = ("munged", "slurmctld", "slurmd")
COMMANDS = ("sbatch", "scancel", "scontrol", "sinfo", "squeue", "srun")

SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
# loopback only
CommunicationParameters=NoAddrCache,NoCtldInAddrAny,NoInAddrAny
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
ReturnToService=2
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerType=sched/backfill
# seconds between SIGTERM and SIGKILL at a job's end
KillWait=20
# finished jobs are remembered until the block ends
MinJobAge=86400
GresTypes=gpu
# a node may have less than it says
SlurmdParameters=config_overrides
NodeName={host} NodeAddr=127.0.0.1 CPUs=16 RealMemory=256000 Gres=gpu:2 State=UNKNOWN
PartitionName=test Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class ClusterError(Exception):
    """SLURM does not start or stop here; says which part of it, and what it printed."""


@dataclass(frozen=True)
class Cluster:
    """A running SLURM.

    folder: all of its files.
    environment: variables with which its commands find it.
    """

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """What a command such as `squeue` prints."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False, timeout=60)
        if done.returncode:
            raise ClusterError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs, the first one first, as `scontrol show jobs` has them: JobId, JobState, Comment, StartTime, ..."""
        lines = self.run("scontrol", "show", "jobs", "--oneliner").splitlines()
        found = [dict(re.findall(r"(\S+?)=(\S*)", line)) for line in lines if line.startswith("JobId=")]
        return sorted(found, key=lambda job: int(job["JobId"]))


def missing() -> str:
    """Why there can be no SLURM here, or nothing."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    absent = [name for name in (*DAEMONS, *COMMANDS) if not shutil.which(name, path=path)]
    if absent:
        return f"no {', '.join(absent)}: install slurmctld, slurmd, slurm-client and munge"
    return "" if os.geteuid() == 0 else "SLURM's daemons need root here"


@contextmanager
def cluster() -> Iterator[Cluster]:
    """Start SLURM, and stop it when the block ends.

    Raises:
        ClusterError: it does not start within a minute.
    """
    with ExitStack() as stack:
        # a short name, since a socket's path may have 107 characters; its parent must be safe from others for munged
        folder = Path(tempfile.mkdtemp(prefix="ccs-slurm-"))
        stack.callback(shutil.rmtree, folder)
        found = Cluster(folder, _configure(folder))
        socket_flags = [f"--{name}={folder}/munge.{name}" for name in ("socket", "key-file", "pid-file", "log-file")]
        _start(stack, found, "munged", "--foreground", "--force", f"--seed-file={folder}/munge.seed", *socket_flags)
        _wait((folder / "munge.socket").exists, found, "munged")
        _start(stack, found, "slurmctld", "-D", "-c")
        _start(stack, found, "slurmd", "-D", "-N", _host())
        _wait(lambda: " idle" in _quiet(found, "sinfo", "-h", "-N", "-o", "%N %t"), found, "slurmctld and slurmd")
        stack.callback(_end_jobs, found)
        yield found


def processes_of(folder: Path) -> list[str]:
    """Command lines of the processes that a cluster in `folder` or its jobs have started and that are still there."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            texts = [(process / name).read_bytes().replace(b"\0", b" ").decode() for name in ("cmdline", "environ")]
        except (FileNotFoundError, ProcessLookupError, PermissionError):
            continue
        if any(str(folder) in text for text in texts):
            found.append(f"{process.name}: {texts[0]}")
    return found


def _configure(folder: Path) -> dict[str, str]:
    """Write all files; returns the environment of commands."""
    for name in ("state", "spool", "bin"):
        (folder / name).mkdir()
    key = folder / "munge.key-file"
    key.touch(mode=0o600)
    key.write_bytes(os.urandom(128))
    with ExitStack() as stack:  # all at once, so that they differ
        sockets = [stack.enter_context(socket.socket()) for _ in range(2)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        ports = [each.getsockname()[1] for each in sockets]
    for number, device in enumerate(("/dev/null", "/dev/zero")):
        (folder / f"gpu{number}").symlink_to(device)
    configuration = folder / "slurm.conf"
    configuration.write_text(SLURM_CONF.format(host=_host(), ports=ports, folder=folder))
    (folder / "gres.conf").write_text(f"NodeName={_host()} Name=gpu File={folder}/gpu[0-1]\n")
    # Snakemake's executor drops SLURM_CONF from the environment of a job's srun
    srun = folder / "bin" / "srun"
    srun.write_text(f'#!/bin/sh\nSLURM_CONF={configuration} exec {shutil.which("srun")} "$@"\n')
    srun.chmod(0o755)
    path = os.pathsep.join([str(folder / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin"])
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))}
    return {**kept, "PATH": path, "SLURM_CONF": str(configuration), launch.PRETENDED: "1"}


def _host() -> str:
    return socket.gethostname().partition(".")[0]


def _start(stack: ExitStack, found: Cluster, name: str, *arguments: str) -> None:
    """Start a daemon that ends with the stack, or with this process."""
    with open(found.folder / f"{name}.out", "wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "TERM", name, *arguments],
            env=found.environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # an interrupt from the keyboard is for the tests
        )
    stack.callback(_stop, process)


def _stop(process: subprocess.Popen) -> None:
    process.terminate()
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(condition: Callable[[], bool], found: Cluster, what: str, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            printed = "\n".join(f"{path.name}:\n{path.read_text()[-2000:]}" for path in found.folder.glob("*.out"))
            raise ClusterError(f"{what}: not ready after {seconds:.0f} s\n{printed}")
        time.sleep(0.1)


def _quiet(found: Cluster, *command: str) -> str:
    try:
        return found.run(*command)
    except (ClusterError, subprocess.TimeoutExpired):
        return ""


def _end_jobs(found: Cluster) -> None:
    """Cancel what still runs: its processes are no children of slurmd and would outlive it."""
    if _quiet(found, "squeue", "-h"):
        _quiet(found, "scancel", f"--user={os.getuid()}", f"--signal={signal.SIGKILL.name[3:]}", "--full")
        _quiet(found, "scancel", f"--user={os.getuid()}")
        _wait(lambda: not _quiet(found, "squeue", "-h"), found, "jobs")
