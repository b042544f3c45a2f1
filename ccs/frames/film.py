"""ffmpeg: video files in, their raw frames out, and when each is shown; whether an ffmpeg works.

The frames stage makes JPEG files of the frames (`ccs.frames.decode`), `ccs flow` those, grey ones or both
(`ccs.flow.streams`), also of folders of frames (`ccs.frames.stills`).
ffmpeg decodes and scales. Its output describes itself (YUV4MPEG), so the size and the number of frames are what the
decoder gave; no header of the video is trusted, and no ffprobe is needed. What becomes of a video:

- Frames are those decoded, in order: none is dropped or repeated for a constant rate. Rotation metadata is applied.
- Pixels are square: a sample aspect ratio from 1/4 to 4 is applied by scaling, anything else is taken for an error.
- Scaling is bicubic. A frame whose size changes midstream is scaled to the first frame's. 10 bits become 8, any colour
  matrix and range becomes JPEG's; chroma is subsampled (4:2:0) as in nearly all videos.
- It is one file: ffmpeg opens nothing else, whatever the file says, and only as a container of video
  (`commands.FORMATS`); or a folder's pictures whose names are numbered.

A video is bad when ffmpeg cannot open it, ends with an error or falls silent, when it is damaged and frames are missing
(`ccs.frames.judgement`), more than `max_missing_fraction` allows, or when fewer than two frames decode. Whatever is
wrong with ffmpeg itself, the disk or the machine is a `CcsError` instead.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import shutil
import stat
import subprocess
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from io import FileIO
from typing import NoReturn

import numpy as np
import psutil

from ccs.frames import commands, stills
from ccs.frames.commands import WHOLE, Clip, Ffmpeg
from ccs.frames.judgement import BadVideo, Moments, Said, Verdict, judge, moments
from ccs.frames.stills import Stills
from ccs.signals import end_with_parent
from ccs.stage import CcsError

_PIPE_BYTES = 1 << 20  # several frames, so that ffmpeg decodes while the last ones are used
_FRAME = b"FRAME\n"
SILENCE = 120.0  # seconds that ffmpeg may take for the next frame
_TURN = 0.2  # seconds after which it is heard while it is waited for, at least
_LISTEN_EVERY = 32  # frames: of each it says tens of bytes, and a pipe holds 64 KiB

Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, U, V; see `FilmReader.frames`


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
    log = ""
    # ffmpeg 5.1 and newer, and older
    for names in ({"fps_mode": "passthrough"}, {"direct": 1}), ({"vsync": "passthrough"}, {}):
        said = Said()
        with _pipe() as (clock, far_end):
            end = far_end.fileno()
            line = commands.trial(("16", "16"), Ffmpeg(path, "", *names), end)
            try:
                tried = subprocess.run(
                    line, input=bytes(512), capture_output=True, timeout=60, pass_fds=(end,), env=_environment()
                )
            except (OSError, subprocess.TimeoutExpired) as error:
                raise CcsError(
                    f"{path}: cannot run this ffmpeg ({error}): correct or unset the path of ffmpeg"
                ) from error
            far_end.close()
            said.take(tried.stderr)
            said.take_times(clock.read())
        log = tried.stderr.decode(errors="replace")
        whole = tried.stdout.count(_FRAME) == len(said.times) == said.packets == 2
        if tried.returncode == 0 and whole:
            version = re.search(r"ffmpeg version (\S+)", log)
            return Ffmpeg(path, version.group(1) if version else "unknown", *names)
    raise CcsError(
        f"{path}: this ffmpeg cannot decode, scale and write two grey frames and tell of it; it says:\n"
        f"{log.strip()[-1000:]}\nRepair it, or set the path of another ffmpeg in the configuration"
    )


def _environment() -> dict[str, str]:
    """Without what makes ffmpeg say things otherwise."""
    kept = {name: value for name, value in os.environ.items() if name not in ("AV_LOG_FORCE_COLOR", "FFREPORT")}
    return {**kept, "AV_LOG_FORCE_NOCOLOR": "1"}


def hidden_packets(video: str | Stills, tool: Ffmpeg, children: Children) -> int:
    """How many packets of a video are not to be shown (flag 4), as what an edit list cuts away."""
    listed, num_hidden = b"", 0
    with children.run(commands.listing(video, tool)) as process:
        assert process.stdout is not None
        while _ready(process.stdout.fileno(), SILENCE) and (data := os.read(process.stdout.fileno(), 1 << 16)):
            *lines, listed = (listed + data).split(b"\n")
            flags = (re.match(rb"0,.*, *F=0x([0-9A-F]+)", line) for line in lines)
            num_hidden += sum(int(found[1], 16) >> 2 & 1 for found in flags if found)
    return num_hidden


def check_file(path: str) -> None:
    """Raise `BadVideo` for what is no file with something in it or cannot be named to ffmpeg; `OSError` as it comes."""
    _check_name(path)
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise BadVideo(f"a {'directory' if stat.S_ISDIR(status.st_mode) else 'pipe or device'}, not a file")
    if not status.st_size:
        raise BadVideo("the file is empty")
    with open(path, "rb"):
        pass


def check_stills(frames: Stills) -> None:
    """As `check_file`, of a folder's frames: raises what `stills.check_sizes` finds too."""
    _check_name(frames.folder)
    stills.check_sizes(frames)


