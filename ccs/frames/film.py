"""ffmpeg: video files in, their raw frames out; whether an ffmpeg works, and what makes a video bad.

The frames stage makes JPEG files of the frames (`ccs.frames.decode`), `ccs flow` grey ones (`ccs.flow.streams`).
ffmpeg decodes and scales. Its output describes itself (YUV4MPEG), so the size and the number of frames are what the
decoder gave; no header of the video is trusted, and no ffprobe is needed. What becomes of a video:

- Frames are those decoded, in order: none is dropped or repeated for a constant rate. Rotation metadata is applied.
- Pixels are square: a sample aspect ratio from 1/4 to 4 is applied by scaling, anything else is taken for an error.
- Scaling is bicubic. A frame whose size changes midstream is scaled to the first frame's. 10 bits become 8, any colour
  matrix and range becomes JPEG's; chroma is subsampled (4:2:0) as in nearly all videos.

A video is bad when ffmpeg cannot open it or ends with an error, when a packet is damaged or gives no frame, when the
file is cut short, or when fewer than two frames decode. Visible damage within a frame that the decoder concealed costs
no frame: such a video is kept, with a note, as is one that ends long before the duration it states. Whatever is wrong
with ffmpeg itself, the disk or the machine is a `CcsError` instead.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import signal
import subprocess
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple

import ffmpeg
import numpy as np

from ccs.stage import CcsError

_PIPE_BYTES = 1 << 20  # several frames, so that ffmpeg decodes while the last ones are used
_FRAME = b"FRAME\n"
_LEVEL = re.compile(r"(?:\[[^\]]* @ [^\]]*\] )*\[(info|warning|error|fatal|panic)\] (.*)")
# What ffmpeg 4 to 9 say when packets are missing or damaged, some of it with exit status 0.
_LOST = re.compile(
    "corrupt input packet|ended prematurely|partial file|Truncating packet|Error during demuxing"
    "|Error submitting packet to decoder|Error while decoding stream"
)


class BadVideo(Exception):
    """This video cannot be used; the message says why."""


class Ffmpeg(NamedTuple):
    """An ffmpeg that was tried and works; `passthrough` is its option for frames as decoded."""

    path: str
    version: str
    passthrough: dict[str, str]


def find_ffmpeg(path: str | None = None) -> str:
    """The ffmpeg to use: `path` if given, else the one on the PATH, else the one that imageio-ffmpeg brings.

    Raises `CcsError` where there is none.
    """
    if path is not None:
        found = shutil.which(os.path.expanduser(path))
        if found is None:
            raise CcsError(
                f"{path}: expected an ffmpeg that can be run, found none: correct the path of ffmpeg, or "
                "leave it unset to use the one on the PATH or the one that imageio-ffmpeg brings"
            )
        return found
    if found := shutil.which("ffmpeg"):
        return found
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        raise CcsError(
            f"no ffmpeg: none is on the PATH and imageio-ffmpeg brings none ({error}): install ffmpeg, "
            "set its path in the configuration, or `pip install imageio-ffmpeg`"
        ) from error


def check_ffmpeg(path: str) -> Ffmpeg:
    """Run the very pipeline of this stage on two grey frames, so that a broken ffmpeg is not taken for bad videos."""
    frames = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="gray", s="16x16", r=25)["V:0"]
    log = ""
    for passthrough in ({"fps_mode": "passthrough"}, {"vsync": "passthrough"}):  # ffmpeg 5.1 and newer, and older
        line = _compile(frames, ("16", "16"), Ffmpeg(path, "", passthrough))
        try:
            tried = subprocess.run(line, input=bytes(512), capture_output=True, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CcsError(f"{path}: cannot run this ffmpeg ({error}): correct or unset the path of ffmpeg") from error
        log = tried.stderr.decode(errors="replace")
        if tried.returncode == 0 and tried.stdout.count(_FRAME) == 2:
            version = re.search(r"ffmpeg version (\S+)", log)
            return Ffmpeg(path, version.group(1) if version else "unknown", passthrough)
    raise CcsError(
        f"{path}: this ffmpeg cannot decode, scale and write two grey frames; it says:\n"
        f"{log.strip()[-1000:]}\nRepair it, or set the path of another ffmpeg in the configuration"
    )


def shorter_side(pixels: int) -> tuple[str, str]:
    """Width and height, as ffmpeg reads them, of square pixels with so many on the shorter side."""
    # the shape as it is shown; the long side even, so that its chroma has half as many samples
    wide = "(iw*if(between(sar,1/4,4),sar,1)/ih)"
    width = f"if(gt({wide},1),2*round({wide}*{pixels}/2),{pixels})"
    height = f"if(gt({wide},1),{pixels},2*round({pixels}/{wide}/2))"
    return width, height


def command(path: str, size: tuple[str, str], tool: Ffmpeg) -> list[str]:
    """The command line that decodes the first video stream of `path` into YUV4MPEG on standard output.

    `size` is the width and the height to scale to, as ffmpeg reads them: numbers or expressions.
    """
    # "file:" keeps names with a colon from being taken for another protocol
    return _compile(ffmpeg.input(f"file:{path}", threads=1)["V:0"], size, tool)


def _compile(video: ffmpeg.nodes.FilterableStream, size: tuple[str, str], tool: Ffmpeg) -> list[str]:
    width, height = size
    quality = {"flags": "bicubic+accurate_rnd+bitexact", "out_color_matrix": "bt601", "out_range": "pc"}
    scaled = ffmpeg.filter(video, "scale", w=width, h=height, **quality)
    square = ffmpeg.filter(scaled, "setsar", 1)
    output = ffmpeg.output(
        square, "pipe:", format="yuv4mpegpipe", pix_fmt="yuv420p", threads=1, avioflags="direct", **tool.passthrough
    ).global_args("-nostdin", "-nostats", "-loglevel", "level+info", "-max_error_rate", "0")
    return ffmpeg.compile(output, cmd=[tool.path, "-filter_complex_threads", "1"])


class Children:
    """The running ffmpegs, so that none outlives the run."""

    def __init__(self):
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen] = set()
        self._closed = False

    @contextmanager
    def run(self, line: list[str], log: BinaryIO) -> Generator[subprocess.Popen]:
        """Start an ffmpeg, with its standard output to read and its standard error in `log`; ended on leaving.

        Raises `CcsError` where it cannot be started, or after `close`.
        """
        with self._lock:
            if self._closed:
                raise CcsError("stopped")
            try:
                process = subprocess.Popen(line, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log)
            except OSError as error:
                raise CcsError(
                    f"{line[0]}: cannot start ffmpeg ({error}): check the file, the memory and the limits "
                    "on processes and open files, or use fewer workers"
                ) from error
            self._processes.add(process)
        try:
            yield process
        finally:
            process.kill()
            if process.stdout:
                process.stdout.close()
            process.wait()
            with self._lock:
                self._processes.discard(process)

    def close(self) -> None:
        """End them all, and start no other."""
        with self._lock:
            self._closed = True
            for process in self._processes:
                process.kill()


@contextmanager
def opened(path: str, size: tuple[str, str], tool: Ffmpeg, children: Children) -> Generator[FilmReader]:
    """Start to decode a video file, see `command`, and wait for its first frame; on leaving, its ffmpeg is ended."""
    with tempfile.TemporaryFile() as log, children.run(command(path, size, tool), log) as process:
        yield FilmReader(path, process, log)


class FilmReader:
    """A video that ffmpeg is decoding.

    Attributes:
        height, width, fps: as ffmpeg gives its frames, fps nominal; 0 where no frame came.
        num_frames: that `frames` has given so far.
    """

    def __init__(self, path: str, process: subprocess.Popen, log: BinaryIO):
        self.path, self._process, self._log = path, process, log
        assert isinstance(process.stdout, io.BufferedReader)  # `Children.run` gives it to read
        self._pipe = process.stdout
        with suppress(OSError, AttributeError):  # a lower limit on pipes; systems without this call
            fcntl.fcntl(self._pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        self.height, self.width, self.fps = _parse_header(self._pipe.readline(), path)
        self.num_frames, self._whole = 0, True

    def frames(self) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Every frame that is whole, as its planes Y (H, W), U and V (half of each side, rounded up), uint8.

        They are JPEG's: full range, BT.601. The next frame takes the memory of the one before.
        """
        if not self.height:
            return
        half_h, half_w = (self.height + 1) // 2, (self.width + 1) // 2
        luma, chroma = self.height * self.width, half_h * half_w
        frame = np.empty(len(_FRAME) + luma + 2 * chroma, np.uint8)
        y, u, v = np.split(frame[len(_FRAME) :], [luma, luma + chroma])
        planes = y.reshape(self.height, self.width), u.reshape(half_h, half_w), v.reshape(half_h, half_w)
        while size := self._pipe.readinto(frame.data):
            self._whole = size == len(frame)
            if not self._whole:
                return
            if frame[: len(_FRAME)].tobytes() != _FRAME:
                raise CcsError("ffmpeg's frames are not of the size it stated: try another ffmpeg")
            self.num_frames += 1
            yield planes

    def finish(self) -> str:
        """After the last frame: what to say of a video that is kept, or "".

        Raises `BadVideo` for what is wrong with the video, `CcsError` where ffmpeg was stopped or the disk fails.
        """
        status = self._process.wait()
        log = _Log(self._log)
        _check(self.path, status, log, self.num_frames, self._whole)
        return _note(log, self.num_frames)


