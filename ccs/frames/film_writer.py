"""Pictures in, an MP4 out, with ffmpeg: the films of `ccs flow --visualize` and of `ccs predict --cam`."""

from __future__ import annotations

import subprocess
import threading
from collections import deque
from pathlib import Path

import numpy as np

from ccs.frames.commands import Ffmpeg, writing
from ccs.signals import end_with_parent
from ccs.stage import CcsError, raise_if_full

MAX_HOLD = 60.0  # seconds that a picture is shown, at most: more is a broken clock


class FilmWriter:
    """An MP4 that pictures are written to, in the codec that this ffmpeg gives to MP4 (H.264 in most).

    Its rate is constant, `fps` where that is from 1 to 240, else 25. A picture is repeated while it is shown, so that
    films of a variable rate keep their time; of several within a frame's time the last one is kept.
    """

    def __init__(self, part: Path, height: int, width: int, fps: float, tool: Ffmpeg):
        self.part = part
        self.fps = fps if 1 <= fps <= 240 else 25.0
        self._last: np.ndarray | None = None  # the picture that is shown from `_since` on, in seconds of its source
        self._since = np.nan
        self._elapsed, self._ticks = 0.0, 0  # seconds of the film before it, and frames written
        self._shown = 1 / self.fps  # seconds of the picture before
        self._process = subprocess.Popen(
            writing(part, height, width, self.fps, tool),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            bufsize=0,
            preexec_fn=end_with_parent,
        )
        assert self._process.stdin is not None  # they are pipes
        assert self._process.stderr is not None
        self._pipe, self._words = self._process.stdin, self._process.stderr
        self._errors: deque[bytes] = deque(maxlen=10)
        self._listener = threading.Thread(target=lambda: self._errors.extend(self._words), daemon=True)
        self._listener.start()

    def write(self, pictures: np.ndarray, times: np.ndarray) -> None:
        """Append pictures, uint8 RGB (n, H, W, 3), shown from `times` (n) on: seconds, NaN where that is unknown."""
        for picture, time in zip(pictures, times, strict=True):
            if self._last is not None:
                shown = time - self._since
                self._hold(min(shown, MAX_HOLD) if shown > 0 else 1 / self.fps)
            self._last, self._since = picture, time

    def finish(self) -> None:
        """Show the last picture as long as the one before, and wait until the file is whole.

        As `write`, raises `OSError` where the disk is full.
        """
        if self._last is not None:
            self._hold(self._shown)
        self._pipe.close()
        if self._process.wait():
            self._fail()

    def close(self) -> None:
        """End ffmpeg if it still runs."""
        self._process.kill()
        self._pipe.close()
        self._process.wait()
        self._listener.join()
        self._words.close()

    def _hold(self, seconds: float) -> None:
        """Write the last picture as often as it takes; the frame that begins at a time shows half its own later."""
        assert self._last is not None
        self._shown = seconds
        self._elapsed += seconds
        try:
            while (self._ticks + 0.5) / self.fps <= self._elapsed:
                data = self._last.data.cast("B")
                while data:
                    data = data[self._pipe.write(data) :]
                self._ticks += 1
        except BrokenPipeError:
            self._fail()

    def _fail(self) -> None:
        status = self._process.wait()
        self._listener.join()
        said = b"".join(self._errors).decode(errors="replace").strip()[-500:]
        raise_if_full(said, status)
        raise CcsError(
            f"{self.part}: ffmpeg cannot write this video, it says:\n{said}\nTry another ffmpeg, or do without the film"
        )
