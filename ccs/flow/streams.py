"""Videos in and out for `ccs flow videos/ ...`: grey frames a chunk at a time, counts for the progress bar, pictures.

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

import numpy as np

from ccs.flow.engines import MIN_SIDE
from ccs.frames.film import ONE_FILE, Children, Ffmpeg, check_file, opened, shorter_side
from ccs.frames.judgement import BadVideo
from ccs.stage import CcsError

Key = TypeVar("Key")

CHUNKS_AHEAD = 2  # of a video, decoded before they are asked for
AS_SHOWN = "round(iw*if(between(sar,1/4,4),sar,1))", "ih"  # the size of the video itself, with square pixels


class End(NamedTuple):
    """What is known of a video when it has been decoded."""

    num_frames: int
    num_missing: int  # frames that a damaged video lacks
    note: str  # what to say of a video that is kept, or ""


class Chunk(NamedTuple):
    """Neighbouring frames: those of the pairs `first` and following, `step` frames more than there are pairs."""

    frames: np.ndarray  # uint8 (frames, H, W)
    first: int
    fps: float  # nominal
    times: np.ndarray  # (frames) seconds at which they are shown, NaN where that is not known
    end: End | None  # in the last chunk


def chunks(
    path: str,
    short_side: int | None,
    step: int,
    max_pairs: Callable[[int, int], int],
    max_missing: float,
    tool: Ffmpeg,
    children: Children,
    first_pairs: int | None = None,
) -> Iterator[Chunk]:
    """Decode the video `path` and yield its frames; `max_pairs` tells from height and width how many pairs at a time.

    The first chunk has no more than `first_pairs` where that is given.
    `max_missing` is the share of a damaged video's frames that may be missing.

    Raises `BadVideo` for what is wrong with the video, at the latest in place of the last chunk; `CcsError` where
    ffmpeg was stopped or the disk fails.
    """
    try:
        check_file(path)
    except OSError as error:
        raise BadVideo(f"cannot be read: {error.strerror}") from error
    size = AS_SHOWN if short_side is None else shorter_side(short_side)
    waiting: list[np.ndarray] = []
    first = limit = most = 0
    with opened(path, size, tool, children) as film:
        height, width = film.height, film.width
        if height:
            if min(height, width) < MIN_SIDE:
                raise BadVideo(f"its frames are {width}x{height}: flow needs sides of {MIN_SIDE} px or more")
            most = max_pairs(height, width)
            limit = min(first_pairs or most, most)
        for luma, _, _ in film.frames():
            if len(waiting) == limit + step:  # another frame is here, so that this chunk is not the last
                times = film.times(first)[: len(waiting)]
                yield Chunk(np.stack(waiting), first, film.fps, times, None)
                first += limit
                del waiting[:limit]
                limit = most
            waiting.append(luma.copy())
        _, verdict = film.finish(max_missing)
        end, times = End(film.num_frames, *verdict), film.times(first)
    if end.num_frames <= step:
        raise BadVideo(f"{end.num_frames} frames decoded, at least {step + 1} are needed for flow over {step} frames")
    yield Chunk(np.stack(waiting), first, film.fps, times, end)


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

    def __init__(self, paths: Sequence[str], step: int, tool: Ffmpeg):
        self._paths, self._step, self._tool = paths, step, tool
        self._known: dict[str, int] = {}
        self._stopped = False
        self._children = Children()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self._thread.start()

    def set(self, path: str, num_pairs: int) -> None:
        """The true count of a video."""
        self._known[path] = num_pairs

    def total(self) -> int | None:
        """The sum; those not known yet are taken for average ones. None where none is known."""
        known = list(self._known.values())
        return round(sum(known) / len(known) * len(self._paths)) if known else None

    def close(self) -> None:
        """Stop asking."""
        self._stopped = True
        self._children.close()

    def _ask(self) -> None:
        for path in self._paths:
            if self._stopped:
                return
            if path not in self._known and (num_frames := _stated_frames(path, self._tool, self._children)):
                self._known.setdefault(path, max(num_frames - self._step, 0))


def _stated_frames(path: str, tool: Ffmpeg, children: Children) -> int:
    """Duration times rate, which is near enough; 0 where the container does not say."""
    options = [word for name, value in ONE_FILE.items() for word in (f"-{name}", value)]
    line = [tool.path, "-nostdin", "-hide_banner", *options, "-i", f"file:{path}"]  # without an output it ends at once
    try:
        check_file(path)
        with children.run(line) as process:
            assert process.stderr is not None
            said = process.stderr.read().decode(errors="replace")
    except (OSError, BadVideo, CcsError):
        return 0
    duration = re.search(r"Duration: (\d+):(\d\d):(\d\d\.\d+)", said)
    rate = re.search(r"Video: .* ([\d.]+)(k?) fps", said)
    if not duration or not rate:
        return 0
    hours, minutes, seconds = map(float, duration.groups())
    return round((3600 * hours + 60 * minutes + seconds) * float(rate[1]) * (1000 if rate[2] else 1))


def colours(flow: np.ndarray, bound: float) -> np.ndarray:
    """Pictures, uint8 RGB (pairs, H, W, 3), of `flow`: the hue is the direction, with red to the right.

    No motion is white; the saturation grows with the square root of the speed, so that slow motion shows, and is full
    from `bound` px on. It is the same scale for every picture of every video.
    """
    import torch
    from torchvision.utils import flow_to_image

    moves = torch.from_numpy(flow)
    speed = torch.linalg.vector_norm(moves, dim=1, keepdim=True)
    scaled = moves / speed.clamp(min=1e-6) * (speed / bound).clamp(max=1).sqrt()
    # the library scales to the fastest pixel of the pictures: a row more gives them all the same
    fastest = torch.zeros_like(scaled[:, :, :1])
    fastest[:, 0] = 1
    return flow_to_image(torch.cat([scaled, fastest], dim=2))[:, :, :-1].permute(0, 2, 3, 1).contiguous().numpy()
