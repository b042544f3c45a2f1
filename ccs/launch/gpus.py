"""Which GPUs there are, and which of them are free: a process claims one by a lock on a file that stands for it.

What takes the process's place inherits the lock. However they end, the kernel frees it. No stage imports this module.
"""

from __future__ import annotations

import errno
import fcntl
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from typing import NamedTuple

from ccs.stage import CcsError

LOCKS = "CCS_GPU_LOCKS"  # an environment variable: another folder for the locks
FOLDER = "/tmp/ccs-gpus"  # and not TMPDIR, which may differ between two shells that share GPUs
# the number of a job, and its node or place in an array of jobs: SLURM, PBS, LSF, Grid Engine
JOB = ("SLURM_JOB_ID", "SLURMD_NODENAME", "PBS_JOBID", "LSB_JOBID", "LSB_JOBINDEX", "JOB_ID", "SGE_TASK_ID")
LATER = 4102444800  # the year 2100: what is dated so, no cleaner of /tmp takes for old
POLL_SECONDS = 1.0


class Gpu(NamedTuple):
    """A device.

    entry: what CUDA_VISIBLE_DEVICES calls it, a number or a UUID.
    unique_name: its UUID if nvidia-smi tells it, else the entry.
    """

    entry: str
    unique_name: str


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
    return [Gpu(entry, _unique_name(entry, listed)) for entry in entries]


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


def _unique_name(entry: str, listed: Sequence[Gpu]) -> str:
    """The UUID of an entry, which may itself be the beginning of one."""
    if entry.isdigit():
        return next((gpu.unique_name for gpu in listed if gpu.entry == entry), entry)
    return next((gpu.unique_name for gpu in listed if gpu.unique_name.startswith(entry)), entry)


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
        name = re.sub(r"[^\w.-]", "_", "-".join([*job, gpu.unique_name]))
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
        if error.errno in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):  # without locks two would share a GPU
            raise CcsError(
                f"{path}: expected a file to lock, for who uses a GPU, found a file system without locks "
                f"({error.strerror}): name a folder on a local disk, such as /dev/shm/ccs-gpus, in {LOCKS}"
            ) from error
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
        try:
            Path(given).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CcsError(
                f"{given}: expected a folder for the locks of GPUs, found none and cannot make one ({error.strerror}): "
                f"name another in {LOCKS}"
            ) from error
        return Path(given)
    own = Path(f"{FOLDER}-{os.getuid()}")
    for folder, mode in ((Path(FOLDER), 0o1777), (own, 0o700)):
        with suppress(OSError), _no_umask():
            folder.mkdir(mode)
        if folder.is_dir() and not folder.is_symlink() and os.access(folder, os.W_OK | os.X_OK):
            return folder
    raise CcsError(
        f"{own}: expected a folder of yours for the locks of GPUs: remove what is there, or name another in {LOCKS}"
    )


@contextmanager
def _no_umask() -> Generator[None]:
    before = os.umask(0)
    try:
        yield
    finally:
        os.umask(before)
