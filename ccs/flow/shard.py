"""The flow stage's work: a frames shard cut into tasks, one task computed, the results written as a flow shard.

A task is a number of pairs, of one video or of several short ones, as JPEG bytes: one long video then keeps every
worker busy, many short ones fill a GPU, and what travels to a worker is small. The cut depends on the backend alone, so
the file does not depend on the workers.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

import cv2
import h5py
import numpy as np

from ccs import hdf5
from ccs.flow.engines import estimate_quantised
from ccs.flow.quantise import STEPS, quantise_counting
from ccs.flow.settings import Parameters
from ccs.frames.imported import decode_flow
from ccs.stage import CcsError

# Lossless, and no slower than a GPU makes flow: 0.3 ms a pair of 340x256 (level 5: 1.9 ms for a sixth less room)
COMPRESSION: tuple[hdf5.Compressor, int] = ("zstd", 1)
_BLOCK = 64  # pairs of imported flow converted at a time


class VideoFrames(NamedTuple):
    """One video of a frames shard."""

    key: str  # its group's name, and its dataset's in the flow shard
    video: str
    num_frames: int
    height: int
    width: int
    bound: float | None = None  # of flow that was imported with its frames, in pixels; None: to be computed

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of the video's flow: (T-1, 2, H, W)."""
        return self.num_frames - 1, 2, self.height, self.width


class Piece(NamedTuple):
    """Pairs first .. first + len(jpegs) - 2 of one video; a task is a list of these."""

    video: VideoFrames
    first: int
    jpegs: list[bytes]


class Pairs(NamedTuple):
    """A piece's result."""

    video: VideoFrames
    first: int
    values: np.ndarray  # uint8 (pairs, 2, H, W)
    num_clipped: int  # of the values


def videos(frames: h5py.File, path: Path) -> list[VideoFrames]:
    """The videos of the open frames shard `path`, in its order; `CcsError` where it is no such shard."""
    with hdf5.reading(path, "its layout of a frames shard (`video`, `frames/000000/jpeg`, ...)"):
        found = []
        for index, video in enumerate(hdf5.texts(frames, "video")):
            with hdf5.reading(path, video):
                group = frames[f"frames/{index:06d}"]
                height, width = int(group.attrs["height"]), int(group.attrs["width"])
                _, offset = hdf5.frames(group)
                bound = float(group["flow"].attrs["bound"]) if "flow" in group else None
            found.append(VideoFrames(f"{index:06d}", video, len(offset) - 1, height, width, bound))
    for video in found:
        if video.num_frames < 2:
            raise CcsError(
                f"{path}: expected two frames or more of every video, found {video.num_frames} of {video.video}; "
                "the frames stage should have quarantined it. Delete the file and run that stage again."
            )
    return found


class _Groups(Protocol):
    def __getitem__(self, name: str, /) -> Mapping[str, np.ndarray]: ...


def tasks(
    frames: _Groups, found: Iterable[VideoFrames], pairs_per_task: int, first_pairs: int | None = None
) -> Iterator[list[Piece]]:
    """Cut the videos `found` into tasks of `pairs_per_task` pairs, reading JPEGs as asked for.

    The first task has `first_pairs` where that is given, the last what is left.
    """
    task, room = [], first_pairs or pairs_per_task
    for video in found:
        group = frames[f"frames/{video.key}"]
        offset = group["offset"][:]
        first = 0
        while first < video.num_frames - 1:
            last = min(first + room, video.num_frames - 1)
            start = offset[first]
            packed = group["jpeg"][start : offset[last + 1]]
            jpegs = [packed[offset[t] - start : offset[t + 1] - start].tobytes() for t in range(first, last + 1)]
            task.append(Piece(video, first, jpegs))
            room -= last - first
            first = last
            if not room:
                yield task
                task, room = [], pairs_per_task
    if task:
        yield task


def compute(task: list[Piece], *, backend: str, parameters: Parameters, bound: float, memory: int) -> list[Pairs]:
    """Decode, estimate and quantise one task."""
    videos = [_grey(piece) for piece in task]
    try:
        flows = estimate_quantised(videos, bound, backend, memory, **parameters.to_names())
    except CcsError as error:
        names = ", ".join(f"{piece.video.video} (frames from {piece.first})" for piece in task)
        raise CcsError(f"video {names}: {error}") from error
    return [
        Pairs(piece.video, piece.first, values, num_clipped)
        for piece, (values, num_clipped) in zip(task, flows, strict=True)
    ]


def _grey(piece: Piece) -> np.ndarray:
    # A JPEG's first plane is the grey picture already (0.299 R + 0.587 G + 0.114 B, full range): decoding it alone is
    # twice as fast as by way of colour, and nearer to the grey of the video, having lost nothing to clamped colours.
    video, flags = piece.video, cv2.IMREAD_GRAYSCALE | cv2.IMREAD_IGNORE_ORIENTATION
    frames = np.empty((len(piece.jpegs), video.height, video.width), np.uint8)
    for t, jpeg in enumerate(piece.jpegs):
        data = np.frombuffer(jpeg, np.uint8)
        frame = cv2.imdecode(data, flags) if data.size else None
        if frame is None or frame.shape != (video.height, video.width):
            found = "no image" if frame is None else f"{frame.shape[1]}x{frame.shape[0]}"
            raise CcsError(
                f"video {video.video}, frame {piece.first + t}: expected a JPEG of {video.width}x{video.height}, found "
                f"{found}. The frames shard is damaged: delete it and run the frames stage again."
            )
        frames[t] = frame
    return frames


