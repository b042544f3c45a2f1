"""Your own videos: `root/CLASS/*.mp4` (or .avi, .webm, .mkv, .mov ...), divided by a fraction or by directories.

Where `root` has train/ and test/ (and perhaps val/), each of which has CLASS/ directories, these are the splits. Else a
share `test_fraction` of every class is the test split: a class's videos are ranked by a hash of seed and id, so that a
new video moves at most one other. `val` is taken from `train` in the same way by `val_fraction`, unless root/val is
there. Classes are numbered in the order of their sorted names; a video's id is CLASS/FILE without the extension.
Folders whose names differ in their Unicode form alone are one class.

Clips that were cut from one recording look alike: where one is for training and another for testing, the accuracy is
that of recognising the recording. `group` finds what they share in their names, and no division parts it. With `folds`
there are as many divisions as folds, each of which is the test split of one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import Annotated

from ccs.datasets.disk import (
    EXTENSIONS,
    Listing,
    check_split,
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
from ccs.datasets.division import DivisionSettings, divide
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import Directory
from ccs.settings import Field, Text, settings
from ccs.stage import CcsError

_SPLITS = ("train", "val", "test")


@settings
class Settings(DivisionSettings):
    """Your own videos, root/CLASS/VIDEO or root/train/CLASS/VIDEO and root/test/CLASS/VIDEO."""

    root: Directory = Field(kw_only=True)
    """directory of the videos, relative to the working directory"""
    group: Annotated[Text, Field(min_length=1)] | None = None
    """regular expression for the whole name of a file without its extension; videos with the same text in its only
    parentheses are of one group, in whatever class, and stay together in all divisions: '(.*)_\\d+' for Anna_1.mp4"""


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of a split: 1, or 1 to `folds`; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    return of_folders(dataset, settings, settings.root, settings.group, split)


def of_folders(
    dataset: str,
    settings: DivisionSettings,
    root: str,
    group: str | None,
    split: int,
    listed_in: Callable[[str, str], Listing] = listing,
) -> Manifest:
    """`manifest`; listed_in: a function for the `Listing` of a class, in which videos are what counts as one."""
    check_split(dataset, split, "a folder", settings.folds or 1)
    group_of = _groups(dataset, group)
    root = directory(dataset, "root", root, "the videos, CLASS/*.mp4 (or CLASS/VIDEO/img_00001.jpg)")
    parts = _parts(dataset, root)
    if settings.folds and "test" in parts:
        raise CcsError(
            f"{root}: expected the directories of the classes, as folds of dataset {dataset} is {settings.folds}, "
            "found train/ and test/, which divide the videos already: remove folds, or move the classes up"
        )
    ignored: list[str] = []
    videos = [video for part, path in parts.items() for video in _videos(dataset, path, part, ignored, listed_in)]
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
    groups = {video.video: group_of(video) for video in videos}
    by = repr(group) if group else None
    return finish(dataset, classes, divide(dataset, settings, split, videos, groups, parts, by))


def _groups(dataset: str, pattern: str | None) -> Callable[[Video], str]:
    """A function for the group of a video: by the pattern, or its id where there is none."""
    if pattern is None:
        return lambda video: video.video
    where = f"dataset {dataset}: group is {pattern!r}"
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise CcsError(f"{where}: expected a regular expression such as '(.*)_\\d+': {error}") from None
    if compiled.groups != 1:
        raise CcsError(
            f"{where}: expected a regular expression with one pair of parentheses, around what the videos of a group "
            f"have in common, found {compiled.groups}: write (?:...) for others"
        )

    def group_of(video: Video) -> str:
        name = nfc(stem(os.path.basename(video.path)))
        match = compiled.fullmatch(name)
        if not match or not match[1]:
            found = "it does not match" if not match else "the parentheses match nothing"
            raise CcsError(
                f"{video.path}: expected a name that fits group {pattern!r} of dataset {dataset}, found {name!r}, "
                f"where {found}: correct the pattern, or rename the file"
            )
        return match[1]

    return group_of


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


def _videos(
    dataset: str, path: str, split: str, ignored: list[str], listed_in: Callable[[str, str], Listing]
) -> list[Video]:
    """The videos of the class directories below `path`, not yet numbered; names of other files go to `ignored`."""
    top = listing(dataset, path)
    _check_links(path, top)
    ignored += top.videos + top.others
    videos = []
    for name in sorted(top.folders):
        folder, class_name = os.path.join(path, name), nfc(name)
        inside = listed_in(dataset, folder)
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
