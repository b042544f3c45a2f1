"""Random access to training shards, the files that `ccs.shards` writes: for training and evaluation."""

from __future__ import annotations

import itertools
import json
import math
import operator
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import h5py
import numpy as np
import simplejpeg

from ccs import hdf5
from ccs.hdf5 import reading
from ccs.stage import CcsError

FORMAT = 1  # of the layout that `ccs.shards` describes; others are refused


class ShardReader:
    """Random access to the videos of training shards.

    Reads the shards' indexes when made; opens a shard at the first read from it, in each process anew. It can be
    pickled and survives a fork: a process never reads through a file that another has opened. One reader is for one
    thread at a time.

    Args:
        paths: the training shards, in any order; each video may be in one of them only.
        max_open: files kept open at a time in a process (about 0.1 MiB each); the least recently used is closed.

    Attributes:
        num_frames: video id -> T, in the order of the shards.
        bound: pixels of motion at which flow was clipped (value 1 or 255), the same in all shards.
        preparation: settings of the stages `frames` and `flow` that the shards were made with, and the versions of
            ffmpeg and of the flow backend, by these four names; {} where the shards do not say.

    Raises:
        CcsError: no shards, a shard is missing, cut short, no training shard or of another format; a video is in two
            shards; the shards' bounds or settings differ.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], max_open: int = 256) -> None:
        self.paths = tuple(Path(path) for path in paths)
        self.max_open = max_open
        self.num_frames: dict[str, int] = {}
        if not self.paths:
            raise CcsError("training shards: expected one or more files, found none; run the stage `shards` first")
        self._versions = [_version(path) for path in self.paths]
        indexes = [_read_index(path) for path in self.paths]
        self.bound: float = indexes[0].bound
        self.preparation: dict[str, Any] = indexes[0].preparation
        for shard, (path, index) in enumerate(zip(self.paths, indexes, strict=True)):
            for stage in ("frames", "flow"):
                ours, other = (_of_content(each.preparation.get(stage)) for each in (index, indexes[0]))
                if ours != other:
                    raise CcsError(
                        f"{path}: expected the settings of {stage} as in {self.paths[0]}, {other}, found {ours}; give "
                        "shards made with one configuration"
                    )
            if index.bound != self.bound:
                raise CcsError(
                    f"{path}: expected flow bound {self.bound} as in {self.paths[0]}, found {index.bound}; "
                    "give shards made with one setting of flow.bound"
                )
            for video, num_frames in zip(index.videos, index.num_frames.tolist(), strict=True):
                if video in self.num_frames:
                    other = next(s for s in range(shard) if video in indexes[s].videos)
                    raise CcsError(
                        f"{path}: expected every video once, found {video} also in {self.paths[other]}; "
                        "give each shard once, and shards of one data set"
                    )
                self.num_frames[video] = num_frames
        # one array of numbers, not an object per video: forked workers share its memory
        self._row = {video: row for row, video in enumerate(self.num_frames)}
        self._places = np.concatenate([index.places(shard) for shard, index in enumerate(indexes)])
        self._open: OrderedDict[int, _OpenShard] = OrderedDict()
        self._pid = os.getpid()

    def __contains__(self, video: str) -> bool:
        return video in self._row

    def frames(self, video: str, indices: Sequence[int]) -> np.ndarray:
        """Frames of `video`, uint8 (n, H, W, 3) RGB, in the order of `indices` (0..T-1; any order, repeats allowed).

        Raises:
            CcsError: unknown video, index out of range, damaged shard.
        """
        place = self._place(video)
        indices = _checked(video, indices, self.num_frames[video], "frames")
        if not indices:
            return np.empty((0, place.height, place.width, 3), np.uint8)
        shard = self._opened(place.shard)
        images = np.empty((len(indices), place.height, place.width, 3), np.uint8)
        row = {index: row for row, index in enumerate(indices)}
        with reading(self.paths[place.shard], video):
            runs = runs_of(indices)
            first = runs[0][0]
            offset = shard.offset[place.first_frame + first : place.first_frame + runs[-1][1] + 1].tolist()
            for start, stop in runs:
                begin = offset[start - first]
                data = shard.jpeg[begin : offset[stop - first]]
                for index in range(start, stop):
                    jpeg = data[offset[index - first] - begin : offset[index - first + 1] - begin]
                    decode_jpeg(jpeg, place, out=images[row[index]])
        for at, index in enumerate(indices):
            if row[index] != at:
                images[at] = images[row[index]]
        return images

    def flow(self, video: str, indices: Sequence[int]) -> np.ndarray:
        """Flow of `video`, uint8 (n, 2, H, W), x then y, 128 = no motion, in the order of `indices` (0..T-2).

        Pair t is the motion from frame t to frame t+1; a value is 128 + pixels * 127 / `bound`.

        Raises:
            CcsError: unknown video, index out of range, damaged shard.
        """
        place = self._place(video)
        indices = _checked(video, indices, self.num_frames[video] - 1, "flow pairs")
        if not indices:
            return np.empty((0, 2, place.height, place.width), np.uint8)
        runs = runs_of(indices)
        with reading(self.paths[place.shard], video):
            dataset = self._opened(place.shard).flow(place.height, place.width)
            flow = _read_pairs(dataset, place, runs)
            if 0 in flow[:, 0, 0, 0].tolist():  # HDF5 reads zeros for lost chunks
                raise ValueError("flow has values 0, which no shard holds")
        ascending = list(itertools.chain.from_iterable(itertools.starmap(range, runs)))
        if indices == ascending:  # the usual case
            return flow
        row = {index: row for row, index in enumerate(ascending)}
        return flow[[row[index] for index in indices]]

    def close(self) -> None:
        """Close this process's files; the next read opens them again."""
        while self._open:
            self._open.popitem()[1].file.close()

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_open": OrderedDict()}

    def _place(self, video: str) -> _Place:
        row = self._row.get(video)
        if row is None:
            raise CcsError(
                f"{video}: expected a video of the {len(self.paths)} training shard(s) from {self.paths[0]} on, found "
                "none of this id; it may be quarantined, or its shard not given"
            )
        return _Place(*self._places[row].tolist())

    def _opened(self, shard: int) -> _OpenShard:
        if self._pid != os.getpid():
            self.close()  # what this process inherited: its own copies of the handles, the parent's stay open
            self._pid = os.getpid()
        if shard not in self._open:
            while len(self._open) >= self.max_open:
                self._open.popitem(last=False)[1].file.close()
            path = self.paths[shard]
            file = hdf5.opened(path)
            if _version(path) != self._versions[shard]:
                file.close()
                raise CcsError(
                    f"{path}: expected the training shard that was there at the start, found another written since; "
                    "start again, and let the stage `shards` finish first"
                )
            self._open[shard] = _OpenShard(file)
        self._open.move_to_end(shard)
        return self._open[shard]


