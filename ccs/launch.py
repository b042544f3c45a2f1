"""The start of a stage that may use GPUs: claims free ones and becomes the stage (rules `train`, `evaluate`, `flow`).

    python -m ccs.launch --gpus 1 -- ccs.train --manifest data/demo/manifest.csv ...

A number of GPUs, a stage and its flags in; the stage runs and sees those GPUs and no others. They are taken from
CUDA_VISIBLE_DEVICES, as a scheduler or a person sets it, else from all that nvidia-smi lists, with its numbers. Where
all are in use, it waits. With `--gpus 0` the stage sees no GPU.

A GPU is claimed by a lock on a file of its own. The stage takes this process's place and inherits the lock: signals
reach the stage itself, and the kernel frees the GPU when it and its processes have ended, however. For several GPUs
`torch.distributed.run` takes the place and starts a process for each; where SLURM gave the job several nodes, `srun`
starts a launcher on each of them.

No stage imports this module: where a stage runs changes no result, so an edit here runs nothing again.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple, NoReturn

from ccs.stage import CcsError, run

PARALLEL = ("ccs.train",)  # the stages that can use several GPUs
LOCKS = "CCS_GPU_LOCKS"  # an environment variable: another folder for the locks
FOLDER = "/tmp/ccs-gpus"  # and not TMPDIR, which may differ between two shells that share GPUs
# the number of a job, and its node or place in an array of jobs: SLURM, PBS, LSF, Grid Engine
JOB = ("SLURM_JOB_ID", "SLURMD_NODENAME", "PBS_JOBID", "LSB_JOBID", "LSB_JOBINDEX", "JOB_ID", "SGE_TASK_ID")
LATER = 4102444800  # the year 2100: what is dated so, no cleaner of /tmp takes for old
POLL_SECONDS = 1.0
SHUTDOWN_SECONDS = 300  # for a training's processes to end their batch and write a checkpoint
INTERRUPTED = 75  # how a training ends that is to go on later
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)  # handed on to them


class Gpu(NamedTuple):
    """A device.

    entry: what CUDA_VISIBLE_DEVICES calls it, a number or a UUID.
    identity: its UUID if nvidia-smi tells it, else the entry.
    """

    entry: str
    identity: str


class Nodes(NamedTuple):
    """The nodes of a job, and where their launchers meet."""

    number: int
    endpoint: str  # HOST:PORT
    job: str


def main(argv: Sequence[str] | None = None) -> None:
    """Become the stage. Raises `CcsError` where it cannot have its GPUs."""
    args, command = _arguments(sys.argv[1:] if argv is None else list(argv))
    if args.supervise:
        _supervise(command)
        return
    if args.rank:
        _die_with_parent()
        _become(["-m", *command])
    if args.gpus > 1 and command[0] not in PARALLEL:
        rule = command[0].removeprefix("ccs.")
        raise CcsError(
            f"{command[0]} can use one GPU, asked for are {args.gpus}: leave out --set-resources {rule}:gpu={args.gpus}"
        )
    if args.node:
        nodes = Nodes(int(args.node[0]), *args.node[1:])
    else:
        nodes = _nodes(os.environ, command) if args.gpus > 1 else None
        if nodes:
            _become_srun(across_nodes(nodes, args.gpus, command, os.environ))
    claimed = wait_for(args.gpus, visible_gpus())
    if claimed:
        print(f"{command[0]}: GPU {','.join(gpu.entry for gpu in claimed)}", file=sys.stderr, flush=True)
    # a stage's numbers are nvidia-smi's too: CUDA's own order begins with the fastest
    devices = {"CUDA_VISIBLE_DEVICES": ",".join(gpu.entry for gpu in claimed), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if args.gpus > 1 or nodes:
        devices |= _fewer_threads(os.environ, args.gpus)
        _become(several_processes(args.gpus, nodes, command), devices)
    _become(["-m", *command], devices)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="python -m ccs.launch",
        usage="%(prog)s --gpus N -- MODULE [flags]",
        description="Claim N free GPUs, waiting for them, and run a stage on them.",
    )
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs for the stage; 0: it sees none")
    # what this module calls itself with: on each of several nodes, above a node's processes, as each process
    parser.add_argument("--node", nargs=3, metavar=("NODES", "HOST:PORT", "JOB"), help=argparse.SUPPRESS)
    parser.add_argument("--supervise", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--rank", action="store_true", help=argparse.SUPPRESS)
    end = argv.index("--") if "--" in argv else len(argv)
    args, command = parser.parse_args(argv[:end]), list(argv[end + 1 :])
    if not command:
        parser.error("expected a module such as ccs.train after --")
    if args.gpus < 0:
        raise CcsError(f"--gpus: expected 0 or more, found {args.gpus}: check --set-resources and the profile")
    return args, command


def _become(arguments: Sequence[str], environment: Mapping[str, str] | None = None) -> NoReturn:
    """Python with these arguments takes this process's place."""
    os.execve(sys.executable, [sys.executable, *arguments], {**os.environ, **(environment or {})})