def _check_name(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError as error:  # ffmpeg-python takes no other names
        raise BadVideo("its path is not UTF-8: rename it") from error


class Children:
    """The running ffmpegs, so that none outlives the run."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    @contextmanager
    def run(self, line: list[str], *inherited: int) -> Generator[subprocess.Popen[bytes]]:
        """Start an ffmpeg, with its standard output and its standard error to read, unbuffered; ended on leaving.

        Leave it in the thread that has entered it; ffmpeg has the descriptors `inherited`. Raises `CcsError` where it
        cannot be started, or after `close`.
        """
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        with self._lock:
            if self._closed:
                raise CcsError("stopped")
            try:
                process = subprocess.Popen(
                    line, bufsize=0, preexec_fn=end_with_parent, env=_environment(), pass_fds=inherited, **pipes
                )
            except (OSError, subprocess.SubprocessError) as error:
                raise CcsError(
                    f"{line[0]}: cannot start ffmpeg ({error}): check the file, the memory and the limits "
                    "on processes and open files, or use fewer workers"
                ) from error
            self._processes.add(process)
        try:
            yield process
        finally:
            process.kill()
            for pipe in (process.stdout, process.stderr):
                if pipe:
                    pipe.close()
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
def opened(
    video: str | Stills, size: tuple[str, str], tool: Ffmpeg, children: Children, clip: Clip = WHOLE
) -> Generator[FilmReader]:
    """Start to decode a file, or a folder's frames, see `commands.decoding`, and wait for its first frame.

    On leaving, its ffmpeg is ended.
    """
    with _pipe() as (clock, far_end):
        end = far_end.fileno()
        with children.run(commands.decoding(video, size, tool, end, clip), end) as process:
            far_end.close()  # so that ffmpeg's end is the end of the pipe
            yield FilmReader(video, process, clock.fileno(), tool, children, clip)


@contextmanager
def _pipe() -> Generator[tuple[FileIO, FileIO]]:
    """Where to read and where to write, for a process that inherits the latter; both closed on leaving."""
    reading, writing = os.pipe()
    with FileIO(reading, "r") as near_end, FileIO(writing, "w") as far_end:
        yield near_end, far_end


class FilmReader:
    """A video that ffmpeg is decoding.

    Attributes:
        height, width, fps: as ffmpeg gives its frames, fps nominal; 0 where no frame came.
        num_frames: that `frames` has given so far.
    """

    def __init__(
        self,
        video: str | Stills,
        process: subprocess.Popen[bytes],
        clock: int,
        tool: Ffmpeg,
        children: Children,
        clip: Clip = WHOLE,
    ) -> None:
        self._clip = clip
        self.path = video.folder if isinstance(video, Stills) else video
        self._video, self._process, self._tool, self._children = video, process, tool, children
        assert process.stdout is not None  # `Children.run` gives both to read
        assert process.stderr is not None
        self._frames, self._words = process.stdout.fileno(), process.stderr.fileno()
        with suppress(OSError, AttributeError):  # a lower limit on pipes; systems without this call
            fcntl.fcntl(self._frames, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        os.set_blocking(self._frames, False)
        self._said = Said()
        self._heard = {self._words: self._said.take, clock: self._said.take_times}  # until they end
        self.num_frames, self._whole = 0, True
        header = bytearray()
        while not header.endswith(b"\n") and self._read(memoryview(byte := bytearray(1))):
            header += byte
        self.height, self.width, self.fps = _parse_header(bytes(header), self.path)

    def frames(self) -> Iterator[Planes]:
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
        while size := self._read(memoryview(frame.data)):
            self._whole = size == len(frame)
            if not self._whole:
                return
            if frame[: len(_FRAME)].tobytes() != _FRAME:
                raise CcsError("ffmpeg's frames are not of the size it stated: try another ffmpeg")
            self.num_frames += 1
            if self.num_frames % _LISTEN_EVERY == 0:
                self._listen()
            yield planes

    def times(self, first: int) -> np.ndarray:
        """When frame `first` and the following that `frames` has given are shown: seconds, NaN where it is unknown."""
        self._listen()  # it tells of a frame before it writes it
        known = self._said.times[first : self.num_frames]
        return np.array(known + [np.nan] * (self.num_frames - first - len(known)))

    def finish(self, max_missing: float) -> tuple[Moments, Verdict]:
        """After the last frame: when the frames are shown, and what to say of a video that is kept.

        Raises `BadVideo` for what is wrong with the video, such as a larger share of missing frames than `max_missing`,
        `CcsError` where ffmpeg was stopped or the disk fails.
        """
        while self._heard:
            self._wait_for(next(iter(self._heard)))
            self._listen()
        try:
            status = self._process.wait(SILENCE)
        except subprocess.TimeoutExpired:
            raise BadVideo(f"ffmpeg did not end within {SILENCE:g} s after {self.num_frames} frames") from None
        said = self._said
        if not self._clip.is_whole:
            said.narrow(self._clip.start, self._clip.end, self.num_frames)
        shown = moments(said, self.num_frames, self.fps)
        doubtful = (said.damaged or said.cut) and said.packets > self.num_frames
        num_hidden = hidden_packets(self._video, self._tool, self._children) if doubtful else 0
        return shown, judge(self.path, status, said, shown, self._whole, num_hidden, max_missing)

    def _read(self, view: memoryview) -> int:
        """Fill `view` with what ffmpeg writes; how many bytes there were before its end."""
        filled = 0
        while filled < len(view):
            try:
                size = os.readv(self._frames, [view[filled:]])
            except BlockingIOError:  # nothing is there yet
                self._wait_for(self._frames)
                continue
            if not size:
                break
            filled += size
        return filled

    def _wait_for(self, pipe: int) -> None:
        """Come back when there is something to read, or the end, in this pipe; take in what ffmpeg says meanwhile."""
        if _ready(pipe, _TURN):
            return
        since, computed = time.monotonic(), self._seconds_computed()
        while not _ready(pipe, _TURN):
            if self._listen():
                since = time.monotonic()
            if time.monotonic() - since > SILENCE:
                self._give_up(self._seconds_computed() - computed)

    def _listen(self) -> bool:
        """Take in all that ffmpeg has said; whether there was something."""
        heard = False
        for pipe, take in list(self._heard.items()):
            while pipe in self._heard and _ready(pipe, 0):
                if data := os.read(pipe, 1 << 16):
                    take(data)
                    heard = True
                else:
                    del self._heard[pipe]
        return heard

    def _seconds_computed(self) -> float:
        try:
            times = psutil.Process(self._process.pid).cpu_times()
        except psutil.Error:  # it has just ended
            return 0.0
        return times.user + times.system

    def _give_up(self, computed: float) -> NoReturn:
        """ffmpeg is silent: in a loop of its own, or waiting for the file."""
        what = f"after {self.num_frames} frames ffmpeg gave nothing for {SILENCE:g} s"
        if computed > SILENCE / 100:
            raise BadVideo(what)
        raise CcsError(f"{self.path}: {what}, waiting for this file: look at the disk or the network, then run again")


def _ready(pipe: int, seconds: float) -> bool:
    """Whether there is something to read, or the end, after so long at most."""
    polled = select.poll()
    polled.register(pipe, select.POLLIN)
    return bool(polled.poll(1000 * seconds))


def _parse_header(header: bytes, path: str) -> tuple[int, int, float]:
    """Height, width and frames a second of a YUV4MPEG header; zeros for none."""
    if not header:
        return 0, 0, 0.0
    found = re.match(rb"YUV4MPEG2 W(\d+) H(\d+) F(\d+):(\d+) ", header)
    if not found or b" C420" not in header:
        raise CcsError(f"{path}: ffmpeg gave {header[:80]!r} where a YUV4MPEG 4:2:0 header was due: try another ffmpeg")
    width, height, rate, scale = map(int, found.groups())
    return height, width, rate / max(scale, 1)
