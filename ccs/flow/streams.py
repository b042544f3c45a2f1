"""Videos for `ccs flow videos/ ...` and `ccs features`: frames a chunk at a time, and counts for the progress bar.

Decoding, and what makes a video bad, are those of the frames stage (`ccs.frames.film`, `.judgement`). A grey frame is
the luma that this stage would put into its JPEG: 0.299 R + 0.587 G + 0.114 B from 0 to 255, which is OpenCV's grey.
"""

from __future__ import annotations

import re
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from queue import Full, Queue
from typing import NamedTuple, TypeVar

import cv2
import numpy as np

from ccs.flow.engines import MIN_SIDE
from ccs.frames.commands import WHOLE, Clip, Ffmpeg, stating
from ccs.frames.decode import encode_jpeg
from ccs.frames.film import Children, FilmReader, Planes, check_file, check_stills, opened
from ccs.frames.judgement import BadVideo
from ccs.frames.stills import Stills
from ccs.stage import CcsError

Key = TypeVar("Key")

CHUNKS_AHEAD = 2  # of a video, decoded before they are asked for
SAME_TIME = 1e-3  # seconds: Matroska's clock counts milliseconds
AS_SHOWN = "round(iw*if(between(sar,1/4,4),sar,1))", "ih"  # the size of the video itself, with square pixels


class Reading(NamedTuple):
    """How videos are read."""

    step: int = 1  # frames from the first of a pair to its second
    size: tuple[str, str] = AS_SHOWN  # width and height, as ffmpeg reads them
    clip: Clip = WHOLE
    fps: float | None = None  # frames a second to be taken; None: all
    min_side: int = MIN_SIDE  # px
    in_colour: bool = False
    quality: int | None = None  # of JPEGs of the frames; None: none are made
    max_missing: float = 0.0  # share of a damaged video's frames that may be missing
    square: int | None = None  # side of the centre square of the frames that is given in colour too, px


class End(NamedTuple):
    """What is known of a video when it has been decoded."""

    num_frames: int
    num_decoded: int  # of which those are taken
    num_missing: int  # frames that a damaged video lacks
    note: str  # what to say of a video that is kept, or ""


class Chunk(NamedTuple):
    """Neighbouring frames: those of the pairs `first` and following, `step` frames more than there are pairs."""

    frames: np.ndarray  # uint8 (frames, H, W), or (frames, H, W, 3) RGB
    jpegs: list[bytes]  # of the same frames, or none
    first: int
    fps: float  # nominal
    times: np.ndarray  # (frames) seconds at which they are shown, NaN where that is not known
    end: End | None  # in the last chunk
    square: np.ndarray | None = None  # uint8 (frames, 3, side, side) RGB: the centres of the same frames, if asked for


class _Frame(NamedTuple):
    pixels: np.ndarray
    jpeg: bytes
    time: float
    square: np.ndarray | None


