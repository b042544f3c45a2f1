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
        stack, step: frames of a window, and from one to the next. What is in no window is not kept.
        batch: windows that go out together; fewer in the end.
    """

    def __init__(self, stack: int, step: int, batch: int) -> None:
        self.stack, self.step, self.batch = stack, step, batch
        self._kept_step = min(step, stack)  # from a window to the next in what is kept
        self._streams: dict[str, np.ndarray] = {}  # from the first window on that is not out yet
        self._times = np.empty(0)
        self._first_time = 0  # the frame that the first of these is of
        self._num_pairs = 0  # of the video, so far
        self._following = 0  # window

    def add(self, new: Prepared) -> Iterator[Batch]:
        """Take the next pairs, and give the batches that are whole with them, in the end all."""
        wanted = (self._num_pairs + np.arange(new.num_pairs)) % self.step < self.stack
        for name, images in new.streams.items():
            kept = images if wanted.all() else images[wanted]
            self._streams[name] = np.concatenate([self._streams[name], kept]) if name in self._streams else kept
        times = new.times
        if not np.isfinite(times).all():  # nobody knows them: frames are evenly spaced
            times = (self._num_pairs + np.arange(len(times))) / (new.fps or 25)
        self._times = np.concatenate([self._times, times])
        self._num_pairs += new.num_pairs
        while True:
            whole = max(0, (self._num_pairs - self.stack) // self.step + 1) - self._following
            # the time at which the last one ends may come with the next frame
            last_end = (self._following + whole - 1) * self.step + self.stack
            whole -= whole > 0 and last_end >= self._first_time + len(self._times)
            if whole < (1 if new.end else self.batch):
                return
            yield self._next(min(whole, self.batch))

    def _next(self, number: int) -> Batch:
        starts = self._kept_step * np.arange(number)
        streams = {name: x[: starts[-1] + self.stack] for name, x in self._streams.items()}
        begins = self.step * (self._following + np.arange(number)) - self._first_time
        times = np.stack([self._times[begins], self._times[begins + self.stack]], axis=1)
        self._following += number
        # copies, as a view would keep all that it is of
        self._streams = {name: x[self._kept_step * number :].copy() for name, x in self._streams.items()}
        done = min(self.step * self._following - self._first_time, len(self._times))
        self._times, self._first_time = self._times[done:].copy(), self._first_time + done
        return Batch(streams, starts.tolist(), times)
