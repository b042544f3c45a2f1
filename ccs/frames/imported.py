"""Frames that were extracted before, and flow where it is there: a directory of pictures in, the shard's frames out.

Frames are named as `ccs.frames.stills` tells; flow is flow_x_00001.jpg and flow_y_00001.jpg, or x_ and y_, or PNG. So
the tools of TSN, mmaction2 (denseflow) and `ccs flow --rgb` name them. Numbers begin anywhere and leave none out. Of T
frames there are T-1 pairs of flow, or T where a tool repeats the last one, which then is left out.

JPEGs of the size that the settings ask for, with the shards' subsampling (4:2:0), go in byte for byte; others are
scaled and encoded anew. Pictures of flow go in as they are; the flow stage makes its values of them. All are decoded
once, so that what cannot be is found here, and the video set aside.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import cv2
import numpy as np
import simplejpeg

from ccs.frames import stills
from ccs.frames.judgement import BadVideo, Moments
from ccs.frames.settings import FramesSettings
from ccs.stage import CcsError

_FLOW = re.compile(r"(?:flow[_-]?)?([xy])[_-]?(\d{1,9})\.(?:jpe?g|png)")


class Pictures(NamedTuple):
    """Picture files end to end: picture i is data[offset[i]:offset[i + 1]]."""

    data: np.ndarray  # uint8
    offset: np.ndarray  # int64, one more than there are pictures


class ImportedFlow(NamedTuple):
    """Flow as 8-bit pictures, x and y of each pair in turn: 0 is -`bound` pixels, 255 is `bound`."""

    pictures: Pictures
    bound: float


class ImportedFrames(NamedTuple):
    """The frames of a directory, as the shard holds them, and its flow."""

    jpegs: Pictures
    height: int
    width: int
    moments: Moments  # unknown
    flow: ImportedFlow | None


def read(directory: str, settings: FramesSettings, bound: float, num_frames: int | None) -> ImportedFrames:
    """Take in a directory.

    Args:
        bound: that the pictures of flow were made with, in pixels.
        num_frames: that a list says; None where none does.

    Raises:
        BadVideo: what is wrong with the pictures, their numbers or their counts.
        CcsError: what is wrong with the disk.
    """
    try:
        names = os.listdir(directory)
        frames = [*stills.find(directory, names).paths]
        x, y = _listed(directory, names)
        _check_counts(frames, x, y, num_frames)
        jpegs = []
        size: tuple[int, int] | None = None
        for path in frames:
            jpeg, size = _frame(path, settings, size)
            jpegs.append(jpeg)
        height, width, _ = _look_at(jpegs[0])
        pairs = list(zip(x.values(), y.values(), strict=True))[: len(frames) - 1]
        flow = ImportedFlow(_end_to_end(_flow(pairs)), bound) if pairs else None
    except OSError as error:
        raise CcsError(
            f"{error.filename or directory}: cannot be read ({error.strerror}): look at the disk or the network, then "
            "run again"
        ) from error
    unknown = Moments(np.full(len(frames), np.nan), np.nan, 0, 0)
    return ImportedFrames(_end_to_end(iter(jpegs)), height, width, unknown, flow)


def _listed(directory: str, names: Sequence[str]) -> tuple[dict[int, str], dict[int, str]]:
    """The pictures of flow among the files of a directory by their numbers, in order: those of x and of y."""
    kinds: dict[str, dict[int, str]] = {"x": {}, "y": {}}
    for match in filter(None, map(_FLOW.fullmatch, sorted(names))):
        other = kinds[match[1]].setdefault(int(match[2]), os.path.join(directory, match[0]))
        if os.path.basename(other) != match[0]:
            raise BadVideo(f"{os.path.basename(other)} and {match[0]} have the same number: remove one of them")
    for name, pictures in kinds.items():
        numbers = sorted(pictures)
        if gap := next((a + 1 for a, b in pairwise(numbers) if b > a + 1), None):
            raise BadVideo(f"{name} of flow {gap} is not there, of those from {numbers[0]} to {numbers[-1]}")
        kinds[name] = {number: pictures[number] for number in numbers}
    return kinds["x"], kinds["y"]


def _check_counts(frames: Sequence[str], x: Mapping[int, str], y: Mapping[int, str], num_frames: int | None) -> None:
    if len(frames) < 2:
        raise BadVideo(
            f"a directory, not a file, with {len(frames)} frames (img_00001.jpg and so on), at least 2 are needed"
        )
    if list(x) != list(y):
        raise BadVideo(f"its flow has {len(x)} pictures of x and {len(y)} of y, or with other numbers")
    if x and len(x) not in (len(frames) - 1, len(frames)):
        raise BadVideo(
            f"{len(x)} pairs of flow do not fit {len(frames)} frames: expected {len(frames) - 1}, or {len(frames)} "
            "with the last one repeated"
        )
    # lists of flow count its pairs
    if num_frames is not None and num_frames not in (len(frames), len(x) or len(frames)):
        raise BadVideo(f"{len(frames)} frames are there, the list says {num_frames}")


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _frame(path: str, settings: FramesSettings, like: tuple[int, int] | None) -> tuple[bytes, tuple[int, int]]:
    """A frame as JPEG, and the height and width of its file, which are those of `like` or the video is bad."""
    data, name = _read(path), os.path.basename(path)
    try:
        height, width, is_ours = _look_at(data)
    except ValueError as error:
        raise BadVideo(f"{name} is no whole JPEG or PNG: {error}") from error
    if like and (height, width) != like:
        raise BadVideo(f"{name} is {width}x{height}, the first frame {like[1]}x{like[0]}")
    target = target_size(height, width, settings)
    if is_ours and target == (height, width):
        return data, (height, width)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise BadVideo(f"{name} cannot be decoded")
    if target != (height, width):
        how = cv2.INTER_AREA if target[0] < height else cv2.INTER_CUBIC
        picture = cv2.resize(picture, target[::-1], interpolation=how)
    picture = np.ascontiguousarray(picture)
    return simplejpeg.encode_jpeg(picture, settings.quality, "BGR", "420"), (height, width)


def _look_at(data: bytes) -> tuple[int, int, bool]:
    """Height and width of a picture, whether it is a JPEG as the shards have them; `ValueError` if it is damaged."""
    if data[1:4] == b"PNG":
        height, width = decode_flow(data).shape
        return height, width, False
    height, width, space, subsampling = simplejpeg.decode_jpeg_header(data)
    # the grey plane alone is half the work, and tells as well whether all of the file is there
    simplejpeg.decode_jpeg(data, "GRAY" if space != "CMYK" else "CMYK")
    return int(height), int(width), (space, subsampling) == ("YCbCr", "420")


def target_size(height: int, width: int, settings: FramesSettings) -> tuple[int, int]:
    """Height and width that frames are to have; a shorter side that is right already leaves the other as it is."""
    if settings.size is not None:
        size = settings.size.split("x")
        return int(size[1]), int(size[0])
    short = settings.short_side
    assert short is not None  # `FramesSettings` wants one of them
    if min(height, width) == short:
        return height, width
    if width > height:
        return short, 2 * round(width / height * short / 2)
    return 2 * round(height / width * short / 2), short


def _flow(pairs: list[tuple[str, str]]) -> Iterator[bytes]:
    """The pictures of pairs, x and y in turn, all of one size."""
    size = None
    for path in (path for pair in pairs for path in pair):
        data, name = _read(path), os.path.basename(path)
        try:
            found = decode_flow(data).shape
        except ValueError as error:
            raise BadVideo(f"{name} is no whole picture of flow: {error}") from error
        size = size or found
        if found != size:
            raise BadVideo(f"{name} is {found[1]}x{found[0]}, the first picture of flow {size[1]}x{size[0]}")
        yield data


def decode_flow(data: bytes) -> np.ndarray:
    """The values of a picture of flow, uint8 (H, W). Raises `ValueError` where it is no whole JPEG or PNG."""
    if data[1:4] == b"PNG":
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
        if picture is None:
            raise ValueError("a damaged PNG")
        return picture
    return simplejpeg.decode_jpeg(data, "GRAY")[..., 0]


def _end_to_end(pictures: Iterator[bytes]) -> Pictures:
    found = [np.frombuffer(picture, np.uint8) for picture in pictures]
    return Pictures(np.concatenate(found), np.cumsum([0, *map(len, found)], dtype=np.int64))
