"""Schedulers end jobs by a signal and a short while to make peace: SIGTERM at a time limit or before a job of higher
priority, SIGUSR1 where a job asked to be told earlier, SIGINT from a keyboard, SIGHUP from a terminal that closes.
"""

from __future__ import annotations

import math
import os
import signal
import time
from contextlib import suppress
from types import FrameType, TracebackType

from ccs.signals import PATIENCE, SIGNALS

# EX_TEMPFAIL of sysexits.h: a failure that another attempt mends. Schedulers that look at the code can requeue by it.
EXIT_STATUS = 75


class Interruption:
    """Within `with Interruption() as interruption:` such a signal only sets `interruption.asked`, so that the work can
    be put away first. A second SIGINT is obeyed at once, for the impatient; not within `PATIENCE`, as a keyboard's
    reaches a process directly and once more by its parent.
    """

    def __init__(self) -> None:
        self.asked = False
        self._impatient = math.inf  # from when on

    def __enter__(self) -> Interruption:
        # where `nohup` has SIGHUP ignored it stays so
        taken = [each for each in SIGNALS if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]
        self._before = {number: signal.signal(number, self._note) for number in taken}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if time.monotonic() > self._impatient:
                raise KeyboardInterrupt
            self._impatient = min(self._impatient, time.monotonic() + PATIENCE)
        if not self.asked:
            self.asked = True
            # not by sys.stderr, which what was interrupted may be writing to
            with suppress(OSError):
                os.write(2, f"{signal.Signals(number).name}: stopping within a few batches\n".encode())
