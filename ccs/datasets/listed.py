"""Your own videos by a list: one for all of them, or one for each part, in a form of `ccs.datasets.lists`.

Paths start at `root`, or where it is not set at the list's own directory. What a list can say of a video, as columns of
a table, or of the label in a line of text:

| column | |
|---|---|
| path | its file |
| label | its class: a name, or a number; -1 or nothing with the split "unlabelled" |
| split | train, val (or valid, validation), test, unlabelled or unused |
| group | what no division may part, such as the person or the recording; without it, the clips of one file |
| start, end | seconds: the clip of the file that is meant; one of them is enough |

Where no column and no list says what is for testing, it is divided as `ccs.datasets.folder` does. Labels that are
numbers count from 0 and are the classes' names, unless `classes` names them: a file with a class a line, in the order
of the labels, or with lines `NUMBER NAME`, such as UCF-101's classInd.txt, whose numbers then are those of the labels.
A video's id is its path below `root` without the extension, and @START-END of a clip.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from ccs.datasets import lists
from ccs.datasets.disk import (
    Folder,
    Listed,
    Listing,
    absent_of,
    check_split,
    finish,
    lines,
    listing,
    locate,
    nfc,
    note,
    stem,
    videos_of,
)
from ccs.datasets.division import DivisionSettings, divide
from ccs.datasets.lists import Row
from ccs.datasets.manifests import Manifest, Video
from ccs.datasets.settings import AbsentSettings, Directory
from ccs.settings import settings
from ccs.stage import CcsError

_PARTS = ("train", "val", "test")
_SPLITS = {name: name for name in (*_PARTS, "unlabelled", "unused")}
_SPLITS |= {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
_NUMBER = re.compile(r"\d{1,9}")
_NUMBERED = re.compile(r"(\d{1,9})[\s,;]+(\S.*)")


@settings
class Settings(AbsentSettings, DivisionSettings):
    """Your own videos by a list: paths, labels and what else is known of them."""

    list: Directory | None = None
    """file that lists the videos, relative to the working directory: a path and a label a line, or a CSV with columns
    path, label and perhaps split, group, start, end"""
    train: Directory | None = None
    """in place of list: one of the videos to train on"""
    val: Directory | None = None
    """with train: one of the videos for validation; else val_fraction takes some"""
    test: Directory | None = None
    """with train: one of the videos to test on"""
    root: Directory | None = None
    """directory that the paths in lists start at, relative to the working directory; none: the list's own"""
    classes: Directory | None = None
    """file that names the classes: one a line, or a number and a name; none: the labels themselves, sorted"""

    def __post_init__(self) -> None:
        if not (self.list or self.train or self.test or self.val):
            raise ValueError(
                "list: expected a list of the videos (list), or one to train and one to test on, found none"
            )
        if self.list and (self.train or self.test or self.val):
            raise ValueError("list: expected one list of all, or one for each part, found both: remove one of them")
        if not self.list and not (self.train and self.test):
            there = ", ".join(part for part in _PARTS if getattr(self, part))
            raise ValueError(
                f"list: expected lists train and test (what is reported on is test here), found only {there}: give "
                "both, or one list of all videos"
            )
        if self.train and self.folds:
            raise ValueError("folds: expected one list to divide, found lists of the parts: remove folds, or join them")


class _Entry(NamedTuple):
    """A row with what it says, not yet numbered."""

    row: Row
    part: str | None  # None: not said
    root: str


def manifest(dataset: str, settings: Settings, split: int) -> Manifest:
    """The manifest of split 1, or 1 to `folds`; raises `CcsError` as `ccs.datasets.adapters.load` says."""
    return of_lists(dataset, settings, split, listing)


def of_lists(dataset: str, settings: Settings, split: int, listed_in: Callable[[str, str], Listing]) -> Manifest:
    """`manifest`; listed_in: a function for the `Listing` of a directory, in which videos are what counts as one."""
    check_split(dataset, split, "a list", settings.folds or 1)
    entries = list(_entries(dataset, settings))
    given = {entry.part for entry in entries if entry.part}
    classes, label_of = _classes(dataset, settings, entries)
    extents = {}
    listed = []
    for entry in entries:
        folder, name = os.path.split(os.path.normpath(os.path.join(entry.root, entry.row.path)))
        start, end = _clip(entry.row)
        file = nfc(_id(entry))
        video = f"{file}@{_seconds(start)}-{_seconds(end)}" if start is not None or end is not None else file
        group = nfc(entry.row.columns.get("group") or "") or file
        part, label = entry.part or "train", label_of(entry)
        listed.append(Listed(video, folder, nfc(name), label, part, group, entry.row.where))
        extents[video] = start, end, entry.row.num_frames
    folders = {path: _folder(dataset, path, listed_in) for path in sorted({item.folder for item in listed})}
    found = locate(dataset, settings, settings.root or entries[0].root or ".", listed, folders)
    videos = [
        video._replace(start=start, end=end, num_frames=num_frames)
        for video in videos_of(found, classes)
        for start, end, num_frames in [extents[video.video]]
    ]
    groups = {item.video: item.group for item in listed}
    by = "the column group" if any(entry.row.columns.get("group") for entry in entries) else None
    if not settings.folds:
        _say_untrained(dataset, videos)
    return finish(
        dataset, classes, divide(dataset, settings, split, videos, groups, given, by), absent_of(listed, found)
    )