class _Place(NamedTuple):
    """Where a video is: its shard's position among the paths, its first frame and pair there, its size."""

    shard: int
    first_frame: int
    first_pair: int  # in the dataset of its size
    height: int
    width: int


class _OpenShard:
    """A shard's file and datasets, opened once; the datasets of at most 16 sizes of flow are kept."""

    def __init__(self, file: h5py.File) -> None:
        self.file, self.jpeg, self.offset = file, file["jpeg"], file["offset"]
        self._flow: dict[tuple[int, int], h5py.Dataset] = {}

    def flow(self, height: int, width: int) -> h5py.Dataset:
        if (height, width) not in self._flow:
            if len(self._flow) == 16:
                del self._flow[next(iter(self._flow))]
            self._flow[height, width] = self.file[f"flow/{height}x{width}"]
        return self._flow[height, width]


class _Index(NamedTuple):
    """What a shard's file says of its videos."""

    bound: float
    preparation: dict[str, Any]
    videos: dict[str, None]  # ordered, and quick to search
    num_frames: np.ndarray  # int64 (N), as the next two
    height: np.ndarray
    width: np.ndarray

    def places(self, shard: int) -> np.ndarray:
        """A `_Place` per row: int64 (N, 5)."""
        places = np.zeros((len(self.videos), 5), np.int64)
        first_pair: dict[tuple[int, int], int] = {}
        first_frame = 0
        sizes = zip(self.num_frames.tolist(), self.height.tolist(), self.width.tolist(), strict=True)
        for row, (num_frames, *size) in enumerate(sizes):
            pair = first_pair.get(tuple(size), 0)
            places[row] = _Place(shard, first_frame, pair, *size)
            first_frame += num_frames
            first_pair[tuple(size)] = pair + num_frames - 1
        return places


