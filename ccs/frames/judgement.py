"""What ffmpeg said of a video, and what that makes of it: good, good with something to say, or bad.

ffmpeg ends with status 0 when it has decoded whatever it could, so a video is judged by counts: how many packets it
has, how many frames came out of them, and whether the moments of these frames leave room for others. A video of which
ffmpeg says that something is wrong with it is *damaged*; frames are then *missing*, at least as many as the larger of
these says:

- packets without a frame; those that are not meant to be shown, as after a cut by an edit list, are left out;
- room in time, where ffmpeg says that input was lost and frames are evenly spaced: gaps between them, and what the
  container states beyond the last one.

A file whose end is missing is *cut short*, however many frames that costs: by ffmpeg's word, by its own size (AVI), or
because it ends a tenth before what it states of its only stream. Otherwise, without a complaint, neither count says
that a frame was lost (codecs have packets without frames, cameras pauses, sound lasts longer than pictures): such a
video is kept, with a note of the room.
"""

from __future__ import annotations

import os
import re
import signal
from collections import deque
from typing import NamedTuple

import numpy as np

from ccs.stage import CcsError

_LEVEL = re.compile(r"((?:\[[^\]]* @ [^\]]*\] )*)\[(verbose|info|warning|error|fatal|panic)\] (.*)")
_COUNTS = re.compile(r"Input stream #\d+:(\d+) \(video\): (\d+) packets read \(\d+ bytes\); \d+ frames decoded")
_TIME = re.compile(rb"frame:\d+ .*pts_time:(\S+)")  # a line of the filter metadata
_STATED = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)(?:, start: (-?\d+\.\d+))?")
# What ffmpeg 4 to 9 say where the end is missing, at which the last packet lacks something at least.
_CUT = re.compile("ended prematurely|partial file|Truncating packet|Error during demuxing")
_DAMAGED = re.compile("corrupt input packet|corrupt decoded frame")  # warnings, unlike other such
_BROKEN = re.compile(r"Packet corrupt \(stream = (\d+), dts = (\d+)\)")
_DEMUXER = re.compile(r"\[(in#\d|mov|matroska|avi|mpegts|mpeg|asf|flv|ogg|nut|mxf|rm|ivf)\b")  # who says it
_FORBIDDEN = re.compile("Format not on whitelist|Not detecting m3u8/hls")
_TAIL = 0.1  # share of a video's frames that may lack at its end, where nothing else is wrong
_EVEN = 0.75  # share of steps of one length from which on frames count as evenly spaced
_END = 0.25  # seconds before the last frame is shown, in which its packet comes
_SLACK = 4096  # bytes by which the size that a file states may be wrong


class BadVideo(Exception):
    """This video cannot be used; the message says why."""


class Verdict(NamedTuple):
    """Of a video that is kept."""

    num_missing: int  # frames that it lacks, of a damaged one
    note: str  # what to say of it, or ""