def _entries(dataset: str, settings: Settings) -> Iterator[_Entry]:
    """The rows of all lists. Raises `CcsError` where only some, or unknown ones, say their part."""
    files = {part: path for part in _PARTS if (path := getattr(settings, part))} or {"": settings.list}
    for part, name in files.items():
        path = os.path.expanduser(str(name))
        root = os.path.expanduser(settings.root) if settings.root else os.path.dirname(path)
        rows = lists.read(path, root)
        told = not part and any(row.columns.get("split") for row in rows)
        if told and settings.folds:
            raise CcsError(
                f"{path}: folds of dataset {dataset} is {settings.folds}, but the column split divides the videos "
                "already: remove folds, or the column"
            )
        entries = [_Entry(row, _part(row) if told else part or None, root) for row in rows]
        if told and not {"train", "test"} <= {entry.part for entry in entries}:
            raise CcsError(
                f"{path}: expected videos with the splits train and test, found "
                f"{', '.join(sorted({str(entry.part) for entry in entries}))}: what is reported on is test here; "
                "without the column split, test_fraction or folds divide the videos"
            )
        yield from entries


def _part(row: Row) -> str:
    said = row.columns.get("split", "").lower()
    if said not in _SPLITS:
        raise CcsError(f"{row.where}: expected a split, one of {', '.join(_SPLITS)}, found {said!r}: correct it")
    return _SPLITS[said]


def _id(entry: _Entry) -> str:
    """The path of the file, or of the directory, below the root, without a video's extension."""
    path = os.path.normpath(entry.row.path)
    if os.path.isabs(path):
        below = os.path.relpath(path, os.path.abspath(entry.root))
        path = path.lstrip(os.sep) if below.startswith(os.pardir) else below
    return stem(path)


def _clip(row: Row) -> tuple[float | None, float | None]:
    """Start and end in seconds, as far as they are given."""
    times: list[float | None] = []
    for name in ("start", "end"):
        text = row.columns.get(name, "")
        try:
            times.append(float(text) if text else None)
        except ValueError:
            raise CcsError(f"{row.where}: {name}: expected seconds such as 12.5, found {text!r}: correct it") from None
    start, end = times
    if not 0 <= (start or 0.0) < (float("inf") if end is None else end):
        raise CcsError(f"{row.where}: expected a start of 0 s or more and an end after it, found {start} and {end}")
    return start, end


def _seconds(time: float | None) -> str:
    return "" if time is None else f"{time:.3f}".rstrip("0").rstrip(".")


def _folder(dataset: str, path: str, listed_in: Callable[[str, str], Listing]) -> Folder:
    """What is in a directory that a list names; nothing where it is not there."""
    folder = Folder()
    for form in dict.fromkeys((path, nfc(path), unicodedata.normalize("NFD", path))):
        if os.path.isdir(form or "."):
            folder.add(form or ".", listed_in(dataset, form or "."))
            break
    return folder


def _say_untrained(dataset: str, videos: Sequence[Video]) -> None:
    tested = {video.class_name for video in videos if video.split == "test"}
    if untrained := sorted(tested - {video.class_name for video in videos if video.split == "train"}):
        note(dataset, f"{len(untrained)} classes have videos to test on and none to train on, such as {untrained[0]!r}")


# -- classes -----------------------------------------------------------------------------------------------------------
def _classes(
    dataset: str, settings: Settings, entries: Sequence[_Entry]
) -> tuple[tuple[str, ...], Callable[[_Entry], int]]:
    """The names of the classes, and a function for the label of an entry."""
    texts = {nfc(text) for entry in entries if (text := _label(entry))}
    if settings.classes:
        source = os.path.expanduser(settings.classes)
        names, first = _named(source)
    elif all(map(_NUMBER.fullmatch, texts)):
        source, first = "the list", 0
        names = tuple(map(str, range(max(map(int, texts), default=-1) + 1)))
    else:
        source, first = "the list", None
        names = tuple(sorted(texts))
    labels: Mapping[str, int] = {name: label for label, name in enumerate(names)}

    def label_of(entry: _Entry) -> int:
        text = nfc(_label(entry) or "")
        if not text:
            return -1
        label = labels.get(text)
        if label is None and first is not None and _NUMBER.fullmatch(text):
            label = int(text) - first
        if label is None or not 0 <= label < len(names):
            raise CcsError(
                f"{entry.row.where}: unknown class {text!r}: {source} has {len(names)} others"
                + (f", numbered from {first}" if first is not None else "")
                + f": correct one, or `classes` of dataset {dataset}"
            )
        return label

    return names, label_of


def _label(entry: _Entry) -> str | None:
    """What a row says of the class; None where it need not. Raises `CcsError` where it must."""
    text = entry.row.label
    if entry.part == "unlabelled":
        return None
    if text is None or text == "-1":
        if entry.part == "unused":
            return None
        raise CcsError(
            f"{entry.row.where}: expected a label behind the path (or in a column label), found "
            f"{'none' if text is None else text}: add it, or give the video the split unlabelled in a column split"
        )
    return text


def _named(path: str) -> tuple[tuple[str, ...], int]:
    """The classes that a file names, and the number of the first."""
    texts = [(where, nfc(text)) for where, text in lines(path, "the names of the classes")]
    numbered = [match for _, text in texts if (match := _NUMBERED.fullmatch(text))]
    numbers = [int(match[1]) for match in numbered]
    first = numbers[0] if numbers else 0
    is_numbered = len(numbered) == len(texts) and first < 2 and numbers == [*range(first, first + len(numbers))]
    names = [match[2] for match in numbered] if is_numbered else [text for _, text in texts]
    seen: set[str] = set()
    for (where, _), name in zip(texts, names, strict=True):
        if name in seen:
            raise CcsError(f"{where}: expected a new class, found {name!r} a second time: remove one")
        seen.add(name)
    if not names:
        raise CcsError(f"{path}: expected the names of the classes, one a line, found none")
    return tuple(names), first if is_numbered else 0
