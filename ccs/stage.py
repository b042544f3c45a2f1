"""What every stage shares: errors for people, outputs that are whole or absent, signals, and progress.

No edit here changes a result, so none makes anything run again (`ccs.provenance.NOT_COUNTED`).
A stage is a module with a `main(argv)`; `run(main)` is its `if __name__ == "__main__":` body.
"""

from __future__ import annotations

import atexit
import io
import math
import multiprocessing.util  # whose own end of all workers is registered by this, and comes after ours
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)  # that ask a stage, or all processes of a job, to end
PATIENCE = (
    2.0  # seconds in which a second signal is the echo of the first: it reaches a process directly and by a parent
)


class CcsError(Exception):
    """Bad input or settings. The message names the file, what was expected, what was found and what to do."""


def run(main: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None = None) -> None:
    """Call a stage's `main`; a `CcsError` becomes one message on standard error and exit status 1.

    SIGTERM, as a scheduler or `timeout` sends it, unwinds as Ctrl-C does: workers ended, half-written files removed.
    """
    signals = _Signals()
    try:
        with signals:
            main(argv)
            return
    except CcsError as error:
        status = 128 + signals.number if signals.number else 1  # a signal to a group also ends what the stage waits for
        if not signals.number:
            print(f"ccs: error: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        status = 130
    except BrokenPipeError:  # `... | head`: what reads the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 141
    sys.exit(status)  # out here the error no longer holds what it came through, such as a loader and its processes


class _Signals:
    """Within it the first SIGTERM or SIGINT raises, and again one of the impatient, but no echo of the first, which
    would tear what that has to clean up.
    """

    def __init__(self) -> None:
        self.number = 0  # of the signal that came
        self._impatient = -math.inf  # from when on

    def __enter__(self) -> None:
        self._hook, sys.unraisablehook = sys.unraisablehook, self._lost
        self._before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            if signal.getsignal(number) != signal.SIG_IGN:  # as a shell's background jobs have SIGINT
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


# -- worker processes --------------------------------------------------------------------------------------------------
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


@atexit.register
def _end_workers() -> None:
    """Python ends those that are left, after an error, by the SIGTERM that they ignore, and waits for them for ever."""
    for worker in multiprocessing.active_children():
        worker.kill()


def death_of_worker(status: int | None) -> CcsError:
    """What to say of a worker process that ended too early, with this `exitcode`."""
    if status == -signal.SIGKILL:
        how, advice = "was killed", "Most often memory ran out: use fewer workers or give the job more memory."
    elif status is not None and status < 0:
        how, advice = f"died of {signal.Signals(-status).name}", "See above for what it printed, if any."
    else:
        how, advice = f"ended with status {status}", "See above for what it printed."
    return CcsError(f"a worker process {how} before its task was done. {advice}")


# -- outputs and progress ----------------------------------------------------------------------------------------------
@contextmanager
def atomic(path: str | os.PathLike[str]) -> Generator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    On any error the temporary file is removed and `path` is left as it was, so that a file which exists is whole.
    Raises `CcsError` where the folder cannot be made or written, or `path` not replaced.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CcsError(f"{path}: its folder cannot be made ({error.strerror}): choose another output") from error
    # the suffix is kept last: libraries choose the format by it
    part = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    if not os.access(path.parent, os.W_OK):
        raise CcsError(f"{path}: its folder cannot be written: change its permissions or choose another output")
    try:
        yield part
        try:
            with open(part, "rb+") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
        except OSError as error:
            raise CcsError(f"{path}: cannot be written ({error.strerror}): choose another output") from error
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    finally:
        part.unlink(missing_ok=True)


def remove_left_parts(path: Path) -> None:
    """Remove what `atomic(path)` left in a process that was killed, not what one that is alive is writing."""
    name = re.compile(rf"\.{re.escape(path.stem)}\.(\d+)\.part{re.escape(path.suffix)}")
    for left in path.parent.iterdir():
        if found := name.fullmatch(left.name):
            try:
                os.kill(int(found[1]), 0)
            except ProcessLookupError:
                left.unlink(missing_ok=True)
            except PermissionError:  # it is alive, and another user's
                pass


class _LineBar(tqdm):
    """A progress bar for a log file: one whole line per report instead of carriage returns."""

    @staticmethod
    def status_printer(file: object) -> Callable[[str], None]:
        def report(line: str) -> None:
            if line.strip():
                print(line.strip(), file=sys.stderr, flush=True)

        return report


def progress(iterable: Iterable[T] | None = None, *, total: int | None = None, desc: str, unit: str) -> tqdm:
    """A tqdm bar on standard error with rate and time left; in a log file, a line every ten seconds.

    Iterate over it, or call `.update(n)` when `iterable` is None.
    """
    if sys.stderr.isatty():
        return tqdm(iterable, total=total, desc=desc, unit=unit, file=sys.stderr)
    # what tqdm writes itself (line ends, carriage returns) goes nowhere; only whole lines reach the log
    sink = io.StringIO()
    return _LineBar(iterable, total=total, desc=desc, unit=unit, mininterval=10, maxinterval=10, file=sink)
