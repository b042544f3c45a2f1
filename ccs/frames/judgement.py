"""What ffmpeg said of a video, and what that makes of it: good, good with something to say, or bad.

ffmpeg ends with status 0 when it has decoded whatever it could, so a video is judged by counts: how many packets it
has, how many frames came out of them, and whether the moments of these frames leave room for others. A video of which
ffmpeg says that something is wrong with it is *damaged*; frames that it lacks are then *missing*, as many as the larger
of these says:

- packets without a frame; those that are not meant to be shown, as after a cut by an edit list, are left out;
- room in time: where frames are evenly spaced, gaps between them, and what the container states beyond the last one.

A video without sound that ends a tenth before what it states is damaged, too. Otherwise, without a complaint, neither
says that a frame was lost (codecs have packets without frames, cameras pauses, sound lasts longer than pictures): such
a video is kept, with a note of the room.
"""

from __future__ import annotations

import re
import signal
from collections import deque
from typing import NamedTuple

import numpy as np

from ccs.stage import CcsError

_LEVEL = re.compile(r"(?:\[[^\]]* @ [^\]]*\] )*\[(verbose|info|warning|error|fatal|panic)\] (.*)")
_COUNTS = re.compile(r"Input stream #\d+:\d+ \(video\): (\d+) packets read \(\d+ bytes\); (\d+) frames decoded")
_SHOWN = re.compile(r"n: *\d+ pts: *\S+ pts_time:(\S+)(?:.* duration_time:(\S+))?")  # a line of the filter showinfo
_STATED = re.compile(r"Duration: (\d+):(\d\d):(\d\d\.\d+)")
# What ffmpeg 4 to 9 say where the end is missing, at which the last packet lacks something at least.
_CUT = re.compile("ended prematurely|partial file|Truncating packet|Error during demuxing")
_DAMAGED = re.compile("corrupt input packet|corrupt decoded frame")  # warnings, unlike other such
_FORBIDDEN = re.compile("Format not on whitelist|Not detecting m3u8/hls")
_TAIL = 0.1  # share of a video's frames that may lack at its end, where nothing else is wrong
_EVEN = 0.75  # share of steps of one length from which on frames count as evenly spaced


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
        ended: whether that was all, which the reader sets.
    """

    def __init__(self) -> None:
        self.times: list[float] = []
        self.last_duration = 0.0
        self.packets = self.decoded = -1  # not said yet
        self.stated = 0.0  # seconds, by the container; below 0 where that is a guess
        self.cut = self.damaged = ""
        self.concealed = self.signalled = self.forbidden = self.sounds = self.ended = False
        self._last: deque[str] = deque(maxlen=3)
        self._rest = b""

    @property
    def errors(self) -> str:
        """The last of them."""
        return "; ".join(self._last)[-400:]

    def take(self, data: bytes) -> None:
        """The next bytes of it, which need not be UTF-8."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            if said := _LEVEL.match(line.decode(errors="replace")):
                self._take(said[1], said[2].strip())

    def _take(self, level: str, text: str) -> None:
        if level in ("verbose", "info"):
            self._take_figures(text)
            return
        if "Estimating duration from bitrate" in text:
            self.stated = -1.0  # the line that states it comes later
        self.forbidden |= bool(_FORBIDDEN.search(text))
        # those that say no more than that and the path aside
        if level != "warning" and text not in self._last and not text.startswith("Error opening input file"):
            self._last.append(text)
        if not self.cut and _CUT.search(text):
            self.cut = text
        if not self.damaged and (level != "warning" or _DAMAGED.search(text)):
            self.damaged = text
        self.concealed |= "corrupt decoded frame" in text

    def _take_figures(self, text: str) -> None:
        if shown := _SHOWN.match(text):
            self.times.append(float(shown[1]) if shown[1] != "NOPTS" else np.nan)
            self.last_duration = float(shown[2] or 0)
        elif counts := _COUNTS.match(text):
            self.packets, self.decoded = map(int, counts.groups())
        elif text.startswith("Duration: "):
            if (stated := _STATED.match(text)) and not self.stated:
                hours, minutes, seconds = map(float, stated.groups())
                self.stated = 3600 * hours + 60 * minutes + seconds
        else:
            self.sounds |= text.startswith("Stream #") and ": Audio: " in text
            self.signalled |= "received signal" in text


