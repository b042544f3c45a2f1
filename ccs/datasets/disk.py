"""Videos on disk and videos in lists: each directory is listed once, and every listed video is found or reported."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ccs.datasets.holdout import hold_out
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import ListedSettings
from ccs.stage import CcsError

EXTENSIONS = "3gp asf avi flv m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
SUFFIXES = frozenset(f".{name}" for name in EXTENSIONS.split())


class Listing(NamedTuple):
    """The names in one directory, hidden ones left out."""

    videos: list[str]
    folders: list[str]
    others: list[str]


class Listed(NamedTuple):
    """A video as a split list names it; `group` is what must not be divided, `source` where the list says so."""

    video: str
    folder: str
    name: str
    label: int
    split: str
    group: str
    source: str


class Folder:
    """The videos of one directory, found by the names that a list gives them."""

    def __init__(self, path: str, videos: Iterable[str]):
        self.path = path
        self.names = set(videos)
        self._by_stem: dict[str, list[str]] = {}

    def find(self, name: str) -> str | None:
        """The file called `name`; else the only one that differs in extension, or else in case; else None.

        Raises `CcsError` where several would do.
        """
        if name in self.names:
            return name
        if not self._by_stem:
            for known in self.names:
                self._by_stem.setdefault(stem(known).casefold(), []).append(known)
        candidates = self._by_stem.get(stem(name).casefold(), [])
        candidates = [known for known in candidates if stem(known) == stem(name)] or candidates
        if len(candidates) > 1:
            raise CcsError(
                f"{self.path}: the list names {name}, found {' and '.join(sorted(candidates))}: keep one of them"
            )
        return candidates[0] if candidates else None


def note(dataset: str, text: str) -> None:
    """Say on standard error what is no error but should be known."""
    print(f"ccs: dataset {dataset}: {text}", file=sys.stderr)


def stem(name: str) -> str:
    """A file name without its extension, if that is a video's."""
    base, suffix = os.path.splitext(name)
    return base if suffix.lower() in SUFFIXES else name


def directory(dataset: str, key: str, path: str, holds: str) -> str:
    """The directory that the setting `key` names; raises `CcsError` where it is not there."""
    path = os.path.expanduser(path)
    if not os.path.isdir(path):
        found = "a file" if os.path.exists(path) else "nothing there"
        raise CcsError(
            f"{path}: expected the directory of {holds} ({key} of dataset {dataset}), found {found}: "
            f"correct {key} in the configuration (relative paths start at {os.getcwd()}) or put the files there"
        )
    return path


def scan(path: str) -> Listing:
    """List one directory; a file is a video by its extension."""
    found = Listing([], [], [])
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file():
                    found.videos.append(entry.name)
                else:
                    (found.folders if entry.is_dir() else found.others).append(entry.name)
    except OSError as error:
        raise CcsError(f"{path}: cannot list this directory ({error.strerror}): check that it may be read") from error
    return found


def read_text(path: str, holds: str) -> str:
    """The text of a list, without a byte order mark; raises `CcsError` where there is none."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            return file.read()
    except OSError as error:
        raise CcsError(
            f"{path}: expected {holds}, found none ({error.strerror}): "
            "put the published lists there or correct `lists` in the configuration"
        ) from error


def lines(path: str, holds: str) -> Iterator[tuple[str, str]]:
    """("FILE, line N", text) of each line that is not blank, without line ends and blanks around."""
    for number, line in enumerate(read_text(path, holds).split("\n"), start=1):
        if text := line.strip():
            yield f"{path}, line {number}", text


def class_folders(root: str) -> dict[str, Folder]:
    """`root/CLASS/*`: the videos of every directory below `root`, by the directory's name."""
    return {
        name: Folder(os.path.join(root, name), scan(os.path.join(root, name)).videos) for name in scan(root).folders
    }


def assemble(
    dataset: str,
    settings: ListedSettings,
    root: str,
    classes: Sequence[str],
    listed: Sequence[Listed],
    folders: Mapping[str, Folder],
) -> Manifest:
    """The manifest of the listed videos that are in `folders`, with `val` taken from `train` by group.

    Raises `CcsError` for a video listed twice, for absent videos beyond `max_absent_fraction`, and for no videos.
    """
    _check_unique(listed)
    found = _find(listed, folders)
    _check_absent(dataset, settings, root, listed, found)
    extra = sum(len(folder.names) for folder in folders.values()) - len(found)
    if extra:
        note(dataset, f"{extra} videos below {root} are in none of the lists of this split and are left out")
    val = hold_out(
        ((item.group, item.label) for item, _ in found if item.split == "train"),
        settings.val_fraction,
        settings.seed,
    )
    videos = [
        Video(
            item.video,
            path,
            item.label,
            classes[item.label] if item.label >= 0 else "",
            "val" if item.split == "train" and item.group in val else item.split,
        )
        for item, path in found
    ]
    return finish(dataset, classes, videos)


def finish(dataset: str, classes: Sequence[str], videos: list[Video]) -> Manifest:
    """The manifest, sorted; says so where there is nothing to train on or to test on."""
    parts = {video.split for video in videos}
    for part in ("train", "test"):
        if part not in parts:
            note(dataset, f"no video is in {part}")
    return Manifest(dataset, tuple(classes), tuple(sorted(videos)))


def _check_unique(listed: Sequence[Listed]) -> None:
    seen: dict[str, Listed] = {}
    for item in listed:
        other = seen.setdefault(item.video, item)
        if other is item:
            continue
        if other.split != item.split:
            found = f"in {other.split} ({other.source}) and in {item.split}"
            raise CcsError(f"{item.source}: {item.video} is listed both {found}: keep one of the two lines")
        raise CcsError(f"{item.source}: {item.video} is listed a second time, first in {other.source}: keep one")


def _find(listed: Sequence[Listed], folders: Mapping[str, Folder]) -> list[tuple[Listed, str]]:
    """Each listed video that is on disk, with its path."""
    by_case = {name.casefold(): folder for name, folder in folders.items()}
    found, takers = [], {}
    for item in listed:
        folder = folders.get(item.folder) or by_case.get(item.folder.casefold())
        if folder is None or (name := folder.find(item.name)) is None:
            continue
        path = f"{folder.path}/{name}"
        other = takers.setdefault(path, item)
        if other is not item:
            raise CcsError(
                f"{path}: two listed videos fit this file, {other.name} ({other.source}) and {item.name} "
                f"({item.source}): rename the files as the lists have them"
            )
        found.append((item, path))
    return found


def _check_absent(dataset: str, settings: ListedSettings, root: str, listed: Sequence[Listed], found: Sequence) -> None:
    num_absent = len(listed) - len(found)
    if not num_absent and listed:
        return
    allowed = settings.max_absent_fraction
    there = {item.video for item, _ in found}
    absent = [item for item in listed if item.video not in there]
    first = "; ".join(f"{os.path.join(item.folder, item.name)} ({item.source})" for item in absent[:5])
    text = f"{num_absent} of {len(listed)} listed videos are absent"
    if listed and num_absent > allowed * len(listed):
        raise CcsError(
            f"{root}: {text}, allowed is a share of {allowed}. The first: {first}. "
            f"Put them there, correct `root` of dataset {dataset}, or raise its max_absent_fraction"
        )
    if not found:
        raise CcsError(f"{root}: no videos at all: {text}. The first: {first}. Correct `root` of dataset {dataset}")
    note(dataset, f"{text} and are left out, the first {absent[0].name} ({absent[0].source})")
