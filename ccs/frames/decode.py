"""Decoding: video files in, JPEG frames out; what the frames stage is made of.

How ffmpeg decodes is told in `ccs.frames.film`, when a video is bad in `ccs.frames.judgement`. A bad one is set aside
(quarantined). `short_side` is exactly so many pixels, also where the video is smaller (UCF-101's 320x240 becomes
342x256, as TSN's 340x256); the long side is the nearest even number. `size` is exactly this, whatever the shape.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import simplejpeg

from ccs.datasets.manifests import VideoFile
from ccs.frames import imported
from ccs.frames.commands import shorter_side
from ccs.frames.film import WHOLE, Children, Clip, Ffmpeg, FilmReader, Planes, check_file, opened
from ccs.frames.imported import ImportedFlow
from ccs.frames.judgement import BadVideo, Moments
from ccs.frames.settings import FramesSettings
from ccs.stage import CcsError


class DecodedVideo(NamedTuple):
    """A decoded video: `jpeg`, all T frames end to end, and `offset` (T+1), where each starts and the last ends."""

    jpeg: np.ndarray
    offset: np.ndarray
    height: int
    width: int
    fps: float  # as the container states it: nominal; 0 where nothing does
    moments: Moments  # when the frames are shown
    note: str  # what to say in the log about a video that is kept, or ""
    is_imported: bool = False  # not decoded here: frames that other tools have extracted
    flow: ImportedFlow | None = None  # that is there with them


def scaled_size(settings: FramesSettings) -> tuple[str, str]:
    """Width and height of the frames, as `commands.decoding` wants them."""
    if settings.size is None:
        assert settings.short_side is not None  # `FramesSettings` wants one of them
        return shorter_side(settings.short_side)
    width, height = settings.size.split("x")
    return width, height


def decode_video(
    path: str,
    settings: FramesSettings,
    tool: Ffmpeg,
    children: Children,
    turns: threading.Semaphore,
    clip: Clip = WHOLE,
) -> DecodedVideo:
    """Decode the video file `path`, or a clip of it, and encode its frames while holding one of `turns`.

    Raises `BadVideo` for what is wrong with the video, `CcsError` for what is wrong with ffmpeg or the machine.
    """
    try:
        check_file(path)
    except OSError as error:
        raise CcsError(
            f"{path}: {error.strerror}: expected a file that can be read; if it was there a moment ago, look at the "
            "disk or the network, else at the permissions or the lists that name it"
        ) from None
    # the first frame is here when `opened` returns: ffmpeg's start costs nobody's turn
    with opened(path, scaled_size(settings), tool, children, clip) as film:
        with turns:
            jpegs = _encode(film, settings.quality)
        moments, verdict = film.finish(settings.max_missing_fraction)
    offset = np.cumsum([0, *map(len, jpegs)], dtype=np.int64)
    return DecodedVideo(np.concatenate(jpegs), offset, film.height, film.width, film.fps, moments, verdict.note)


def import_video(video: VideoFile, settings: FramesSettings, bound: float, turns: threading.Semaphore) -> DecodedVideo:
    """Take in the frames, and the flow with this bound, of the directory `video.path`; errors as of `decode_video`."""
    with turns:
        found = imported.read(video.path, settings, bound, video.num_frames)
    size = found.height, found.width
    return DecodedVideo(*found.jpegs, *size, 0.0, found.moments, "", is_imported=True, flow=found.flow)


def _encode(film: FilmReader, quality: int) -> list[np.ndarray]:
    """The frames as JPEG files: ffmpeg's planes are JPEG's own, so that nothing is converted or subsampled twice."""
    return [np.frombuffer(encode_jpeg(planes, quality), np.uint8) for planes in film.frames()]


def encode_jpeg(planes: Planes, quality: int) -> bytes:
    """A frame as a JPEG file. Raises `BadVideo` where it is too large for one."""
    try:
        return simplejpeg.encode_jpeg_yuv_planes(*planes, quality=quality)
    except ValueError as error:
        height, width = planes[0].shape
        raise BadVideo(f"frames of {width}x{height} cannot be JPEG images: {error}") from error


def extract(
    videos: Sequence[VideoFile],
    settings: FramesSettings,
    tool: Ffmpeg,
    workers: int = 1,
    bound: float | None = None,
) -> Generator[tuple[VideoFile, DecodedVideo | BadVideo | CcsError]]:
    """Each video, in the order given, with its frames, or with what is wrong with it, or with the machine meanwhile.

    `workers` videos are decoded (one ffmpeg each) and encoded (one thread each) at a time, and at most twice as many
    are held in memory as JPEG, some 8 MB for ten seconds. With a `bound`, that of flow that is there, directories are
    taken in as `ccs.frames.imported` tells. Closing the iterator, as any error does, ends every ffmpeg.
    """
    children, turns = Children(), threading.Semaphore(workers)

    def attempt(video: VideoFile) -> DecodedVideo | BadVideo | CcsError:
        try:
            if bound is not None and os.path.isdir(video.path):
                return import_video(video, settings, bound, turns)
            clip = Clip(video.start or 0.0, video.end)
            return decode_video(video.path, settings, tool, children, turns, clip)
        except (BadVideo, CcsError) as error:
            return error

    ahead: deque = deque()
    # one thread more than turns: its ffmpeg starts up while the others' frames are encoded
    with ThreadPoolExecutor(workers + 1) as pool:
        try:
            for video in videos:
                ahead.append((video, pool.submit(attempt, video)))
                if len(ahead) >= 2 * workers:
                    video, decoded = ahead.popleft()
                    yield video, decoded.result()
            while ahead:
                video, decoded = ahead.popleft()
                yield video, decoded.result()
        finally:
            children.close()
            pool.shutdown(wait=True, cancel_futures=True)
