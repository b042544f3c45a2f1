"""Schedulers end jobs by a signal and a short while to make peace: SIGTERM at a time limit or before a job of higher
priority, SIGUSR1 where a job asked to be told earlier, SIGINT from a keyboard.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)
# EX_TEMPFAIL of sysexits.h: a failure that another attempt mends. Schedulers that look at the code can requeue by it.
EXIT_STATUS = 75


class Interruption:
    """Within `with Interruption() as interruption:` such a signal only sets `interruption.asked`, so that the work can
    be put away first. A second SIGINT is obeyed at once, for the impatient.
    """

    def __init__(self) -> None:
        self.asked = False
        self._impatient = False

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self._impatient:
            raise KeyboardInterrupt
        self._impatient |= number == signal.SIGINT
        if not self.asked:
            self.asked = True
            # not by sys.stderr, which what was interrupted may be writing to
            with suppress(OSError):
                os.write(2, f"{signal.Signals(number).name}: stopping after this batch\n".encode())


@contextmanager
def held() -> Iterator[None]:
    """Signals come after this: a process that is started here has them until it calls `ignore`."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def ignore(worker: int = 0) -> None:
    """For a loader's worker: a signal to all processes of a job must not end it under the training's feet."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
