"""Manifests: what the pipeline knows of a dataset's videos, kept as `data/{dataset}/manifest.csv`.

`ccs.datasets.adapters` makes them of directories and split lists; every later stage reads them here. A row is a video:
video, path, label, class_name, shard (four digits), split1 (one of `SPLITS`; one column per split number), dataset,
classes; and those of start, end (seconds) and num_frames that a list says of some video of the data set. The first
row's `classes` is a JSON list of all class names in label order, so that classes without a video are kept without rows
that are not videos; it is empty elsewhere.
"""

from __future__ import annotations

import csv
import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ccs.stage import CcsError, atomic

SPLITS = ("train", "val", "test", "unlabelled", "unused")
_COLUMNS = ("video", "path", "label", "class_name", "shard")
_EXTENT = ("start", "end", "num_frames")


class VideoFile(NamedTuple):
    """A video's id and its file, or the directory of its frames; how much of it there is, where a list says so."""

    video: str
    path: str
    start: float | None = None  # seconds
    end: float | None = None
    num_frames: int | None = None  # of a directory


class Video(NamedTuple):
    """One video: its id, its file, its label (-1 and class name "" where unknown) and its part of the split."""

    video: str
    path: str
    label: int
    class_name: str
    split: str
    start: float | None = None  # of the file's clip, in seconds
    end: float | None = None
    num_frames: int | None = None  # that a list says of a directory of frames

    @property
    def extent(self) -> tuple[float | None, float | None, int | None]:
        """Start, end and number of frames."""
        return self.start, self.end, self.num_frames


@dataclass(frozen=True)
class Manifest:
    """The videos of one dataset, sorted by id, under one of its splits; `classes[label]` is a class's name.

    `rendered` marks videos that the pipeline makes itself, whose files need not exist yet; `absent` are listed videos
    that are not there, and where they are listed, as a text each.
    """

    dataset: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    rendered: bool = field(default=False, compare=False)
    absent: tuple[str, ...] = field(default=(), compare=False)


def shard_of(video: str, num_shards: int) -> int:
    """The shard (0 to `num_shards` - 1) of a video id: the first 64 bits of the id's SHA-256, big-endian, modulo."""
    return int.from_bytes(hashlib.sha256(video.encode()).digest()[:8], "big") % num_shards


def shard_digests(manifest: Manifest, num_shards: int) -> dict[str, str]:
    """A digest per shard that has videos, such as `{"0003": "9f86d081884c7d65"}`, of what its frames depend on.

    It covers ids, file sizes and modification times (ns), but no paths: a moved dataset is not a changed one.
    Rendered videos count by their ids alone. Raises `CcsError` where a file is gone.
    """
    digests = defaultdict(hashlib.sha256)
    for video in manifest.videos:
        line = video.video
        if not manifest.rendered:
            try:
                status = os.stat(video.path)
            except OSError as error:
                raise CcsError(
                    f"{video.path}: expected the video {video.video}, found none ({error.strerror})"
                ) from None
            line = f"{video.video}\0{status.st_size}\0{status.st_mtime_ns}"
        if video.extent != (None, None, None):
            line += f"\0{video.extent}"
        digests[shard_of(video.video, num_shards)].update(f"{line}\n".encode())
    return {_shard_name(shard): digests[shard].hexdigest()[:16] for shard in sorted(digests)}


def split_digest(manifest: Manifest) -> str:
    """A digest of what training depends on: the classes, and id, label and split of every video in use."""
    digest = hashlib.sha256(json.dumps(manifest.classes).encode())
    for video in manifest.videos:
        if video.split not in ("unlabelled", "unused"):
            digest.update(f"{video.video}\0{video.label}\0{video.split}\n".encode())
    return digest.hexdigest()[:16]


def write(path: str | os.PathLike[str], manifests: Mapping[int, Manifest], num_shards: int) -> None:
    """Write the manifests of a dataset's splits, by split number, as one CSV file.

    Raises `CcsError` where the splits disagree about a class or a video, or `num_shards` is not 1 to 9999.
    """
    if not isinstance(num_shards, int) or not 1 <= num_shards <= 9999:
        raise CcsError(f"shards is {num_shards!r}: expected a whole number from 1 to 9999")
    first = next(iter(manifests.values()))
    parts: dict[str, dict[int, str]] = defaultdict(dict)
    facts: dict[str, Video] = {}
    for number, manifest in manifests.items():
        if (manifest.dataset, manifest.classes) != (first.dataset, first.classes):
            raise CcsError(f"{path}: the classes of split {number} differ from those of split {next(iter(manifests))}")
        for video in manifest.videos:
            other = facts.setdefault(video.video, video)
            if other._replace(split=video.split) != video:
                raise CcsError(
                    f"{path}: {video.video} is {_facts(other)} in one split and {_facts(video)} in split {number}"
                )
            parts[video.video][number] = video.split
    if not facts:
        raise CcsError(f"{path}: dataset {first.dataset} has no videos")
    classes = json.dumps(first.classes, ensure_ascii=False)
    told = [name for name in _EXTENT if any(getattr(video, name) is not None for video in facts.values())]
    with atomic(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*_COLUMNS, *(f"split{number}" for number in manifests), "dataset", "classes", *told])
        for video in sorted(facts):
            shard = _shard_name(shard_of(video, num_shards))
            in_split = [parts[video].get(number, "unused") for number in manifests]
            extent = [getattr(facts[video], name) for name in told]
            table.writerow([video, *facts[video][1:4], shard, *in_split, first.dataset, classes, *extent])
            classes = ""