# -- which GPUs there are ----------------------------------------------------------------------------------------------
def visible_gpus() -> list[Gpu]:
    """Those that may be used: the entries of CUDA_VISIBLE_DEVICES if that is set, else all of the machine."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is None:
        return _listed_gpus()
    # CUDA too stops at the first entry that names no device, such as -1
    names = (entry.strip() for entry in given.split(","))
    entries = list(dict.fromkeys(takewhile(re.compile(r"\d+|(GPU|MIG)-.+").fullmatch, names)))
    listed = _listed_gpus() if entries else []
    return [Gpu(entry, _identity(entry, listed)) for entry in entries]


def _listed_gpus() -> list[Gpu]:
    """What nvidia-smi lists; of a GPU that is divided into instances (MIG) those."""
    if not shutil.which("nvidia-smi"):
        return []
    # GPU 0: NVIDIA H200 (UUID: GPU-...), and below it: MIG 1g.18gb Device 0: (UUID: MIG-...)
    printed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=False).stdout
    gpus: list[Gpu] = []
    for line in printed.splitlines():
        uuid = re.search(r"UUID: ([^)\s]+)", line)
        if whole := re.match(r"GPU (\d+):", line):
            gpus.append(Gpu(whole[1], uuid[1] if uuid else whole[1]))
        elif uuid:
            if gpus and gpus[-1].entry.isdigit():
                gpus.pop()
            gpus.append(Gpu(uuid[1], uuid[1]))
    return gpus


def _identity(entry: str, listed: Sequence[Gpu]) -> str:
    """The UUID of an entry, which may itself be the beginning of one."""
    if entry.isdigit():
        return next((gpu.identity for gpu in listed if gpu.entry == entry), entry)
    return next((gpu.identity for gpu in listed if gpu.identity.startswith(entry)), entry)


# -- claiming them -----------------------------------------------------------------------------------------------------
def wait_for(number: int, gpus: Sequence[Gpu]) -> list[Gpu]:
    """Claim `number` of the GPUs for this process and what takes its place, as soon as so many are free.

    Raises `CcsError` where there are fewer, or where the locks cannot be written.
    """
    if number == 0:
        return []
    if len(gpus) < number:
        source = "CUDA_VISIBLE_DEVICES has" if "CUDA_VISIBLE_DEVICES" in os.environ else "nvidia-smi lists"
        found = f"{len(gpus)} ({', '.join(gpu.entry for gpu in gpus)})" if gpus else "none"
        raise CcsError(
            f"asked for {number} GPU{'s' * (number > 1)}, {source} {found}: make more visible, or ask for fewer "
            f"(0: none) by gpu under set-resources in a cluster's profile, or --set-resources RULE:gpu={len(gpus)}"
        )
    folder = _lock_folder()
    for attempt in range(sys.maxsize):
        if claimed := _claim(number, gpus, folder):
            return claimed
        if attempt == 0:
            names = ", ".join(gpu.entry for gpu in gpus)
            print(
                f"waiting for {number} of the GPUs {names}: others use them (`fuser -v {folder}/*` shows who)",
                file=sys.stderr,
                flush=True,
            )
        # at random, so that two that hindered each other do not do so again
        time.sleep(POLL_SECONDS * random.uniform(0.5, 1.5))
    raise AssertionError


def _claim(number: int, gpus: Sequence[Gpu], folder: Path) -> list[Gpu]:
    """Lock so many GPUs, or none: who kept a few while waiting for more would keep others from them for nothing."""
    # a scheduler's jobs may all know their GPU as 0, or share one on purpose
    job = [os.environ[name] for name in JOB if name in os.environ]
    claimed: dict[Gpu, int] = {}
    for gpu in gpus:
        name = re.sub(r"[^\w.-]", "_", "-".join([*job, gpu.identity]))
        if (descriptor := _lock(folder / f"{name}.lock", lasting=not job)) is not None:
            claimed[gpu] = descriptor
        if len(claimed) == number:
            break
    if len(claimed) < number:
        for descriptor in claimed.values():
            os.close(descriptor)
        return []
    for descriptor in claimed.values():
        os.set_inheritable(descriptor, True)
    return list(claimed)


def _lock(path: Path, *, lasting: bool) -> int | None:
    """A descriptor that holds the lock of `path`, or None where another process has it."""
    try:
        while True:
            descriptor = _open(path, lasting=lasting)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return None
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                    return descriptor
            os.close(descriptor)  # removed meanwhile: others would lock a new file
    except OSError as error:
        raise CcsError(
            f"{path}: expected a file to lock, for who uses a GPU; {error.strerror}. Remove it, or name another folder "
            f"on a local disk in {LOCKS}"
        ) from error


def _open(path: Path, *, lasting: bool) -> int:
    """Open a lock file that every user may lock, and none can make a link to something else."""
    while True:
        # never O_CREAT on a file that is there: in folders like /tmp the kernel refuses that to other users
        with suppress(FileNotFoundError):
            return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
        with suppress(FileExistsError), _no_umask():
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            if lasting:
                os.utime(descriptor, (LATER, LATER))
            return descriptor


def _lock_folder() -> Path:
    """The folder of the locks: one for all users of the machine, or this user's where that cannot be written."""
    if given := os.environ.get(LOCKS):
        Path(given).mkdir(parents=True, exist_ok=True)
        return Path(given)
    own = Path(f"{FOLDER}-{os.getuid()}")
    for folder, mode in ((Path(FOLDER), 0o1777), (own, 0o700)):
        with suppress(FileExistsError), _no_umask():
            folder.mkdir(mode)
        if folder.is_dir() and not folder.is_symlink() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise CcsError(
        f"{own}: expected a folder of yours for the locks of GPUs: remove what is there, or name another in {LOCKS}"
    )