def imported(frames: h5py.File, path: Path, found: Iterable[VideoFrames], bound: float) -> Iterator[list[Pairs]]:
    """The flow of those videos whose flow was imported, in the shard's own values for `bound`, `_BLOCK` pairs a time.

    Of a size that is not the frames', it is scaled to theirs, and so are the displacements.
    """
    for video in found:
        if video.bound is None:
            continue
        with hdf5.reading(path, f"the imported flow of {video.video}"):
            group = frames[f"frames/{video.key}/flow"]
            offset = group["offset"][:]
            if len(offset) != 2 * (video.num_frames - 1) + 1:
                raise ValueError(f"{len(offset) - 1} pictures of {video.num_frames - 1} pairs")
        for first in range(0, video.num_frames - 1, _BLOCK):
            last = min(first + _BLOCK, video.num_frames - 1)
            with hdf5.reading(path, f"the imported flow of {video.video}"):
                bounds = offset[2 * first : 2 * last + 1]
                data = group["picture"][bounds[0] : bounds[-1]].tobytes()
                pictures = [decode_flow(data[a:b]) for a, b in itertools.pairwise(bounds - bounds[0])]
            values = np.stack(pictures).reshape(last - first, 2, *pictures[0].shape)
            yield [Pairs(video, first, *_converted(values, video, bound))]


def _converted(values: np.ndarray, video: VideoFrames, bound: float) -> tuple[np.ndarray, int]:
    """From TSN's 8 bits to ours, (pairs, 2, h, w) to (pairs, 2, H, W), and how many of these are clipped."""
    assert video.bound is not None
    height, width = values.shape[2:]
    flow = values.astype(np.float32) * np.float32(2 * video.bound / 255) - np.float32(video.bound)
    # what was at the end of the scale may have been beyond it
    ends = float(np.mean((values == 0) | (values == 255)))
    if (height, width) != (video.height, video.width):
        how = cv2.INTER_AREA if video.height < height else cv2.INTER_LINEAR
        planes = [cv2.resize(plane, (video.width, video.height), interpolation=how) for pair in flow for plane in pair]
        flow = np.stack(planes).reshape(len(values), 2, video.height, video.width)
        flow *= np.array([video.width / width, video.height / height], np.float32)[:, None, None]
    quantised, num_clipped = quantise_counting(flow, bound)
    return quantised, max(num_clipped, round(ends * flow.size))


def import_error(video: VideoFrames, bound: float) -> float:
    """How far a value of imported flow may be from what its tool had rounded, in pixels: half a step of its 8 bits and
    half of ours. What JPEG loses comes on top.
    """
    assert video.bound is not None
    return video.bound / 255 + bound / (2 * STEPS)


def write(
    path: Path,
    found: list[VideoFrames],
    results: Iterable[list[Pairs]],
    attributes: Mapping[str, object],
    report: Callable[[int], object],
) -> float:
    """Write a new flow shard at `path` from `results`, which come in order, with root `attributes`.

    `report` is told each number of pairs written. Returns the share of clipped values in the shard, 0 if it is empty.
    """
    clipped = dict.fromkeys((video.key for video in found), 0)
    with hdf5.created(path) as file:
        file.attrs.update(attributes)
        file.create_dataset(
            "video", data=[video.video for video in found], shape=(len(found),), dtype=h5py.string_dtype()
        )
        group = file.create_group("flow")
        for result in itertools.chain.from_iterable(results):
            video = result.video
            if result.first == 0:
                group.create_dataset(
                    video.key,
                    shape=video.shape,
                    dtype=np.uint8,
                    chunks=(1, *video.shape[1:]),
                    track_times=False,
                    **hdf5.blosc(*COMPRESSION),
                )
            group[video.key][result.first : result.first + len(result.values)] = result.values
            clipped[video.key] += result.num_clipped
            report(len(result.values))
        for key, dataset in group.items():
            dataset.attrs["clipped"] = clipped[key] / dataset.size
        for video in found:
            if video.bound is not None:
                group[video.key].attrs["imported_bound"] = video.bound
    num_values = sum(int(np.prod(video.shape)) for video in found)
    return sum(clipped.values()) / num_values if num_values else 0.0


def verify(path: Path, found: list[VideoFrames]) -> None:
    """`CcsError` unless the flow shard `path` holds T-1 written pairs of every video, and nothing else."""
    with hdf5.opened(path) as file:
        group = file["flow"]
        for video in found:
            shape = group[video.key].shape if video.key in group else None
            written = group[video.key].id.get_num_chunks() if shape else 0
            if shape != video.shape or written != video.num_frames - 1:
                raise CcsError(
                    f"{path}: expected {video.num_frames - 1} pairs of {video.width}x{video.height} for {video.video}, "
                    f"found {written}. Nothing was kept; please report this."
                )
        if len(group) != len(found) or len(file["video"]) != len(found):
            raise CcsError(
                f"{path}: expected {len(found)} videos, found {len(group)}. Nothing was kept; please report this."
            )
