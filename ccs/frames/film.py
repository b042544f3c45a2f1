"""ffmpeg: video files in, their raw frames out, and when each is shown; whether an ffmpeg works.

The frames stage makes JPEG files of the frames (`ccs.frames.decode`), `ccs flow` those, grey ones or both
(`ccs.flow.streams`), also of folders of frames (`ccs.frames.stills`).
ffmpeg decodes and scales. Its output describes itself (YUV4MPEG), so the size and the number of frames are what the
decoder gave; no header of the video is trusted, and no ffprobe is needed. What becomes of a video:

- Frames are those decoded, in order: none is dropped or repeated for a constant rate. Rotation metadata is applied.
- Pixels are square: a sample aspect ratio from 1/4 to 4 is applied by scaling, anything else is taken for an error.
- Scaling is bicubic. A frame whose size changes midstream is scaled to the first frame's. 10 bits become 8, any colour
  matrix and range becomes JPEG's; chroma is subsampled (4:2:0) as in nearly all videos.
- It is one file: ffmpeg opens nothing else, whatever the file says, and only as a container of video (`FORMATS`); or a
  folder's pictures whose names are numbered.

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
from typing import NamedTuple, NoReturn

import ffmpeg
import numpy as np
import psutil

from ccs.frames import stills
from ccs.frames.judgement import BadVideo, Moments, Said, Verdict, judge, moments
from ccs.signals import end_with_parent
from ccs.stage import CcsError

_PIPE_BYTES = 1 << 20  # several frames, so that ffmpeg decodes while the last ones are used
_FRAME = b"FRAME\n"
SILENCE = 120.0  # seconds that ffmpeg may take for the next frame
STILLS_FPS = 25  # of frames in a folder, which do not say: only the order of their times counts
_TURN = 0.2  # seconds after which it is heard while it is waited for, at least
_LISTEN_EVERY = 32  # frames: of each it says tens of bytes, and a pipe holds 64 KiB

# ffmpeg's names of containers and bare streams of video. What is not among them: playlists and scripts, which name
# other files or servers (hls, dash, concat, imf, sdp, avisynth ...), patterns of file names, and sound alone.
FORMATS = (
    "mov matroska avi mpegts mpegtsraw mpeg mpegvideo asf asf_o flv live_flv kux ogg gif apng webp_anim nut ivf mxf "
    "gxf lxf rm ivr wtv dv dhav ty pva nsv nuv swf vivo r3d cine mlv dxa mjpeg mjpeg_2000 smjpeg mpjpeg ingenient "
    "h261 h263 h264 hevc vvc evc m4v vc1 vc1test av1 obu dirac dnxhd cavsvideo avs avs2 avs3 yuv4mpegpipe rawvideo "
    "roq smk bink flic film_cpk 4xm anm bethsoftvid bfi bmv c93 cdxl dsicin ea filmstrip frm gdv hnm idcin ifv "
    "ipmovie jv lmlm4 luodat lvf mm mods moflex mtv mv mvi paf pmp psxstr rpl sga siff thp tiertexseq tmv "
    "txd usm vividas vmd wc3movie wsvqa xmv yop jpeg_pipe dfa rl2 iv8 ser simbiosis_imx argo_brp cdg pdv apv"
)
ONE_FILE = {"protocol_whitelist": "file,pipe", "format_whitelist": FORMATS.replace(" ", ",")}  # options of an input


Planes = tuple[np.ndarray, np.ndarray, np.ndarray]  # Y, U, V; see `FilmReader.frames`


class Ffmpeg(NamedTuple):
    """An ffmpeg that was tried and works."""

    path: str
    version: str
    passthrough: dict[str, str]  # its option for frames as decoded
    prompt: dict[str, int]  # of the filter that tells the frames' times: at once, where it can


class Clip(NamedTuple):
    """A part of a video, in seconds of its clock: the frames that are shown from `start` on and before `end`.

    Where the clock counts frames, as in AVI, both are those of the nearest.
    """

    start: float = 0.0
    end: float | None = None

    @property
    def is_whole(self) -> bool:
        return not self.start and self.end is None


WHOLE = Clip()


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
    frames = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="gray", s="16x16", r=25, **ONE_FILE)["V:0"]
    log = ""
    # ffmpeg 5.1 and newer, and older
    for names in ({"fps_mode": "passthrough"}, {"direct": 1}), ({"vsync": "passthrough"}, {}):
        said = Said()
        with _pipe() as (clock, far_end):
            end = far_end.fileno()
            line = _compile(frames, ("16", "16"), Ffmpeg(path, "", *names), end)
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


def shorter_side(pixels: int) -> tuple[str, str]:
    """Width and height, as ffmpeg reads them, of square pixels with so many on the shorter side."""
    # the shape as it is shown; the long side even, so that its chroma has half as many samples
    wide = "(iw*if(between(sar,1/4,4),sar,1)/ih)"
    width = f"if(gt({wide},1),2*round({wide}*{pixels}/2),{pixels})"
    height = f"if(gt({wide},1),{pixels},2*round({pixels}/{wide}/2))"
    return width, height


def command(path: str, size: tuple[str, str], tool: Ffmpeg, clock: int, clip: Clip = WHOLE) -> list[str]:
    """The command line that decodes the first video stream of `path`, a file or a folder of frames, into YUV4MPEG.

    That goes to standard output. `size` is the width and the height to scale to, as ffmpeg reads them: numbers or
    expressions. The frames' times go to the descriptor `clock`.
    """
    begin = {"ss": clip.start} if clip.start else {}
    video = _input(path, threads=1, **begin)
    if clip.end is not None:
        video = ffmpeg.filter(video, "trim", end=clip.end - clip.start)  # a frame's time now counts from the start
    return _compile(video, size, tool, clock)


def _input(path: str, **options: object) -> ffmpeg.nodes.FilterableStream:
    """The first video stream of a file, or the frames of a folder."""
    if os.path.isdir(path):
        frames = stills.find(path)
        # which is no file, and whose pattern is ours
        sequence = {"format": "image2", "format_whitelist": "image2", "protocol_whitelist": "file"}
        return ffmpeg.input(
            f"file:{frames.pattern}", framerate=STILLS_FPS, start_number=frames.first, **sequence, **options
        )["V:0"]
    # "file:" keeps names with a colon from being taken for another protocol
    return ffmpeg.input(f"file:{path}", **ONE_FILE, **options)["V:0"]


def _compile(video: ffmpeg.nodes.FilterableStream, size: tuple[str, str], tool: Ffmpeg, clock: int) -> list[str]:
    width, height = size
    quality = {"flags": "bicubic+accurate_rnd+bitexact", "out_color_matrix": "bt601", "out_range": "pc"}
    marked = ffmpeg.filter(video, "metadata", mode="add", key="ccs", value=0)  # it prints frames that have some
    timed = ffmpeg.filter(marked, "metadata", mode="print", key="ccs", file=f"pipe:{clock}", **tool.prompt)
    scaled = ffmpeg.filter(timed, "scale", w=width, h=height, **quality)
    square = ffmpeg.filter(scaled, "setsar", 1)
    output = ffmpeg.output(
        square, "pipe:", format="yuv4mpegpipe", pix_fmt="yuv420p", threads=1, avioflags="direct", **tool.passthrough
    ).global_args("-nostdin", "-nostats", "-loglevel", "level+verbose", "-max_error_rate", "1")
    return ffmpeg.compile(output, cmd=[tool.path, "-filter_complex_threads", "1"])


def _environment() -> dict[str, str]:
    """Without what makes ffmpeg say things otherwise."""
    kept = {name: value for name, value in os.environ.items() if name not in ("AV_LOG_FORCE_COLOR", "FFREPORT")}
    return {**kept, "AV_LOG_FORCE_NOCOLOR": "1"}


def hidden_packets(path: str, tool: Ffmpeg, children: Children) -> int:
    """How many packets of a video are not to be shown (flag 4), as what an edit list cuts away."""
    packets = ffmpeg.output(_input(path), "pipe:", c="copy", copyinkf=None, format="framecrc").global_args(
        "-nostdin", "-loglevel", "quiet"
    )
    listed, num_hidden = b"", 0
    with children.run(ffmpeg.compile(packets, cmd=tool.path)) as process:
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


def check_stills(folder: str) -> None:
    """As `check_file`, of a folder of frames: raises what `ccs.frames.stills` finds too."""
    _check_name(folder)
    stills.check_sizes(folder, stills.find(folder).names)


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
    path: str, size: tuple[str, str], tool: Ffmpeg, children: Children, clip: Clip = WHOLE
) -> Generator[FilmReader]:
    """Start to decode a video file, see `command`, and wait for its first frame; on leaving, its ffmpeg is ended."""
    with _pipe() as (clock, far_end):
        end = far_end.fileno()
        with children.run(command(path, size, tool, end, clip), end) as process:
            far_end.close()  # so that ffmpeg's end is the end of the pipe
            yield FilmReader(path, process, clock.fileno(), tool, children, clip)


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
        path: str,
        process: subprocess.Popen[bytes],
        clock: int,
        tool: Ffmpeg,
        children: Children,
        clip: Clip = WHOLE,
    ) -> None:
        self._clip = clip
        self.path, self._process, self._tool, self._children = path, process, tool, children
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
        self.height, self.width, self.fps = _parse_header(bytes(header), path)

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
        num_hidden = hidden_packets(self.path, self._tool, self._children) if doubtful else 0
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