@contextmanager
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)


# -- several processes -------------------------------------------------------------------------------------------------
def several_processes(number: int, nodes: Nodes | None, command: Sequence[str]) -> list[str]:
    """Python's arguments for the stage in `number` processes on this node, and as many on each other one."""
    where = ["--standalone", "--local-addr", "127.0.0.1"]
    if nodes:
        where = ["--nnodes", str(nodes.number), "--rdzv-backend", "c10d"]
        where += ["--rdzv-id", nodes.job, "--rdzv-endpoint", nodes.endpoint]
    # no restarts: it is for the workflow and the scheduler to try again, with another time limit or on other GPUs
    ends = ["--max-restarts", "0", "--signals-to-handle", "SIGHUP", "--shutdown-timeout", str(SHUTDOWN_SECONDS)]
    return [
        *("-m", "ccs.launch", "--supervise", "--", *where, "--nproc-per-node", str(number), *ends),
        *("-m", "ccs.launch", "--rank", "--", *command),
    ]


def _supervise(arguments: Sequence[str]) -> None:
    """Be `torch.distributed.run`, but end with a process's own exit status, and without a traceback below it."""
    from torch.distributed import run as distributed
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

    def hand_on(number: int, frame: object) -> None:
        # once: a scheduler's second signal would end this process, and with it those that write a checkpoint
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise SignalException(signal.Signals(number).name, signal.Signals(number))

    for each in SIGNALS:
        signal.signal(each, hand_on)
    try:
        distributed.run(distributed.parse_args(arguments))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 128 - status)  # below 0: of a signal
    except SignalException:
        sys.exit(INTERRUPTED)  # the processes have been told, and given their time