def read(path: str | os.PathLike[str], split: int = 1) -> Manifest:
    """The manifest that `write` stored, under split number `split`.

    Raises `CcsError` where the file is missing, has no such split, or is not such a file.
    """
    columns = ("video", "path", "label", "class_name", f"split{split}")
    rows = _read(path, (*columns, "dataset", "classes"), _EXTENT)
    if not rows:
        return Manifest("", (), ())
    try:
        dataset, classes = rows[0][5], json.loads(rows[0][6])
        videos = tuple(
            Video(video, file, int(label), name, part, *_extent(extent))
            for video, file, label, name, part, _, _, *extent in rows
        )
        _check(classes, videos)
    except (ValueError, RecursionError) as error:
        raise _no_manifest(path, error) from error
    return Manifest(dataset, tuple(classes), videos)


def _check(classes: object, videos: Sequence[Video]) -> None:
    """Raises `ValueError` where classes are no names, or a video is not of them or of no part of a split."""
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise ValueError(f"classes are {classes!r:.80} and not a list of names")
    of_label = {-1: "", **dict(enumerate(classes))}
    for video in videos:
        if of_label.get(video.label) != video.class_name:
            raise ValueError(
                f"{video.video} has the label {video.label} and the class {video.class_name!r}, the {len(classes)} "
                f"classes have {of_label.get(video.label)!r} there"
            )
        if video.split not in SPLITS:
            raise ValueError(f"{video.video} is in {video.split!r} and in none of {', '.join(SPLITS)}")


def read_shard(path: str | os.PathLike[str], shard: str) -> tuple[str, list[VideoFile]]:
    """The name of the dataset, and the videos of one shard, such as "0003", sorted by id.

    Raises `CcsError` where the file is not such a file, or has no video in this shard.
    """
    rows = _read(path, ("video", "path", "shard", "dataset"), _EXTENT)
    try:
        videos = [
            VideoFile(video, file, *_extent(extent))
            for video, file, number, _, *extent in rows
            if int(number) == int(shard)
        ]
    except ValueError as error:
        raise CcsError(f"{path}: expected numbers of shards, and one such as 0003, found {shard!r}: {error}") from error
    if not videos:
        raise CcsError(f"{path}: no video is in shard {shard!r}; there are {len(rows)} in others")
    return rows[0][3], sorted(videos)


def read_ids(path: str | os.PathLike[str]) -> set[str]:
    """The ids of all videos. Raises `CcsError` where the file is not such a file."""
    return {video for (video,) in _read(path, ("video",))}


def _extent(cells: Sequence[str]) -> tuple[float | None, float | None, int | None]:
    """What the columns `_EXTENT` say. Raises `ValueError` where that are no numbers."""
    start, end, num_frames = cells
    return float(start) if start else None, float(end) if end else None, int(num_frames) if num_frames else None


def _facts(video: Video) -> tuple:
    """What is the same in every split."""
    return (*video[1:4], *(each for each in video.extent if each is not None))


def _read(path: str | os.PathLike[str], columns: Sequence[str], also: Sequence[str] = ()) -> list[list[str]]:
    """These columns of every row; of those in `also` that are not there, "" for each row."""
    csv.field_size_limit(2**31 - 1)  # the list of classes is one field
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            if missing := [name for name in columns if name not in header]:
                hint = (
                    f", with {missing[0].removeprefix('split')} among the dataset's splits"
                    if missing[0].startswith("split")
                    else ""
                )
                raise CcsError(
                    f"{path}: expected the column {missing[0]}, found {', '.join(header) or 'an empty file'}: "
                    f"write it again with `python -m ccs.datasets`{hint}"
                )
            places = [header.index(name) for name in columns]
            also_places = [header.index(name) if name in header else None for name in also]
            return [
                [row[place] for place in places] + ["" if place is None else row[place] for place in also_places]
                for row in rows
            ]
    except FileNotFoundError:
        raise CcsError(
            f"{path}: expected a manifest, found no such manifest: write it with `python -m ccs.datasets`"
        ) from None
    except (OSError, ValueError, IndexError, csv.Error) as error:
        raise _no_manifest(path, error) from error


def _no_manifest(path: str | os.PathLike[str], error: Exception) -> CcsError:
    return CcsError(f"{path}: not a manifest ({error}): write it again with `python -m ccs.datasets`")


def _shard_name(shard: int) -> str:
    return f"{shard:04d}"
