"""Schedulers end jobs by a signal and a short while to make peace: SIGTERM at a time limit or before a job of higher
priority, SIGUSR1 where a job asked to be told earlier, SIGINT from a keyboard.
"""

from __future__ import annotations

import signal
import sys
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

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        if not self.asked:
            print(f"{signal.Signals(number).name}: stopping after this batch", file=sys.stderr, flush=True)
        self.asked = True


def ignore(worker: int = 0) -> None:
    """For a loader's worker: a signal to all processes of a job must not end it under the training's feet."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
