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
import os
import re
import signal
import subprocess
import sys
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple, NoReturn

from ccs.device import CLAIMED_GPUS
from ccs.launch.gpus import visible_gpus, wait_for
from ccs.settings import Flags
from ccs.signals import end_with_parent
from ccs.stage import CcsError, run
from ccs.train.interruption import EXIT_STATUS

PARALLEL = ("ccs.train",)  # the stages that can use several GPUs
SHUTDOWN_SECONDS = 300  # for a training's processes to end their batch and write a checkpoint
# an environment variable, for trying out a cluster: GPUs that only have names, so that the stage computes without
PRETENDED = "CCS_PRETENDED_GPUS"
SUPERVISOR = "CCS_SUPERVISOR"  # an environment variable for the processes of a training: the id of their parent
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGUSR1)  # handed on to them


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
    entries = ",".join(gpu.entry for gpu in claimed)
    devices = {"CUDA_VISIBLE_DEVICES": entries, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    devices[CLAIMED_GPUS] = "" if os.environ.get(PRETENDED) else entries
    if args.gpus > 1 or nodes:
        devices |= _fewer_threads(os.environ, args.gpus)
        _become(several_processes(args.gpus, nodes, command), devices)
    _become(["-m", *command], devices)


def _arguments(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = Flags(
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
    os.environ[SUPERVISOR] = str(os.getpid())
    try:
        distributed.run(distributed.parse_args(arguments))
    except ChildFailedError as error:
        status = error.get_first_failure()[1].exitcode
        sys.exit(status if status > 0 else 128 - status)  # below 0: of a signal
    except SignalException:
        sys.exit(EXIT_STATUS)  # the processes have been told, and given their time


def _fewer_threads(environment: Mapping[str, str], number: int) -> dict[str, str]:
    """OMP_NUM_THREADS and its like, which Snakemake sets for the job, for each of its processes."""
    given = {name: value for name, value in environment.items() if name.endswith("_NUM_THREADS") and value.isdigit()}
    return {name: str(max(1, int(value) // number)) for name, value in given.items()}


def _die_with_parent() -> None:
    """Have the kernel kill this process with torch.distributed.run, which holds the locks of its GPUs."""
    end_with_parent()  # which outlives exec
    if os.getppid() != int(os.environ[SUPERVISOR]):  # it died before that
        os.kill(os.getpid(), signal.SIGKILL)


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
    number, names = re.search(r" NumNodes=(\d+)", job), re.search(r" NodeList=(\S+)", job)
    if number is None or names is None:
        raise CcsError(f"scontrol: expected the nodes of job {environment['SLURM_JOB_ID']}, found {job.strip()!r}")
    return int(number[1]), names[1]


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