def chunks(
    video: str | Stills,
    reading: Reading,
    max_pairs: Callable[[int, int], int],
    tool: Ffmpeg,
    children: Children,
    first_pairs: int | None = None,
) -> Iterator[Chunk]:
    """Decode a file, or a folder of frames, and yield its frames.

    `max_pairs` tells from height and width how many pairs there are at a time; the first chunk has no more than
    `first_pairs` where that is given.

    Raises `BadVideo` for what is wrong with the video, at the latest in place of the last chunk; `CcsError` where
    ffmpeg was stopped or the disk fails.
    """
    _check(video, reading)
    step = reading.step
    waiting: list[_Frame] = []
    first = limit = most = 0
    with opened(video, reading.size, tool, children, reading.clip) as film:
        height, width, fps = film.height, film.width, reading.fps or film.fps
        if height:
            if min(height, width) < reading.min_side:
                raise BadVideo(f"its frames are {width}x{height}: flow needs sides of {reading.min_side} px or more")
            most = max_pairs(height, width)
            limit = min(first_pairs or most, most)
        shown = _timed(film) if reading.fps is None else _resampled(_timed(film), reading.fps, film.fps)
        for planes, time in shown:
            if len(waiting) == limit + step:  # another frame is here, so that this chunk is not the last
                yield _chunk(waiting, first, fps, None)
                first += limit
                del waiting[:limit]
                limit = most
            pixels = _colours(planes) if reading.in_colour else planes[0].copy()
            jpeg = b"" if reading.quality is None else encode_jpeg(planes, reading.quality)
            square = None if reading.square is None else _centre(_colours(planes), reading.square)
            waiting.append(_Frame(pixels, jpeg, time, square))
        _, verdict = film.finish(reading.max_missing)
        end = End(first + len(waiting), film.num_frames, *verdict)
    if end.num_frames <= step:
        taken = f", {end.num_frames} of them at {reading.fps:g} a second" if reading.fps else ""
        raise BadVideo(
            f"{end.num_decoded} frames decoded{taken}, at least {step + 1} are needed for flow over {step} frames"
        )
    yield _chunk(waiting, first, fps, end)


def _check(video: str | Stills, reading: Reading) -> None:
    """Raise `BadVideo` for what cannot be decoded at all."""
    try:
        if not isinstance(video, Stills):
            check_file(video)
            return
        check_stills(video)
    except OSError as error:
        raise BadVideo(f"cannot be read: {error.strerror}") from error
    if reading.fps or not reading.clip.is_whole:
        raise BadVideo("a folder of frames, of which nobody knows the times: --fps, --start and --end are for videos")


def _chunk(frames: list[_Frame], first: int, fps: float, end: End | None) -> Chunk:
    pixels, jpegs, times, squares = zip(*frames, strict=True)
    square = None if squares[0] is None else np.stack(squares)
    return Chunk(np.stack(pixels), [jpeg for jpeg in jpegs if jpeg], first, fps, np.array(times), end, square)


def _colours(planes: Planes) -> np.ndarray:
    """RGB (H, W, 3) of a frame."""
    luma, *chroma = planes
    u, v = (cv2.resize(plane, luma.shape[::-1], interpolation=cv2.INTER_LINEAR) for plane in chroma)
    return cv2.cvtColor(cv2.merge((luma, v, u)), cv2.COLOR_YCrCb2RGB)  # full range, BT.601, as JPEG's


