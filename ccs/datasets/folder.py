"""Your own videos: `root/CLASS/*.mp4` (or .avi, .webm, .mkv, .mov ...), divided by a fraction or by directories.

Where `root` has train/ and test/ (and perhaps val/), each of which has CLASS/ directories, these are the splits. Else a
share `test_fraction` of every class is the test split: a class's videos are ranked by a hash of seed and id, so that a
new video moves at most one other. `val` is taken from `train` in the same way by `val_fraction`, unless root/val is
there. Classes are numbered in the order of their sorted names; a video's id is CLASS/FILE without the extension.
Folders whose names differ in their Unicode form alone are one class.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Annotated

from ccs.datasets.disk import (
    EXTENSIONS,
    Listing,
    directory,
    extensions,
    finish,
    form,
    listing,
    nfc,
    note,
    scan,
    stem,
)
from ccs.datasets.holdout import hold_out
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import DatasetSettings, Directory
from ccs.settings import Field, Gt, Lt, Number, settings
from ccs.stage import CcsError

_SPLITS = ("train", "val", "test")


@settings
class Settings(DatasetSettings):
    """Your own videos, root/CLASS/VIDEO or root/train/CLASS/VIDEO and root/test/CLASS/VIDEO."""

    root: Directory = Field(kw_only=True)
    """directory of the videos, relative to the working directory"""
    test_fraction: Annotated[Number, Gt(0), Lt(1)] = 0.2
    """share of the videos that are for testing, where there are no folders train and test"""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of the only split, 1; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    if split != 1:
        raise CcsError(f"dataset {dataset}: split {split} of a folder does not exist: only 1 does")
    root = directory(dataset, "root", settings.root, "the videos, CLASS/*.mp4")
    parts = _parts(dataset, root)
    ignored: list[str] = []
    videos = [video for part, path in parts.items() for video in _videos(dataset, path, part, ignored)]
    if ignored:
        text = f"{len(ignored)} files below {root} are no videos in a class directory and are left out"
        note(dataset, f"{text}: {extensions(ignored)}")
    if not videos:
        raise CcsError(f"{root}: no videos at all: expected CLASS/*.mp4 (or {EXTENSIONS})")
    _check_unique(videos)
    classes = sorted({video.class_name for video in videos})
    if "test" in parts:
        _check_classes(parts, videos)
    labels = {name: label for label, name in enumerate(classes)}
    videos = [video._replace(label=labels[video.class_name]) for video in videos]
    if "test" not in parts:
        videos = _divide(videos, "test", settings.test_fraction, settings.seed, at_least=1)
    if "val" not in parts:
        videos = _divide(videos, "val", settings.val_fraction, settings.seed)
    return finish(dataset, classes, videos)


def _parts(dataset: str, root: str) -> dict[str, str]:
    """The directory of each split, or of `train` alone where the classes are directly below `root`."""
    top = scan(root)
    _check_links(root, top)
    folders = set(top.folders)
    if not {"train", "test"} <= folders:
        if folders and folders <= set(_SPLITS):
            raise CcsError(
                f"{root}: expected train/ and test/, found only {' and '.join(sorted(folders))}: add the other one, "
                "or point `root` at the directory of the classes to divide them by test_fraction"
            )
        return {"train": root}
    if others := sorted(set(listing(dataset, root).folders) - set(_SPLITS)):
        raise CcsError(
            f"{root}: beside train/ and test/ only val/ is expected, found {', '.join(others)}: "
            "move it into the split that it belongs to"
        )
    return {part: os.path.join(root, part) for part in _SPLITS if part in folders}


def _videos(dataset: str, path: str, split: str, ignored: list[str]) -> list[Video]:
    """The videos of the class directories below `path`, not yet numbered; names of other files go to `ignored`."""
    top = listing(dataset, path)
    _check_links(path, top)
    ignored += top.videos + top.others
    videos = []
    for name in sorted(top.folders):
        folder, class_name = os.path.join(path, name), nfc(name)
        inside = listing(dataset, folder)
        if inside.folders:
            raise CcsError(
                f"{os.path.join(folder, min(inside.folders))}: expected videos in {folder}, found a directory: "
                "move its videos up, or point `root` at the directory whose directories are the classes"
            )
        if not inside.videos:
            others = f" but {extensions(inside.others)}" if inside.others else ""
            raise CcsError(
                f"{folder}: expected the videos of a class, found none{others}: add some or remove the directory"
            )
        ignored += inside.others
        ids = ((name, f"{class_name}/{nfc(stem(name))}") for name in inside.videos)
        videos += [Video(video, f"{folder}/{name}", 0, class_name, split) for name, video in ids]
    return videos


def _check_links(path: str, top: Listing) -> None:
    """Raise `CcsError` for a link that leads nowhere where splits or classes are expected, unless named as a video is:
    a class on a disk that is not there would vanish, and all others be numbered anew.
    """
    for name, why in sorted(top.lost.items()):
        if stem(name) == name:
            raise CcsError(
                f"{os.path.join(path, name)}: expected a directory of videos, found {why}: mount the disk that it "
                "leads to, or correct or remove the link"
            )


def _check_unique(videos: list[Video]) -> None:
    seen: dict[str, str] = {}
    for video in videos:
        other = seen.setdefault(video.video, video.path)
        if other != video.path:
            raise CcsError(
                f"{video.path}: its id {video.video} is also that of {other}{form(video.path, other)}: rename or "
                "remove one of them"
            )


def _check_classes(parts: Mapping[str, str], videos: list[Video]) -> None:
    trained = {video.class_name for video in videos if video.split == "train"}
    for video in videos:
        if video.class_name not in trained:
            raise CcsError(
                f"{os.path.dirname(video.path)}: unknown class {video.class_name!r}: {parts['train']} has no directory "
                "of this name: correct the name, or add videos to train on"
            )


def _divide(videos: list[Video], part: str, fraction: float, seed: int, at_least: int = 0) -> list[Video]:
    """Move a share of each class's training videos to `part`."""
    train = [(video.video, video.label) for video in videos if video.split == "train"]
    held = hold_out(train, fraction, seed, at_least)
    return [video._replace(split=part) if video.split == "train" and video.video in held else video for video in videos]