def _parse_header(header: bytes, path: str) -> tuple[int, int, float]:
    """Height, width and frames a second of a YUV4MPEG header; zeros for none."""
    if not header:
        return 0, 0, 0.0
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) ", header)
    if not found or b" C420" not in header:
        raise CcsError(f"{path}: ffmpeg gave {header[:80]!r} where a YUV4MPEG 4:2:0 header was due: try another ffmpeg")
    width, height, rate, scale = map(int, found.groups())
    return height, width, rate / max(scale, 1)


class _Log:
    """What ffmpeg wrote on standard error, read line by line: it can be long, and need not be UTF-8."""

    def __init__(self, file: BinaryIO):
        self.lost, self.signalled, self.concealed = "", False, False
        self.seconds = {"Duration: ": 0.0, "time=": 0.0}  # stated, decoded
        last: deque[str] = deque(maxlen=3)
        file.seek(0)
        for raw in file:
            said = _LEVEL.match(raw.decode(errors="replace"))
            if not said:
                continue
            level, text = said.group(1), said.group(2).strip()
            if level == "info":
                self.signalled |= "received signal" in text
                for key in self.seconds:
                    if time := re.search(rf"{key}(\d+):(\d\d):(\d\d\.\d+)", text):
                        hours, minutes, seconds = time.groups()
                        self.seconds[key] = int(hours) * 3600 + int(minutes) * 60 + float(seconds)
                continue
            if level != "warning" and text not in last and not text.startswith("Error opening input file"):
                last.append(text)  # those that say no more than that and the path aside
            if not self.lost and _LOST.search(text):
                self.lost = text
            self.concealed |= "corrupt decoded frame" in text
        self.errors = "; ".join(last)[-400:]


