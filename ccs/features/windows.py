"""The windows of one video: what is prepared of its frames and pairs comes in order, batches of windows go out.

Window w is the frames and the pairs w * step .. w * step + stack - 1; a pair needs the frame after it, so that a video
of T frames has (T - 1 - stack) // step + 1 windows, and the last frames may be in none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ccs.features.inputs import Prepared


class Batch(NamedTuple):
    """Neighbouring windows of a video.

    `streams` are the frames and pairs of all of them (N, C, H, W), `starts` where each begins in these, `times` when it
    begins and ends: seconds, float64 (B, 2).
    """

    streams: dict[str, np.ndarray]
    starts: list[int]
    times: np.ndarray


class Windows:
    """Of one video.

    Args:
        stack, step: frames of a window, and from one to the next.
        batch: windows that go out together; fewer in the end.
    """

    def __init__(self, stack: int, step: int, batch: int) -> None:
        self.stack, self.step, self.batch = stack, step, batch
        self._streams: dict[str, np.ndarray] = {}
        self._times = np.empty(0)
        self._first = 0  # frame of the video that the first here is
        self._num_pairs = 0  # of the video, so far
        self._following = 0  # window

    def add(self, new: Prepared) -> Iterator[Batch]:
        """Take the next pairs, and give the batches that are whole with them, in the end all."""
        old = self._streams
        self._streams = {name: np.concatenate([old[name], x]) if name in old else x for name, x in new.streams.items()}
        times = new.times
        if not np.isfinite(times).all():  # nobody knows them: frames are evenly spaced
            times = (self._num_pairs + np.arange(len(times))) / (new.fps or 25)
        self._times = np.concatenate([self._times, times])
        self._num_pairs += new.num_pairs
        while True:
            whole = max(0, (self._num_pairs - self.stack) // self.step + 1) - self._following
            # the time at which the last window ends comes with the next frame
            whole -= bool(whole) and self._end(self._following + whole - 1) >= self._first + len(self._times)
            if whole < (1 if new.end else self.batch):
                return
            yield self._next(min(whole, self.batch))

    def _end(self, window: int) -> int:
        """The frame at which a window ends."""
        return window * self.step + self.stack

    def _next(self, number: int) -> Batch:
        begins = self.step * (self._following + np.arange(number)) - self._first
        stop = begins[-1] + self.stack
        streams = {name: x[begins[0] : stop] for name, x in self._streams.items()}
        times = np.stack([self._times[begins], self._times[begins + self.stack]], axis=1)
        self._following += number
        done = min(self.step * self._following - self._first, len(self._times))
        # copies, as a view would keep all that it is of
        self._streams = {name: x[done:].copy() for name, x in self._streams.items()}
        self._times = self._times[done:]
        self._first += done
        return Batch(streams, (begins - begins[0]).tolist(), times)