class Said:
    """What ffmpeg says on standard error at `-loglevel level+verbose`, taken in as it comes; it can be long.

    Attributes:
        times: of every frame so far in seconds, NaN where ffmpeg knows none.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.stream, self.packets = "", -1  # not said yet
        self.broken: dict[str, float] = {}  # the time of the last corrupt packet of each stream, in MPEG's containers
        self.start = 0.0  # of the container's clock
        self.stated = 0.0  # seconds, by the container; below 0 where that is a guess
        self.num_streams = 0
        self.cut = self.damaged = ""
        self.lost = self.concealed = self.signalled = self.forbidden = False  # lost: input, before it was decoded
        self.clip = ""  # where all is meant
        self._mapped = False  # what follows is of the output
        self._last: deque[str] = deque(maxlen=3)
        self._rest = self._rest_of_times = b""

    @property
    def errors(self) -> str:
        """The last of them."""
        return "; ".join(self._last)[-400:]

    def take(self, data: bytes) -> None:
        """The next bytes of it, which need not be UTF-8."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if said := _LEVEL.match(line.decode(errors="replace")):
                self._take(said[1], said[2], said[3].strip())

    def take_times(self, data: bytes) -> None:
        """The next bytes of what the filter says of the frames, in a pipe of its own: lines of threads mix."""
        *lines, self._rest_of_times = (self._rest_of_times + data).split(b"\n")
        for line in lines:
            if shown := _TIME.match(line):
                self.times.append(np.nan if shown[1] == b"NOPTS" else float(shown[1]))

    def narrow(self, start: float, end: float | None, num_frames: int) -> None:
        """What was said is to be judged for a clip of the video, in seconds, of which so many frames came.

        Packets around it are read, too, so that they are no count of its frames; what is missing its times tell.
        """
        length = np.inf if end is None else end - start
        if self.stated > 0:
            self.stated = max(min(self.stated - start, length), 0.0)
        self.clip = f" in the clip from {start:g} s to {'the end' if end is None else f'{end:g} s'}"
        self.packets = min(self.packets, num_frames)
        self.lost |= bool(self.damaged)

    def _take(self, source: str, level: str, text: str) -> None:
        if level in ("verbose", "info"):
            self._take_figures(text)
            return
        if "Estimating duration from bitrate" in text:
            self.stated = -1.0  # the line that states it comes later
        if "mpeg" in source and (broken := _BROKEN.match(text)):
            self.broken[broken[1]] = int(broken[2]) / 90_000
        self.forbidden |= bool(_FORBIDDEN.search(text))
        # those that say no more than that and the path aside
        if level != "warning" and text not in self._last and not text.startswith("Error opening input file"):
            self._last.append(text)
        if not self.cut and _CUT.search(text):
            self.cut = text
        if level != "warning" or _DAMAGED.search(text):
            self.damaged = self.damaged or text
            self.lost |= bool(_DEMUXER.match(source)) or "corrupt input packet" in text
        self.concealed |= "corrupt decoded frame" in text

    def _take_figures(self, text: str) -> None:
        if counts := _COUNTS.match(text):
            self.stream, self.packets = counts[1], int(counts[2])
        elif (stated := _STATED.match(text)) and not self.stated:
            hours, minutes, seconds, start = (float(each or 0) for each in stated.groups())
            # the frames' times count from the start
            self.start = start
            self.stated = 3600 * hours + 60 * minutes + seconds - max(start, 0.0)
        elif text.startswith("Stream #0:") and not self._mapped:
            self.num_streams += 1
        else:
            self._mapped |= text.startswith("Stream mapping:")
            self.signalled |= "received signal" in text


def cut_avi(path: str) -> str:
    """That an AVI is shorter than it says of itself, or "": ffmpeg scales its duration to what is there."""
    if os.path.isdir(path):  # of frames
        return ""
    with open(path, "rb") as file:
        head = file.read(12)
        size = os.fstat(file.fileno()).st_size
    stated = int.from_bytes(head[4:8], "little") + 8
    if head[:4] + head[8:] != b"RIFFAVI " or stated <= size + _SLACK:
        return ""
    return f"the file has {size:,} bytes of {stated:,} that it states"


class Moments(NamedTuple):
    """When the frames of a video are shown, and what that says of frames that are not there."""

    times: np.ndarray  # (T) seconds from the start of the container, ascending
    step: float  # seconds that the last frame is shown: as long as the one before
    gaps: int  # frames for which there is room between others
    tail: int  # frames for which there is room after the last one, by what the container states

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return float(self.times[-1] - self.times[0]) + self.step if len(self.times) else 0.0


def moments(said: Said, num_frames: int, fps: float) -> Moments:
    """Of the frames that were decoded; where ffmpeg does not know, they are `fps` (nominal) a second."""
    nominal = 1 / fps if fps > 0 else 0.0
    times = np.array(said.times[:num_frames], float)
    if len(times) != num_frames or not np.isfinite(times).all() or np.any(np.diff(times) < 0):
        return Moments(nominal * np.arange(num_frames), nominal, 0, 0)
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else nominal
    even = len(steps) > 0 and usual > 0 and np.mean(np.abs(steps - usual) <= 0.1 * usual + 0.001) >= _EVEN
    step = float(steps[-1]) if len(steps) else nominal
    gaps = int(np.sum(np.maximum(np.rint(steps / usual) - 1, 0))) if even else 0
    left = said.stated - (times[-1] + usual) - 0.0051 if num_frames else 0.0  # it is stated to a hundredth
    tail = int(np.rint(left / usual)) if even and said.stated > 0 else 0
    return Moments(times, step, gaps, max(tail, 0))


