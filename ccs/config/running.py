"""A call of Snakemake in a project: beside others, after one that was killed, and when it is told to end.

Snakemake's own locks are files, which a killed call leaves behind, and no other goes on before somebody calls
`--unlock`. So every call that may write them holds a lock of the kernel's too, for as long as it lives: who gets that
one for itself knows that whatever Snakemake's locks say, nobody is there.
"""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psutil

LOCKS = Path(".snakemake/locks")  # Snakemake's
CALLS = Path(".snakemake/ccs.calls")  # locked by each call; a line for the machine of each since there were no locks
BOOT = Path("/proc/sys/kernel/random/boot_id")
CALL = "CCS_CALL"  # an environment variable: process and machine of the call that has started what inherits it
ORPHANS_SECONDS = 60  # a training writes its checkpoint
SECONDS = 0.5  # between looks for stages that have started since
TOLD = threading.Event()  # to end, by a signal


def begin() -> None:
    """Before Snakemake looks at its locks: hold a lock while this process lives, end what a dead call has started, and
    remove its locks.
    """
    sys.excepthook = _quiet(sys.excepthook)
    descriptor = _opened()
    if descriptor is None:  # Snakemake will say what it thinks of the folder
        return
    try:
        alone = _locked(descriptor)
    except OSError as error:
        if _left():
            _say(
                f"there is a lock of Snakemake's, and no way to tell whether its call is at work ({error.strerror} on "
                f"{CALLS}): if it is not, call this once with --unlock"
            )
        return
    if alone:
        _end_orphans()
        _remove_left(os.pread(descriptor, 1 << 20, 0).decode(errors="replace").splitlines())
    elif _left() and "--nolock" not in sys.argv:
        _say("another call of Snakemake is at work in this folder")
    with suppress(OSError):  # another user's file, or a full disk; what is not known to be here is not removed
        if alone and not _left():
            os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{_this_machine()}\n".encode())
    with suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_SH)
    os.environ[CALL] = f"{os.getpid()} {_started(os.getpid())} {_this_machine()}"