def _read_index(path: Path) -> _Index:
    with hdf5.opened(path) as file:
        found = file.attrs.get("format")
        if found != FORMAT:
            raise CcsError(
                f"{path}: expected a training shard of format {FORMAT}, found "
                f"{'no training shard' if found is None else f'format {found}'}; make it by the stage `shards`"
            )
        with reading(path, "its index"):
            videos = dict.fromkeys(hdf5.texts(file, "video"))
            columns = [
                hdf5.dataset(file, name, np.integer, 1)[:].astype(np.int64)
                for name in ("num_frames", "height", "width")
            ]
            index = _Index(float(file.attrs["bound"]), _preparation(file.attrs), videos, *columns)
            rows: dict[str, int] = {}
            for num_frames, height, width in zip(*(column.tolist() for column in columns), strict=True):
                rows[f"{height}x{width}"] = rows.get(f"{height}x{width}", 0) + num_frames - 1
            # the one 0 of a shard without videos was never written
            offset = hdf5.dataset(file, "offset", np.int64, 1) if videos else file["offset"]
            jpeg = hdf5.dataset(file, "jpeg", np.uint8, 1)
            if (
                any(len(column) != len(videos) or np.any(column < 1) for column in columns)
                or offset.shape != (columns[0].sum() + 1,)
                or offset[-1] != len(jpeg)
                or {size: _num_pairs(file["flow"], size) for size in file["flow"]} != rows
                or not math.isfinite(index.bound)
            ):
                raise ValueError("its parts do not fit together")
            return index


def _num_pairs(flow: h5py.Group, size: str) -> int:
    """Of the videos of one size, such as 240x320."""
    pairs = hdf5.dataset(flow, size, np.uint8, 4)
    if pairs.shape[1:] != (2, *map(int, size.split("x"))):
        raise ValueError(f"flow of {size} has the shape {pairs.shape}")
    return len(pairs)


def _of_content(settings: dict[str, Any] | None) -> dict[str, Any] | None:
    """Settings, without what decides which videos there are and changes none: older shards do not have it."""
    return settings and {name: value for name, value in settings.items() if name != "max_missing_fraction"}


def _preparation(attributes: Mapping[str, Any]) -> dict[str, Any]:
    names = {stage: f"{stage}.settings" for stage in ("frames", "flow")}
    found = {stage: json.loads(attributes[name]) for stage, name in names.items() if name in attributes}
    if "frames.ffmpeg" in attributes:
        found["ffmpeg"] = str(attributes["frames.ffmpeg"])
    if "flow.backend" in attributes:
        found["backend"] = f"{attributes['flow.backend']} {attributes['flow.backend_version']}"
    return found


def _version(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None  # opening it says what is wrong
    return status.st_size, status.st_mtime_ns


def _checked(video: str, indices: Sequence[int], count: int, what: str) -> list[int]:
    try:
        indices = [operator.index(index) for index in indices]
    except TypeError as error:
        raise CcsError(f"{video}: expected whole numbers as indices of {what}, found {indices!r}") from error
    if indices and not (min(indices) >= 0 and max(indices) < count):
        wrong = next(index for index in indices if not 0 <= index < count)
        raise CcsError(f"{video}: expected indices of {what} in 0..{count - 1}, found {wrong}")
    return indices


def runs_of(indices: Iterable[int]) -> list[tuple[int, int]]:
    """The distinct `indices` as runs (start, stop) of neighbours, ascending; each is one read."""
    runs: list[tuple[int, int]] = []
    for index in sorted(set(indices)):
        if runs and runs[-1][1] == index:
            runs[-1] = runs[-1][0], index + 1
        else:
            runs.append((index, index + 1))
    return runs


def _read_pairs(dataset: h5py.Dataset, place: _Place, runs: list[tuple[int, int]]) -> np.ndarray:
    """The pairs of every run, uint8 (n, 2, H, W), in one array from the start: joining megabytes would cost a copy."""
    if len(runs) == 1:
        start, stop = runs[0]
        return dataset[place.first_pair + start : place.first_pair + stop]
    flow = np.empty((sum(stop - start for start, stop in runs), 2, place.height, place.width), np.uint8)
    space, row = dataset.id.get_space(), 0
    for start, stop in runs:
        part = flow[row : row + stop - start]
        space.select_hyperslab((place.first_pair + start, 0, 0, 0), part.shape)
        dataset.id.read(h5py.h5s.create_simple(part.shape), space, part)
        row += stop - start
    return flow


class _Sized(Protocol):
    @property
    def height(self) -> int: ...

    @property
    def width(self) -> int: ...


def decode_jpeg(data: np.ndarray, place: _Sized, out: np.ndarray | None = None) -> np.ndarray:
    """A frame, uint8 (H, W, 3) RGB, in `out` where it is given; `ValueError` where it is no whole JPEG of its size."""
    image = simplejpeg.decode_jpeg(data, "RGB", buffer=out)
    if image.shape[:2] != (place.height, place.width):
        raise ValueError(f"a frame is not a JPEG of {place.width}x{place.height}")
    return image