def _fewer_threads(environment: Mapping[str, str], number: int) -> dict[str, str]:
    """OMP_NUM_THREADS and its like, which Snakemake sets for the job, for each of its processes."""
    given = {name: value for name, value in environment.items() if name.endswith("_NUM_THREADS") and value.isdigit()}
    return {name: str(max(1, int(value) // number)) for name, value in given.items()}


def _die_with_parent() -> None:
    """Have the kernel kill this process with torch.distributed.run, which holds the locks of its GPUs."""
    set_parent_death_signal = 1  # PR_SET_PDEATHSIG; it outlives exec
    ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL, 0, 0, 0)


# -- several nodes -----------------------------------------------------------------------------------------------------
def _nodes(environment: Mapping[str, str], command: Sequence[str]) -> Nodes | None:
    """Those that SLURM gave the job, where they are several."""
    number, names = _slurm_nodes(environment)
    if number == 1:
        return None
    # what else trains in the job must meet elsewhere
    job = f"{environment['SLURM_JOB_ID']}-{zlib.crc32(repr(list(command)).encode()):08x}"
    port = 10000 + zlib.crc32(job.encode()) % 20000  # below those that Linux gives away itself
    return Nodes(number, f"{_first_host(names)}:{port}", job)


def _slurm_nodes(environment: Mapping[str, str]) -> tuple[int, str]:
    """How many nodes the job has, and their names as SLURM writes them."""
    if "SLURM_JOB_ID" not in environment:
        return 1, ""
    if "SLURM_JOB_NUM_NODES" in environment:
        return int(environment["SLURM_JOB_NUM_NODES"]), environment["SLURM_JOB_NODELIST"]
    # Snakemake's executor keeps little of the job's environment
    job = _scontrol("job", environment["SLURM_JOB_ID"], "--oneliner")
    return int(re.search(r" NumNodes=(\d+)", job)[1]), re.search(r" NodeList=(\S+)", job)[1]


def _first_host(names: str) -> str:
    return _scontrol("hostnames", names).split()[0]


def _scontrol(*what: str) -> str:
    command = ["scontrol", "show", *what]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        text = f"{error} {getattr(error, 'stderr', None) or ''}".strip()
        raise CcsError(
            f"{' '.join(command)}: expected what SLURM knows of this job, found: {text}. Leave the job, or unset "
            "SLURM_JOB_ID if it is no job's"
        ) from None


def across_nodes(nodes: Nodes, gpus: int, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The `srun` that starts a launcher on each node, with its part of the GPUs."""
    each, rest = divmod(gpus, nodes.number)
    if rest or not each:
        raise CcsError(
            f"asked for {gpus} GPUs on {nodes.number} nodes: expected as many on each; set train:gpu to a multiple of "
            f"{nodes.number}, the total of all nodes"
        )
    # a step that this runs in holds the job's resources already: overlap shares them
    step = ["--overlap", f"--nodes={nodes.number}", f"--ntasks={nodes.number}", "--ntasks-per-node=1"]
    step += [f"--gpus-per-node={each}", "--cpu-bind=none"]
    step.append("--kill-on-bad-exit=0")  # nodes end one after the other, the one that writes the checkpoint last
    if cores := environment.get("SLURM_CPUS_PER_TASK", environment.get("OMP_NUM_THREADS")):
        step.append(f"--cpus-per-task={cores}")
    return [
        *("srun", *step, sys.executable, "-m", "ccs.launch", "--gpus", str(each)),
        *("--node", str(nodes.number), nodes.endpoint, nodes.job, "--", *command),
    ]


def _become_srun(command: Sequence[str]) -> NoReturn:
    # the options of the step that this runs in would become the new one's
    kept = re.compile(r"(?!SLURM_|SRUN_|SBATCH_)|SLURM_(JOB_?ID|JOB_(NODELIST|NUM_NODES)|ARRAY_.*|CLUSTER_NAME|CONF)$")
    os.execvpe(command[0], list(command), {name: value for name, value in os.environ.items() if kept.match(name)})


if __name__ == "__main__":
    run(main)
