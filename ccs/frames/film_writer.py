"""Pictures in, an MP4 out, with ffmpeg: the films of `ccs flow --visualize` and of `ccs predict --cam`."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path

import numpy as np

from ccs.frames.film import Ffmpeg
from ccs.stage import CcsError, raise_if_full


class FilmWriter:
    """An MP4 that pictures are written to, in the codec that this ffmpeg gives to MP4 (H.264 in most)."""

    def __init__(self, part: Path, height: int, width: int, fps: float, tool: Ffmpeg):
        self.part = part
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `close`
        rate = f"{fps:.6f}" if 1 <= fps <= 240 else "25"
        # even sides, as the codec wants them; white is no motion
        even = "pad=2*ceil(iw/2):2*ceil(ih/2):color=white"
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", rate, "-i", "pipe:"]
        line = [tool.path, "-v", "error", "-y", *raw, "-vf", even, "-pix_fmt", "yuv420p", "-threads", "1"]
        line += ["-movflags", "+faststart", f"file:{part}"]
        self._process = subprocess.Popen(
            line, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._errors, bufsize=0
        )
        assert self._process.stdin is not None  # it is a pipe
        self._pipe = self._process.stdin

    def write(self, pictures: np.ndarray) -> None:
        """Append pictures, uint8 RGB (n, H, W, 3), or one (H, W, 3)."""
        try:
            data = pictures.data.cast("B")
            while data:
                data = data[self._pipe.write(data) :]
        except BrokenPipeError:
            self._fail()

    def finish(self) -> None:
        """Wait until the file is whole. As `write`, raises `OSError` where the disk is full."""
        self._pipe.close()
        if self._process.wait():
            self._fail()

    def close(self) -> None:
        """End ffmpeg if it still runs."""
        self._process.kill()
        self._pipe.close()
        self._process.wait()
        self._errors.close()

    def _fail(self) -> None:
        status = self._process.wait()
        self._errors.seek(0)
        said = self._errors.read().decode(errors="replace").strip()[-500:]
        raise_if_full(said, status)
        raise CcsError(
            f"{self.part}: ffmpeg cannot write this video, it says:\n{said}\nTry another ffmpeg, or do without the film"
        )
