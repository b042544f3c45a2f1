"""Signals that ask a stage to end: how it obeys, and how its workers leave that to it.

No edit here changes a result, so none makes anything run again (`ccs.provenance.NOT_COUNTED`).
"""

from __future__ import annotations

import atexit
import ctypes
import math
import multiprocessing.util  # whose own end of all workers is registered by this, and comes after ours
import os
import signal
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType

# that ask a stage, or all processes of a job, to end; SIGHUP comes when a terminal closes
SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT, signal.SIGHUP)
PATIENCE = 2.0  # seconds in which a second signal echoes the first: it reaches a process directly and by its parent


class Stop:
    """Within it the first SIGTERM, SIGHUP or SIGINT raises, and again one of the impatient, but no echo of the first,
    which would tear what that has to clean up.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self._impatient = -math.inf  # from when on

    def __enter__(self) -> None:
        # of a stage, and not of whatever else imports this; once, for one after the other in the same process
        atexit.unregister(_end_workers)
        atexit.register(_end_workers)
        self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if signal.getsignal(number) != signal.SIG_IGN:  # as a shell's background jobs have SIGINT, nohup's SIGHUP
                self._before[number] = signal.signal(number, self._raise)

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._hook

    def _raise(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now > self._impatient:
            self.number, self._impatient = number, now + PATIENCE
            if number == signal.SIGINT:
                raise KeyboardInterrupt
            sys.exit(128 + number)

    def _lost(self, unraisable: sys.UnraisableHookArgs) -> None:
        """Where Python calls code that cannot raise, in a weak reference's callback for one, it comes once more."""
        if not (self.number and issubclass(unraisable.exc_type, (KeyboardInterrupt, SystemExit))):
            self._hook(unraisable)
            return
        self._impatient = -math.inf
        threading.Timer(0.05, os.kill, (os.getpid(), self.number)).start()


@contextmanager
def held() -> Generator[None]:
    """Signals come after this: a process that is started here has them until it calls `ignore`."""
    noted: list[int] = []
    handlers = {}
    if threading.current_thread() is threading.main_thread():  # a mask is its own, and others take signals for it
        for number in SIGNALS:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                handlers[number] = signal.signal(number, lambda number, frame: noted.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in dict.fromkeys(noted):
            signal.raise_signal(number)


def ignore(worker: int = 0) -> None:
    """For a worker process: a signal to all processes of a terminal or a job must not end it under its parent's feet,
    which decides, and ends it.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)


def _end_workers() -> None:
    """Python ends those that are left, after an error, by the SIGTERM that they ignore, and waits for them for ever."""
    for worker in multiprocessing.active_children():
        worker.kill()


def _prctl() -> ctypes._FuncPointer | None:
    try:
        return ctypes.CDLL(None).prctl
    except (OSError, AttributeError):  # not Linux
        return None


_PRCTL, _PR_SET_PDEATHSIG = _prctl(), 1


def end_with_parent() -> None:
    """In a new process, before it becomes a program: have the kernel end it with the thread that started it."""
    if _PRCTL:
        _PRCTL(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