class Moments(NamedTuple):
    """When the frames of a video are shown, and what that says of frames that are not there."""

    times: np.ndarray  # (T) seconds from the start of the container, ascending
    step: float  # seconds that the last frame is shown
    gaps: int  # frames for which there is room between others
    tail: int  # frames for which there is room after the last one, by what the container states

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return float(self.times[-1] - self.times[0]) + self.step if len(self.times) else 0.0


def moments(said: Said, num_frames: int, fps: float) -> Moments:
    """Of the frames that were decoded; where ffmpeg does not know, they are `fps` (nominal) a second."""
    nominal = 1 / fps if fps > 0 else 0.0
    times = np.array(said.times[:num_frames])
    if len(times) != num_frames or not np.isfinite(times).all() or np.any(np.diff(times) < 0):
        return Moments(nominal * np.arange(num_frames), nominal, 0, 0)
    steps = np.diff(times)
    usual = float(np.median(steps)) if len(steps) else nominal
    even = len(steps) > 0 and usual > 0 and np.mean(np.abs(steps - usual) <= 0.1 * usual + 0.001) >= _EVEN
    step = said.last_duration or usual
    gaps = int(np.sum(np.maximum(np.rint(steps / usual) - 1, 0))) if even else 0
    left = said.stated - (times[-1] + step) - 0.0051 if num_frames else 0.0  # it is stated to a hundredth
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
    why = said.errors or said.damaged
    why = why if said.cut in why else "; ".join(filter(None, (said.cut, why)))
    if status or (num_frames == 0 and why):
        what = "damaged or cut short" if num_frames else "not a video that ffmpeg can decode"
        exit_status = f"; ffmpeg's exit status {status}" if status else ""
        raise BadVideo(f"{what}: {num_frames} frames decoded{exit_status}; {why}".removesuffix("; "))
    if num_frames < 2 or not whole:
        raise BadVideo(f"{num_frames} frames decoded, at least 2 are needed; {why}".removesuffix("; "))
    if said.packets < 0:
        raise CcsError(f"{path}: this ffmpeg does not say how many packets it has read: try another ffmpeg")
    early = _early(said, shown)
    if shown.tail > _TAIL * (num_frames + shown.tail) and not said.sounds:
        why = "; ".join(filter(None, (early, why)))
    elif not said.damaged and not said.cut:
        gaps = f"its times leave room for {shown.gaps} more between its {num_frames} frames" if shown.gaps else ""
        return Verdict(0, f"kept, but {gaps or early}" if gaps or early else "")
    num_missing = max(said.packets - num_hidden - num_frames, shown.gaps + shown.tail, int(bool(said.cut)))
    counts = f"{num_frames} frames decoded of {said.packets - num_hidden} packets, {num_missing} missing"
    if num_missing > max_missing * (num_frames + num_missing):
        raise BadVideo(f"damaged or cut short: {counts}; {why}")
    if num_missing:
        return Verdict(num_missing, f"kept, though damaged or cut short: {counts}; {why}")
    concealed = ", though parts of some frames are damaged and were concealed" if said.concealed else ""
    return Verdict(0, f"kept{concealed}: {counts}; {why}")


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
    """That the video ends before what it states, where that is not what sound takes."""
    end = float(shown.times[-1]) + shown.step
    if end < 0.9 * said.stated - 1 or (shown.tail and not said.sounds):
        return f"its {len(shown.times)} frames end at {end:.2f} s of {said.stated:.2f} s that it states"
    return ""