def _check(path: str, status: int, log: _Log, num_frames: int, whole: bool) -> None:
    """Raise what is wrong with the video or with the machine, if anything."""
    stopped = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
    if status in stopped or (status == 255 and log.signalled):
        raise CcsError(
            f"{path}: ffmpeg was stopped from outside (exit status {status}): if nobody did so, memory may "
            "have run out: use fewer workers"
        )
    if status < 0:
        raise BadVideo(f"ffmpeg crashed with signal {-status} after {num_frames} frames; {log.errors}")
    if "Input/output error" in log.errors:
        raise CcsError(f"{path}: {log.errors}: look at the disk or the network, then run again")
    if "matches no streams" in log.errors:
        raise BadVideo("no video stream")
    if status or log.lost:
        exit_status = f"; ffmpeg's exit status {status}" if status else ""
        said = "; ".join(dict.fromkeys(filter(None, (log.lost, log.errors))))
        what = "damaged or cut short" if num_frames else "not a video that ffmpeg can decode"
        raise BadVideo(f"{what}: {num_frames} frames decoded{exit_status}; {said}")
    if num_frames < 2 or not whole:
        raise BadVideo(f"{num_frames} frames decoded, at least 2 are needed; {log.errors}".removesuffix("; "))


def _note(log: _Log, num_frames: int) -> str:
    stated, decoded = log.seconds.values()
    if log.concealed:
        return "kept, though parts of some frames are damaged and were concealed"
    if decoded < 0.9 * stated - 1:
        return f"kept, but its {num_frames} frames end at {decoded:.1f} s of {stated:.1f} s that it states"
    return ""