def _centre(image: np.ndarray, side: int) -> np.ndarray:
    """The centre square of an image (H, W, C), as planes (C, side, side)."""
    top, left = ((length - side) // 2 for length in image.shape[:2])
    return np.ascontiguousarray(image[top : top + side, left : left + side].transpose(2, 0, 1))


def _timed(film: FilmReader) -> Iterator[tuple[Planes, float]]:
    """Its frames, with the seconds at which they are shown, NaN where that is not known."""
    for planes in film.frames():
        yield planes, float(film.times(film.num_frames - 1)[0])


def _resampled(frames: Iterable[tuple[Planes, float]], fps: float, nominal: float) -> Iterator[tuple[Planes, float]]:
    """The frames that are shown at the first one's time and every 1/`fps` seconds from there, as long as the last is.

    A frame of which ffmpeg knows no time follows the one before by 1/`nominal` seconds.
    """
    shown: Planes | None = None  # from `since` on, for `lasts` seconds as far as is known
    begin = since = 0.0
    lasts = 1 / nominal if nominal else 0.0
    count = 0
    for planes, told in frames:
        time = told if np.isfinite(told) else since + 1 / nominal if shown else 0.0
        if shown is None:
            begin = time
        else:
            lasts = time - since
            while begin + count / fps < time - SAME_TIME:
                yield shown, begin + count / fps
                count += 1
        luma, u, v = planes
        shown = luma.copy(), u.copy(), v.copy()  # the next one takes their memory
        since = time
    while shown and begin + count / fps < since + lasts - SAME_TIME:
        yield shown, begin + count / fps
        count += 1


@contextmanager
def read_ahead(
    videos: Iterable[Key], decode: Callable[[Key, Children], Iterator[Chunk]], num_decoders: int
) -> Generator[Iterator[tuple[Key, Chunk | BadVideo]]]:
    """Yield an iterator over the chunks of all videos, in order, with `num_decoders` of them being decoded at a time.

    A video ends with the chunk that has `end`, or with what is wrong with it. On leaving, every ffmpeg is ended.
    """
    children, stopped = Children(), threading.Event()
    threads: list[threading.Thread] = []

    def fill(video: Key, queue: Queue) -> None:
        for item in _whatever_happens(lambda: decode(video, children)):
            while not stopped.is_set():
                with suppress(Full):
                    queue.put(item, timeout=0.1)
                    break
            if stopped.is_set():
                return

    def items() -> Iterator[tuple[Key, Chunk | BadVideo]]:
        following, open_videos = iter(videos), deque()
        while True:
            while len(open_videos) < num_decoders and (video := next(following, None)) is not None:
                queue = Queue(CHUNKS_AHEAD)
                threads[:] = [thread for thread in threads if thread.is_alive()]
                threads.append(threading.Thread(target=fill, args=(video, queue), daemon=True))
                threads[-1].start()
                open_videos.append((video, queue))
            if not open_videos:
                return
            video, queue = open_videos[0]
            item = queue.get()
            if isinstance(item, Exception) and not isinstance(item, BadVideo):
                raise item
            if isinstance(item, BadVideo) or item.end:
                open_videos.popleft()
            yield video, item

    try:
        yield items()
    finally:
        stopped.set()
        children.close()
        for thread in threads:
            thread.join()


def _whatever_happens(decode: Callable[[], Iterator[Chunk]]) -> Iterator[Chunk | Exception]:
    try:
        yield from decode()
    except CcsError as error:  # a tool for many videos goes on where a stage must stop
        yield BadVideo(str(error))
    except Exception as error:
        yield error


class PairCount:
    """How many pairs a job has: stated by the containers at first, as a thread asks ffmpeg, and counted in the end."""

    def __init__(self, videos: Sequence[str | Stills], reading: Reading, tool: Ffmpeg):
        self._videos, self._reading, self._tool = videos, reading, tool
        self._known: dict[str | Stills, int] = {}
        self._stopped = False
        self._children = Children()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def set(self, video: str | Stills, num_pairs: int) -> None:
        """The true count of a video."""
        self._known[video] = num_pairs

    def total(self) -> int | None:
        """The sum; those not known yet are taken for average ones. None where none is known."""
        known = list(self._known.values())
        return round(sum(known) / len(known) * len(self._videos)) if known else None

    def close(self) -> None:
        """Stop asking."""
        self._stopped = True
        self._children.close()

    def _ask(self) -> None:
        for video in self._videos:
            if self._stopped:
                return
            if video not in self._known and (
                num_frames := _stated_frames(video, self._reading, self._tool, self._children)
            ):
                self._known.setdefault(video, max(num_frames - self._reading.step, 0))


def _stated_frames(video: str | Stills, reading: Reading, tool: Ffmpeg, children: Children) -> int:
    """Duration times rate, which is near enough; 0 where the container does not say."""
    if isinstance(video, Stills):
        return video.num_frames
    try:
        check_file(video)
        with children.run(stating(video, tool)) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace")
    except (OSError, BadVideo, CcsError):
        return 0
    duration = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", said)
    rate = re.search(r"Video: .* ([\d.]+)(k?) fps", said)
    if not duration or not rate:
        return 0
    hours, minutes, seconds = map(float, duration.groups())
    stated = 3600 * hours + 60 * minutes + seconds
    end = stated if reading.clip.end is None else min(reading.clip.end, stated)
    fps = reading.fps or float(rate[1]) * (1000 if rate[2] else 1)
    return round(max(end - reading.clip.start, 0) * fps)
