"""Training shards: frames and flow of a shard's videos in one HDF5 file laid out for random snippets (rule `shards`).

    ccs shards --frames data/demo/frames/0003.h5 --flow data/demo/flow/0003.h5 --output data/demo/shards/0003.h5

In: a frames shard and its flow shard. Out: a training shard, which training and evaluation read by `ShardReader`.
A training shard of N videos holds, every video after the other in the order of their ids:

    video (N) ids, num_frames (N) T of each, height (N), width (N), clipped (N) share of flow values beyond the bound
    jpeg    uint8, all JPEGs of all videos end to end, contiguous
    offset  int64 (sum of T, + 1): frame k of the shard is jpeg[offset[k]:offset[k + 1]]
    flow/HxW  uint8 (sum of T-1, 2, H, W) for the videos of that size, x then y, 128 = no motion; a chunk is a pair
    attributes: format, bound, ccs, and all of the inputs' own as frames.NAME and flow.NAME

Few large datasets, as opening a dataset costs as much as decoding two pairs. benchmarks/README.md has the figures.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

import ccs
from ccs import hdf5
from ccs.hdf5 import reading
from ccs.settings import Flags
from ccs.shards.reader import FORMAT, ShardReader
from ccs.stage import CcsError, atomic, progress, run

__all__ = ["ShardReader", "main", "pack"]

COMPRESSION: tuple[hdf5.Compressor, int] = (
    "lz4hc",
    5,
)  # decodes twice as fast as Zstandard and takes 1.4 times the room
BLOCK = 64  # frames or pairs copied at a time


class _FramesAndFlow(NamedTuple):
    """A video as the two inputs have it."""

    jpeg: h5py.Dataset
    offset: np.ndarray  # int64 (T+1)
    flow: h5py.Dataset
    clipped: float

    @property
    def num_frames(self) -> int:
        return len(self.offset) - 1

    @property
    def size(self) -> str:
        return f"{self.flow.shape[2]}x{self.flow.shape[3]}"


def pack(frames: str | os.PathLike[str], flow: str | os.PathLike[str], output: str | os.PathLike[str]) -> None:
    """Write the training shard `output` of the videos of a frames shard and its flow shard, losing nothing.

    The same inputs give the same bytes. Memory is bounded by `BLOCK` frames or pairs. No videos are no error.

    Raises:
        CcsError: an input is missing, damaged or incomplete, or the two disagree.
    """
    frames, flow, output = Path(frames), Path(flow), Path(output)
    with hdf5.opened(frames) as frames_file, hdf5.opened(flow) as flow_file:
        ids = _ids(frames, frames_file)
        flow_ids = _ids(flow, flow_file)
        if ids != flow_ids:
            differing = sorted(set(ids) ^ set(flow_ids)) or ids
            raise CcsError(
                f"{flow}: expected flow of the {len(ids)} videos of {frames}, found {len(flow_ids)} videos; in one "
                f"only, or in another order: {', '.join(differing[:3])}; run the stage `flow` again"
            )
        with reading(flow, "its flow bound"):
            bound = float(flow_file.attrs["bound"])
        videos = [_source(video, row, frames, frames_file, flow, flow_file) for row, video in enumerate(ids)]
        # version 1.10 of the format: checksums over the structure, and a file never closed does not open
        with atomic(output) as part, hdf5.created(part, libver=("v110", "v110")) as out:
            out.attrs.update({"ccs": ccs.__version__, "format": FORMAT, "bound": bound})
            for name, source in (("frames", frames_file), ("flow", flow_file)):
                out.attrs.update({f"{name}.{key}": value for key, value in source.attrs.items()})
            out.create_dataset("video", data=ids, shape=(len(ids),), dtype=h5py.string_dtype())
            out["num_frames"] = np.array([video.num_frames for video in videos], np.int64)
            out["height"] = np.array([video.flow.shape[2] for video in videos], np.int64)
            out["width"] = np.array([video.flow.shape[3] for video in videos], np.int64)
            out["clipped"] = np.array([video.clipped for video in videos], np.float64)
            _copy(ids, videos, frames, flow, out)


def _ids(path: Path, file: h5py.File) -> list[str]:
    with reading(path, "its list of videos"):
        return hdf5.texts(file, "video")


def _source(
    video: str, row: int, frames: Path, frames_file: h5py.File, flow: Path, flow_file: h5py.File
) -> _FramesAndFlow:
    with reading(frames, video):
        group = frames_file[f"frames/{row:06d}"]
        jpeg, offset = hdf5.frames(group)
        size = int(group.attrs["height"]), int(group.attrs["width"])
    with reading(flow, video):
        pairs = hdf5.dataset(flow_file, f"flow/{row:06d}", np.generic, 4)
        clipped = float(pairs.attrs.get("clipped", np.nan))
    expected = len(offset) - 2, 2, *size
    if pairs.shape != expected or pairs.dtype != np.uint8:
        raise CcsError(
            f"{flow}: expected uint8 flow {expected} of {video}, a pair fewer than its {len(offset) - 1} frames in "
            f"{frames} and of their size, found {pairs.dtype} {pairs.shape}; run the stage `flow` again"
        )
    return _FramesAndFlow(jpeg, offset, pairs, clipped)


def _copy(ids: list[str], videos: list[_FramesAndFlow], frames: Path, flow: Path, out: h5py.File) -> None:
    jpeg = out.create_dataset("jpeg", (sum(len(video.jpeg) for video in videos),), np.uint8)
    offset = out.create_dataset("offset", (sum(video.num_frames for video in videos) + 1,), np.int64)
    num_pairs: dict[str, int] = {}
    for video in videos:
        num_pairs[video.size] = num_pairs.get(video.size, 0) + len(video.flow)
    group = out.create_group("flow")
    for size, pairs in sorted(num_pairs.items()):
        plane = tuple(map(int, size.split("x")))
        group.create_dataset(size, (pairs, 2, *plane), np.uint8, chunks=(1, 2, *plane), **hdf5.blosc(*COMPRESSION))
    byte, frame, pair = 0, 0, dict.fromkeys(num_pairs, 0)
    for name, video in zip(progress(ids, desc="shards", unit="video"), videos, strict=True):
        offset[frame : frame + video.num_frames + 1] = video.offset + byte
        for first in range(0, video.num_frames, BLOCK):
            bounds = video.offset[first : first + BLOCK + 1]
            with reading(frames, name):
                data = video.jpeg[bounds[0] : bounds[-1]]
                starts = bounds[:-1] - bounds[0]
                if np.any(data[starts] != 0xFF) or np.any(data[starts + 1] != 0xD8):
                    raise ValueError("a frame is not a JPEG")
            jpeg[byte + bounds[0] : byte + bounds[-1]] = data
        for first in range(0, len(video.flow), BLOCK):
            with reading(flow, name):
                values = video.flow[first : first + BLOCK]
                if not values.all():  # HDF5 reads zeros where nothing was written
                    raise ValueError("flow has values 0, which the stage `flow` never writes")
            start = pair[video.size] + first
            group[video.size][start : start + len(values)] = values
        byte += len(video.jpeg)
        frame += video.num_frames
        pair[video.size] += len(video.flow)


def main(argv: Sequence[str] | None = None) -> None:
    """The stage `shards`: parse `argv` and pack one shard."""
    parser = Flags(prog="ccs shards", description="Frames and flow of a shard -> training shard.")
    parser.add_argument("--frames", required=True, metavar="FILE.h5", help="frames shard")
    parser.add_argument("--flow", required=True, metavar="FILE.h5", help="its flow shard")
    parser.add_argument("--output", required=True, metavar="FILE.h5", help="training shard to write")
    args = parser.parse_args(argv)
    pack(args.frames, args.flow, args.output)


if __name__ == "__main__":
    run(main)