def judge(
    path: str, status: int, said: Said, shown: Moments, whole: bool, num_hidden: int, max_missing: float
) -> Verdict:
    """The verdict on a video whose ffmpeg has ended.

    Args:
        status: its exit status.
        whole: whether its output ends after a frame.
        num_hidden: packets that are not meant to be shown.
        max_missing: share of the frames that may be missing.

    Raises:
        BadVideo: what is wrong with the video.
        CcsError: ffmpeg was stopped, the disk fails, or ffmpeg does not say what it has decoded.
    """
    num_frames = len(shown.times)
    _check_run(path, status, said, num_frames)
    if said.forbidden:
        raise BadVideo("a playlist, a script or the like, which names other files, or no container of videos at all")
    if "matches no streams" in said.errors:
        raise BadVideo("no video stream")
    why = said.errors or said.damaged or said.cut
    if status or (num_frames == 0 and why):
        what = "damaged or cut short" if num_frames else "not a video that ffmpeg can decode"
        exit_status = f"; ffmpeg's exit status {status}" if status else ""
        raise BadVideo(f"{what}: {num_frames} frames decoded{exit_status}; {why}".removesuffix("; "))
    if num_frames < 2 or not whole:
        raise BadVideo(f"{num_frames} frames decoded{said.clip}, at least 2 are needed; {why}".removesuffix("; "))
    if said.packets < 0:
        raise CcsError(f"{path}: this ffmpeg does not say how many packets it has read: try another ffmpeg")
    early = _early(said, shown)
    cut = said.cut or ("" if said.clip else cut_avi(path))
    if not cut and said.broken.get(said.stream, -np.inf) - said.start > shown.times[-1] - _END:
        cut = "the last packet is corrupt"
    if not cut and said.num_streams == 1 and shown.tail > _TAIL * (num_frames + shown.tail):
        cut = early
    room = f"its times leave room for {shown.gaps} more between its {num_frames} frames" if shown.gaps else early
    if not cut and not said.damaged:
        return Verdict(0, f"kept, but {room}" if room else "")
    num_missing = max(said.packets - num_hidden - num_frames, int(bool(cut)))
    if said.lost or cut:
        num_missing = max(num_missing, shown.gaps + (shown.tail if said.num_streams == 1 or cut else 0))
    lacks = f"{num_missing} or more are missing" if num_missing else "none is known to be missing"
    counts = f"{num_frames} frames decoded of {said.packets - num_hidden} packets, {lacks}"
    why = why if cut in why else "; ".join(filter(None, (cut, why)))
    what = "damaged" if not cut else "cut short" if not said.damaged else "damaged or cut short"
    # how much is gone with the end, nobody knows
    if not allowed(num_missing, num_frames, max_missing) or (cut and max_missing < 1):
        raise BadVideo(f"{what}: {counts}; {why}")
    if num_missing:
        return Verdict(num_missing, f"kept, though {what}: {counts}; {why}")
    concealed = ", though parts of some frames are damaged and were concealed" if said.concealed else ""
    room = f"; {room}" if shown.gaps else ""
    return Verdict(0, f"kept{concealed}: {counts}; {why}{room}")


def allowed(num_missing: int, num_frames: int, max_missing: float) -> bool:
    """Whether so many frames may be missing beside those that are there; `max_missing` is the share of all."""
    return num_missing <= max_missing * (num_frames + num_missing)


def _check_run(path: str, status: int, said: Said, num_frames: int) -> None:
    """Raise what is wrong with the machine, or a crash."""
    stopped = (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, -signal.SIGHUP)
    if status in stopped or (status == 255 and said.signalled):
        raise CcsError(
            f"{path}: ffmpeg was stopped from outside (exit status {status}): if nobody did so, memory may "
            "have run out: use fewer workers"
        )
    if status < 0:
        raise BadVideo(f"ffmpeg crashed with signal {-status} after {num_frames} frames; {said.errors}")
    if "Input/output error" in said.errors:
        raise CcsError(f"{path}: {said.errors}: look at the disk or the network, then run again")


def _early(said: Said, shown: Moments) -> str:
    """That the video ends before what it states, where that is not what another stream takes."""
    end = float(shown.times[-1]) + shown.step
    if end < 0.9 * said.stated - 1 or (shown.tail and said.num_streams == 1):
        return f"its {len(shown.times)} frames end at {end:.2f} s of {said.stated:.2f} s that it states"
    return ""