def _opened() -> int | None:
    """The descriptor of `CALLS`, which is never closed; None where it can be neither made nor read."""
    try:
        CALLS.parent.mkdir(exist_ok=True)
        descriptor = os.open(CALLS, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    except OSError:
        try:
            return os.open(CALLS, os.O_RDONLY)  # of another user; a lock needs no more
        except OSError:
            return None
    with suppress(OSError):
        os.fchmod(descriptor, 0o666)  # whatever the umask: the next call may be somebody else's
    return descriptor


def _locked(descriptor: int) -> bool:
    """Whether nobody else holds the lock."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _left() -> list[Path]:
    return sorted(LOCKS.glob("*.lock"))


def _remove_left(machines: Sequence[str]) -> None:
    """Snakemake's locks, unless a call on one of these machines may have made them that does not see ours: some network
    file systems keep locks to each machine.
    """
    left = _left()
    if not left:
        return
    here = set(_this_machine().split())  # containers have names of their own, a machine started anew another boot
    others = [each.split()[0] for each in machines if not here & set(each.split())]
    if others or not machines:
        _say(
            f"a call of Snakemake{' on ' if others else ''}{', '.join(dict.fromkeys(others))} has left its lock here, "
            "or is at work: if it is not, call this once with --unlock"
        )
        return
    if at_work := _snakemakes_here():
        _say(f"another Snakemake is at work in this folder (processes {', '.join(map(str, at_work))})")
        return
    try:
        for path in left:
            path.unlink(missing_ok=True)
    except OSError as error:
        _say(
            f"the last call of Snakemake here was killed, and its locks in {LOCKS} cannot be removed "
            f"({error.strerror}): whoever owns them may call this once with --unlock"
        )
        return
    _say("the last call of Snakemake here was killed, its lock is removed")


# -- what a dead call has started --------------------------------------------------------------------------------------
def _end_orphans() -> None:
    """Tell the stages here whose call is dead to end, and wait: they would put their outputs, of a configuration that
    may be another by now, in the place of newer ones.
    """
    import psutil

    found = [each for each in _topmost(_processes_here()) if _is_orphan(each)]
    if not found:
        return
    _say(
        "the last call of Snakemake here was killed; what it had started is told to end (processes "
        f"{', '.join(str(each.pid) for each in found)})"
    )
    below: list[psutil.Process] = []
    for process in found:
        with suppress(psutil.Error):
            below += [process, *process.children(recursive=True)]
            process.terminate()
    end = time.monotonic() + ORPHANS_SECONDS
    while any(map(_is_alive, found)) and time.monotonic() < end:
        time.sleep(SECONDS / 5)
    if any(map(_is_alive, found)):
        for process in below:
            with suppress(psutil.Error):
                process.kill()  # looks at its start too, so that it hits no other of this number
        _say(f"they did not end in {ORPHANS_SECONDS} s and are killed")


def _is_alive(process: psutil.Process) -> bool:
    """Not when it has ended and nobody has asked how, as in containers whose first process does not."""
    import psutil

    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _is_orphan(process: psutil.Process) -> bool:
    """Whether a call on this machine that lives no longer has started it. Of another user's it cannot be told."""
    import psutil

    try:
        number, started, machine = process.environ().get(CALL, "").split(" ", 2)
        return machine == _this_machine() and _started(int(number)) != started
    except (psutil.Error, OSError, ValueError):
        return False


def _started(number: int) -> str:
    """When the process of this number started, "" where there is none: a number comes to be used again."""
    import psutil

    try:
        process = psutil.Process(number)
        return str(process.create_time()) if _is_alive(process) else ""
    except psutil.Error:
        return ""


def _snakemakes_here() -> list[int]:
    """Living calls of Snakemake in this folder, of other Snakefiles too; not this one, nor what it belongs to or
    starts, nor jobs of a dead one.
    """
    import psutil

    own = psutil.Process()
    ours = {own, *own.parents(), *own.children(recursive=True)}
    found = []
    for process in _processes_here():
        with suppress(psutil.Error):
            words = process.cmdline()
            if process not in ours and "snakemake" in map(os.path.basename, words) and not _is_orphan(process):
                found.append(process.pid)
    return found


def _this_machine() -> str:
    return f"{socket.gethostname()} {BOOT.read_text().strip() if BOOT.exists() else ''}"


def _say(text: str) -> None:
    print(f"ccs: {text}", file=sys.stderr, flush=True)


def _quiet(excepthook: Callable) -> Callable:
    """For Ctrl-C before there are jobs: status 130 without a traceback of Snakemake."""

    def hook(kind: type[BaseException], *others: object) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            excepthook(kind, *others)

    return hook


# -- told to end -------------------------------------------------------------------------------------------------------
def end_stages_when_told(*, local: bool) -> None:
    """When Snakemake has set up its scheduler: on SIGTERM or SIGINT the running stages are told too, by SIGTERM.

    Snakemake alone would wait for them: for hours, where a service manager or `kill` sends the signal to it only. (A
    terminal's Ctrl-C reaches them directly, and `ccs.stage` takes a second signal for an echo.)

    Args:
        local: jobs are processes of this machine; those of a cluster are cancelled on either signal.
    """
    snakemakes = signal.getsignal(signal.SIGTERM)

    def stop(number: int, frame: FrameType | None) -> None:
        # in threads, for what was interrupted may hold the locks that they need
        if TOLD.is_set():
            threading.Thread(target=_say_who_is_left, daemon=True).start()
            return
        TOLD.set()
        threading.Thread(target=_tell_stages, daemon=True).start()
        if number == signal.SIGTERM and local and callable(snakemakes):
            threading.Thread(target=snakemakes, args=(number, frame), daemon=True).start()
        else:
            raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGINT):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)


def _tell_stages() -> None:
    """Until Snakemake has ended: those of jobs that it was just about to start as well, each once."""
    import psutil

    told: set[psutil.Process] = set()
    while True:
        for process in _stages_below():
            if process not in told:
                told.add(process)
                with suppress(psutil.Error):
                    process.terminate()
        time.sleep(SECONDS)


def _say_who_is_left() -> None:
    processes = ", ".join(str(each.pid) for each in _stages_below())
    _say(f"waiting for the stages that were told to end (processes {processes})")


def _stages_below() -> list[psutil.Process]:
    """The stages that this process has started; not those that belong to one, such as its workers."""
    import psutil

    return _topmost(psutil.Process().children(recursive=True))


def _processes_here() -> list[psutil.Process]:
    import psutil

    here = os.getcwd()
    return [each for each in psutil.process_iter(["cwd"]) if each.info["cwd"] == here]


def _topmost(processes: Iterable[psutil.Process]) -> list[psutil.Process]:
    """Of these the `python -m ccs.STAGE` that no other of them has started."""
    import psutil

    found: dict[int, psutil.Process] = {}
    parents: dict[int, int] = {}
    for process in processes:
        with suppress(psutil.Error):
            words = process.cmdline()
            if any(pair[0] == "-m" and pair[1].startswith("ccs.") for pair in pairwise(words)):
                found[process.pid], parents[process.pid] = process, process.ppid()
    return [process for pid, process in found.items() if parents[pid] not in found]
