"""Datasets: a directory of videos and its split lists in, one `Manifest` out; the pipeline's first step.

Each adapter is a module of this package with `manifest(dataset, settings, split) -> Manifest`, chosen by
`settings["adapter"]`. Everything that can be wrong with the videos' names and lists is found here, before any work
starts; no video is opened. `write` and `read` keep the manifest as `data/{dataset}/manifest.csv`.
"""

from __future__ import annotations

import csv
import hashlib
import importlib
import json
import os
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import NamedTuple

from ccs.stage import CcsError, atomic

ADAPTERS = ("demo", "folder", "hmdb51", "something_v2", "ucf101")
SPLITS = ("train", "val", "test", "unlabelled", "unused")
_UNSAFE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # control characters, and bytes that are not UTF-8
_COLUMNS = ("video", "path", "label", "class_name", "shard")


class Video(NamedTuple):
    """One video: its id, its file, its label (-1 and class name "" where unknown) and its part of the split."""

    video: str
    path: str
    label: int
    class_name: str
    split: str


@dataclass(frozen=True)
class Manifest:
    """The videos of one dataset, sorted by id, under one of its splits; `classes[label]` is a class's name.

    `rendered` marks videos that the pipeline makes itself, whose files need not exist yet.
    """

    dataset: str
    classes: tuple[str, ...]
    videos: tuple[Video, ...]
    rendered: bool = field(default=False, compare=False)


def load(dataset: str, settings: Mapping, split: int = 1) -> Manifest:
    """The manifest of `dataset`, from its block of the configuration, under split number `split`.

    Raises `CcsError` for a missing root or list, absent videos beyond `max_absent_fraction`, unknown classes, ids
    that occur twice, malformed lists, or no videos at all. Notes that are no errors go to standard error.
    """
    adapter = settings.get("adapter")
    if adapter not in ADAPTERS:
        raise CcsError(f"dataset {dataset}: adapter is {adapter!r}: choose one of {', '.join(ADAPTERS)}")
    _check_fractions(dataset, settings)
    # By name, so that a stage which only reads manifests does not depend on the code of every adapter.
    manifest = importlib.import_module(f"ccs.datasets.{adapter}").manifest(dataset, settings, split)
    _check(manifest)
    return replace(manifest, rendered=True) if adapter == "demo" else manifest


def splits(settings: Mapping) -> tuple[int, ...]:
    """The configured split numbers, `(1,)` unless `settings["splits"]` says otherwise."""
    numbers = settings.get("splits", (1,))
    if (
        not isinstance(numbers, (list, tuple))
        or not numbers
        or not all(isinstance(number, int) and number >= 1 for number in numbers)
        or len(set(numbers)) < len(numbers)
    ):
        raise CcsError(f"splits is {numbers!r}: give a list of different split numbers, such as [1] or [1, 2, 3]")
    return tuple(numbers)


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

    Columns: video, path, label, class_name, shard (four digits), split1 (one of `SPLITS`; one column per
    split number), dataset, classes. The first row's `classes` is a JSON list of all class names in label order, so
    that classes without a video are kept without rows that are not videos; it is empty elsewhere. Raises `CcsError`
    where the splits disagree about a class or a video, or `num_shards` is not 1 to 9999.
    """
    if not isinstance(num_shards, int) or not 1 <= num_shards <= 9999:
        raise CcsError(f"shards is {num_shards!r}: expected a whole number from 1 to 9999")
    first = next(iter(manifests.values()))
    parts: dict[str, dict[int, str]] = defaultdict(dict)
    facts: dict[str, tuple[str, int, str]] = {}
    for number, manifest in manifests.items():
        if (manifest.dataset, manifest.classes) != (first.dataset, first.classes):
            raise CcsError(f"{path}: the classes of split {number} differ from those of split {next(iter(manifests))}")
        for video in manifest.videos:
            if facts.setdefault(video.video, video[1:4]) != video[1:4]:
                raise CcsError(
                    f"{path}: {video.video} is {facts[video.video]} in one split and {video[1:4]} in split {number}"
                )
            parts[video.video][number] = video.split
    if not facts:
        raise CcsError(f"{path}: dataset {first.dataset} has no videos")
    classes = json.dumps(first.classes, ensure_ascii=False)
    with atomic(path) as part, open(part, "w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow([*_COLUMNS, *(f"split{number}" for number in manifests), "dataset", "classes"])
        for video in sorted(facts):
            shard = _shard_name(shard_of(video, num_shards))
            in_split = [parts[video].get(number, "unused") for number in manifests]
            table.writerow([video, *facts[video], shard, *in_split, first.dataset, classes])
            classes = ""


def read(path: str | os.PathLike[str], split: int = 1) -> Manifest:
    """The manifest that `write` stored, under split number `split`.

    Raises `CcsError` where the file is missing, has no such split, or is not such a file.
    """
    csv.field_size_limit(2**31 - 1)  # the list of classes is one field
    try:
        with open(path, encoding="utf-8", newline="") as file:
            rows = csv.reader(file)
            header = next(rows, [])
            column = {name: index for index, name in enumerate(header)}
            missing = [name for name in (*_COLUMNS, f"split{split}", "dataset", "classes") if name not in column]
            if missing:
                raise CcsError(
                    f"{path}: expected the column {missing[0]}, found {', '.join(header) or 'an empty file'}: "
                    f"write it again with `python -m ccs.datasets`, with {split} among the dataset's splits"
                )
            part = column[f"split{split}"]
            dataset, classes, videos = "", (), []
            for row in rows:
                if not videos:
                    dataset, classes = row[column["dataset"]], tuple(json.loads(row[column["classes"]]))
                videos.append(Video(row[0], row[1], int(row[2]), row[3], row[part]))
    except FileNotFoundError:
        raise CcsError(f"{path}: no such manifest: write it with `python -m ccs.datasets`") from None
    except (ValueError, IndexError, csv.Error) as error:
        raise CcsError(f"{path}: not a manifest ({error}): write it again with `python -m ccs.datasets`") from error
    return Manifest(dataset, classes, tuple(videos))


def _shard_name(shard: int) -> str:
    return f"{shard:04d}"


def _check_fractions(dataset: str, settings: Mapping) -> None:
    for name in ("val_fraction", "test_fraction", "max_absent_fraction"):
        value = settings.get(name, 0)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
            raise CcsError(f"dataset {dataset}: {name} is {value!r}: expected a number from 0 to 1")


def _check(manifest: Manifest) -> None:
    """What must hold whatever the adapter."""
    where = f"dataset {manifest.dataset}"
    if not manifest.videos:
        raise CcsError(f"{where}: no videos at all")
    ids = [video.video for video in manifest.videos]
    if any(a >= b for a, b in pairwise(ids)):
        raise CcsError(f"{where}: video ids are not unique and sorted")
    if _UNSAFE.search("".join(ids)) or _UNSAFE.search("".join(video.path for video in manifest.videos)):
        bad = next(video.path for video in manifest.videos if _UNSAFE.search(video.video + video.path))
        raise CcsError(
            f"{where}: the path {bad!r} has a control character or is not UTF-8, which tables cannot hold: rename it"
        )
